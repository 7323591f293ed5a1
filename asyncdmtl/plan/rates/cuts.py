"""Cuts of the worker set, found by flows that assign packets to their holders.

Every cut-set constraint of docs/theory.md, section 3, is a question about `|∪_{k∈S} M_k|`, and flows answer
it: each packet of a partition goes to one of its holders, and Hall's theorem says that every worker `k` can
have `x_k` packets at once iff `x(S) <= |∪_{k∈S} M_k|` (in packets) for every set `S` of workers. All numbers
are whole packets, so every answer is exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asyncdmtl.plan.placement import Placement

Blocks = list[frozenset[int]]


@dataclass(frozen=True)
class MergedPartitions:
    """Partitions, merged if they have the same holders, with counts.

    Partitions that every worker stores are left out: no worker needs them, so no bound and no rate changes.

    Attributes
    ----------
    workers : int
        `K`.
    holders : tuple of tuple of int
        The distinct holder sets, each ascending.
    counts : tuple of int
        The number of partitions with each of these holder sets.
    stored : tuple of tuple of int
        For every worker, the merged partitions that it stores. Partitions that no later worker (in `order`)
        stores come first, so that packets of the others are left for later workers.
    """

    workers: int
    holders: tuple[tuple[int, ...], ...]
    counts: tuple[int, ...]
    stored: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, placement: Placement, order: Sequence[int] | None = None) -> MergedPartitions:
        """Merge the partitions of `placement`, for workers that are served in `order` (default: by index)."""
        K = len(placement.workers)
        position = {k: i for i, k in enumerate(range(K) if order is None else order)}
        merged = Counter(holders for holders in placement.holders if len(holders) < K)
        last_first = sorted(merged, key=lambda holders: max(position[k] for k in holders))
        stored: list[list[int]] = [[] for _ in range(K)]
        for n, holders in enumerate(last_first):
            for k in holders:
                stored[k].append(n)
        return cls(
            K, tuple(last_first), tuple(merged[holders] for holders in last_first), tuple(map(tuple, stored))
        )

    @property
    def total(self) -> int:
        """The number of partitions that at least one worker lacks."""
        return sum(self.counts)

    def covered(self, workers: Iterable[int]) -> int:
        """`|∪_{k∈S} M_k|` for the set `S` of `workers`."""
        return sum(self.counts[n] for n in {n for k in workers for n in self.stored[k]})


class PacketAssignment:
    """An assignment of packets to holders, `packets` for every partition; at first all are free.

    `draw` never lowers the number of packets of another worker, but may swap them for other packets.
    """

    def __init__(self, merged: MergedPartitions, packets: int) -> None:
        self._stored = merged.stored
        self._free = [packets * count for count in merged.counts]
        self._shares: list[dict[int, int]] = [{} for _ in merged.counts]
        # The worker of the last search that found no free packets, and the workers that it reached.
        self._closed: tuple[int, set[int]] | None = None

    @property
    def free(self) -> int:
        """The number of packets that no worker has."""
        return sum(self._free)

    def draw(self, worker: int, amount: int) -> int:
        """Assign up to `amount` more packets to `worker`; return the number of packets that it got.

        If it is below `amount`, the worker cannot have more while the other workers keep their numbers;
        `dependents` then gives the proof.
        """
        missing = amount
        self._closed = None
        while missing and (gained := self._augment(worker, missing)):
            missing -= gained
        return amount - missing

    def release(self, worker: int, amount: int) -> None:
        """Free `amount` of the packets of `worker`, beginning with those that other workers can use."""
        self._closed = None
        for n in reversed(self._stored[worker]):
            if amount == 0:
                return
            if worker in self._shares[n]:
                freed = min(amount, self._shares[n][worker])
                self._take(n, worker, freed)
                self._free[n] += freed
                amount -= freed

    def dependents(self, workers: Iterable[int]) -> set[int]:
        """`workers`, and all workers whose packets could reach them by swaps.

        If none of `workers` can draw more, this is the smallest set `S` that includes them and has all
        packets of `∪_{k∈S} M_k`: it proves that no more packets are available.
        """
        found = set(workers)
        if self._closed is not None and found == {self._closed[0]}:
            return set(self._closed[1])
        queue = list(found)
        seen = bytearray(len(self._free))
        for k in queue:
            for n in self._stored[k]:
                if not seen[n]:
                    seen[n] = 1
                    fresh = self._shares[n].keys() - found
                    found |= fresh
                    queue.extend(fresh)
        return found

    def unassigned(self) -> set[int]:
        """Merged partitions that keep free packets, and those whose packets their holders have instead.

        When no worker may draw more, these are the partitions of a violated constraint of Hall's: their
        holders may have fewer packets than they are.
        """
        queue = [n for n, left in enumerate(self._free) if left]
        found = set(queue)
        by_worker: dict[int, list[int]] = {}
        for n, shares in enumerate(self._shares):
            for k in shares:
                by_worker.setdefault(k, []).append(n)
        holders: list[list[int]] = [[] for _ in self._free]
        for k, stored in enumerate(self._stored):
            for n in stored:
                holders[n].append(k)
        for n in queue:
            for k in holders[n]:
                fresh = [other for other in by_worker.pop(k, []) if other not in found]
                found.update(fresh)
                queue.extend(fresh)
        return found

    def _augment(self, root: int, missing: int) -> int:
        """Search breadth-first from `root` for free packets, and swap packets along each path found."""
        stored, shares, free = self._stored, self._shares, self._free
        parents: dict[int, tuple[int, int]] = {root: (-1, -1)}
        cut_off: set[int] = set()
        queue = [root]
        seen = bytearray(len(free))
        gained = 0
        for k in queue:
            if parents[k][0] in cut_off:
                # This worker was not searched completely: another path may reach it again.
                del parents[k]
                continue
            for n in stored[k]:
                if seen[n]:
                    continue
                if free[n]:
                    gained += self._swap(parents, k, n, missing - gained, cut_off)
                    if gained == missing:
                        return gained
                    if free[n]:
                        cut_off.add(k)
                        break
                seen[n] = 1
                for holder in shares[n]:
                    if holder not in parents:
                        parents[holder] = (k, n)
                        queue.append(holder)
        if not gained:
            self._closed = root, set(parents)
        return gained

    def _swap(
        self, parents: dict[int, tuple[int, int]], last: int, n: int, limit: int, cut_off: set[int]
    ) -> int:
        """Assign free packets of `n` to worker `last`, which gives others to its parent, and so on to the
        root.

        A worker that has nothing left to give to its parent is added to `cut_off`.
        """
        amount = min(limit, self._free[n])
        path = []
        k = last
        while (step := parents[k])[0] >= 0:
            amount = min(amount, self._shares[step[1]].get(k, 0))
            path.append((k, *step))
            k = step[0]
        if amount:
            self._free[n] -= amount
            self._give(n, last, amount)
            for child, parent, through in path:
                self._take(through, child, amount)
                self._give(through, parent, amount)
                if child not in self._shares[through]:
                    cut_off.add(child)
        return amount

    def _give(self, n: int, worker: int, amount: int) -> None:
        self._shares[n][worker] = self._shares[n].get(worker, 0) + amount

    def _take(self, n: int, worker: int, amount: int) -> None:
        left = self._shares[n][worker] - amount
        if left:
            self._shares[n][worker] = left
        else:
            del self._shares[n][worker]


@dataclass(frozen=True)
class Served:
    """Rates in packets, and the blocks that prove that no rate can be larger (see `serve`)."""

    rates: list[int]
    chain: list[Blocks]


def serve(
    merged: MergedPartitions,
    packets: int,
    slack: int,
    order: Sequence[int],
    limits: Sequence[int] | None = None,
) -> Served:
    """Edmonds' greedy algorithm: each worker, in `order`, gets the largest rate that the constraints allow.

    All numbers are packets. The constraints are `R(C) <= packets·|∪_{k∈C} M_k| − slack` for every non-empty
    `C`, and `R_k <= limits[k]`. `chain[i]` has the finest disjoint blocks that prove that the first `i + 1`
    workers can have no more: their constraints hold with equality, and so do the limits of workers outside
    all blocks. A rate is negative if the constraints require it.
    """
    assignment = PacketAssignment(merged, packets)
    everything = packets * merged.total
    rates = [0] * merged.workers
    blocks: Blocks = []
    chain = []
    for k in order:
        wanted = everything if limits is None else limits[k] + slack
        drawn = assignment.draw(k, wanted)
        rates[k] = drawn - slack
        if limits is None or drawn < wanted:
            tight = assignment.dependents([k])
            touched = [block for block in blocks if not block.isdisjoint(tight)]
            blocks = [block for block in blocks if block.isdisjoint(tight)]
            blocks.append(frozenset(tight.union(*touched)))
        chain.append(blocks)
        assignment.release(k, min(slack, drawn))
    return Served(rates, chain)
