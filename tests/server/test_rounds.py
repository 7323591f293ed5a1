"""The rounds of a run: models, losses of workers, faults, checkpoints, and the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.placements import HOMOGENEOUS
from support.rounds import OWN, SETTINGS, Hand, Run

from asyncdmtl.errors import DisagreementError, IntegrityError, LinkError, StateError
from asyncdmtl.learning.outcome import Outcome
from asyncdmtl.protocol.messages.registry import (
    AfterRound,
    Assign,
    Done,
    Downlink,
    Finish,
    Restore,
    Uplink,
)
from asyncdmtl.server import absent, faults
from asyncdmtl.server.checkpoint_store import CheckpointStore
from asyncdmtl.server.faults import MOST_BAD_ROWS, MOST_DISAGREEMENTS, MOST_ODD_STATES


@pytest.fixture(autouse=True)
def _no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absent, "LINGER", 0.0)


@pytest.mark.parametrize("strategy", ["relay", "central", "personal"])
async def test_rounds_are_those_of_one_process(strategy: str) -> None:
    run = Run(strategy)
    assignment = await run.make()
    assert assignment.plan.placement.workers == tuple(OWN)
    run.check()
    assert not run.progress.converged
    assert run.progress.incidents == []
    then = [message.then for message in run.hands["w0"].sent if isinstance(message, Downlink)]
    assert then == [AfterRound.GO_ON] * 3 + [AfterRound.END]


async def test_a_training_that_has_converged_ends_before_its_limit() -> None:
    run = Run(settings=replace(SETTINGS, rounds=500, tolerance=0.5))
    await run.make()
    run.check()
    assert run.progress.converged
    assert len(run.progress.records) < 500


def vanishing(hand: Hand, number: int) -> Callable[[int], None]:
    """A function that ends a worker's connection in a round."""
    return lambda round_: hand.vanish() if round_ == number else None


@pytest.mark.parametrize("number", [0, 2])
async def test_a_round_is_made_again_without_a_worker_that_is_lost(number: int) -> None:
    run = Run()
    run.hands["w1"].before = vanishing(run.hands["w1"], number)
    assignment = await run.make()
    assert "w1" not in assignment.plan.placement.workers
    run.check("w1")
    assert [(incident.round, incident.worker) for incident in run.progress.incidents] == [(number, "w1")]
    assert [plan.round for plan in run.plans()] == [0, number]


async def test_rounds_end_where_nobody_holds_a_partition_any_more() -> None:
    run = Run()
    for name in ("w4", "w5", "w0"):
        run.hands[name].before = vanishing(run.hands[name], 1)
    stored = HOMOGENEOUS.as_dict()
    missing = set(HOMOGENEOUS.partitions) - {name for w in ("w1", "w2", "w3") for name in stored[w]}
    with pytest.raises(LinkError, match=rf"who holds the partitions \['{missing.pop()}'\]"):
        await run.make()


async def test_a_newcomer_is_given_the_state_of_the_training() -> None:
    run = Run()
    late = run.hands["w3"]
    late.member.ready = False

    def come(number: int) -> None:
        late.member.ready = late.member.ready or number == 2

    run.hands["w0"].before = come
    assignment = await run.make()
    assert "w3" in assignment.plan.placement.workers
    run.check()
    first, second = run.plans()
    assert ("w3" in first.workers, "w3" in second.workers) == (False, True)
    assert [type(message) for message in late.sent[:2]] == [Assign, Restore]


async def test_an_odd_holder_is_not_trusted_with_what_it_differs_in() -> None:
    run = Run(detailed=True)
    odd = run.hands["w2"]
    seen: list[int] = []

    def once(message: Uplink) -> Uplink:
        seen.append(message.round)
        return replace(message, told=bytes(16) + message.told[16:]) if len(seen) == 1 else message

    odd.uplink = once
    await run.make()
    run.check()
    partition = OWN["w2"][0].id
    assert run.progress.distrusted == {("w2", partition)}
    (incident,) = run.progress.incidents
    assert (incident.round, incident.worker) == (0, "w2")
    assert incident.reason.startswith(f"computed other bits of ['{partition}'] than their other holders")
    assert "python -m asyncdmtl.arithmetic" in incident.reason


