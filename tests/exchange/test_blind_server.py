from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from support.exchange import DIGEST, RoundExchange
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.blinding.sealed import sealed_state, tagged_number
from asyncdmtl.errors import DisagreementError, IntegrityError, RemoteProtocolError, StateError
from asyncdmtl.exchange.blind_server import BlindCheckingServerSide, BlindStates
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement

GROUP = GroupKey(b"a secret of the group", "run")
PARTITIONS = make_partitions(6, "squared")


def exchange(*, detailed: bool = True) -> RoundExchange:
    return RoundExchange(HOMOGENEOUS, PARTITIONS, make_settings(), "relay", detailed=detailed, group=GROUP)


def test_the_server_knows_no_objective_and_asks_workers_whether_training_is_over() -> None:
    run = exchange()
    found = run.server.convergence(run.up())
    assert math.isnan(found.objective)
    assert math.isnan(found.residual)
    assert not found.reached
    assert run.server.asks_for_the_end


@pytest.mark.parametrize("detailed", [False, True])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sealed": ()}, "sent 0 sealed numbers"),
        ({"digests": (bytes(16),) * 99}, "sent 99 digests"),
        ({"size": 1}, "sent 1 bytes of rows"),
    ],
)
def test_an_upload_must_be_as_the_plan_says(detailed: bool, change: dict[str, Any], complaint: str) -> None:
    run = exchange(detailed=detailed)
    sent = replace(run.up()[0], **change)
    with pytest.raises(RemoteProtocolError, match=complaint):
        run.server.check(0, sent)


def test_holders_whose_losses_or_updates_differ_are_named_though_the_server_reads_neither() -> None:
    forged = tagged_number(GROUP, "loss", 0, 0, 123.0, 4)
    for what in ("sealed", "digests"):
        run = exchange()
        sent = run.up()
        changed: dict[str, Any] = {
            "sealed": {"sealed": (forged, *sent[0].sealed[1:])},
            "digests": {"digests": (bytes(16), *sent[0].digests[1:])},
        }[what]
        sent[0] = replace(sent[0], **changed)
        with pytest.raises(DisagreementError) as caught:
            run.combine(sent, False)
        assert caught.value.odd == {"w0": ("p0",)}
        assert "123" not in str(caught.value)


@pytest.mark.parametrize(("place", "what"), [(-2, "penalty"), (-1, "residual")])
def test_workers_that_tell_another_penalty_or_residual_are_named(place: int, what: str) -> None:
    run = exchange()
    sent = run.up()
    sealed = list(sent[1].sealed)
    sealed[place] = bytes(4)
    sent[1] = replace(sent[1], sealed=tuple(sealed))
    with pytest.raises(StateError, match=f"'w1' told different values of the {what} than most") as caught:
        run.combine(sent, False)
    assert caught.value.workers == ("w1",)


def test_a_sealed_state_has_its_check_in_front() -> None:
    run = exchange()
    states = BlindStates(run.problem, DIGEST)
    worker = run.workers[0]
    body = sealed_state(GROUP, 0, worker.state_check(), worker.trainer.state(), over=False)
    assert states.check(body) == worker.state_check()
    assert states.same(states.check(body), worker.state_check())
    empty, check = states.initial()
    assert (len(empty), check) == (0, b"")


def checking(placement: Placement = HOMOGENEOUS) -> RoundExchange:
    return RoundExchange(placement, PARTITIONS, make_settings(), "uncoded", detailed=True, group=GROUP)


def test_while_it_looks_for_wrong_rows_all_is_as_always_and_the_server_has_noise() -> None:
    run = checking()
    assert not run.server.streams
    assert not any(worker.streams for worker in run.workers)
    for _ in range(3):
        run.down(run.combine(run.up(), False))
    twin = train(PARTITIONS, make_settings(rounds=3)).models
    assert all(worker.models().coef_.tobytes() == twin.coef_.tobytes() for worker in run.workers)
    assert isinstance(run.server, BlindCheckingServerSide)
    sides: Any = run.workers
    known = {vector.tobytes() for side in sides for vector in side._own_units.values()}
    assert len(known) == len(run.server._masked)
    size = len(next(iter(known)))
    masked = {row[:size].tobytes() for row in run.server._masked}
    assert not known & masked
    # Workers that take rows from each other are given these, too.
    assert {vector.tobytes() for side in sides for vector in side.own_vectors().values()} == masked


@pytest.mark.parametrize("k", range(len(HOMOGENEOUS.workers)))
def test_the_sender_of_wrong_rows_is_named_before_anything_goes_down(k: int) -> None:
    run = checking()
    sent = run.up()
    sent[k].rows[0][0, 3] ^= 1
    with pytest.raises(
        IntegrityError, match=f"sent other masked updates .* on their way from 'w{k}'"
    ) as caught:
        run.combine(sent, False)
    assert caught.value.workers == (f"w{k}",)


def test_a_holder_that_tells_another_digest_of_a_masked_unit_is_outvoted() -> None:
    run = checking(Placement.cyclic(6, 6, 3))
    sent = run.up()
    sent[1] = replace(sent[1], digests=(*sent[1].digests[:-1], bytes(16)))
    with pytest.raises(DisagreementError) as caught:
        run.combine(sent, False)
    assert set(caught.value.odd) == {"w1"}
    assert not caught.value.undecided
