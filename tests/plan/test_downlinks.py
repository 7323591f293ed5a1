from __future__ import annotations

from fractions import Fraction

import pytest

from asyncdmtl.plan.compare import compare
from asyncdmtl.plan.downlinks import (
    Downlink,
    Speeds,
    as_json,
    between_workers,
    by_group,
    compare_downlinks,
    quickest,
    through_server,
)
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.units import Units
from asyncdmtl.plan.uplink_choice import UplinkWishes

CYCLIC = Placement.cyclic(4, 4, 2)
TASKS = (0, 1, 2, 3)
UNITS = Units.of(CYCLIC, TASKS)
EQUAL = Speeds.of(4)
NO_WISHES = UplinkWishes()


def of_kind(kind: str, found: tuple[Downlink, ...]) -> Downlink:
    return next(downlink for downlink in found if downlink.kind == kind)


def test_every_downlink_carries_what_workers_lack() -> None:
    relay = [c for c in compare(CYCLIC) if c.strategy == "relay"]
    found = compare_downlinks(CYCLIC, TASKS, relay, EQUAL, NO_WISHES)
    assert [downlink.kind for downlink in found] == ["tcp", "peers", "multicast"]
    star, peers, group = found
    # Each worker lacks two of four vectors; the server sends all copies, or each row once, or nothing.
    assert {str(load) for load in (*star.received, *peers.received, *group.received)} == {"2"}
    assert [star.server_sent, peers.server_sent, group.server_sent] == [8, 0, 2]
    assert star.server_received == group.server_received == relay[0].uplink_load == sum(star.sent)
    # What workers take, they give.
    assert sum(peers.sent) == sum(peers.received)
    assert [downlink.time(EQUAL) for downlink in found] == [8, 2, relay[0].uplink_load]
    assert quickest(found, EQUAL) is peers


def test_the_share_of_a_slow_worker_is_small() -> None:
    speeds = Speeds.of(4, [Fraction(10), Fraction(1), Fraction(10), Fraction(10)])
    peers = between_workers("relay", UNITS, speeds)
    assert peers is not None
    # The slow worker receives for as long as two vectors take, and gives at most as much meanwhile.
    assert peers.time(speeds) == 2
    assert peers.sent[1] <= 2
    slow = between_workers(
        "relay", UNITS, Speeds.of(4, [Fraction(1), Fraction(1, 100), Fraction(1), Fraction(1)]), helpers=(1,)
    )
    assert slow is not None
    assert slow.received[1] == 0
    assert slow.sent[1] < Fraction(1, 10)


def test_nothing_is_possible_without_a_giver() -> None:
    assert between_workers("relay", UNITS, EQUAL, giving=(0, 1)) is None
    found = compare_downlinks(CYCLIC, TASKS, compare(CYCLIC), EQUAL, NO_WISHES, giving=(), hearing=False)
    assert [downlink.kind for downlink in found] == ["tcp"]
    # With all partitions everywhere, nothing is lacking.
    whole = Placement({"a": ["x"], "b": ["x"]})
    idle = between_workers("relay", Units.of(whole, (0,)), Speeds.of(2), giving=())
    assert idle is not None
    assert idle.time(Speeds.of(2)) == 0


def test_a_fast_server_serves_as_quickly_as_peers() -> None:
    speeds = Speeds.of(4, server=Fraction(8))
    found = compare_downlinks(CYCLIC, TASKS, compare(CYCLIC), speeds, NO_WISHES)
    assert of_kind("tcp", found).time(speeds) == of_kind("peers", found).time(speeds) == 2
    # Of equal times the first counts.
    assert quickest(found, speeds).kind == "tcp"


def test_a_server_that_aggregates_sends_after_all_rows_are_up() -> None:
    nothing = Fraction(0)
    loads = ((Fraction(1),) * 4, (Fraction(2),) * 4, nothing, nothing)
    assert Downlink("tcp", "relay", *loads).time(EQUAL) == 2
    assert Downlink("tcp", "central", *loads).time(EQUAL) == 3


def test_strategies_whose_server_aggregates_leave_no_rows_to_peers() -> None:
    central = [c for c in compare(CYCLIC) if c.strategy == "central"]
    found = compare_downlinks(CYCLIC, TASKS, central, EQUAL, NO_WISHES)
    assert [downlink.kind for downlink in found] == ["tcp", "multicast"]
    assert through_server((), EQUAL) is by_group((), EQUAL) is None


@pytest.mark.parametrize("server", [None, Fraction(5)])
def test_the_server_has_the_speed_of_the_fastest_worker_unless_it_is_told(server: Fraction | None) -> None:
    speeds = Speeds.of(2, [Fraction(1), Fraction(3)], server)
    known = (Fraction(1), Fraction(3))
    assert speeds == Speeds(known, known, server or Fraction(3))


def test_loads_are_told_in_plain_types() -> None:
    found = compare_downlinks(CYCLIC, TASKS, compare(CYCLIC), EQUAL, NO_WISHES)
    told = as_json(found, EQUAL, CYCLIC.workers)
    assert told["peers"] == {
        "strategy": "relay",
        "server_sent": "0",
        "server_received": "0",
        "sent": dict.fromkeys(CYCLIC.workers, "2"),
        "received": dict.fromkeys(CYCLIC.workers, "2"),
        "time": "2",
    }
