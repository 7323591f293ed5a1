"""How workers confirm in few bytes that they computed the same digests, losses and other scalars.

Units with the same holders and the same receivers form a *group*, whose digest is that of its units' digests.
One holder of a group sends the group's digest, one holder of a partition sends its loss, and the first worker
sends the penalty, the residual and the check of the state. Every worker sends a *confirmation* of 16 bytes:
the digest of all of these as it computed them itself. The server is told each value once, and computes the
confirmation that every worker must send. If one differs, the round is made again under a *detailed* plan, in
which every worker sends all its values, so that the server can name the worker at fault.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from asyncdmtl.digests import Digest
from asyncdmtl.exchange.sides import PENALTY_WORKERS, UnconfirmedError, Upload
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.units import partitions_of_tasks


class DigestGroups:
    """The groups of a plan, and what each worker sends.

    Digests are numbered: `n` for the update of partition n, `N + t` for the aggregate of task t where
    aggregates are units, and `N + T + i` for sum i of the plan.

    Parameters
    ----------
    plan : Plan
    digest : Digest
        The digests of the run.

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

    def __init__(self, plan: Plan, digest: Digest) -> None:
        units, placement, N = plan.units, plan.placement, len(plan.placement.partitions)
        partitions_of = partitions_of_tasks(plan.tasks)
        self._digest = digest
        self._stored = placement.stored
        sums = range(N + len(partitions_of), N + len(partitions_of) + len(units.sums))
        self.of_units = (*units.updates, *(N + t for t in units.aggregated), *sums)
        self.digests_of = tuple(
            (*stored, *(self.of_units[unit] for unit in held if unit >= len(units.updates)))
            for stored, held in zip(placement.stored, units.held, strict=True)
        )
        receivers: list[list[int]] = [[] for _ in self.of_units]
        if plan.broadcasts == "updates":
            for k, delivery in enumerate(plan.deliveries):
                for unit in delivery.wanted:
                    receivers[unit].append(k)
        found: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
        for number, H, receiving in zip(self.of_units, units.holders, receivers, strict=True):
            found.setdefault((H, tuple(receiving)), []).append(number)
        beside: dict[tuple[int, ...], list[int]] = {}
        for unit, covering in enumerate(units.holders):
            for n in units.parts(unit, partitions_of):
                if (H := placement.holders[n]) != covering:
                    beside.setdefault(H, []).append(n)
        self.groups = (*map(tuple, found.values()), *map(tuple, beside.values()))
        self._group_of_number = {i: g for g, numbers in enumerate(found.values()) for i in numbers}
        holders, K = (*(H for H, _ in found), *beside), len(placement.workers)
        self.held = _by_worker(K, holders)
        self._received = _by_worker(K, [receiving for _, receiving in found])
        # Each value is sent by one of its holders, in turn, so that all workers send about as many.
        self._told = _by_worker(K, [(H[g % len(H)],) for g, H in enumerate(holders)])
        self._losses_told = _by_worker(K, [(H[n % len(H)],) for n, H in enumerate(placement.holders)])

    def received_digests(self, worker: int, of_group: Sequence[bytes]) -> tuple[bytes, ...]:
        """The digests of the groups that `worker` decodes, from those of all groups."""
        return tuple(of_group[g] for g in self._received[worker])

    def group_of(self, unit: int) -> int:
        """The group of a unit."""
        return self._group_of_number[self.of_units[unit]]

    def received_places(self, worker: int) -> tuple[int, ...]:
        """The groups that `worker` decodes, in the order of their digests."""
        return self._received[worker]

    def needed(self, worker: int) -> set[int]:
        """The numbers of the digests that are in the groups of `worker`."""
        return {number for g in self.held[worker] for number in self.groups[g]}

    def of_groups(self, groups: Iterable[int], digests: Mapping[int, bytes]) -> tuple[bytes, ...]:
        """The digests of some groups, from the digests of their members by number."""
        return tuple(self._digest.combined([digests[i] for i in self.groups[g]]) for g in groups)

    def received(self, worker: int, digests: Mapping[int, bytes]) -> bytes:
        """The digest of all groups that `worker` decodes, from the digests of their members by number."""
        return self._digest.combined(self.of_groups(self._received[worker], digests))

    def received_groups(self, worker: int, of_group: Sequence[bytes]) -> bytes:
        """The same, from the digests of all groups."""
        return self._digest.combined([of_group[g] for g in self._received[worker]])

    def counts(self, worker: int) -> tuple[int, int]:
        """The numbers of digests and of losses that `worker` sends."""
        return len(self._told[worker]), len(self._losses_told[worker])

    def shortened(self, worker: int, upload: Upload) -> Upload:
        """What `worker` sends of its upload, which has the digests of all groups that it holds."""
        digests = dict(zip(self.held[worker], upload.digests, strict=True))
        losses = dict(zip(self._stored[worker], upload.losses, strict=True))
        short = replace(
            upload,
            digests=tuple(digests[g] for g in self._told[worker]),
            losses=tuple(losses[n] for n in self._losses_told[worker]),
            confirmation=self._confirmation(upload),
        )
        return replace(short, penalty=0.0, residual=0.0, state=b"") if worker else short

    def completed(
        self, workers: Sequence[str], uploads: Sequence[Upload], states: Sequence[bytes]
    ) -> tuple[Upload, ...]:
        """The uploads of all workers as they were before they were shortened.

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
        first, digests, losses = uploads[0], dict[int, bytes](), dict[int, float]()
        for k, upload in enumerate(uploads):
            digests |= zip(self._told[k], upload.digests, strict=True)
            losses |= zip(self._losses_told[k], upload.losses, strict=True)
        whole = tuple(
            replace(
                upload,
                digests=tuple(digests[g] for g in self.held[k]),
                losses=tuple(losses[n] for n in self._stored[k]),
                penalty=first.penalty if k < PENALTY_WORKERS else 0.0,
                residual=first.residual,
                state=states[k],
            )
            for k, upload in enumerate(uploads)
        )
        self._check_confirmations(workers, whole)
        return whole

    def _check_confirmations(self, workers: Sequence[str], whole: Sequence[Upload]) -> None:
        """Raise UnconfirmedError if a worker confirmed other values than its completed upload has."""
        odd = [
            name for name, upload in zip(workers, whole, strict=True)
            if self._confirmation(upload) != upload.confirmation
        ]  # fmt: skip
        if odd:
            names = ", ".join(map(repr, odd))
            raise UnconfirmedError(f"{names} did not compute the values that were told for all workers")

    def _confirmation(self, upload: Upload) -> bytes:
        """The confirmation of an upload with the digests of all groups that its worker holds."""
        scalars = struct.pack(f"<{len(upload.losses) + 2}d", *upload.losses, upload.penalty, upload.residual)
        return self._digest.combined([*upload.digests, scalars, upload.state])


def _by_worker(count: int, workers_of: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """For each of `count` workers, the places at which it is listed."""
    found: list[list[int]] = [[] for _ in range(count)]
    for place, workers in enumerate(workers_of):
        for k in workers:
            found[k].append(place)
    return tuple(map(tuple, found))
