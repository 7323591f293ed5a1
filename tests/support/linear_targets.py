"""Placements and targets of the tests of linear plans."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.plan.linear.plan import LinearPlan
from asyncdmtl.plan.placement import Placement

Array = NDArray[np.float64]


def random_placement(rng: np.random.Generator, workers: int, partitions: int, copies: int) -> Placement:
    """A placement with one to `copies` holders per partition, in which some workers may store nothing."""
    stored: dict[str, list[str]] = {f"w{k}": [] for k in range(workers)}
    for n in range(partitions):
        for k in rng.choice(workers, size=rng.integers(1, min(workers, copies) + 1), replace=False):
            stored[f"w{k}"].append(f"p{n}")
    return Placement(stored, [f"p{n}" for n in range(partitions)])


def everyone(workers: int, partitions: int) -> Placement:
    return Placement.cyclic(workers, partitions, workers)


def laplacian(tasks: int, partitions: int) -> Array:
    """The target of a graph-Laplacian coupling on a path, with rank T and parallel columns of a task."""
    L = np.eye(tasks) + 0.5 * (2 * np.eye(tasks) - np.eye(tasks, k=1) - np.eye(tasks, k=-1))
    mean = np.zeros((tasks, partitions))
    mean[np.arange(partitions) % tasks, np.arange(partitions)] = tasks / partitions
    return np.asarray(np.linalg.solve(L, mean), dtype=np.float64)


RNG = np.random.default_rng(5)
PLACEMENTS = {
    "cyclic": Placement.cyclic(6, 12, 3),
    "random": random_placement(RNG, 7, 15, 4),
    "everyone stores all": everyone(4, 9),
    "one holder each": Placement.cyclic(4, 9, 1),
    "one worker stores all": Placement({"a": [f"p{n}" for n in range(8)], "b": ["p1"], "c": []}),
    "a single worker": everyone(1, 6),
    "twelve workers": random_placement(RNG, 12, 24, 5),
}
TARGETS: dict[str, Callable[[int], Array]] = {
    "generic": lambda N: np.random.default_rng(1).standard_normal((4, N)),
    "sum": lambda N: np.ones((1, N)),
    "more rows than columns": lambda N: np.random.default_rng(2).standard_normal((N + 2, N)),
    "low rank": lambda N: np.random.default_rng(3).standard_normal((5, 2)) @ np.arange(2.0 * N).reshape(2, N),
    "laplacian": lambda N: laplacian(3, N),
    "badly scaled": lambda N: (
        np.random.default_rng(4).standard_normal((3, N)) * 10.0 ** np.array([[-9.0], [0.0], [9.0]])
    ),
    "zero columns": lambda N: (
        np.vander(np.arange(N) % 3 / 2.0, 3, increasing=True).T * (np.arange(N) % 4 > 0)
    ),
    "zero": lambda N: np.zeros((2, N)),
}


def end_to_end_error(plan: LinearPlan, seed: int = 0, length: int = 17) -> float:
    """Largest relative error (per combination) at the server for all responders, and at every worker."""
    placement, K = plan.placement, len(plan.placement.workers)
    V = np.random.default_rng(seed).standard_normal((len(placement.partitions), length))
    wanted = plan.target @ V
    size = np.linalg.norm(np.abs(plan.target) @ np.abs(V), axis=1, keepdims=True)
    local = [V[list(stored)] for stored in placement.stored]
    rows = {k: plan.encode(k, local[k]) for k in range(K)}
    assert sum(len(sent) for sent in rows.values()) == plan.uplink_load * plan.subpackets
    found = [
        plan.aggregate({k: rows[k] for k in A}, length=length)
        for A in combinations(range(K), K - plan.silent)
    ]
    downlink = plan.broadcast(found[0])
    assert len(downlink) == plan.downlink_load
    for k in range(K):
        found.append(plan.recover(k, downlink, local[k]))
        np.testing.assert_array_equal(found[-1], plan.recover(k, downlink[: plan.missing_ranks[k]], local[k]))
    return max(float(np.max(np.abs(one - wanted) / np.where(size > 0, size, 1.0))) for one in found)
