"""Faults of workers become new plans. What workers do about them is tested with the rounds."""

from __future__ import annotations

from typing import Any

import pytest
from support.members import Script
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import AsyncDMTLError, DisagreementError, IntegrityError, StateError
from asyncdmtl.learning.problem import Problem
from asyncdmtl.server.assignment import make_assignment
from asyncdmtl.server.faults import MOST_BAD_ROWS, MOST_CORRUPTED, MOST_DISAGREEMENTS, MOST_ODD_STATES, Faults
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.peers import Peers, ReplanError
from asyncdmtl.server.training_progress import TrainingProgress

PARTITIONS = make_partitions(2, "squared")
SETTINGS = make_settings()
PROBLEM = Problem(SETTINGS, [part.info(SETTINGS) for part in PARTITIONS])


class Run:
    """Three workers that hold all partitions."""

    def __init__(self, strategy: str = "relay") -> None:
        self.progress = TrainingProgress("run", PROBLEM, strategy, lambda event: None)
        membership = Membership()
        self.members = [Script(f"w{k}", PARTITIONS, current=True).member for k in range(3)]
        for member in self.members:
            membership.add(member)
        self.assignment = make_assignment(0, self.members, self.progress)
        self.faults = Faults(self.progress, Peers(membership, self.progress, 1.0))

    async def meet(self, error: AsyncDMTLError) -> None:
        async with self.faults.repeatable(self.assignment):
            raise error


ERRORS: list[tuple[Any, int]] = [
    (StateError("odd", workers=["w1"], mendable=True), MOST_ODD_STATES),
    (DisagreementError("odd", odd={"w1": ["p0"]}), MOST_DISAGREEMENTS),
    (IntegrityError("odd", partitions=[], workers=["w1"]), MOST_BAD_ROWS),
]


@pytest.mark.parametrize(("error", "most"), ERRORS)
async def test_a_worker_is_excluded_if_it_is_at_fault_often(error: Any, most: int) -> None:
    run = Run()
    for number in range(1, most + 1):
        with pytest.raises(ReplanError):
            await run.meet(error)
        assert (run.members[1].lost is not None) == (number == most)
        assert {incident.worker for incident in run.progress.incidents} == {"w1"}
    assert run.members[0].lost is run.members[2].lost is None


@pytest.mark.parametrize(
    ("near", "every", "excluded"), [([], 3, True), (["w1"], 2, True), (["w1"], 3, False)]
)
async def test_states_that_are_odd_by_little_now_and_then_are_rounding(
    near: list[str], every: int, excluded: bool
) -> None:
    run = Run("linear")
    for number in range(0, 8 * every, every):
        run.progress.round = number
        with pytest.raises(ReplanError):
            await run.meet(StateError("odd", workers=["w1"], mendable=True, near=near))
        if run.members[1].lost is not None:
            break
    assert (run.members[1].lost is not None) == excluded
    assert run.members[0].lost is run.members[2].lost is None


async def test_a_worker_whose_state_is_odd_is_no_longer_current() -> None:
    run = Run()
    run.progress.round = 3
    with pytest.raises(ReplanError):
        await run.meet(ERRORS[0][0])
    assert [member.current for member in run.members] == [True, False, True]
    assert run.members[1].round == 3


async def test_states_without_a_majority_and_endless_corruption_end_a_run() -> None:
    run = Run()
    with pytest.raises(StateError):
        await run.meet(StateError("odd", workers=["w0", "w1"], mendable=False))
    with pytest.raises(DisagreementError):
        await run.meet(DisagreementError("odd", odd={"w0": ["p0"], "w1": ["p0"]}, undecided=True))
    nobody = IntegrityError("corrupted", partitions=["p0"], workers=[])
    for _ in range(MOST_CORRUPTED - 1):
        with pytest.raises(ReplanError):
            await run.meet(nobody)
    with pytest.raises(IntegrityError):
        await run.meet(nobody)


async def test_other_errors_pass() -> None:
    with pytest.raises(ReplanError):
        await Run().meet(ReplanError())  # type: ignore[arg-type]
