from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from support.exchange import DIGEST, RoundExchange
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import IntegrityError, RemoteProtocolError
from asyncdmtl.exchange.confirmation import SummedGroups
from asyncdmtl.exchange.sides import UnconfirmedError
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.units import Sum

PARTITIONS = make_partitions(6, "squared")
STRATEGIES = ("relay", "uncoded", "central", "personal")
PART_OF_A_TASK = Placement({"a": ["p0", "p1"], "b": ["p0", "p1"], "c": ["p1"], "d": ["p2"]})


def exchange(strategy: str = "relay") -> RoundExchange:
    return RoundExchange(HOMOGENEOUS, PARTITIONS, make_settings(), strategy, detailed=False)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_value_travels_once_and_models_are_those_of_a_detailed_plan(strategy: str) -> None:
    short = exchange(strategy)
    detailed = RoundExchange(HOMOGENEOUS, PARTITIONS, make_settings(), strategy)
    for _ in range(2):
        sent = short.up()
        assert sum(len(upload.losses) for upload in sent) == len(PARTITIONS)
        assert [upload.residual for upload in sent[1:]] == [0.0] * (len(sent) - 1)
        assert all(len(upload.confirmation) == 16 for upload in sent)
        full = detailed.up()
        assert sum(len(u.digests) for u in sent) < sum(len(u.digests) for u in full)
        assert short.server.convergence(short.server.completed(sent)) == detailed.server.convergence(full)
        short.down(short.combine(sent, False))
        detailed.down(detailed.combine(full, False))
    for one, other in zip(short.workers, detailed.workers, strict=True):
        assert one.models().coef_.tobytes() == other.models().coef_.tobytes()


def test_groups_have_the_units_with_equal_holders_and_receivers() -> None:
    placement = Placement({"a": ["p0", "p1", "p2"], "b": ["p0", "p1"], "c": ["p2"]})
    groups = SummedGroups(make_plan(placement, "relay"), DIGEST)
    assert groups.groups == ((0, 1), (2,))
    assert groups.held == ((0, 1), (0,), (1,))
    # Neither travels: the digest of each is confirmed in a sum.
    assert [groups.counts(k) for k in range(3)] == [(0, 2), (0, 1), (0, 0)]


def test_updates_of_a_whole_task_are_compared_if_some_holders_store_only_a_part() -> None:
    plan = make_plan(PART_OF_A_TASK, "relay", tasks=[0, 0, 1])
    assert (plan.units.updates, plan.units.aggregated) == ((2,), (0,))
    groups = SummedGroups(plan, DIGEST)
    # The aggregate has the number 3.
    assert groups.groups == ((2,), (3,), (1,))
    assert groups.needed(2) == {1}


def test_updates_that_are_summed_are_compared_if_some_holders_lack_others_of_the_sum() -> None:
    plan = make_plan(Placement.cyclic(3, 4, 2), "central", tasks=[0, 0, 0, 0], units="sums")
    assert plan.units.sums == (Sum(0, 0, 2), Sum(0, 2, 4))
    groups = SummedGroups(plan, DIGEST)
    # The task has number 4, so that the sums have 5 and 6; each has one holder.
    assert groups.of_units == (5, 6)
    assert groups.digests_of[1] == (*plan.placement.stored[1], 5)
    assert {n for group in groups.groups for n in group} >= {0, 1, 2, 5, 6}


PLANS = {
    "shared by all": (HOMOGENEOUS, None),
    "one holder": (Placement({"a": ["p0", "p1", "p2"], "b": ["p0", "p1"], "c": ["p2", "p3"]}), None),
    "tasks": (Placement.cyclic(5, 10, 3), [n % 5 for n in range(10)]),
    "parts of a task": (PART_OF_A_TASK, [0, 0, 1]),
    # The digest of p1 is told by one of its two holders, and confirmed by the other.
    "told by one of two": (Placement({"a": ["p0", "p1"], "b": ["p1"], "c": ["p2"]}), [0, 0, 1]),
}


def make_groups(name: str, keys: dict[int, bytes] | None = None) -> SummedGroups:
    placement, tasks = PLANS[name]
    return SummedGroups(make_plan(placement, "relay", tasks=tasks), DIGEST, keys or {})


