"""A server believes the states that most workers hold, of rounds that it has made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.digests import Digest
from asyncdmtl.errors import StateError
from asyncdmtl.exchange.states import ExactStates
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.training import make_trainer
from asyncdmtl.server.believed_states import KEPT_ROUNDS, BelievedStates
from asyncdmtl.server.training_progress import TrainingProgress

SETTINGS = make_settings(rounds=10)
PROBLEM = Problem(SETTINGS, [part.info(SETTINGS) for part in make_partitions(4, "squared")])
STATE = make_trainer(PROBLEM, {}).state()
CHECK = ExactStates(PROBLEM, Digest("run")).check(STATE)
RIGHT, WRONG = bytes([1]) * 16, bytes([2]) * 16


def member(
    name: str,
    round_: int,
    state: bytes = RIGHT,
    *,
    over: bool = False,
    current: bool = False,
    helps: bool = False,
) -> Any:
    return SimpleNamespace(name=name, round=round_, over=over, state=state, current=current, helps=helps)


def believing(round_: int, *electorate: str, over: bool = False) -> BelievedStates:
    """Of a server that has made some rounds with these workers."""
    progress = TrainingProgress("run", PROBLEM, "relay", lambda event: None, round=round_, over=over)
    progress.electorate = electorate
    return BelievedStates(progress)


def saving(believed: BelievedStates, round_: int) -> BelievedStates:
    """The same with a checkpoint of a round."""
    progress = believed._progress
    progress.round, now = round_, progress.round
    progress.keep_saved(progress.round, STATE, over=progress.over)
    progress.round = now
    return BelievedStates(progress)


def test_all_workers_can_go_on_from_the_beginning() -> None:
    new = member("a", 0, b"")
    found = believing(0).latest([new])
    assert (found.round, found.over, found.keepers, found.state) == (0, False, (new,), None)


def test_another_state_of_the_beginning_is_replaced() -> None:
    right, wrong = member("a", 0, CHECK), member("b", 0, WRONG)
    found = believing(0, "a", "b").latest([right, wrong])
    assert (found.round, found.keepers) == (0, (right,))
    assert found.state is not None
    assert found.state.tobytes() == STATE.tobytes()


def test_members_that_have_the_state_of_the_round_keep_it() -> None:
    members = [member("a", 0, b"", current=True), member("b", 10, WRONG, over=True)]
    believed = believing(5)
    found = believed.latest(members)
    assert (found.round, found.over, found.keepers, found.check) == (5, False, (members[0],), b"")
    believed.confirm({"a": RIGHT}, None)
    assert believed.latest(members).check == RIGHT


def test_a_worker_that_wants_no_models_has_only_the_state_of_the_beginning() -> None:
    helper, holder = member("a", 0, b"", current=True, helps=True), member("b", 1, over=True)
    assert believing(0).latest([helper]).keepers == (helper,)
    believed = believing(1, "b", over=True)
    assert believed.latest([helper, holder]).keepers == (holder,)
    back = member("a", 1, RIGHT, over=True, helps=True)
    assert believed.latest([back, holder]).keepers == (holder,)
    # If nobody is left with the result, the round is made again, and the helper begins anew, too.
    new = member("c", 0, b"")
    again = believed.latest([helper, new])
    assert (again.round, again.keepers) == (0, (new,))
    assert again.state is not None


def test_a_state_that_the_server_has_compared_is_believed_of_one_worker() -> None:
    believed = believing(5, "a", "b", "c")
    believed.confirm(dict.fromkeys("abc", RIGHT), None)
    ahead, behind, other = member("a", 5), member("b", 4), member("c", 5, WRONG)
    found = believed.latest([behind, other, ahead])
    assert (found.round, found.keepers, found.check) == (5, (ahead,), RIGHT)


@pytest.mark.parametrize("liar", [(10, True), (6, False), (5, True)])
def test_no_round_is_believed_that_the_server_did_not_make(liar: tuple[int, bool]) -> None:
    believed = believing(5, "a", "b", "c")
    members = [member("a", liar[0], over=liar[1]), member("b", 5), member("c", 5)]
    found = believed.latest(members)
    assert (found.round, found.over, found.keepers) == (5, False, tuple(members[1:]))


def test_a_state_that_nobody_has_compared_takes_a_majority() -> None:
    believed = believing(5, "a", "b", "c")
    assert believed.latest([member("a", 5)]).round == 0
    assert believed.latest([member("a", 5), member("b", 5, WRONG), member("c", 4)]).round == 0
    assert believed.latest([member("a", 5), member("b", 5)]).round == 5
    assert believed.latest([member(name, 5) for name in "axy"]).round == 0  # strangers have no vote


def test_a_resumed_server_believes_most_of_its_workers_about_later_rounds() -> None:
    believed = saving(believing(3, "a", "b", "c"), 3)
    believed._progress.resumed = True
    assert believed.latest([member("a", 10, over=True), member("b", 4), member("c", 5)]).round == 3
    found = believed.latest([member("a", 10, over=True), member("b", 5), member("c", 5)])
    assert (found.round, found.over) == (5, False)
    assert believed.latest([member(name, 11) for name in "abc"]).round == 3


def test_a_saved_state_is_preferred_to_one_that_must_be_sent() -> None:
    believed = saving(believing(5, "a"), 5)
    holder = member("a", 5, CHECK)
    found = believed.latest([holder, member("b", 5)])
    assert found.state is not None
    assert found.keepers == (holder,)


def test_the_minority_is_named() -> None:
    believed = believing(4)
    with pytest.raises(StateError, match="at 'b' in round 4 is not that of most workers") as caught:
        believed.confirm({"a": RIGHT, "b": WRONG, "c": RIGHT}, None)
    assert (caught.value.workers, caught.value.mendable) == (("b",), True)
    assert believed.check(4) == RIGHT
    # What is known stays known, whoever comes later.
    with pytest.raises(StateError) as again:
        believed.confirm({"b": WRONG, "x": WRONG}, None)
    assert again.value.workers == ("b", "x")


def test_without_a_majority_all_are_named() -> None:
    with pytest.raises(StateError, match="workers 'w2', 'w10' hold different states") as caught:
        believing(4).confirm({"w10": RIGHT, "w2": WRONG}, None)
    assert (caught.value.workers, caught.value.mendable) == (("w2", "w10"), False)


def test_workers_that_were_given_an_unconfirmed_state_have_no_vote_about_it() -> None:
    believed = believing(4)
    believed.unconfirmed.update("cd")
    with pytest.raises(StateError) as caught:
        believed.confirm({"a": RIGHT, "b": RIGHT, "c": WRONG, "d": WRONG, "e": RIGHT}, None)
    assert caught.value.workers == ("c", "d")
    assert believed.unconfirmed == set()


def test_where_the_server_has_the_state_workers_are_compared_with_it() -> None:
    believed = believing(4)
    believed.confirm({"a": RIGHT, "b": WRONG}, [RIGHT, WRONG])
    with pytest.raises(StateError) as caught:
        believed.confirm({"a": RIGHT, "b": WRONG}, [WRONG, WRONG])
    assert (caught.value.workers, caught.value.mendable) == (("a",), True)


def test_only_the_last_rounds_are_remembered() -> None:
    believed = believing(0)
    for number in range(KEPT_ROUNDS + 1):
        believed._progress.round = number
        believed.confirm({"a": RIGHT}, None)
    assert believed.check(0) is None
    assert believed.check(1) == RIGHT
