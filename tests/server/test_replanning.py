from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from asyncdmtl.server import replanning
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
        self.members = {member.name: member for member in (first, second)}

    def present(self, *, held: bool = False) -> list[Any]:
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
        emit=lambda event: None, plans=1,
    )  # fmt: skip
    peers: Any = SimpleNamespace(
        membership=Membership(member("a", "p0", over=over), member("b", "p1", over=over))
    )
    believed: Any = SimpleNamespace(latest=lambda members: TrainingState(ROUNDS, over))
    replanner = Replanner(peers, progress, believed)
    assignment: Any = SimpleNamespace(suits=lambda members: True, members=())
    replanner.assignment = assignment
    assert [found.name for found in await replanner._assemble(60.0)] == expected


@pytest.mark.parametrize(
    ("plans", "silent", "seconds", "expected"),
    [(0, 1, 60.0, ["a", "b"]), (0, 1, 0.0, ["a"]), (1, 1, 60.0, ["a"]), (0, 0, 60.0, ["a"])],
)
async def test_a_run_that_tolerates_silent_workers_begins_once_there_are_enough_copies(
    plans: int, silent: int, seconds: float, expected: list[str]
) -> None:
    progress: Any = SimpleNamespace(
        run="run", problem=SimpleNamespace(infos=[SimpleNamespace(id="p0")], rounds=ROUNDS), over=False,
        distrusted=set(), round=0, ending=None, emit=lambda event: None, plans=plans, silent=silent,
    )  # fmt: skip
    first, second = (member(name, "p0", over=False) for name in ("a", "b"))
    peers: Any = SimpleNamespace(membership=Membership(first, second))
    believed: Any = SimpleNamespace(latest=lambda members: TrainingState(0, False))
    found = await Replanner(peers, progress, believed)._assemble(seconds)
    assert [each.name for each in found] == expected
    # Nobody else has joined, so that there is nobody to wait for.
    alone: Any = SimpleNamespace(membership=Membership(first, first))
    assert await Replanner(alone, progress, believed)._assemble(60.0) == [first]


@pytest.mark.parametrize(("misled", "expected"), [({"a", "b"}, ["a", "b"]), ({"a"}, ["a"]), (set(), ["a"])])
async def test_a_plan_waits_for_workers_that_decoded_wrong_vectors(
    misled: set[str], expected: list[str]
) -> None:
    membership: Any = Membership(member("a", "p0", over=False), member("b", "p1", over=False))
    peers: Any = SimpleNamespace(membership=membership, misled=misled)
    progress: Any = None
    believed: Any = None
    await Replanner(peers, progress, believed)._wait_for_misled()
    assert [found.name for found in membership.present()] == expected
    assert not misled


async def test_a_plan_does_not_wait_long_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replanning, "MISLED_SECONDS", 0.0)
    membership: Any = Membership(member("a", "p0", over=False), member("b", "p1", over=False))
    peers: Any = SimpleNamespace(membership=membership, misled={"b"})
    progress: Any = None
    believed: Any = None
    await Replanner(peers, progress, believed)._wait_for_misled()
    assert [found.name for found in membership.present()] == ["a"]
