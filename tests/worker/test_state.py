from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from support.exchange import RoundExchange
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.blinding.sealed import sealed_state
from asyncdmtl.digests import Digest
from asyncdmtl.errors import IntegrityError, RemoteProtocolError
from asyncdmtl.exchange.sides import WorkerSide
from asyncdmtl.exchange.states import ExactStates
from asyncdmtl.learning.outcome import Outcome
from asyncdmtl.protocol.messages.registry import AfterRound, Assign, Downlink, Restore, StateTransfer
from asyncdmtl.worker.state import WorkerState

digest = Digest("run")


def assign(round_: int, *, over: bool = False) -> Assign:
    return Assign(0, round_, over, StateTransfer.KEEP, {}, bytes(16), ())


def trained(rounds: int) -> WorkerSide:
    """The first worker's side after some rounds."""
    made = RoundExchange(HOMOGENEOUS, make_partitions(6, "squared"), make_settings(), "relay")
    for _ in range(rounds):
        made.down(made.combine(made.up(), False))
    return made.workers[0]


def test_a_new_worker_stands_at_the_beginning_without_a_state() -> None:
    state = WorkerState("w0")
    assert (state.run, state.round, state.over, state.check()) == (None, 0, False, b"")
    assert state.log_fields() == {"worker": "w0"}
    state.enter("run")
    assert state.log_fields() == {"run": "run", "round": 0, "worker": "w0"}


def test_models_move_on_to_the_next_plan() -> None:
    state, before, after = WorkerState("w0"), trained(2), trained(0)
    state.enter("run")
    state.keep(before, assign(0))
    state.keep(after, assign(0))
    assert np.array_equal(after.trainer.W, before.trainer.W)
    trainer = before.trainer
    assert state.check() == ExactStates(trainer.problem, digest).check(trainer.state())


def test_a_plan_for_another_round_is_refused() -> None:
    state = WorkerState("w0")
    for other in (assign(1), assign(0, over=True)):
        with pytest.raises(RemoteProtocolError, match="this worker is in 0"):
            state.keep(trained(0), other)


def test_the_servers_state_is_taken_with_its_round() -> None:
    state, given, side = WorkerState("w0"), trained(2).trainer.state(), trained(0)
    state.enter("run")
    state.take(side, assign(2, over=True), Restore(digest(given), given))
    assert (state.round, state.over) == (2, True)
    assert np.array_equal(side.trainer.state(), given)


def test_a_late_worker_goes_on_from_a_later_state_under_the_same_plan() -> None:
    state, ahead, side = WorkerState("w0"), trained(4), trained(1)
    state.enter("run")
    state.keep(side, assign(0))
    body = ahead.trainer.state()
    with pytest.raises(IntegrityError):
        state.catch_up(Restore(bytes(16), body, 4))
    assert state.round == 0
    state.catch_up(Restore(digest(body), body, 4))
    assert (state.round, state.over) == (4, False)
    assert state.side is side
    assert np.array_equal(side.trainer.W, ahead.trainer.W)


def test_a_state_that_was_corrupted_or_is_none_is_refused() -> None:
    state, given = WorkerState("w0"), trained(2).trainer.state()
    state.enter("run")
    with pytest.raises(IntegrityError, match="corrupted on its way"):
        state.take(trained(0), assign(2), Restore(bytes(16), given))
    short = given[:-1]
    with pytest.raises(RemoteProtocolError, match="no state of this training"):
        state.take(trained(0), assign(2), Restore(digest(short), short))
    assert state.round == 0


@pytest.mark.parametrize(("then", "over"), [(AfterRound.GO_ON, False), (AfterRound.END, True)])
def test_a_round_is_counted_once_it_is_applied(then: AfterRound, over: bool) -> None:
    made = RoundExchange(HOMOGENEOUS, make_partitions(6, "squared"), make_settings(), "relay")
    replies = made.combine(made.up(), False)
    state, side = WorkerState("w0"), made.workers[0]
    state.keep(side, assign(0))
    for i, rows in enumerate(replies[0]):
        side.receive(i, rows)
    with pytest.raises(IntegrityError):
        state.apply(Downlink(0, 0, then, bytes(16)))
    assert state.round == 0
    state.apply(Downlink(0, 0, then, made.server.digest(0)))
    assert (state.round, state.over) == (1, over)


def test_another_run_begins_anew() -> None:
    state = WorkerState("w0")
    state.enter("one")
    state.keep(trained(1), assign(0))
    state.round = 5
    state.enter("one")
    assert state.round == 5
    state.enter("two")
    assert (state.round, state.check()) == (0, b"")


def test_every_worker_tells_the_outcome_that_it_knows() -> None:
    outcome = Outcome("l21", 0.5, 1.0, 0.0)
    for worker in (0, 1):
        state = WorkerState("w0")
        side: Any = SimpleNamespace(worker=worker, trainer=SimpleNamespace(outcome=outcome))
        state.keep(side, assign(0))
        assert state.outcome() == outcome.as_dict()
        side.trainer.outcome = None
        assert state.outcome() == {}


def test_a_sealed_state_does_not_end_the_training_of_one_worker_by_its_giver_alone() -> None:
    during, after = b"d" * 16, b"a" * 16
    state, side = WorkerState("w0", bytes(range(32))), Mock(spec=WorkerSide, trainer=trained(2).trainer)
    side.state_check.return_value, side.final_check.return_value = during, after
    state.enter("run")
    assert state.group is not None
    for over, check in ((True, during), (False, after)):
        body = sealed_state(state.group, 2, check, side.trainer.state(), over=over)
        with pytest.raises(IntegrityError, match="not the one that most workers hold"):
            state.take(side, assign(2), Restore(digest(body), body))
    assert (state.round, state.over) == (0, False)
    body = sealed_state(state.group, 2, after, side.trainer.state(), over=True)
    state.take(side, assign(2), Restore(digest(body), body))
    assert (state.round, state.over) == (2, True)
