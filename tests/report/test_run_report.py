"""Reports of real runs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.clusters import run_cluster
from support.problems import make_settings, run_options
from support.reports import PARTITIONS, make_report, shown

from asyncdmtl.plan.placement import Placement
from asyncdmtl.report.run_report import report_run
from asyncdmtl.report.run_tables import show_run


async def test_a_report_tells_how_training_ended() -> None:
    made, _ = await make_report(make_settings(rounds=4))
    training = made["training"]
    assert (training["rounds"], training["max_rounds"], training["converged"]) == (4, 4, False)
    assert training["reached"] == "rounds"
    assert training["objective"] == made["rounds"][-1]["objective"]
    assert training["residual"] == made["rounds"][-1]["residual"]
    # Before the first step nothing has moved.
    assert made["rounds"][0]["residual"] is None
    json.dumps(made, allow_nan=False)
    text = " ".join(shown(show_run, made).split())
    assert "4 rounds in" in text
    assert f"objective {training['objective']:.6g}" in text
    assert "converged" not in text


@pytest.mark.parametrize(
    ("changes", "reached"),
    [({}, "minimum"), ({"aggregate": "median"}, "fixed point"), ({"update": "statistics"}, "minimum")],
)
async def test_a_report_says_where_training_ended(changes: dict[str, Any], reached: str) -> None:
    made, _ = await make_report(make_settings(rounds=2000, tolerance=1e-1, **changes))
    assert made["training"]["reached"] == reached


async def test_a_report_of_a_server_that_was_resumed_when_all_rounds_were_made() -> None:
    options = run_options(settings=make_settings(rounds=4), workers=3)
    record, _ = await run_cluster(options, Placement.cyclic(3, 6, 2), PARTITIONS)
    made = report_run(replace(record, rounds=()))
    assert made["training"]["objective"] is made["training"]["residual"] is None
    assert "0 rounds in" in " ".join(shown(show_run, made).split())
