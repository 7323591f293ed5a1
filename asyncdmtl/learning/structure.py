"""The structure that a coupling found in the models: ranks, norms and similarities, for pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.learning.proximal import sparse_low_rank_split
from asyncdmtl.learning.singular_values import singular_values

# Values below this fraction of the largest one count as 0: the coupling removed them up to rounding.
NEGLIGIBLE = 1e-5

# The most tasks for which the leaves of the clustering are ordered optimally, which takes more than T³ steps.
_ORDERED = 400


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Values, descending, and the count of those that are not negligible; `note` adds a remark."""

    values: Floats
    count: int
    note: str = ""


def spectrum(W: Floats) -> Spectrum:
    """Singular values of the models (T, features). Their count is the dimension of the models' span."""
    return _counted(singular_values(W))


def low_rank_part(W: Floats) -> Spectrum:
    """Singular values of `Q` in the split `W = P + Q` of "sparse-low-rank", and how sparse `P` is.

    `ρ = 1/√max(T, features)`, as in `SparseLowRank`.
    """
    P, Q = sparse_low_rank_split(W, 1.0 / float(np.sqrt(max(W.shape))))
    found = _counted(singular_values(Q))
    # An entry of P is an exception if it is more than rounding, relative to the entries of W.
    exceptions = float(np.mean(np.abs(P) > 1e-3 * np.abs(W).max()))
    return Spectrum(found.values, found.count, f"and {exceptions:.1%} of the entries by themselves")


def feature_norms(W: Floats) -> Floats:
    """`‖W[:, f]‖₂` of each feature over all tasks: 0 for a feature that no task uses."""
    norms: Floats = np.linalg.norm(W, axis=0)
    return norms


def similarity(W: Floats) -> Floats:
    """Cosines (T, T) of the angles between models (T, features); 0 where one of the two is 0."""
    lengths = np.linalg.norm(W, axis=1)
    directions = W / np.where(lengths > 0.0, lengths, 1.0)[:, None]
    cosines: Floats = np.clip(directions @ directions.T, -1.0, 1.0)
    np.fill_diagonal(cosines, 1.0)
    return cosines


def cluster_order(cosines: Floats) -> NDArray[np.int64]:
    """An order of tasks (T,) in which similar tasks are adjacent, by average-linkage clustering."""
    # Imported here, because SciPy takes long to load and only pictures need it.
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    T = len(cosines)
    if T < 3:
        return np.arange(T)
    distances = 1.0 - 0.5 * (cosines + cosines.T)
    np.fill_diagonal(distances, 0.0)
    tree = linkage(squareform(distances, checks=False), "average", optimal_ordering=T <= _ORDERED)
    return np.asarray(leaves_list(tree), dtype=np.int64)


def _counted(values: Floats) -> Spectrum:
    return Spectrum(values, int(np.count_nonzero(values > NEGLIGIBLE * values[0])))
