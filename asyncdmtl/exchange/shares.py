"""Which worker gives which vectors to which other one, if each asks few others and all give equally much.

Of short vectors, messages and wake-ups are the cost of an exchange. So a worker takes as many of them as
possible from one other worker. Every worker finds the shares of all by the same rules, without a message.
They are a wish: a worker takes its vectors from others if one is slow or lost.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats

# The most work to find the shares of all workers, some tenths of a second: workers times the vectors that all
# of them want. Beyond this, a worker finds its own shares only, and what others give may differ.
MOST_WORK = 1 << 20


def shares_of(
    worker: int,
    holders: Sequence[Collection[int]],
    wanted: Sequence[Collection[int]],
    giving: Collection[int],
) -> Mapping[int, int]:
    """The worker from which `worker` is to take each vector that it wants.

    Parameters
    ----------
    worker : int
    holders : sequence of int collections
        The workers that hold each vector.
    wanted : sequence of int collections
        The vectors that each worker wants, none of which it holds.
    giving : collection of int
        The workers that others may take vectors from.

    Returns
    -------
    mapping of vector to worker
        Without the vectors that no other worker gives.
    """
    K, N = len(wanted), len(holders)
    held = np.zeros((N, K), bool)
    for vector, of in enumerate(holders):
        held[vector, [k for k in of if k in giving]] = True
    demand = sum(map(len, wanted))
    if demand * K > MOST_WORK:
        return _few_givers(worker, wanted[worker], held, np.zeros(K), math.inf)
    load, most = np.zeros(K), -(-demand // max(1, len(giving)))
    found = [_few_givers(k, wanted[k], held, load, most) for k in range(K)]
    _balance(found, held, load, most)
    return found[worker]


def _few_givers(
    worker: int, wanted: Collection[int], held: NDArray[np.bool_], load: Floats, most: float
) -> dict[int, int]:
    """Shares of one worker by which it asks few others, none of which gives more than `most` if possible.

    Parameters
    ----------
    worker : int
    wanted : collection of int
    held : bool array (vectors, workers)
        Where a worker may give a vector.
    load : float64 array (workers,)
        The vectors that each worker gives already; these shares are added.
    most : float
    """
    found: dict[int, int] = {}
    scarce = held.sum(axis=1)
    # The vectors that are left, those that few hold first, and how many of them each worker may give.
    left = np.array(sorted((v for v in wanted if scarce[v]), key=lambda v: (scarce[v], v)), np.intp)
    can = held[left].sum(axis=0)
    others = (np.arange(len(can)) - worker) % len(can)
    while len(left):
        gain = np.minimum(can, most - load)
        if gain.max() >= 1:
            giver = int(np.lexsort((others, load, -gain))[0])
            taken = np.flatnonzero(held[left, giver])[: int(gain[giver])]
        else:
            # Those that have this vector give enough already: the one that gives least gives it, too.
            giver, taken = int(np.lexsort((others, load, ~held[left[0]]))[0]), np.array([0])
        found |= dict.fromkeys(left[taken].tolist(), giver)
        load[giver] += len(taken)
        can -= held[left[taken]].sum(axis=0)
        left = np.delete(left, taken)
    return found


def _balance(found: Sequence[dict[int, int]], held: NDArray[np.bool_], load: Floats, most: float) -> None:
    """Move vectors from the worker that gives most to others, as long as it gives more than `most`."""
    gives: list[set[tuple[int, int]]] = [set() for _ in load]
    for k, shares in enumerate(found):
        for vector, giver in shares.items():
            gives[giver].add((k, vector))
    while load.max(initial=0.0) > most:
        giver = int(load.argmax())
        moves = (
            (load[other], k, vector, other)
            for k, vector in gives[giver]
            for other in np.flatnonzero(held[vector]).tolist()
        )
        least, k, vector, other = min(moves)
        if least + 1 >= load[giver]:
            return
        gives[giver].remove((k, vector))
        gives[other].add((k, vector))
        load[giver] -= 1
        load[other] += 1
        found[k][vector] = other