def told_by_all(
    groups: SummedGroups, change: tuple[int, int] | None = None, renamed: Mapping[int, int] | None = None
) -> list[Upload]:
    """What all workers send; one of them may have computed another digest of one group that it holds.

    Groups that are `renamed` have the digests of others.
    """
    sent = []
    for k, held in enumerate(groups.held):
        digests = [DIGEST.combined([b"group", bytes([(renamed or {}).get(g, g)])]) for g in held]
        if change is not None and change[0] == k:
            digests[held.index(change[1])] = bytes(16)
        losses = tuple(0.5 + n for n in groups._stored[k])
        whole = Upload((), 0, tuple(digests), losses, 0.25 if k < 3 else 0.0, 2.0, b"s" * 16)
        sent.append(groups.shortened(k, whole))
    return sent


@pytest.mark.parametrize("name", PLANS)
def test_a_digest_that_one_holder_computed_differently_is_noticed(name: str) -> None:
    keys = {k: bytes([k]) * 16 for k in range(6)}
    groups = make_groups(name, keys)
    names, states = [f"w{k}" for k in range(len(groups.held))], [b"s" * 16] * len(groups.held)
    agreed = groups.agreed(groups.completed(names, told_by_all(groups), states))
    assert len(agreed) == 1 + len({g for held in groups._sums.held_told for g in held})
    holders = [(k, g) for k, held in enumerate(groups.held) for g in held]
    for place in holders:
        if sum(g == place[1] for _, g in holders) > 1:
            with pytest.raises(UnconfirmedError, match="did not compute the same values"):
                groups.completed(names, told_by_all(groups, place), states)


def test_a_worker_whose_digests_are_in_no_sum_is_named_alone() -> None:
    plan = make_plan(Placement({"a": ["p0"], "b": ["p0"], "c": ["p1"]}), "relay")
    groups = SummedGroups(plan, DIGEST, {k: bytes([k]) * 16 for k in range(3)})
    sent, states = told_by_all(groups), [b"s" * 16] * 3
    groups.completed("abc", sent, states)
    for k, named in ((1, "'a', 'b', 'c'"), (2, "'c'")):
        changed = [*sent[:k], replace(sent[k], confirmation=bytes(16)), *sent[k + 1 :]]
        with pytest.raises(UnconfirmedError, match=f"^{named} did not compute the same values"):
            groups.completed("abc", changed, states)


@pytest.mark.parametrize("name", PLANS)
def test_digests_that_one_holder_exchanged_are_noticed(name: str) -> None:
    """Each group has factors of its own."""
    groups = make_groups(name)
    names, states = [f"w{k}" for k in range(len(groups.held))], [b"s" * 16] * len(groups.held)
    shared = {g for g in range(len(groups.groups)) if sum(g in held for held in groups.held) > 1}
    for k, held in enumerate(groups.held):
        for one, other in combinations(sorted(shared.intersection(held)), 2):
            sent = told_by_all(groups)
            sent[k] = told_by_all(groups, renamed={one: other, other: one})[k]
            with pytest.raises(UnconfirmedError, match="did not compute the same values"):
                groups.completed(names, sent, states)


@pytest.mark.parametrize("name", PLANS)
def test_a_worker_expects_the_digest_that_the_server_sends(name: str) -> None:
    groups = make_groups(name)
    names = [f"w{k}" for k in range(len(groups.held))]
    units = {i: DIGEST.combined([b"unit", bytes([i])]) for g in groups.groups for i in g}
    of_group = groups.of_groups(range(len(groups.groups)), units)
    sent = [
        groups.shortened(k, Upload((), 0, tuple(of_group[g] for g in held), (0.5,) * len(stored), 0.0, 0.0))
        for k, (held, stored) in enumerate(zip(groups.held, groups._stored, strict=True))
    ]
    agreed = groups.agreed(groups.completed(names, sent, [b""] * len(names)))
    assert groups.match({i: units[i] for i in groups.of_units}, agreed)
    changed = next(i for i in groups.of_units)
    assert not groups.match({i: units[i] for i in groups.of_units} | {changed: bytes(16)}, agreed)
    for k, held in enumerate(groups.held):
        own = [of_group[g] for g in held]
        decoded = {i: units[i] for g in groups._table.received[k] for i in groups.groups[g]}
        assert groups.found(k, decoded, own) == groups.expected(k, agreed)
        for i in decoded:
            assert groups.found(k, decoded | {i: bytes(16)}, own) != groups.expected(k, agreed)


