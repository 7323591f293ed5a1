from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asyncdmtl.errors import UsageError
from asyncdmtl.report import plan_pictures
from asyncdmtl.report.pictures import MOST_NAMES, new_figure
from asyncdmtl.report.plan_pictures import plot_design, plot_plan

PLACEMENT = {"w0": ["p0", "p1"], "w1": ["p1", "p2"]}


def row(up: str, down: str, unicast: str) -> dict[str, str]:
    return {
        "uplink_load": up, "uplink_bound": "1", "downlink_load": down, "downlink_bound": "1/2",
        "unicast_load": unicast,
    }  # fmt: skip


PLAN: dict[str, Any] = {
    "placement": PLACEMENT, "partitions": ["p0", "p1", "p2"], "strategy": "relay",
    "strategies": {"relay": row("3/2", "1", "2"), "uncoded": row("3", "3", "5")},
}  # fmt: skip
DESIGN: dict[str, Any] = {
    "placement": PLACEMENT, "partitions": ["p0", "p1", "p2"], "copies": "4/3", "uplink_load": "3/2",
    "downlink_load": "1",
    "trade_off": [
        {"copies": 1, "uplink_load": "3", "downlink_load": "2", "uncoded_uplink": 3},
        {"copies": 2, "uplink_load": "0", "downlink_load": "0", "uncoded_uplink": 0},
    ],
}  # fmt: skip


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn."""
    figures: list[Figure] = []

    def remember(width: float, height: float) -> Figure:
        figures.append(new_figure(width, height))
        return figures[-1]

    monkeypatch.setattr(plan_pictures, "new_figure", remember)
    return figures


def points(axes: Axes, label: str) -> list[tuple[float, float]]:
    """The points of the line with this label."""
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]


def pixels(axes: Axes) -> list[list[bool]]:
    array = axes.images[0].get_array()
    assert array is not None
    return [[bool(x) for x in line] for line in np.asarray(array)]


def test_a_plan_has_its_placement_its_matrix_and_its_loads(panels: list[Figure], tmp_path: Path) -> None:
    pattern = np.array([[True, False, False], [False, True, True]])
    plot_plan(PLAN, pattern, tmp_path / "plan.svg", "sites.toml")
    assert b"<svg" in (tmp_path / "plan.svg").read_bytes()
    expected = "relay, 2 workers, 3 partitions, 1.33333 copies; vectors per round: uplink 1.5, downlink 1"
    assert panels[0].get_suptitle() == f"sites.toml: {expected}"
    placement, matrix, loads = panels[0].axes
    assert pixels(placement) == [[True, True, False], [False, True, True]]
    assert [label.get_text() for label in placement.get_yticklabels()] == ["w0", "w1"]
    assert pixels(matrix) == pattern.tolist()
    assert matrix.get_title() == "Uplink matrix of relay: where it is not zero"
    heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in loads.containers}
    assert heights == {
        "uplink": [1.5, 3.0], "downlink, broadcast": [1.0, 3.0], "downlink, unicast copies": [2.0, 5.0],
    }  # fmt: skip
    assert {"3/2", "5"} <= {text.get_text() for text in loads.texts}
    # A line for each strategy's two bounds.
    bounds = [
        float(np.asarray(line.get_ydata())[0]) for line in loads.lines if len(np.asarray(line.get_ydata()))
    ]
    assert bounds == [1.0, 0.5, 1.0, 0.5]


def test_a_design_has_its_placement_and_the_trade_off(panels: list[Figure], tmp_path: Path) -> None:
    plot_design(DESIGN, tmp_path / "design.png")
    assert (tmp_path / "design.png").read_bytes().startswith(b"\x89PNG")
    assert panels[0].get_suptitle().startswith("2 workers, 3 partitions, 1.33333 copies; vectors per round")
    placement, loads = panels[0].axes
    assert pixels(placement) == [[True, True, False], [False, True, True]]
    assert points(loads, "uplink") == [(1.0, 3.0), (2.0, 0.0)]
    assert points(loads, "downlink, broadcast") == [(1.0, 2.0), (2.0, 0.0)]
    stars = [line for line in loads.lines if line.get_marker() == "*" and len(np.asarray(line.get_xdata()))]
    own = [(float(np.asarray(s.get_xdata())[0]), float(np.asarray(s.get_ydata())[0])) for s in stars]
    assert own == [(float(Fraction(4, 3)), 1.5), (float(Fraction(4, 3)), 1.0)]
    assert loads.get_ylim()[0] == 0.0


def test_many_names_are_thinned_out(panels: list[Figure], tmp_path: Path) -> None:
    names = [f"p{n}" for n in range(3 * MOST_NAMES)]
    plot_design(DESIGN | {"partitions": names, "placement": {"w0": names}}, tmp_path / "design.png")
    labels = [label.get_text() for label in panels[0].axes[0].get_xticklabels()]
    assert labels == names[::3]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "plan.png", tmp_path / "plan.nonsense"):
        with pytest.raises(UsageError, match="--plot must be a writable file"):
            plot_design(DESIGN, path)
