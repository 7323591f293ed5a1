from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from asyncdmtl.server.replanning import Replanner
from asyncdmtl.server.training_state import TrainingState

ROUNDS = 5


def member(name: str, *partitions: str, over: bool) -> Any:
    round_ = ROUNDS if over else ROUNDS - 1
    return SimpleNamespace(
        name=name,
        partitions=partitions,
        round=round_,
        over=over,
        state=b"",
        current=False,
        ended=False,
        helps=False,
    )


class Membership:
    """A membership in which one worker is present and another comes when the server waits for it."""

    def __init__(self, first: Any, second: Any) -> None:
        self._there, self._coming = [first], second

    def present(self) -> list[Any]:
        return list(self._there)

    def hopeless(self, missing: list[str]) -> bool:
        return False

    async def change(self, seconds: float) -> None:
        self._there.append(self._coming)


@pytest.mark.parametrize(("over", "expected"), [(True, ["a"]), (False, ["a", "b"])])
async def test_after_the_last_round_all_are_needed_again_where_nobody_has_its_end(
    over: bool, expected: list[str]
) -> None:
    problem = SimpleNamespace(infos=[SimpleNamespace(id="p0"), SimpleNamespace(id="p1")], rounds=ROUNDS)
    progress: Any = SimpleNamespace(
        run="run", problem=problem, distrusted=set(), over=True, round=ROUNDS, trainer=None,
        emit=lambda event: None,
    )  # fmt: skip
    peers: Any = SimpleNamespace(
        membership=Membership(member("a", "p0", over=over), member("b", "p1", over=over))
    )
    believed: Any = SimpleNamespace(latest=lambda members: TrainingState(ROUNDS, over))
    replanner = Replanner(peers, progress, believed)
    assignment: Any = SimpleNamespace(suits=lambda members: True, members=())
    replanner.assignment = assignment
    assert [found.name for found in await replanner._assemble(60.0)] == expected
