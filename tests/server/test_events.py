from __future__ import annotations

import json

import pytest

from asyncdmtl.server import events
from asyncdmtl.server.events import (
    DashboardListening,
    IncidentNoted,
    Joined,
    MeasuredSpeed,
    Planned,
    ServerEvent,
    SpeedsMeasured,
)
from asyncdmtl.server.records import RoundRecord


def test_an_event_is_its_name_and_its_attributes() -> None:
    assert Joined("w0", 3).as_json() == {"event": "joined", "worker": "w0", "partitions": 3, "again": False}
    assert IncidentNoted(4, "", "Rewound", "why").as_json() == {
        "event": "incident",
        "round": 4,
        "worker": "",
        "kind": "Rewound",
        "reason": "why",
    }
    assert RoundRecord(0, 0.5, 1.0, 10, 20, 0.25).as_json()["event"] == "round"


def test_the_address_of_a_dashboard_is_that_of_its_page() -> None:
    assert DashboardListening("127.0.0.1", 7780, tls=False).url == "http://127.0.0.1:7780/"
    assert DashboardListening("::1", 7780, tls=True).url == "https://[::1]:7780/"


def test_events_can_be_written_as_json() -> None:
    planned = Planned(0, 4, ("w0", "w1"), "relay", "3/2", "1", "3/2", "1", "3", "3", 2, (), "")
    assert json.loads(json.dumps(planned.as_json()))["workers"] == ["w0", "w1"]


def test_speeds_are_plain_numbers_in_json() -> None:
    event = SpeedsMeasured(5, {"w0": MeasuredSpeed(0.5, 9.0, 90.0)})
    speeds = {"w0": {"computing": 0.5, "up": 9.0, "down": 90.0}}
    assert event.as_json() == {"event": "speeds", "round": 5, "workers": speeds}


def test_no_two_kinds_of_events_have_one_name() -> None:
    kinds: list[type[ServerEvent]] = [
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, ServerEvent) and kind is not ServerEvent
    ]
    names = [*(kind.name for kind in kinds), RoundRecord.name]
    assert len(set(names)) == len(names) == 18


def test_events_do_not_change() -> None:
    with pytest.raises(AttributeError):
        Joined("w0", 3).worker = "w1"  # type: ignore[misc]
