from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from support.reports import shown

from asyncdmtl.plan.compare import compare
from asyncdmtl.plan.downlinks import Speeds, compare_downlinks
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import request_of
from asyncdmtl.plan.uplink_choice import UplinkWishes
from asyncdmtl.report.downlink_report import (
    downlink_table,
    downlink_words,
    planned_downlinks,
    report_downlink,
)
from asyncdmtl.server.downlink_choice import DownlinkChoice

CYCLIC = Placement.cyclic(4, 4, 2)
CANDIDATES = [c for c in compare(CYCLIC) if c.strategy == "relay"]


def test_the_downlinks_of_a_placement_are_told() -> None:
    content: dict[str, Any] = {"speeds": dict.fromkeys(CYCLIC.workers, 10), "server": {"speed": 20}}
    request = request_of(content, CYCLIC, "f")
    told = planned_downlinks(request, CANDIDATES, "updates")
    assert (told["chosen"], told["by_speeds"], told["server_speed"]) == ("peers", True, "20")
    times = {kind: row["time"] for kind, row in told["downlinks"].items()}
    assert times == {"tcp": "2/5", "peers": "1/5", "multicast": "1/5"}
    assert told["downlinks"]["tcp"]["server_sent"] == "8"


def test_the_table_shows_the_busiest_links() -> None:
    told = planned_downlinks(request_of({}, CYCLIC, "f"), CANDIDATES, "updates")
    text = shown(lambda console: console.print(downlink_table(told)))
    assert "for equal speeds; the server's link has speed 1" in " ".join(text.split())
    row = next(line for line in text.splitlines() if "→ peers" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "→ peers",
        "relay",
        "0",
        "0",
        "2",
        "2",
        "2",
    ]


def test_a_choice_is_told_with_what_links_carry() -> None:
    speeds = Speeds.of(4)
    possible = compare_downlinks(
        CYCLIC, (0, 1, 2, 3), CANDIDATES, speeds, UplinkWishes(), giving=(), hearing=False
    )
    choice = DownlinkChoice(
        possible[0], possible, speeds, False, {"multicast": "w1 do not receive the group"}
    )
    record: Any = SimpleNamespace(downlink=choice, plan=SimpleNamespace(placement=CYCLIC))
    told = report_downlink(record)
    assert told is not None
    assert told["refused"] == {"multicast": "w1 do not receive the group"}
    assert downlink_words(told) == (
        "Downlink tcp: a round takes 8 on links of equal speed; not multicast, because w1 do not receive the "
        "group. In a round the server sends 8 vectors and receives 2.66667; no worker sends more than "
        "0.666667 or receives more than 2."
    )


def test_a_run_without_a_choice_has_no_such_part() -> None:
    record: Any = SimpleNamespace(downlink=None)
    assert report_downlink(record) is None