def test_a_worker_cannot_make_up_for_a_false_loss_in_its_own_confirmation() -> None:
    """It knows all that the others computed, but not the keys with which they confirm it."""
    secret = {k: bytes([k + 1]) * 16 for k in range(6)}
    groups = make_groups("shared by all", secret)
    names, states = [f"w{k}" for k in range(6)], [b"s" * 16] * 6
    honest = told_by_all(groups)
    sent = list(honest)
    sent[0] = replace(sent[0], losses=(99.0, *sent[0].losses[1:]))
    for known in (secret, {0: secret[0]}):
        guess = make_groups("shared by all", known)
        right = [
            guess._mac(k, upload, upload.digests)
            for k, upload in enumerate(guess.completed_numbers(honest, states))
        ]
        wrong = [
            guess._mac(k, upload, upload.digests)
            for k, upload in enumerate(guess.completed_numbers(sent, states))
        ]
        total = int.from_bytes(sent[0].confirmation, "little") + sum(wrong) - sum(right)
        forged = (total % (2**128 - 159)).to_bytes(16, "little")
        forgery = [replace(sent[0], confirmation=forged), *sent[1:]]
        if known is secret:
            groups.completed(names, forgery, states)
        else:
            with pytest.raises(UnconfirmedError):
                groups.completed(names, forgery, states)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "lie",
    [
        {"confirmation": bytes(16)},
        {"losses": (0.0,)},
        {"losses": (math.nan,)},
        {"penalty": 1.0},
        {"residual": 0.0},
        {"state": bytes(16)},
    ],
    ids=lambda lie: next(iter(lie)),
)
def test_a_value_that_others_computed_differently_is_noticed(strategy: str, lie: dict[str, Any]) -> None:
    told = exchange(strategy)
    sent = told.up()
    for what, value in lie.items():
        if isinstance(value, tuple):
            value = value + getattr(sent[0], what)[1:]
        sent[0] = replace(sent[0], **{what: value})
    if strategy == "personal" and "state" in lie:
        told.server.completed(sent)  # the server has the states, and needs to be told none
        return
    if strategy == "personal" and "residual" in lie:
        sent[0] = replace(sent[0], residual=1.0)  # the server measures it, and workers tell 0
    with pytest.raises(UnconfirmedError, match="did not compute"):
        told.server.completed(sent)


@pytest.mark.parametrize(("liars", "noticed"), [((0, 1, 2), False), ((0, 1), True)])
def test_the_first_three_workers_can_forge_the_penalty(liars: tuple[int, ...], noticed: bool) -> None:
    told = exchange()
    honest = told.server.convergence(told.server.completed(told.up())).objective
    for k in liars:
        worker: Any = told.workers[k]
        penalty_and_residual = worker._penalty_and_residual

        def forged(true: Any = penalty_and_residual) -> tuple[float, float]:
            return 7.0, true()[1]

        worker._penalty_and_residual = forged
    sent = told.up()
    if noticed:
        with pytest.raises(UnconfirmedError):
            told.server.completed(sent)
        return
    assert told.server.convergence(told.server.completed(sent)).objective > honest + 1.0


def test_an_upload_without_a_confirmation_is_noticed() -> None:
    told = exchange()
    sent = told.up()
    with pytest.raises(UnconfirmedError, match="did not compute the same values"):
        told.server.completed([*sent[:3], replace(sent[3], confirmation=b""), *sent[4:]])
    with pytest.raises(RemoteProtocolError, match="digests"):
        told.server.check(3, replace(sent[3], digests=(*sent[3].digests, bytes(16))))


@pytest.mark.parametrize("strategy", ["central", "personal"])
def test_rows_that_do_not_match_are_noticed_by_the_server(strategy: str) -> None:
    told = exchange(strategy)
    sent = told.up()
    sender = next(k for k, upload in enumerate(sent) if upload.size)
    rows = sent[sender].rows[0].copy()
    rows.reshape(-1)[5] ^= 1
    sent[sender] = replace(sent[sender], rows=(rows,))
    with pytest.raises(UnconfirmedError, match="the server decoded other updates"):
        told.combine(sent, False)


@pytest.mark.parametrize("strategy", ["relay", "uncoded"])
def test_rows_that_do_not_match_are_noticed_by_their_receivers(strategy: str) -> None:
    told = exchange(strategy)
    replies = told.combine(told.up(), False)
    receiver = next(k for k, reply in enumerate(replies) if len(reply[0]))
    replies[receiver][0][3] ^= 1
    for k, worker in enumerate(told.workers):
        before = worker.trainer.W.copy()
        worker.receive(0, replies[k][0])
        if k == receiver:
            with pytest.raises(IntegrityError, match="decoded other vectors"):
                worker.apply(told.server.digest(k))
            assert np.array_equal(worker.trainer.W, before)
        else:
            worker.apply(told.server.digest(k))
