from __future__ import annotations

from pathlib import Path

import numpy as np

from asyncdmtl.plan.delay.queueing import Moments, Stream, mean_delay
from asyncdmtl.plan.placement_file import read_request
from asyncdmtl.report.delay_pictures import draw_delays
from asyncdmtl.report.delay_report import predicted_delays
from asyncdmtl.report.pictures import new_figure

PLACEMENT = """
workers = {w0 = ["a", "b"], w1 = ["b", "c"], w2 = ["c", "a"]}
speeds = {w0 = 1, w1 = 2, w2 = 4}
"""


def test_each_split_has_its_curve(tmp_path: Path) -> None:
    (tmp_path / "placement.toml").write_text(PLACEMENT)
    delays = predicted_delays(read_request(tmp_path / "placement.toml"), Stream(0.2, 1, 0.0))
    axes = new_figure(5, 4).subplots()
    draw_delays(axes, delays)
    named = {str(line.get_label()): line for line in axes.get_lines()}
    curves = {name: line for name, line in named.items() if not name.startswith("_")}
    assert list(curves) == ["equal shares", "shares by speed", "by speed, silent workers", "ideal (bound)"]
    line = curves["shares by speed"]
    rates, values = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    made = delays["splits"]["speeds"]
    expected = mean_delay(float(rates[10]), Moments(made["job"], made["square"]))
    assert float(values[10]) == expected
