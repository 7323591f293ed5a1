from __future__ import annotations

from typing import Any

import pytest
from support.reports import shown

from asyncdmtl.report.design_tables import MOST_CELLS, show_design


def report(partitions: int = 4, **changes: Any) -> dict[str, Any]:
    """A report by hand, in which w0 stores the first half of the partitions, and w1 the second."""
    names = [f"p{n}" for n in range(partitions)]
    made: dict[str, Any] = {
        "placement": {"w0": names[: partitions // 2], "w1": names[partitions // 2 :]},
        "partitions": names,
        "capacities": {"w0": 3, "w1": 2},
        "copies": "3/2",
        "uplink_loads": {"w0": "7/3", "w1": "0"},
        "uplink_load": "7/3", "uplink_bound": "2", "downlink_load": "5", "downlink_bound": "4",
        "uncoded_load": "6", "times": None, "gap": "4/3", "optimal": False,
        "trade_off": [
            {
                "copies": 1, "storage": 2, "computation": 4, "uplink_load": "17/4", "uplink_bound": "4",
                "downlink_load": "3", "uncoded_uplink": 8, "uncoded_downlink": 9, "unicast_downlink": 11,
            }
        ],
    }  # fmt: skip
    return made | changes


TIMES = {"uplink": "9/2", "downlink": "7", "uplink_bound": "4", "downlink_bound": "7"}


def lines(made: dict[str, Any]) -> list[str]:
    """What is printed, line by line, without the frames of tables."""
    text = shown(show_design, made)
    return [" ".join(line.replace("│", " ").replace("┃", " ").split()) for line in text.splitlines()]


def test_every_worker_has_a_line_with_what_it_stores() -> None:
    text = lines(report())
    assert "w0 2 of 3 7/3 ██··" in text
    assert "w1 2 of 2 0 ··██" in text
    assert "4 partitions, 1.5 copies of each" in text
    assert "p0 to p3: a cell is a partition" in text


def test_many_partitions_share_cells_and_a_single_one_is_seen() -> None:
    partitions = 4 * MOST_CELLS
    made = report(partitions)
    made["placement"] = {
        "w0": ["p0"],
        "w1": [f"p{n}" for n in range(4, 7)],
        "w2": [f"p{n}" for n in range(8, partitions)],
    }
    made["capacities"], made["uplink_loads"] = (
        dict.fromkeys(made["placement"], 200),
        dict.fromkeys(made["placement"], "1"),
    )
    text = "\n".join(lines(made))
    assert "1 of 200 1 ░" + "·" * 47 in text
    assert "3 of 200 1 ·▓" + "·" * 46 in text
    assert "184 of 200 1 ··" + "█" * 46 in text
    assert "a cell is 4 partitions, darker if stored" in text


def test_loads_stand_beside_their_bounds() -> None:
    text = lines(report())
    assert "uplink 7/3 ≥ 2 6" in text
    assert "downlink, broadcast 5 ≥ 4 6" in text
    assert not any("time of" in line for line in text)


def test_times_are_shown_where_time_was_minimised() -> None:
    text = lines(report(times=TIMES))
    assert "time of the uplink 9/2 ≥ 4 -" in text
    assert "time of the downlink 7 ≥ 7 -" in text


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        (
            {},
            "The total load is 1.33 above what is known to be needed; whether any placement with",
        ),
        ({"optimal": True}, "Optimal: no placement with this storage has a smaller total load."),
        (
            {
                "optimal": True,
                "times": dict.fromkeys(("uplink", "downlink", "uplink_bound", "downlink_bound"), "1"),
            },
            "Optimal: no placement with this storage has a smaller total time.",
        ),
    ],
)
def test_the_verdict_says_what_is_proved(changes: dict[str, Any], verdict: str) -> None:
    assert verdict in " ".join(lines(report(**changes)))


def test_the_trade_off_has_a_line_for_each_number_of_copies() -> None:
    text = lines(report())
    assert "1 2 4 17/4 4 3 8, 9 11" in text
    assert "Storage and computation against traffic, on 2 equal workers" in text
