"""How workers confirm in few bytes that they computed the same vectors, losses and other numbers.

Units with the same holders and the same receivers form a *group*, whose digest is that of its units' digests.
One holder of a partition tells its loss, and the first worker tells the penalty, the residual and the check
of the state. Every worker sends a *confirmation* of 16 bytes, a number modulo the prime `p = 2^128 − 159`:

    c_k = Σ_{g held by k} f_{k,g} h_g + MAC_k(its losses, penalty, residual, state)

The digests `h_g` themselves do not travel. The factors `f_{k,g}` are drawn from the name of the run, and for
each group those of its holders add up to 0. The server computes the MACs from the values that were told, and
takes them off. The sum over all workers is then 0 if the holders of each group agree, and if all agree with
what was told. With drawn weights `w_k` it adds up `S = Σ_k w_k c_k = Σ_g s_g h_g`, which everybody can
compute that knows all vectors: workers check by it what they decode, and so does a server that decodes.

Only the server and worker k know the key of `MAC_k`, which the server sends with the plan: with TLS nobody
else can read it, and without TLS a worker that listens on the network can. So a dishonest worker cannot make
up in its own confirmation for what a false number does to those of others. To let wrong rows pass, it would
have to choose them so that `S` stays the same at every receiver, which is a generalised birthday problem over
the groups that a receiver lacks, to be solved within a round.

Digests that one worker alone can compute, or that not all who decode can compute, are told as they are, and
confirmed in the MAC. Those of updates that are no units are confirmed in the sum if three workers hold them:
with the weights, too, their factors add up to 0, so that they are not in `S`. If anything differs, the round
is made again under a *detailed* plan, in which every worker sends all its values, so that the server can name
the worker at fault.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from asyncdmtl.digests import VECTOR_DIGEST_BYTES, Digest
from asyncdmtl.exchange.digest_groups import GroupTable, by_worker, group_table
from asyncdmtl.exchange.sides import PENALTY_WORKERS, UnconfirmedError
from asyncdmtl.exchange.upload import Layout, Upload
from asyncdmtl.plan.plan import Plan

# The modulus of confirmations: the largest prime below 2^128, so that they have 16 bytes.
_PRIME = 2**128 - 159

# What tells drawn factors apart from all other digests of a run.
_FACTORS = b"asyncdmtl: factors of confirmations"

NO_KEYS: Mapping[int, bytes] = MappingProxyType({})


class SummedGroups:
    """The groups of a plan, and what each worker sends: digests are confirmed in a sum, as above.

    Digests are numbered: `n` for the update of partition n, `N + t` for the aggregate of task t where
    aggregates are units, and `N + T + i` for sum i of the plan.

    Parameters
    ----------
    plan : Plan
    digest : Digest
        The digests of the run.
    keys : mapping of int to bytes, optional
        The keys of the MACs by worker: of all at the server, its own at a worker.

    Attributes
    ----------
    digests_of : tuple of tuple of int
        The numbers of the digests that each worker can compute: of its updates, then of its aggregates and
        sums.
    of_units : tuple of int
        The number of each unit's digest.
    groups : tuple of tuple of int
        The numbers of the digests in each group. The last groups have updates that are no units, whose
        aggregate or sum not all of their holders can compute.
    held : tuple of tuple of int
        The groups that each worker holds.
    """

    def __init__(self, plan: Plan, digest: Digest, keys: Mapping[int, bytes] = NO_KEYS) -> None:
        table = group_table(plan)
        self._digest = digest
        self._stored = plan.placement.stored
        self.of_units, self.digests_of = table.of_units, table.digests_of
        self.groups, self.held = table.groups, table.held
        self._table, self._sums = table, _sums_of(plan, digest)
        self._keys = keys

    def layout(self, worker: int, dtype: np.dtype[np.floating[Any]], *, detailed: bool) -> Layout:
        """What `worker` tells, with numbers of this dtype: all its values in detail, else as `shortened`."""
        if detailed:
            digests, losses = len(self.digests_of[worker]), len(self._stored[worker])
            return Layout(dtype, digests, losses, measures=True, state=True)
        digests, losses = self.counts(worker)
        first = worker == 0
        return Layout(dtype, digests, losses, measures=first, state=first, confirmed=True)

    def needed(self, worker: int) -> set[int]:
        """The numbers of the digests that are in the groups of `worker`."""
        return {number for g in self.held[worker] for number in self.groups[g]}

    def of_groups(self, groups: Iterable[int], digests: Mapping[int, bytes]) -> tuple[bytes, ...]:
        """The digests of some groups, from the digests of their members by number."""
        return tuple(self._digest.combined([digests[i] for i in self.groups[g]]) for g in groups)

    def received(self, worker: int, digests: Mapping[int, bytes]) -> bytes:
        """The digest of all groups that `worker` decodes, from the digests of their members by number."""
        return self._digest.combined(self.of_groups(self._table.received[worker], digests))

    def counts(self, worker: int) -> tuple[int, int]:
        """The numbers of digests and of losses that `worker` sends."""
        return len(self._sums.told[worker]), len(self._table.losses_told[worker])

    def _told_by(
        self, worker: int, upload: Upload, digests: tuple[bytes, ...], confirmation: bytes
    ) -> Upload:
        """What `worker` tells of its upload, beside digests and its confirmation: what it tells for all."""
        losses = dict(zip(self._stored[worker], upload.losses, strict=True))
        told = tuple(losses[n] for n in self._table.losses_told[worker])
        first = (0.0, 0.0, b"") if worker else (upload.penalty, upload.residual, upload.state)
        return Upload(upload.rows, upload.size, digests, told, *first, confirmation)

    def _with_numbers(self, uploads: Sequence[Upload], states: Sequence[bytes]) -> list[Upload]:
        """The uploads with the numbers that others told."""
        first, losses = uploads[0], dict[int, float]()
        for k, upload in enumerate(uploads):
            losses |= zip(self._table.losses_told[k], upload.losses, strict=True)
        return [
            replace(
                upload,
                losses=tuple(losses[n] for n in self._stored[k]),
                penalty=first.penalty if k < PENALTY_WORKERS else 0.0,
                residual=first.residual,
                state=states[k],
            )
            for k, upload in enumerate(uploads)
        ]

    def shortened(self, worker: int, upload: Upload) -> Upload:
        """What `worker` sends of its upload, which has the digests of all groups that it holds."""
        digests = dict(zip(self.held[worker], upload.digests, strict=True))
        summed = sum(factor * _number(digests[g]) for g, factor in self._sums.factors[worker].items())
        mac = self._mac(worker, upload, [digests[g] for g in self._sums.held_told[worker]])
        told = tuple(digests[g] for g in self._sums.told[worker])
        return self._told_by(worker, upload, told, _bytes(summed + mac))

    def completed(
        self, workers: Sequence[str], uploads: Sequence[Upload], states: Sequence[bytes]
    ) -> tuple[Upload, ...]:
        """The uploads of all workers with the numbers and digests that others told, and without the MACs.

        Parameters
        ----------
        workers : sequence of str
            Their names.
        uploads : sequence of Upload
        states : sequence of bytes
            The check of the state that each worker must have.

        Raises
        ------
        UnconfirmedError
            A worker computed other values than were sent for all.
        """
        whole = self.completed_numbers(uploads, states)
        sums = [
            _number(upload.confirmation) - self._mac(k, upload, upload.digests)
            for k, upload in enumerate(whole)
        ]
        # The sum of a worker without summed groups is 0, so that it is compared by itself.
        odd = [workers[k] for k, factors in enumerate(self._sums.factors) if not factors and sums[k] % _PRIME]
        if odd or sum(sums) % _PRIME:
            names = ", ".join(map(repr, odd or workers))
            raise UnconfirmedError(f"{names} did not compute the same values, or not those that were told")
        return tuple(
            replace(upload, confirmation=_bytes(part)) for upload, part in zip(whole, sums, strict=True)
        )

    def completed_numbers(self, uploads: Sequence[Upload], states: Sequence[bytes]) -> list[Upload]:
        """The uploads of all workers with the numbers and digests that others told."""
        digests = dict[int, bytes]()
        for k, upload in enumerate(uploads):
            digests |= zip(self._sums.told[k], upload.digests, strict=True)
        return [
            replace(upload, digests=tuple(digests[g] for g in self._sums.held_told[k]))
            for k, upload in enumerate(self._with_numbers(uploads, states))
        ]

    def agreed(self, uploads: Sequence[Upload]) -> list[bytes]:
        """The sum `S`, and the digests of the groups that were told, in their order."""
        told = {
            g: digest for k, upload in enumerate(uploads)
            for g, digest in zip(self._sums.held_told[k], upload.digests, strict=True)
        }  # fmt: skip
        parts = (
            weight * _number(upload.confirmation)
            for weight, upload in zip(self._sums.weights, uploads, strict=True)
        )
        return [_bytes(sum(parts)), *(told[g] for g in sorted(told))]

    def expected(self, worker: int, agreed: Sequence[bytes]) -> bytes:
        """The digest by which `worker` checks what it decodes: of `S`, and of the told groups among it."""
        return self._checked(worker, agreed[0], dict(zip(self._sums.all_told, agreed[1:], strict=True)))

    def found(self, worker: int, decoded: Mapping[int, bytes], own: Sequence[bytes]) -> bytes:
        """The same as `worker` computes it.

        Parameters
        ----------
        worker : int
        decoded : mapping of int to bytes
            The digests of the decoded vectors, by number.
        own : sequence of bytes
            The digests of the groups that the worker holds.
        """
        if not self._table.received[worker]:
            return self._checked(worker, b"", {})
        received = self._table.received[worker]
        digests = dict(zip(self.held[worker], own, strict=True))
        digests |= zip(received, self.of_groups(received, decoded), strict=True)
        return self._checked(worker, self._sum(digests), digests)

    def match(self, digests: Mapping[int, bytes], agreed: Sequence[bytes]) -> bool:
        """Whether a server decoded the vectors that were agreed on, by the digests of all units."""
        units = range(len(self._table.receivers))
        known = dict(zip(units, self.of_groups(units, digests), strict=True))
        claims = dict(zip(self._sums.all_told, agreed[1:], strict=True))
        same = all(known[g] == claim for g, claim in claims.items() if g in known)
        return same and self._sum(known) == agreed[0]

    def _checked(self, worker: int, total: bytes, digests: Mapping[int, bytes]) -> bytes:
        """The digest of `S` and of the told groups that `worker` decodes; of nothing if it decodes none."""
        received = self._table.received[worker]
        told = (
            [digests[g] for g in received if g not in self._sums.sum_factors] if self._sums.all_told else []
        )
        return self._digest.combined([total, *told] if received else [])

    def _sum(self, digests: Mapping[int, bytes]) -> bytes:
        """`S`, from the digests of groups."""
        return _bytes(sum(factor * _number(digests[g]) for g, factor in self._sums.sum_factors.items()))

    def _mac(self, worker: int, upload: Upload, digests: Iterable[bytes]) -> int:
        """The MAC of what `worker` computed and others told: numbers, the state, and digests of groups."""
        confirmed = b"".join((*digests, self._numbers(upload), upload.state))
        return _number(self._digest.with_key(self._keys.get(worker, b""), confirmed))

    def _numbers(self, upload: Upload) -> bytes:
        """The numbers of an upload as they are confirmed."""
        numbers = (*upload.losses, upload.penalty, upload.residual)
        return struct.pack(f"<{len(numbers)}d", *numbers)


@dataclass(frozen=True)
class _Sums:
    """The factors of confirmations under a plan, and which groups have none.

    Attributes
    ----------
    weights : tuple of int
        By worker.
    factors : tuple of dict
        For each worker, the factors by group.
    sum_factors : dict
        Those of groups in `S`.
    told, held_told : tuple of tuple of int
        For each worker, the groups whose digests it tells, and those among them that it holds.
    all_told : tuple of int
        All groups whose digests are told.
    """

    weights: tuple[int, ...]
    factors: tuple[dict[int, int], ...]
    sum_factors: dict[int, int]
    told: tuple[tuple[int, ...], ...]
    held_told: tuple[tuple[int, ...], ...]
    all_told: tuple[int, ...]


# The factors that were made, by plan and run: all workers of a process share them.
_MADE: WeakKeyDictionary[Plan, dict[bytes, _Sums]] = WeakKeyDictionary()


def _sums_of(plan: Plan, digest: Digest) -> _Sums:
    """The factors under a plan in the run of `digest`."""
    made, run = _MADE.setdefault(plan, {}), digest.combined([_FACTORS])
    if run not in made:
        made[run] = _make_sums(group_table(plan), digest)
    return made[run]


def _make_sums(table: GroupTable, digest: Digest) -> _Sums:
    workers, units = range(len(table.held)), range(len(table.receivers))
    holders = by_worker(len(table.groups), table.held)
    decoding = {k for k in workers if table.received[k]}
    # Holders of a group and its receivers are different workers.
    knowing = [
        len(decoding.intersection(holders[g])) + len(receiving) for g, receiving in enumerate(table.receivers)
    ]
    known = {g for g, count in enumerate(knowing) if len(holders[g]) > 1 and count == len(decoding)}
    # The factors of a group that is not decoded have to satisfy two equations, not to change `S`.
    beside = {g for g in range(len(holders)) if g not in units and len(holders[g]) > 2}
    told = set(range(len(holders))).difference(known, beside)
    draw = _Drawing(digest)
    weights = tuple(draw(b"weight", 0, k) for k in workers)
    factors: tuple[dict[int, int], ...] = tuple({} for _ in workers)
    for g in sorted(known | beside):
        for k, factor in draw.balanced(g, holders[g], None if g in known else weights).items():
            factors[k][g] = factor
    return _Sums(
        weights,
        factors,
        {g: sum(weights[k] * factors[k][g] for k in holders[g]) % _PRIME for g in sorted(known)},
        tuple(tuple(g for g in mine if g in told) for mine in table.told),
        tuple(tuple(g for g in held if g in told) for held in table.held),
        tuple(sorted(told)),
    )


class _Drawing:
    """Draws numbers below the prime from the name of the run."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest

    def __call__(self, kind: bytes, group: int, worker: int) -> int:
        place = struct.pack("<QQ", group, worker)
        return 1 + _number(self._digest.combined([_FACTORS, kind, place])) % (_PRIME - 1)

    def balanced(self, group: int, holders: Sequence[int], weights: Sequence[int] | None) -> dict[int, int]:
        """Factors of a group, which add up to 0, and with `weights`, too, if they are given."""
        one, other, *rest = holders
        drawn = {k: self(b"factor", group, k) for k in (rest if weights else (other, *rest))}
        total = sum(drawn.values())
        if weights:
            weighted = sum(weights[k] * factor for k, factor in drawn.items())
            difference = weights[other] - weights[one]
            drawn[other] = (weights[one] * total - weighted) * pow(difference, -1, _PRIME)
            total += drawn[other]
        return {k: factor % _PRIME for k, factor in (*drawn.items(), (one, -total))}


def _number(digest: bytes) -> int:
    """A digest as a number."""
    return int.from_bytes(digest, "little")


def _bytes(number: int) -> bytes:
    """A number modulo the prime, as bytes."""
    return (number % _PRIME).to_bytes(VECTOR_DIGEST_BYTES, "little")
