"""Pictures of the structure that a coupling found in the tasks' models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.learning.structure import (
    NEGLIGIBLE,
    Spectrum,
    cluster_order,
    feature_norms,
    low_rank_part,
    similarity,
    spectrum,
)
from asyncdmtl.report.pictures import CODED, MOST_NAMES, integer_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The most tasks whose similarity is shown: a picture has enough dots for them, and clustering orders them in
# a second.
_MOST_TASKS = 1000


def draw_structure(figure: Figure, axes: Axes, model: SavedModel) -> None:
    """Draw the structure that the coupling acts on: singular values, features, or pairs of tasks."""
    coupling = "none" if model.settings is None else model.settings.coupling
    W = model.models.coef_.astype(np.float64)
    if coupling in ("nuclear", "covariance", "sparse-low-rank"):
        _draw_spectrum(axes, low_rank_part(W) if coupling == "sparse-low-rank" else spectrum(W), coupling)
    elif coupling in ("l21", "mean"):
        _draw_features(axes, feature_norms(W), model.features, coupling)
    else:
        _draw_similarity(figure, axes, W, model.models.tasks, coupling)


def _draw_spectrum(axes: Axes, found: Spectrum, coupling: str) -> None:
    shown = found.values[: max(found.count, 1)]
    axes.bar(range(1, len(shown) + 1), shown, color=CODED)
    axes.set_xlim(0.3, len(found.values) + 0.7)
    integer_ticks(axes.xaxis)
    axes.set_xlabel("number of the singular value; those without a bar are 0")
    axes.set_ylabel("singular value of all models together")
    title = f"{coupling}: models of rank {found.count} of {len(found.values)}"
    axes.set_title(f"{title}\n{found.note}" if found.note else title)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _draw_features(axes: Axes, norms: Floats, names: Sequence[str], coupling: str) -> None:
    order = np.argsort(-norms, kind="stable")
    used = int(np.count_nonzero(norms > NEGLIGIBLE * norms.max()))
    axes.bar(range(len(norms)), norms[order], color=CODED)
    if len(norms) <= 40:
        axes.set_xticks(range(len(norms)), [names[f][:24] for f in order], rotation=90, fontsize=7)
    axes.set_xlabel("features, the strongest first")
    axes.set_ylabel("length of a feature's coefficients over all tasks")
    axes.set_title(f"{coupling}: {used} of {len(norms)} features are used")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _draw_similarity(figure: Figure, axes: Axes, W: Floats, tasks: Sequence[str], coupling: str) -> None:
    rows = np.arange(0, len(tasks), -(-len(tasks) // _MOST_TASKS))
    cosines = similarity(W[rows])
    # A chain keeps its order, since neighbours are its structure.
    ordered = rows if coupling == "chain" else rows[order := cluster_order(cosines)]
    cosines = cosines if coupling == "chain" else cosines[np.ix_(order, order)]
    # The coupling may leave differences of a few per cent only: the colours begin at the smallest cosine.
    least = float(cosines.min())
    colours, low = ("RdBu_r", -1.0) if least < 0.0 else ("Blues", least)
    image = axes.imshow(cosines, colours, vmin=low, vmax=1.0, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, label="cosine between models")
    # Cosines near 1 are written in full: an offset would stand above the bar, in the title's place.
    bar.ax.ticklabel_format(axis="y", useOffset=False)
    step = -(-len(rows) // MOST_NAMES)
    names = [tasks[t][:24] for t in ordered][::step]
    for ticks, rotation in ((axes.set_xticks, 90), (axes.set_yticks, 0)):
        ticks(range(0, len(rows), step), names, rotation=rotation, fontsize=7)
    axes.set_title(f"{coupling}: how alike the tasks' models are")
    axes.set_xlabel("tasks, in their order" if coupling == "chain" else "tasks, similar ones together")
