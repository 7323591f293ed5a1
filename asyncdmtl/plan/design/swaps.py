"""Small changes of a placement that may lower its loads; only `move` changes the sizes of stores.

Disjoint groups of workers, the blocks, limit the loads of a placement: the uplink load cannot fall unless one
of them stores more different partitions. So a change is worth trying if `Σ_S |∪_{k∈S} M_k|` over the blocks
`S` grows. One such change is drawn at random.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

# `M_k` for every worker, while a design still changes it.
Stores = list[set[int]]

# A worker, a partition that it drops, and the partition that it stores instead.
Change = tuple[int, int, int]


def swap(stored: Stores, blocks: Sequence[Sequence[int]], rng: random.Random) -> list[Change]:
    """A swap of partitions between two workers, which keeps numbers of holders. Empty if no swap helps."""
    hits = _Hits(stored, blocks)
    for k, n in _spare(stored, hits, rng):
        takers = [j for j, store in enumerate(stored) if n not in store and hits.gain(n, k, j) > 0]
        rng.shuffle(takers)
        for j in takers:
            if back := [x for x in sorted(stored[j] - stored[k]) if hits.gain(x, j, k) >= 0]:
                x = rng.choice(back)
                return [(k, n, x), (j, x, n)]
    return []


def replacement(stored: Stores, blocks: Sequence[Sequence[int]], rng: random.Random) -> list[Change]:
    """Let a worker replace a copy that its block has twice by a partition new to the block. Empty if none."""
    hits = _Hits(stored, blocks)
    holders = Counter(n for store in stored for n in store)
    for k, n in _spare(stored, hits, rng):
        if holders[n] > 1 and (fresh := [x for x in sorted(holders) if hits.new(x, k)]):
            return [(k, n, rng.choice(fresh))]
    return []


def move(stored: Stores, m: Sequence[int], rng: random.Random) -> Stores | None:
    """Stores with one copy moved to another worker that has room under `m`; None if no worker has room."""
    found = [
        (k, j)
        for k, store in enumerate(stored)
        for j, other in enumerate(stored)
        if len(other) < m[j] and store - other
    ]
    if not found:
        return None
    k, j = rng.choice(found)
    n = rng.choice(sorted(stored[k] - stored[j]))
    moved = [set(store) for store in stored]
    moved[k].remove(n)
    moved[j].add(n)
    return moved


def apply(stored: Stores, changes: Sequence[Change]) -> None:
    """Make `changes`, in place."""
    for k, dropped, taken in changes:
        stored[k].remove(dropped)
        stored[k].add(taken)


def undo(stored: Stores, changes: Sequence[Change]) -> None:
    """Take back `changes`, in place."""
    apply(stored, [(k, taken, dropped) for k, dropped, taken in changes])


class _Hits:
    """The number of workers in every block that hold each partition."""

    def __init__(self, stored: Stores, blocks: Sequence[Sequence[int]]) -> None:
        self._block = {k: i for i, block in enumerate(blocks) for k in block}
        self._count = Counter((n, i) for k, i in self._block.items() for n in stored[k])

    def last(self, n: int, k: int) -> bool:
        """Whether `k` is in a block and is the block's only holder of `n`."""
        return k in self._block and self._count[n, self._block[k]] == 1

    def new(self, n: int, k: int) -> bool:
        """Whether `k` is in a block that has no holder of `n`."""
        return k in self._block and not self._count[n, self._block[k]]

    def gain(self, n: int, giver: int, taker: int) -> int:
        """The growth of `Σ_S |∪_{k∈S} M_k|` over the blocks if `n` moves from `giver` to `taker`."""
        if self._block.get(giver) == self._block.get(taker):
            return 0
        return int(self.new(n, taker)) - int(self.last(n, giver))


def _spare(stored: Stores, hits: _Hits, rng: random.Random) -> list[tuple[int, int]]:
    """Pairs of a worker and a partition whose copy no block needs, in random order."""
    found = [(k, n) for k, store in enumerate(stored) for n in sorted(store) if not hits.last(n, k)]
    rng.shuffle(found)
    return found
