from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.exchange import RoundExchange
from support.placements import HETEROGENEOUS, HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.blinding.masks import Masks
from asyncdmtl.errors import IntegrityError, RemoteProtocolError
from asyncdmtl.exchange.blind_worker import BlindWorkerSide
from asyncdmtl.field.linalg import independent_rows
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan

GROUP = GroupKey(b"a secret of the group", "run")
PARTITIONS = make_partitions(6, "squared")


def exchange(strategy: str = "relay", *, detailed: bool = False, **changes: Any) -> RoundExchange:
    return RoundExchange(
        HOMOGENEOUS, PARTITIONS, make_settings(**changes), strategy, detailed=detailed, group=GROUP
    )


@pytest.mark.parametrize("strategy", ["relay", "uncoded"])
@pytest.mark.parametrize("detailed", [False, True])
@pytest.mark.parametrize("compression", ["none", "int8"])
def test_models_and_loads_are_those_of_a_run_that_is_not_blind(
    strategy: str, detailed: bool, compression: str
) -> None:
    partitions = make_partitions(len(HETEROGENEOUS.partitions), "squared")
    settings = make_settings(rounds=3, compression=compression)
    made = (HETEROGENEOUS, partitions, settings, strategy)
    blind, plain = (RoundExchange(*made, detailed=detailed, group=group) for group in (GROUP, None))
    for _ in range(settings.rounds):
        sent, seen = blind.up(), plain.up()
        assert [part.size for part in sent] == [part.size for part in seen]
        assert all((part.losses, part.penalty, part.residual) == ((), 0.0, 0.0) for part in sent)
        blind.down(blind.combine(sent, False))
        plain.down(plain.combine(seen, False))
    twin = train(partitions, settings).models
    for worker in blind.workers:
        assert worker.models().coef_.tobytes() == twin.coef_.tobytes()


def test_vectors_of_several_ranges_are_unmasked() -> None:
    partitions = make_partitions(6, "squared", features=20_001)
    run = RoundExchange(HOMOGENEOUS, partitions, make_settings(), "relay", detailed=False, group=GROUP)
    assert len(run.server.ranges) > 1
    run.down(run.combine(run.up(), True))
    twin = train(partitions, make_settings(rounds=1)).models
    assert run.workers[0].models().coef_.tobytes() == twin.coef_.tobytes()


def test_aggregates_and_sums_are_masked_too() -> None:
    placement = Placement({"a": ["p0", "p1", "p2"], "b": ["p2", "p3"], "c": ["p0", "p1", "p3"]})
    partitions = make_partitions(4, "squared")
    run = RoundExchange(placement, partitions, make_settings(), "relay", detailed=False, group=GROUP)
    assert run.plan.aggregated or run.plan.sums  # type: ignore[union-attr]
    for _ in range(3):
        run.down(run.combine(run.up(), False))
    twin = train(partitions, make_settings(rounds=3)).models
    assert all(w.models().coef_.tobytes() == twin.coef_.tobytes() for w in run.workers)