async def test_a_worker_that_differs_again_and_again_is_excluded() -> None:
    run = Run(detailed=True)
    odd = run.hands["w2"]
    odd.uplink = lambda message: replace(message, told=bytes(16) + message.told[16:])
    await run.make()
    run.check("w2")
    assert isinstance(odd.member.lost, DisagreementError)
    assert "w2" in run.membership.excluded
    assert len(run.plans()) == MOST_DISAGREEMENTS + 1


def flip(message: Uplink) -> Uplink:
    """An uplink with one bit of its rows changed."""
    body = message.body.copy()
    body[5] ^= 1
    return replace(message, body=body)


async def test_a_worker_that_sends_bad_rows_is_excluded() -> None:
    run = Run("central", detailed=True)
    sender = run.hands["w0"]
    assert OWN["w0"]
    sender.uplink = flip
    await run.make()
    run.check("w0")
    assert "w0" in run.membership.excluded
    assert len(run.plans()) == MOST_BAD_ROWS + 1
    assert {incident.worker for incident in run.progress.incidents} == {"w0"}


async def test_rows_that_are_corrupted_round_after_round_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "MOST_CORRUPTED", 2)
    run = Run("central", detailed=True)
    run.hands["w0"].uplink = flip
    with pytest.raises(IntegrityError):
        await run.make()
    assert len(run.plans()) == 2


async def test_good_rounds_between_them_forgive_corrupted_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "MOST_CORRUPTED", 2)
    run = Run("central")
    tried: list[int] = []

    def first_of_each_round(message: Uplink) -> Uplink:
        bad = message.round not in tried and message.round in (0, 2)
        tried.append(message.round)
        return flip(message) if bad else message

    run.hands["w0"].uplink = first_of_each_round
    await run.make()
    run.check()
    assert len(run.plans()) == 3


@pytest.mark.parametrize("strategy", ["relay", "central", "personal"])
@pytest.mark.parametrize("number", [0, 2])
async def test_a_corrupted_number_in_one_workers_models_is_mended(strategy: str, number: int) -> None:
    run = Run(strategy)
    odd = run.hands["w2"]
    seen: list[int] = []

    def corrupt(round_: int) -> None:
        if round_ == number and not seen:
            odd.trainer.W[1, 3] += 1e-9
            seen.append(round_)

    odd.before = corrupt
    await run.make()
    run.check()
    # The state is not confirmed; then all tell all values, and the state is mended.
    assert [plan.round for plan in run.plans()] == [0, number, number]
    assert run.progress.detailed
    (incident,) = run.progress.incidents
    assert (incident.round, incident.worker) == (number, "w2")
    assert f"the state of the training at 'w2' in round {number} is not that of most" in incident.reason
    assert sum(isinstance(message, Restore) for message in odd.sent) == 1


async def test_a_corrupted_final_model_is_mended() -> None:
    run = Run()
    odd = run.hands["w4"]
    seen: list[int] = []

    def wrong(message: Done) -> Done:
        seen.append(message.plan)
        return replace(message, digest=bytes(16)) if len(seen) == 1 else message

    odd.done = wrong
    await run.make()
    run.check()
    assert seen == [0, 1]
    assert [incident.worker for incident in run.progress.incidents] == ["w4"]


async def test_a_worker_whose_state_differs_again_and_again_is_excluded() -> None:
    run = Run(detailed=True)
    odd = run.hands["w2"]
    odd.uplink = lambda message: odd.retold(message, state=bytes(16))
    await run.make()
    run.check("w2")
    assert "w2" in run.membership.excluded
    assert len(run.plans()) == MOST_ODD_STATES + 1


async def test_a_run_ends_where_no_state_has_a_majority() -> None:
    run = Run(detailed=True)
    for name in ("w0", "w1", "w2"):
        hand = run.hands[name]
        hand.uplink = partial(hand.retold, state=bytes(16))
    with pytest.raises(StateError, match="in round 0, and no state has a majority") as caught:
        await run.make()
    assert set(caught.value.workers) == set(OWN)
    assert len(run.plans()) == 1


