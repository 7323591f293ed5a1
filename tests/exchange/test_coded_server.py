from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.exchange import DIGEST, RoundExchange
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import (
    CodingError,
    DisagreementError,
    IntegrityError,
    RemoteProtocolError,
    StateError,
)
from asyncdmtl.exchange.sides import SideOptions
from asyncdmtl.exchange.strategies import EXCHANGE_STRATEGIES
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_holders_that_disagree_are_named(strategy: Any) -> None:
    partitions = make_partitions(6, "squared")
    exchange = RoundExchange(HOMOGENEOUS, partitions, make_settings(), strategy)
    odd = partitions[1]
    stored = {n: partitions[n] for n in HOMOGENEOUS.stored[3]}
    stored[1] = Partition(odd.id, odd.task, odd.X, odd.y + 1)
    exchange.workers[3] = EXCHANGE_STRATEGIES[strategy].worker_side(
        exchange.plan, 3, Trainer(exchange.problem, stored), SideOptions(digest=DIGEST)
    )
    with pytest.raises(DisagreementError, match="'p1': w1, w2 against w3") as caught:
        exchange.combine(exchange.up(), False)
    assert caught.value.partitions == ("p1",)
    assert caught.value.odd == {"w3": ("p1",)}


@pytest.mark.parametrize("strategy", ["relay", "central"])
def test_holders_of_summed_updates_that_disagree_are_named(strategy: Any) -> None:
    placement = Placement.cyclic(4, 8, 3)
    partitions = [replace(p, task=f"t{n // 4}") for n, p in enumerate(make_partitions(8, "squared"))]
    exchange = RoundExchange(placement, partitions, make_settings(), strategy)
    assert isinstance(exchange.plan, Plan)
    assert exchange.plan.sums[0] == (0, 0, 2)
    sent = exchange.up()
    # w1 and w2 can make the sum of p0 and p1: the update of p0 is also w0's.
    last = len(exchange.plan.placement.stored[1])
    lie = replace(sent[1], digests=(*sent[1].digests[:last], bytes(16), *sent[1].digests[last + 1 :]))
    with pytest.raises(DisagreementError, match=r"'p0 \+ p1': w1 against w2") as caught:
        exchange.combine([sent[0], lie, *sent[2:]], False)
    assert caught.value.odd == {"w1": ("p0", "p1"), "w2": ("p0", "p1")}
    stored = {n: partitions[n] for n in placement.stored[0]}
    stored[0] = replace(partitions[0], y=partitions[0].y + 1)
    exchange.workers[0] = EXCHANGE_STRATEGIES[strategy].worker_side(
        exchange.plan, 0, Trainer(exchange.problem, stored), SideOptions(digest=DIGEST)
    )
    with pytest.raises(DisagreementError, match="'p0': w0 against w1, w2") as caught:
        exchange.combine(exchange.up(), False)
    assert caught.value.odd == {"w0": ("p0",)}


def test_of_two_holders_that_disagree_neither_is_believed() -> None:
    placement = Placement({"w0": ["p0", "p1"], "w1": ["p0", "p1"]})
    partitions = make_partitions(2, "squared")
    exchange = RoundExchange(placement, partitions, make_settings(), "relay")
    other = replace(partitions[0], y=partitions[0].y + 1)
    exchange.workers[0] = EXCHANGE_STRATEGIES["relay"].worker_side(
        exchange.plan, 0, Trainer(exchange.problem, {0: other, 1: partitions[1]}), SideOptions(digest=DIGEST)
    )
    with pytest.raises(DisagreementError) as caught:
        exchange.combine(exchange.up(), False)
    assert caught.value.odd == {"w0": ("p0",), "w1": ("p0",)}
    assert caught.value.undecided


@pytest.mark.parametrize("strategy", ["central", "personal"])
def test_corrupted_rows_do_not_reach_the_servers_aggregates(strategy: Any) -> None:
    exchange = RoundExchange(HOMOGENEOUS, make_partitions(6, "squared"), make_settings(), strategy)
    sent = exchange.up()
    sender = next(k for k, part in enumerate(sent) if part.size)
    (rows,) = (part.copy() for part in sent[sender].rows)
    rows.reshape(-1)[5] ^= 1
    trainer = exchange.server.trainer or Trainer(exchange.problem, {})
    before = trainer.W.copy()
    corrupted = replace(sent[sender], rows=(rows,))
    with pytest.raises(IntegrityError, match=r"the server decoded other updates of \['") as caught:
        exchange.combine([*sent[:sender], corrupted, *sent[sender + 1 :]], False)
    assert caught.value.workers == (exchange.plan.placement.workers[sender],)
    assert np.array_equal(trainer.W, before)


