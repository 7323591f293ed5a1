from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from asyncdmtl.server.training_state import TrainingState, farthest


def member(name: str, round_: int, state: bytes = b"s", *, over: bool = False) -> Any:
    return SimpleNamespace(name=name, round=round_, over=over, state=state)


def saved(round_: int, digest: bytes = b"s") -> TrainingState:
    return TrainingState(round_, False, (), np.zeros(4, np.uint8), digest)


def test_all_workers_can_go_on_from_the_beginning() -> None:
    found = farthest([], None, 10)
    assert (found.round, found.over, found.keepers, found.state) == (0, False, (), None)


def test_the_farthest_state_is_gone_on_from_by_those_who_hold_it() -> None:
    ahead, behind = member("a", 5), member("b", 4)
    found = farthest([behind, ahead], None, 10)
    assert (found.round, found.keepers) == (5, (ahead,))


def test_the_state_that_most_hold_is_believed() -> None:
    members = [member("a", 5, b"x"), member("b", 5, b"y"), member("c", 5, b"y")]
    assert farthest(members, None, 10).keepers == tuple(members[1:])


def test_a_saved_state_is_preferred_to_one_that_must_be_sent() -> None:
    holder = member("a", 5)
    found = farthest([holder], saved(5), 10)
    assert found.state is not None
    assert found.keepers == (holder,)
    assert farthest([member("a", 6)], saved(5), 10).round == 6
    assert farthest([member("a", 4)], saved(5), 10).round == 5


def test_a_round_beyond_the_last_is_not_believed() -> None:
    assert farthest([member("a", 11)], None, 10).round == 0
    assert farthest([member("a", 10, over=True)], None, 10).over