async def test_a_checkpoint_is_written_of_no_state_that_most_do_not_hold(tmp_path: Path) -> None:
    run = Run(folder=tmp_path, every=2)
    giver = run.hands["w0"]
    give, forged = giver._give, list[Any]()

    def lie() -> None:
        if not forged:
            giver.trainer.W[0, 0] += 1
            forged.append(giver.trainer.W.copy())
        give()
        if len(forged) == 1:
            giver.trainer.W[0, 0] -= 1
            forged.append(giver.trainer.W.copy())

    giver._give = lie  # type: ignore[method-assign]
    await run.make()
    run.check("w0")
    assert "gave another state of the training than most" in str(giver.member.lost)


@pytest.mark.parametrize("linger", [0.0, 0.05])
async def test_a_worker_that_is_lost_at_the_end_keeps_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch, linger: float
) -> None:
    monkeypatch.setattr(absent, "LINGER", linger)
    run = Run()
    lost = run.hands["w4"]

    def vanish(message: Done) -> Done:
        lost.vanish()
        return message

    lost.done = vanish
    await run.make()
    run.check("w4")
    assert [incident.worker for incident in run.progress.incidents] == ["w4"]


async def test_a_worker_that_comes_back_after_the_last_round_gets_the_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run()
    late = run.hands["w3"]
    late.member.ready = False

    def come(message: Done) -> Done:
        late.member.ready = True
        return message

    run.hands["w0"].done = come
    await run.make()
    run.check()
    assert [type(message) for message in late.sent] == [Assign, Restore, Finish]
    assert late.sent[0].over


OUTCOME = Outcome("nuclear", 0.25, 1.5, 1e-9)


@pytest.mark.parametrize(
    ("told", "expected", "incidents"),
    [(OUTCOME.as_dict(), 0.25, []), ({"coupling": "nuclear"}, None, ["w0"]), ({}, None, [])],
    ids=["outcome", "nonsense", "none"],
)
async def test_the_outcome_is_what_a_worker_tells(
    told: dict[str, Any], expected: float | None, incidents: list[str]
) -> None:
    run = Run()
    run.hands["w0"].done = lambda message: replace(message, outcome=told)
    await run.make()
    assert (run.progress.outcome and run.progress.outcome.strength) == expected
    assert [incident.worker for incident in run.progress.incidents] == incidents


async def state_after(strategy: str, count: int) -> bytes:
    """The state of the training after a run of `count` rounds."""
    run = Run(strategy, replace(SETTINGS, rounds=count))
    await run.make()
    trainer = run.progress.trainer or run.hands["w0"].trainer
    return trainer.state().tobytes()


@pytest.mark.parametrize("strategy", ["relay", "personal"])
async def test_checkpoints_are_written_before_the_first_round_and_then_now_and_again(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[tuple[int, bytes]] = []
    save = CheckpointStore.save

    def noted(store: CheckpointStore, checkpoint: Any) -> int:
        saved.append((checkpoint.round, checkpoint.state.tobytes()))
        return save(store, checkpoint)

    monkeypatch.setattr(CheckpointStore, "save", noted)
    run = Run(strategy, replace(SETTINGS, rounds=6), tmp_path, every=2)
    await run.make()
    run.check()
    # The last one keeps the end of the run; under relay, only the workers have the final state.
    assert [number for number, _ in saved] == [0, 2, 4, 6]
    assert saved[0][1] == b""
    assert (saved[3][1] == b"") == (strategy == "relay")
    assert [state for _, state in saved[1:3]] == [await state_after(strategy, number) for number in (2, 4)]


async def test_a_server_that_stops_writes_where_it_stands(tmp_path: Path) -> None:
    run = Run("personal", folder=tmp_path, every=100)
    await run.make()
    assert run.store is not None
    await run.rounds.stop()
    found = run.store.load()
    assert found is not None
    assert (found.round, found.over) == (4, True)
    assert run.progress.trainer is not None
    assert found.state.tobytes() == run.progress.trainer.state().tobytes()


async def test_a_server_that_stops_before_the_first_plan_writes_nothing(tmp_path: Path) -> None:
    run = Run(folder=tmp_path)
    await run.rounds.stop()
    assert run.store is not None
    assert run.store.load() is None


async def test_without_checkpoints_a_stop_asks_nobody() -> None:
    run = Run()
    await run.rounds.stop()
    assert all(hand.sent == [] for hand in run.hands.values())
