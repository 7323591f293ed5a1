from __future__ import annotations

import logging

import pytest
from support.members import make_member

from asyncdmtl.errors import DataError
from asyncdmtl.server.events import Joined, Left, LockedOut, Refused, ServerEvent
from asyncdmtl.server.member_log import MemberLog


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> list[ServerEvent]:
    caplog.set_level(logging.INFO, logger="asyncdmtl")
    return []


async def test_joining_is_logged_and_told(told: list[ServerEvent], caplog: pytest.LogCaptureFixture) -> None:
    log, connection = MemberLog("run7", told.append), make_member("w0").connection
    log.joined(connection, 3, again=False)
    log.joined(connection, 3, again=True)
    assert told == [Joined("w0", 3, False), Joined("w0", 3, True)]
    (line, _) = caplog.records
    assert line.getMessage() == "run run7: worker 'w0' at ? joined with 3 partitions"
    assert (line.levelname, vars(line)["run"], vars(line)["worker"]) == ("INFO", "run7", "w0")


async def test_refusals_and_departures_say_why(
    told: list[ServerEvent], caplog: pytest.LogCaptureFixture
) -> None:
    log, connection = MemberLog("run7", told.append), make_member("w0").connection
    log.refused(connection, DataError("rows", "must be finite", "nan"))
    log.left(connection, "left", "before the start")
    assert told == [
        Refused("w0", "rows must be finite, got 'nan'", final=True),
        Left("w0", "before the start"),
    ]
    assert [line.getMessage() for line in caplog.records] == [
        "run run7: worker 'w0' at ? is refused: rows must be finite, got 'nan'",
        "run run7: worker 'w0' at ? left before the start",
    ]
    assert {line.levelname for line in caplog.records} == {"WARNING"}


async def test_delays_of_failed_proofs_are_told(told: list[ServerEvent]) -> None:
    MemberLog("run7", told.append).delayed("address", "10.0.0.1", 4.0)
    assert told == [LockedOut("address", "10.0.0.1", 4.0)]


async def test_the_servers_own_failure_is_logged_with_its_traceback(
    told: list[ServerEvent], caplog: pytest.LogCaptureFixture
) -> None:
    connection = make_member("w0").connection
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        MemberLog("run7", told.append).broken(connection)
    (line,) = caplog.records
    assert line.getMessage() == "admission of worker 'w0' at ? failed"
    assert line.exc_info is not None
    assert line.exc_info[0] is ZeroDivisionError
    assert told == []