@pytest.mark.parametrize("strategy", ["relay", "uncoded"])
def test_rows_look_like_noise(strategy: str) -> None:
    # All updates are 0, so that rows that are not masked would be 0, too.
    partitions = [
        type(part)(part.id, part.task, np.zeros((4, 4000)), np.zeros(4))
        for part in make_partitions(6, "squared")
    ]
    run = RoundExchange(HOMOGENEOUS, partitions, make_settings(), strategy, detailed=False, group=GROUP)
    rows = np.concatenate([part.ravel() for upload in run.up() for part in upload.rows])
    assert len(rows) > 40_000
    counts = np.bincount(rows, minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-4
    again = np.concatenate([part.ravel() for upload in run.up() for part in upload.rows])
    assert stats.chisquare(np.bincount(rows ^ again, minlength=256)).pvalue > 1e-4


class Masked:
    """What was masked with each piece of each key stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.vectors: dict[tuple[Any, int], set[bytes]] = {}
        apply = Masks.apply

        def watched(masks: Masks, runs: Any, vectors: Any, out: Any) -> None:
            # What comes down is unmasked: those are other vectors, to which nothing is added.
            if len(vectors) and out[: len(vectors)].tobytes() != vectors.tobytes():
                numbers = [first + i for first, count in runs for i in range(count)]
                for number, vector in zip(numbers, vectors.reshape(len(numbers), -1), strict=True):
                    self.vectors.setdefault(((masks._key, masks._start), number), set()).add(vector.tobytes())
            apply(masks, runs, vectors, out)

        monkeypatch.setattr(Masks, "apply", watched)


def test_two_vectors_are_never_masked_with_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    masked = Masked(monkeypatch)
    monkeypatch.setattr(BlindWorkerSide, "_finish_decoding", lambda side: None)
    for partitions in (PARTITIONS, make_partitions(6, "squared", seed=1)[:1] + PARTITIONS[1:]):
        for changes in ({}, {"strength": 0.5}, {"dtype": "float64"}):
            for strategy in ("relay", "uncoded"):
                run = RoundExchange(
                    HOMOGENEOUS, partitions, make_settings(**changes), strategy, detailed=False, group=GROUP
                )
                # A server that lets rounds be made again, under plans of the same number.
                for round_ in (0, 1, 0):
                    run.round = round_
                    run.up()
    assert all(len(vectors) == 1 for vectors in masked.vectors.values())
    assert len({key for key, _ in masked.vectors}) == 2 * 3 * 2 * 2


def test_another_state_in_the_same_round_has_another_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that begins again at another state, under a plan of the same number, gets no stream twice."""
    ahead, run = exchange(), exchange()
    ahead.down(ahead.combine(ahead.up(), False))
    masked = Masked(monkeypatch)
    for state in (run.workers[0].trainer.state(), ahead.workers[0].trainer.state()):
        for worker in run.workers:
            worker.trainer.restore(state)
        run.round = 0
        run.up()
    assert all(len(vectors) == 1 for vectors in masked.vectors.values())
    assert len({key for key, _ in masked.vectors}) == 2


def test_training_ends_when_the_numbers_of_all_workers_say_so() -> None:
    settings: dict[str, Any] = {"tolerance": 0.1, "rounds": 100, "coupling": "mean"}
    run, twin = exchange(**settings), train(PARTITIONS, make_settings(**settings))
    while not run.workers[0].reached:
        run.down(run.combine(run.up(), False))
        assert len({worker.reached for worker in run.workers}) == 1
    assert run.round == len(twin.objectives) < 100
    assert run.workers[0].models().coef_.tobytes() == twin.models.coef_.tobytes()


def test_without_a_tolerance_no_numbers_come_down() -> None:
    run = exchange()
    run.combine(run.up(), False)
    assert run.server.told(0) == b""
    told = exchange(tolerance=1e-3)
    told.combine(told.up(), False)
    assert len(told.server.told(0)) == 24 * (len(PARTITIONS) + 2)


def test_numbers_that_are_only_compared_differ_by_place_and_value() -> None:
    run = exchange()
    first, second = run.up(), run.up()
    numbers = [number for upload in (*first, *second) for number in upload.sealed]
    assert {len(number) for number in numbers} == {4}
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("strategy", ["relay", "uncoded"])
@pytest.mark.parametrize(
    "placement", [HOMOGENEOUS, HETEROGENEOUS, Placement.cyclic(8, 8, 4), Placement.cyclic(7, 11, 3)]
)
def test_rows_of_all_workers_are_independent(strategy: Any, placement: Placement) -> None:
    # So what the server is sent is noise, also if holders compute different bits of a vector.
    plan = make_plan(placement, strategy)
    assert len(independent_rows(plan.uplink_matrix)) == len(plan.uplink_matrix) > 0


def test_as_many_bytes_come_down_as_in_a_run_that_is_not_blind() -> None:
    blind, plain = exchange(), RoundExchange(
        HOMOGENEOUS, PARTITIONS, make_settings(), "relay", detailed=False, group=None
    )  # fmt: skip
    for run in (blind, plain):
        run.combine(run.up(), False)
    for k in range(len(blind.workers)):
        assert blind.server.told(k) == plain.server.told(k) == b""
        assert len(blind.server.digest(k)) == len(plain.server.digest(k)) == 16


@pytest.mark.parametrize("change", [lambda told: told[:-1], lambda told: told + bytes(24), lambda told: b""])
def test_what_others_told_must_be_as_much_as_the_plan_says(change: Any) -> None:
    run = exchange(tolerance=1e-3)
    run.combine(run.up(), False)
    with pytest.raises(RemoteProtocolError):
        run.workers[0].take_told(change(run.server.told(0)))


def test_a_number_that_was_changed_on_its_way_is_refused() -> None:
    run = exchange(tolerance=1e-3)
    run.combine(run.up(), False)
    told = bytearray(run.server.told(0))
    told[-1] ^= 1
    with pytest.raises(IntegrityError, match="'residual' was not sealed"):
        run.workers[0].take_told(bytes(told))


def test_rows_that_were_changed_on_their_way_change_no_model() -> None:
    run = exchange()
    replies = run.combine(run.up(), False)
    replies[0][0][0] ^= 1
    before = run.workers[0].models().coef_.tobytes()
    with pytest.raises(IntegrityError, match="decoded other vectors"):
        run.down(replies)
    assert run.workers[0].models().coef_.tobytes() == before


def test_the_last_state_has_another_check_than_the_same_state_during_training() -> None:
    first, other, *_ = exchange().workers
    assert first.final_check() == other.final_check() != first.state_check() == other.state_check()


def test_numbers_that_a_worker_has_sealed_itself_count_only_in_their_round() -> None:
    run = exchange(tolerance=1e-3)
    run.combine(run.up(), False)
    told = run.server.told(0)
    run.workers[0].take_told(told)
    run.round += 1
    run.up()
    with pytest.raises(IntegrityError, match="was not sealed"):
        run.workers[0].take_told(told)
