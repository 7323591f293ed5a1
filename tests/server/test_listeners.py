from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from asyncdmtl.multicast.sending import ReceptionCounts
from asyncdmtl.server.listeners import JUDGED_ROWS, MOST_WRONG_DECODINGS, Listeners


def member(name: str = "w0") -> Any:
    return SimpleNamespace(name=name, hears=False)


def test_a_worker_that_receives_the_group_is_served_by_it() -> None:
    listeners, worker = Listeners(), member()
    listeners.serve_over_tcp(worker, "nothing was heard")
    assert listeners.served_over_tcp == {"w0": "nothing was heard"}
    listeners.listens(worker)
    assert worker.hears
    assert listeners.served_over_tcp == {}


def test_a_worker_that_was_misled_too_often_is_served_over_tcp() -> None:
    listeners, worker = Listeners(), member()
    for _ in range(MOST_WRONG_DECODINGS):
        assert listeners.may_listen(worker)
        listeners.note_misled("w0")
    assert not listeners.may_listen(worker)
    assert listeners.served_over_tcp == {"w0": "what it heard was not what was sent"}
    assert listeners.may_listen(member("w1"))


@pytest.mark.parametrize(("share", "hears"), [(0.5, True), (0.51, False)])
def test_a_worker_that_is_sent_most_ranges_over_tcp_anyhow_is_served_over_tcp(
    share: float, hears: bool
) -> None:
    listeners, worker = Listeners(), member()
    listeners.listens(worker)
    listeners.judge(worker, 3, share, None)
    assert worker.hears is hears
    assert listeners.served_over_tcp == ({} if hears else {"w0": "heard too little of round 3"})


def test_a_worker_that_asks_for_most_rows_again_is_served_over_tcp() -> None:
    listeners, worker = Listeners(), member()
    listeners.listens(worker)
    listeners.judge(worker, 0, 0.0, ReceptionCounts(needed=JUDGED_ROWS - 1, asked=JUDGED_ROWS - 1))
    assert worker.hears, "too few rows tell nothing"
    listeners.judge(worker, 1, 0.0, ReceptionCounts(needed=JUDGED_ROWS, asked=JUDGED_ROWS * 3 // 4))
    assert worker.hears
    # Only the counts since the last decision matter.
    listeners.judge(
        worker, 2, 0.0, ReceptionCounts(needed=2 * JUDGED_ROWS, asked=JUDGED_ROWS * 3 // 4 + JUDGED_ROWS)
    )
    assert not worker.hears