def test_sizes_are_those_of_the_plan() -> None:
    exchange = RoundExchange(HOMOGENEOUS, make_partitions(6, "squared"), make_settings(), "relay")
    (sent, *_) = exchange.up()
    for wrong, what in (
        (replace(sent, size=sent.size - 1), "bytes of rows"),
        (replace(sent, digests=sent.digests[1:]), "digests"),
        (replace(sent, losses=()), "losses"),
    ):
        with pytest.raises(RemoteProtocolError, match=rf"worker 'w0' sent \d+ {what}"):
            exchange.server.check(0, wrong)
    with pytest.raises(CodingError, match="received 3 bytes of rows"):
        exchange.workers[0].receive(0, np.zeros(3, np.uint8))


def test_an_established_holder_wins_a_tie_against_a_newcomer() -> None:
    # The newcomer has the first name, and as many holders on its side.
    placement = Placement({"a0": ["p0"], "w1": ["p0", "p1"]})
    partitions = make_partitions(2, "squared")
    exchange = RoundExchange(placement, partitions, make_settings(), "relay")
    other = replace(partitions[0], y=partitions[0].y + 1)
    exchange.workers[0] = EXCHANGE_STRATEGIES["relay"].worker_side(
        exchange.plan, 0, Trainer(exchange.problem, {0: other})
    )
    with pytest.raises(DisagreementError) as caught:
        exchange.combine(exchange.up(), False, established={"w1": 0, "a0": 3})
    assert caught.value.odd == {"a0": ("p0",)}
    assert not caught.value.undecided


def bent(workers: int, changed: dict[int, dict[str, Any]]) -> tuple[RoundExchange, list[Any]]:
    """Uploads of workers that hold the same two partitions; some of them tell other scalars."""
    placement = Placement({f"w{k}": ["p0", "p1"] for k in range(workers)})
    exchange = RoundExchange(placement, make_partitions(2, "squared"), make_settings(), "relay")
    sent = exchange.up()
    return exchange, [replace(upload, **changed.get(k, {})) for k, upload in enumerate(sent)]


@pytest.mark.parametrize("loss", [1e300, 0.0, math.nan])
def test_a_holder_that_tells_another_loss_is_outvoted(loss: float) -> None:
    exchange, sent = bent(3, {0: {"losses": (1.0, loss)}})
    true = sent[1].losses
    sent[0] = replace(sent[0], losses=(true[0], loss))
    with pytest.raises(DisagreementError, match="'p1': w0 against w1, w2") as caught:
        exchange.server.agree(sent)
    assert caught.value.odd == {"w0": ("p1",)}


@pytest.mark.parametrize("lie", [{"losses": (0.0, 0.0)}, {"digests": (bytes(16), bytes(16))}])
def test_more_than_half_of_the_holders_of_a_partition_decide(lie: dict[str, Any]) -> None:
    exchange, sent = bent(3, {0: lie, 1: lie})
    with pytest.raises(DisagreementError) as caught:
        exchange.server.agree(sent)
    assert caught.value.odd == {"w2": ("p0", "p1")}


@pytest.mark.parametrize("what", ["penalty", "residual"])
@pytest.mark.parametrize("liar", [0, 2, 4])
def test_a_worker_that_tells_another_penalty_or_residual_is_named(what: str, liar: int) -> None:
    exchange, sent = bent(5, {liar: {what: 0.125}})
    with pytest.raises(StateError, match=rf"'w{liar}' told .* of the {what} than most") as caught:
        exchange.server.agree(sent)
    assert (caught.value.workers, caught.value.mendable) == ((f"w{liar}",), True)


def test_of_two_workers_that_tell_different_residuals_both_are_named() -> None:
    exchange, sent = bent(2, {0: {"residual": 0.0}})
    with pytest.raises(StateError, match="'w0', 'w1' told different values of the residual") as caught:
        exchange.server.agree(sent)
    assert (caught.value.workers, caught.value.mendable) == (("w0", "w1"), False)


@pytest.mark.parametrize("last", [False, True])
def test_workers_and_the_server_have_the_same_zeros(last: bool) -> None:
    exchange = RoundExchange(HOMOGENEOUS, make_partitions(6, "squared"), make_settings(), "personal")
    trainer = exchange.server.trainer
    assert trainer is not None
    assert isinstance(exchange.plan, Plan)
    # A coupling made the models -0 in the step before, and the momentum began anew.
    trainer.W[...] = -0.0
    before = trainer._iterate._before
    assert before is not None
    before[...] = 1.0
    assert np.signbit(trainer.Y).all()
    for k, worker in enumerate(exchange.workers):
        assert isinstance(exchange.plan, Plan)
        wanted = exchange.plan.deliveries[k].wanted
        worker.trainer.take_told(wanted, trainer.told(last=last)[list(wanted)])
    told = [worker.final_check() if last else worker.state_check() for worker in exchange.workers]
    assert told == exchange.server.expected_checks(final=last)
