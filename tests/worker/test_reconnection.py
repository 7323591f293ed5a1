from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from asyncdmtl.errors import AsyncDMTLError, DataError, IntegrityError, LinkError, PeerError, WaitError
from asyncdmtl.net.transport import FIRST_RETRY_PAUSE, LONGEST_RETRY_PAUSE
from asyncdmtl.worker.reconnection import MOST_LOSSES, Reconnection

LOST = LinkError("reset", peer="the server")
SILENT = WaitError("nothing was heard", seconds=10.0, option="--silence-timeout")
LATE = WaitError("no downlink came", seconds=600.0, option="--round-timeout")
CORRUPTED = IntegrityError("corrupted", partitions=[], workers=[])


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def connection(*, may_return: bool = False) -> Any:
    return SimpleNamespace(worker_may_return=may_return)


@pytest.mark.parametrize(
    ("error", "joined", "expected"),
    [
        (LOST, False, True),
        (LOST, True, True),
        (SILENT, True, True),
        (SILENT, False, False),
        (CORRUPTED, True, True),
        (CORRUPTED, False, False),
        (LATE, True, False),
        (DataError("rows", "must be finite", 1), True, False),
    ],
)
def test_a_worker_returns_when_only_the_connection_failed(
    error: AsyncDMTLError, joined: bool, expected: bool
) -> None:
    made = Reconnection(60.0, Clock())
    assert made.permits(connection(), error, joined=joined) is expected


@pytest.mark.parametrize("may_return", [False, True])
def test_a_refused_worker_returns_only_if_the_server_says_so(may_return: bool) -> None:
    made = Reconnection(60.0, Clock())
    assert made.permits(connection(may_return=may_return), PeerError("no"), joined=True) is may_return


ENDED = PeerError("the server ended")


@pytest.mark.parametrize(
    ("error", "welcomed", "raised"),
    [
        (PeerError("full", exit_code=3), False, "full"),
        (PeerError("full", exit_code=3), True, "full"),
        (PeerError("the name", exit_code=2), True, "the name"),
        (ENDED, False, "refused"),
        (ENDED, True, "the server ended"),
        (LOST, False, "refused"),
        (LOST, True, "reset"),
        (SILENT, False, "nothing was heard"),
    ],
)
def test_a_worker_that_gives_up_says_why_it_was_refused(
    error: AsyncDMTLError, welcomed: bool, raised: str
) -> None:
    made = Reconnection(60.0, Clock())
    assert made.permits(connection(may_return=True), PeerError("refused", exit_code=3), joined=False)
    if welcomed:
        made.note_welcome()
    made.permits(connection(may_return=True), error, joined=welcomed)
    with pytest.raises(AsyncDMTLError, match=raised):
        made.give_up(error)


def test_the_only_reason_for_which_a_worker_was_not_admitted_is_kept() -> None:
    made = Reconnection(60.0, Clock())
    assert made.permits(connection(may_return=True), ENDED, joined=False)
    with pytest.raises(PeerError, match="the server ended"):
        made.give_up(LOST)


def test_the_time_to_wait_begins_anew_when_a_server_that_welcomed_the_worker_is_lost() -> None:
    clock = Clock()
    made = Reconnection(10.0, clock)
    made.note_welcome()
    clock.now += 1000.0
    assert made.permits(connection(), LOST, joined=True)
    assert made.seconds_left == 10.0
    clock.now += 11.0
    assert made.seconds_left == 0.0
    assert not made.permits(connection(), LOST, joined=True)


def test_losses_in_a_row_are_limited_until_a_round_is_made() -> None:
    clock = Clock()
    made = Reconnection(10.0, clock)
    for _ in range(MOST_LOSSES):
        made.note_welcome()
        clock.now += 20.0
        assert made.permits(connection(), LOST, joined=True)
    made.note_welcome()
    clock.now += 20.0
    assert not made.permits(connection(), LOST, joined=True)
    made.note_progress()
    made.note_welcome()
    clock.now += 20.0
    assert made.permits(connection(), LOST, joined=True)


async def test_pauses_grow_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    made = Reconnection(60.0, Clock())
    for _ in range(12):
        await made.pause()
    assert pauses[0] == FIRST_RETRY_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_RETRY_PAUSE
    made.note_progress()
    await made.pause()
    assert pauses[-1] == FIRST_RETRY_PAUSE
