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
from asyncdmtl.errors import CodingError, DisagreementError, StateError
from asyncdmtl.exchange.blind_server import BlindStates

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
        ({"losses": (1.0,)}, "sent 1 losses in the clear, the plan says 0"),
        ({"sealed": ()}, "sent 0 sealed numbers"),
        ({"digests": ()}, "sent 0 digests"),
        ({"size": 1}, "sent 1 bytes of rows"),
    ],
)
def test_an_upload_must_be_as_the_plan_says(detailed: bool, change: dict[str, Any], complaint: str) -> None:
    run = exchange(detailed=detailed)
    sent = replace(run.up()[0], **change)
    with pytest.raises(CodingError, match=complaint):
        run.server.check(0, sent)


def test_holders_whose_losses_or_updates_differ_are_named_though_the_server_reads_neither() -> None:
    forged = tagged_number(GROUP, "loss", 0, 0, 123.0)
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
    sealed[place] = bytes(8)
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
