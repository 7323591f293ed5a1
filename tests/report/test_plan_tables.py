from __future__ import annotations

from typing import Any

import pytest
from support.reports import shown

from asyncdmtl.report.plan_tables import MOST_LISTED, show_plan


def row(cost: str, **changes: Any) -> dict[str, Any]:
    loads = dict.fromkeys(
        ("uplink_load", "uplink_bound", "downlink_load", "downlink_bound", "unicast_load"), "1"
    )
    return (
        loads
        | {"subpackets": 1, "cost": cost, "limits": "nothing less is possible", "overhead": "0"}
        | changes
    )


def report(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "placement": {"w0": ["p0", "p1"], "w1": []},
        "partitions": ["p0", "p1"],
        "uplink_loads": {"w0": "18/5", "w1": "0"},
        "strategies": {"relay": row("6"), "central": row("8"), "uncoded": row("12")},
        "cheapest": ["relay", "central", "uncoded"],
        "strategy": "relay",
        "network": "unicast",
        "priced": False,
        "job_bound": {"uplink": "10/3", "downlink": "5/4"},
        "aggregated": [],
        "sums": [],
        "helpers": [],
    }
    return made | changes


def lines(made: dict[str, Any]) -> list[str]:
    text = shown(show_plan, made)
    return [" ".join(line.replace("│", " ").replace("┃", " ").split()) for line in text.splitlines()]


def test_every_worker_has_a_line() -> None:
    text = lines(report())
    assert "Placement: 2 workers, 2 partitions" in " ".join(text)
    assert "w0 2: p0 p1 18/5" in text
    assert "w1 nothing 0" in text


def test_before_there_is_a_plan_no_worker_has_a_load() -> None:
    made = report()
    del made["uplink_loads"]
    assert "w0 2: p0 p1 -" in lines(made)


def test_long_lists_of_partitions_are_counted() -> None:
    names = [f"p{n}" for n in range(MOST_LISTED + 3)]
    made = report(placement={"w0": names}, partitions=names, uplink_loads={})
    text = " ".join(lines(made))
    assert f"15: {' '.join(names[:12])} and 3 more" in text
    assert "p12" not in text


def test_strategies_show_loads_bounds_and_packets_with_an_arrow_at_the_planned_one() -> None:
    told = row(
        "13/2", uplink_load="7/2", uplink_bound="3", downlink_load="5/2", downlink_bound="2",
        unicast_load="9", subpackets=4,
    )  # fmt: skip
    text = lines(report(strategies={"relay": told, "central": row("8")}, cheapest=["relay", "central"]))
    assert "→ relay 7/2 3 5/2 2 9 4 13/2" in text
    assert "central 1 1 1 1 1 1 8" in text
    assert "relay: nothing less is possible" in text


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "Planned: relay, 6 vectors a round by unicast, 25% less than central, 50% less than uncoded."),
        (
            {"strategy": "central"},
            "Planned: central, 8 vectors a round by unicast, 33% more than relay, 33% less than uncoded.",
        ),
        (
            {"strategy": "uncoded", "priced": True, "network": "multicast"},
            "Planned: uncoded, 12 in cost a round by multicast, 100% more than relay.",
        ),
        (
            {"strategies": {"relay": row("0")}, "cheapest": ["relay"]},
            "Planned: relay, 0 vectors a round by unicast.",
        ),
        (
            {"strategies": {"relay": row("3"), "central": row("0")}, "cheapest": ["central", "relay"]},
            "Planned: relay, 3 vectors a round by unicast.",
        ),
        ({"strategy": "other"}, "Planned: other."),
    ],
)
def test_the_verdict_compares_with_the_next_best_and_with_uncoded(
    changes: dict[str, Any], verdict: str
) -> None:
    assert verdict in " ".join(lines(report(**changes)))


def test_bounds_on_cost_and_time_are_said() -> None:
    assert "A relay's uplink costs at least 7/2." in lines(report(cost_bound="7/2"))
    text = " ".join(lines(report(time_bound="3/4", time_certificate=["w0", "w1"])))
    assert "A relay's uplink takes at least 3/4, the time of what only w0, w1 hold." in text
    times = {"uplink": "1/2", "downlink": "2", "slowest": "w0", "shortest": "2", "longest": "5/2"}
    text = " ".join(lines(report(times=times)))
    assert "rows take 1/2 up and 2 down (the link of w0, whatever the rates are)" in text
    assert "A round takes 2 if ranges of rows come down while others go up, and at most 5/2." in text


def test_predicted_updates_have_a_table() -> None:
    updates = {
        "gradient": {
            "rounds": 400,
            "vector_bytes": 232,
            "up_bytes": 5000,
            "down_bytes": 6000,
            "chosen": True,
            "reason": "",
        },
        "newton": {
            "rounds": 9,
            "vector_bytes": 100,
            "up_bytes": 1,
            "down_bytes": 2,
            "chosen": False,
            "reason": "too few rows",
        },
    }
    text = lines(report(updates=updates))
    assert any(line.startswith("→ gradient 400 232 B") for line in text)
    assert any(line.endswith("too few rows") for line in text)
    assert "for which a round counts as 1 MB more" in " ".join(text)
    assert not any("predicted" in line for line in lines(report()))


def test_the_bound_of_the_job_and_aggregated_tasks_are_said() -> None:
    text = " ".join(lines(report(aggregated=[f"t{n}" for n in range(MOST_LISTED + 2)])))
    assert "no scheme by which every worker gets all models sends less than 10/3 up and 5/4 down." in text
    assert "A relay codes aggregates of t0 t1 " in text
    assert "t11 and 2 more: some worker stores each of these tasks whole." in text
    assert "aggregates" not in " ".join(lines(report()))
    text = " ".join(lines(report(sums=[["p0", "p1", "p2"], *[["p3", "p4"]] * MOST_LISTED])))
    assert "A relay codes the sums p0 + … + p2, p3 + p4, " in text
    assert "p3 + p4 and 1 more: some worker stores all partitions of each." in text
    text = " ".join(lines(report(helpers=["w1"])))
    assert "no scheme by which every worker but w1 gets all models sends less" in text
