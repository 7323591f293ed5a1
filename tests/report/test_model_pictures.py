"""Pictures of the structure that a coupling found."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from support.problems import make_settings
from support.reports import PARTITIONS

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.learning.couplings.registry import COUPLINGS
from asyncdmtl.learning.training import train
from asyncdmtl.report.model_pictures import draw_structure
from asyncdmtl.report.pictures import new_figure

FOUND = {
    "nuclear": "nuclear: models of rank 3 of 3",
    "covariance": "covariance: models of rank 3 of 3",
    "sparse-low-rank": "sparse-low-rank: models of rank",
    "l21": "l21: 9 of 9 features are used",
    "mean": "mean: 9 of 9 features are used",
}


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_picture_of_what_the_coupling_found(coupling: str) -> None:
    edges = (("t0", "t1", 1.0),) if coupling == "graph" else ()
    settings = make_settings(coupling=coupling, edges=edges, strength=0.001, rounds=3)
    figure = new_figure(5, 5)
    axes = figure.subplots()
    trained = train(PARTITIONS, settings).models
    draw_structure(figure, axes, SavedModel(trained, Encoding.empty(), settings))
    assert axes.get_title().startswith(FOUND.get(coupling, f"{coupling}: how alike the tasks' models are"))
    W = trained.coef_.astype(np.float64)
    heights = [bar.get_bbox().height for bar in axes.patches if isinstance(bar, Rectangle)]
    if "rank" in axes.get_title() and coupling != "sparse-low-rank":
        assert heights == pytest.approx(np.linalg.svd(W, compute_uv=False))
    elif "features" in axes.get_title():
        assert heights == pytest.approx(sorted(np.linalg.norm(W, axis=0), reverse=True))
        assert {label.get_text() for label in axes.get_xticklabels()} == {f"x{f}" for f in range(9)}
    elif coupling != "sparse-low-rank":
        (image,) = axes.images
        assert np.diag(np.asarray(image.get_array())).tolist() == pytest.approx([1.0, 1.0, 1.0])
        assert {label.get_text() for label in axes.get_xticklabels()} == {"t0", "t1", "t2"}
