"""Common parts of all pictures: an empty figure, colours, and saving."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asyncdmtl.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

# How Matplotlib warns of a character, or of a script, that its font cannot show.
_NO_GLYPH = re.compile(r"Glyph .* missing from|Matplotlib currently does not support")

# Colours of the series that every picture shows. They differ in lightness too, for readers who see no
# colours.
CODED, BOUND, UNCODED = "#1b6ca8", "#e08e0b", "#9aa0a6"

# The most names along an axis: more would be unreadable.
MOST_NAMES = 25

# The ratio of the ends of a logarithmic axis up to which it is labelled at 1, 2 and 5 times powers of ten,
# with some eight labels; beyond, it is labelled at the powers alone.
MOST_FINE_TICKS = 200.0

# The height between a legend and the data, as a share of a panel.
LEGEND_MARGIN = 0.04

# Dots per inch of raster pictures.
DOTS = 150


def check_picture(path: Path | None) -> None:
    """Raise UsageError, which names --plot, unless the ending of `path` is that of a picture format."""
    if path is None:
        return
    known = new_figure(1, 1).canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise UsageError("--plot", f"must end in one of {', '.join(sorted(known))}", str(path))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this width and height in inches.

    Raises
    ------
    UsageError
        Matplotlib is not installed.
    """
    # Imported here, because Matplotlib takes a second to import and only some commands draw.
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("--plot", "needs Matplotlib: pip install 'asyncdmtl[plot]'", None) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the ending of `path`; UsageError if that fails."""
    try:
        with _names_as_they_are(figure) as unknown:
            figure.savefig(path, dpi=DOTS)
        if unknown:
            log.warning("%s: the font here lacks some characters of names, which are drawn as boxes", path)
    except (OSError, ValueError) as error:
        raise UsageError(
            "--plot", f"must be a writable file with a picture's ending ({error})", str(path)
        ) from error


def two_colours() -> Colormap:
    """Colours of a matrix of zeros and ones."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(["#f1f3f4", CODED])


def integer_ticks(axis: Axis) -> None:
    """Let an axis that counts have ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def plain_log_ticks(axis: Axis, ratio: float) -> None:
    """Label a logarithmic axis, whose ends have this ratio, with plain numbers that do not overlap."""
    from matplotlib.ticker import LogLocator, NullFormatter

    subs = (1.0, 2.0, 5.0) if ratio < MOST_FINE_TICKS else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


@contextmanager
def _names_as_they_are(figure: Figure) -> Iterator[list[warnings.WarningMessage]]:
    """Draw names in a `with` block: `$` begins no formula; yields warnings of characters without a glyph."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    glyphs: list[warnings.WarningMessage] = []
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield glyphs
    for warning in found:
        if _NO_GLYPH.match(str(warning.message)):
            glyphs.append(warning)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def make_room_for_legends(figure: Figure) -> None:
    """Raise the upper end of vertical axes so that no legend covers data."""
    with _names_as_they_are(figure):
        figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend()
        if legend is None or not axes.axison:
            continue
        share = legend.get_window_extent().height / axes.get_window_extent().height + LEGEND_MARGIN
        scale = axes.yaxis.get_transform()
        low, high = scale.transform(np.array(axes.get_ylim()))
        top = low + (high - low) / (1.0 - min(share, 0.7))
        axes.set_ylim(top=float(scale.inverted().transform(np.array([top]))[0]))
