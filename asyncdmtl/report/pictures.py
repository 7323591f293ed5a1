"""Common parts of all pictures: an empty figure, colours, and saving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asyncdmtl.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Colours of the series that every picture shows. They differ in lightness too, for readers who see no
# colours.
CODED, BOUND, UNCODED = "#1b6ca8", "#e08e0b", "#9aa0a6"

# The most names along an axis: more would be unreadable.
MOST_NAMES = 25

# Dots per inch of pictures that are made of dots.
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
    # Here and not above: Matplotlib takes a second to import, which only commands that draw shall wait for.
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("--plot", "needs Matplotlib: pip install 'asyncdmtl[plot]'", str(error)) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the ending of `path` says; UsageError if that fails."""
    try:
        figure.savefig(path, dpi=DOTS)
    except (OSError, ValueError) as error:
        raise UsageError(
            "--plot", f"must be a writable file with a picture's ending ({error})", str(path)
        ) from error


def two_colours() -> Colormap:
    """Colours of a matrix of zeros and ones."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(["#f1f3f4", CODED])
