"""What partitions tell of many candidates at once: models under several λ, trained without some of the rows.

For cross-validation by Newton's steps there is a candidate for each coupling, each λ of its path and each
data set: all rows, and the rows outside of each fold (`statistics.deal`). The updates of all candidates
travel in one vector, so that rounds do not multiply. The vector of a partition has the share of its rows in
each fold, and for each candidate the loss, the loss of the rows that its data set leaves out, the gradient
and the curvature, all as shares of the partition's mean: the vector of a task is the mean of its partitions'.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arithmetic.triangles import second_moments, symmetric
from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.learning.batches import Batch
from asyncdmtl.learning.curvature import SecondOrderWire
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.parallel import in_parallel
from asyncdmtl.learning.settings import WITHOUT_STRENGTH

# λ of the path of each coupling: three factors of ten.
STRENGTHS = 10

# The spans of partitions of a batch whose second moments are computed in parallel.
_SPANS = 8

# A data set of which a task has less than this share of its rows has none of them.
_NO_ROWS = 1e-9


class Told(NamedTuple):
    """What all tasks told of `P` paths × `K` data sets.

    Attributes
    ----------
    shares : (K, T) float64 array
        Of each task's rows in each data set, 1 in the first.
    losses, held, gradients, triangles : (P, K, T, …) float64 arrays
        Means over the rows of the data set, `held` over those that it leaves out; 0 where there are no rows.
        Triangles are those of second derivatives.
    """

    shares: Floats
    losses: Floats
    held: Floats
    gradients: Floats
    triangles: Floats

    def second_derivatives(self, p: int) -> Floats:
        """The second derivatives (K, T, d, d) of path `p`."""
        return symmetric(self.triangles[p], self.gradients.shape[-1])


class CandidatesWire(SecondOrderWire):
    """How the updates of candidates travel: as they are.

    Parameters
    ----------
    d : int
        Numbers of a model.
    paths, folds : int
        Candidates that differ in coupling or λ, and folds.
    compares : bool
        Whether models to compare with are told of too (`comparison`), after all candidates.
    """

    def __init__(self, d: int, paths: int, folds: int, *, compares: bool = False) -> None:
        super().__init__(d, curvature=True, compares=compares)
        self.paths, self.folds = paths, folds
        self._block = 1 + self.length - self.compared
        self.length = folds + paths * (folds + 1) * self._block + self.compared

    def state_numbers(self, tasks: int, firsts: int) -> int:
        """Numbers of a `CandidateTrainer`'s state beside the iterate's, with so many paths to begin."""
        K, paths = self.folds + 1, self.paths
        descents = paths * descent_numbers((K, tasks, self.d))
        own = firsts + 2 + paths * (K * tasks * self.d + self.folds + 1) + K * tasks
        return own + descents + self.comparison_numbers(tasks)

    def blocks(self, vectors: Floats) -> Floats:
        """The part of vectors (n, length) that is about candidates, (n, paths, folds + 1, block): a view."""
        told = self.own(vectors)[:, self.folds :]
        return told.reshape(len(vectors), self.paths, self.folds + 1, self._block)

    def told(self, vectors: Floats) -> Told:
        """What the vectors (T, length) of all tasks say."""
        left_out = np.concatenate([np.zeros((1, len(vectors))), vectors[:, : self.folds].T])
        shares = np.where(1.0 - left_out > _NO_ROWS, 1.0 - left_out, 0.0)
        blocks = self.blocks(vectors).transpose(1, 2, 0, 3)
        in_means = np.where(shares > 0.0, 1.0, 0.0) / np.where(shares > 0.0, shares, 1.0)
        out_means = np.where(left_out > 0.0, 1.0, 0.0) / np.where(left_out > 0.0, left_out, 1.0)
        means = blocks * in_means[..., None]
        held = blocks[..., 1] * out_means
        gradients, triangles = np.split(means[..., 2:], [self.d], axis=-1)
        return Told(shares, means[..., 0], held, gradients, triangles)


def strengths_of(coupling: str) -> int:
    """The number of candidates with a coupling, by its name."""
    return 1 if coupling in WITHOUT_STRENGTH else STRENGTHS


def descent_numbers(shape: tuple[int, int, int]) -> int:
    """Numbers of the state of a `Descent` of such a shape: data sets, tasks, numbers of a model."""
    K, T, d = shape
    return K * (2 * T * d + T + 3)


def describe_candidates(
    batch: Batch,
    folds: Indices,
    wire: CandidatesWire,
    loss: str,
    candidates: tuple[Floats, NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]],
    out: Floats,
) -> None:
    """Write the vectors of a batch of partitions into rows `batch.places` of `out`, (partitions, length).

    Parameters
    ----------
    batch : Batch
    folds : (P, r) integer array
        The fold of each row.
    wire : CandidatesWire
    loss : str
        A name in `LOSSES`.
    candidates : (paths, folds + 1, T, d) float64 array, three (paths, folds + 1) bool arrays
        Their models, whether they are told second derivatives as they are, see `Loss.second_derivative`,
        which of them go on, and which of these need second derivatives; zeros are told of the others.
    out : (partitions, length) float64 array
    """
    models, sharp, active, curved = candidates
    X = batch.X
    if wire.d > X.shape[2]:
        X = np.concatenate([X, np.ones((*X.shape[:2], 1))], axis=2)
    told = np.zeros((len(X), wire.length))
    blocks, d = wire.blocks(told), wire.d

    def describe_set(k: int) -> list[tuple[int, Floats]]:
        """Tell of a data set all but curvatures: the paths (P, r weights) that have some."""
        kept = folds != k - 1
        if k:
            told[:, k - 1] = total(batch.shares(np.where(kept, 0.0, 1.0)), 1)
        on = np.flatnonzero(active[:, k])
        if not len(on):
            return []
        W = np.ascontiguousarray(models[on, k][:, batch.tasks].transpose(1, 2, 0))
        s = np.ascontiguousarray(matmul(X, W).transpose(2, 0, 1))
        values, derivatives = LOSSES[loss].value_and_derivative(s, batch.y)
        blocks[:, on, k, 0] = total(batch.shares(np.where(kept, values, 0.0)), 2).T
        blocks[:, on, k, 1] = total(batch.shares(np.where(kept, 0.0, values)), 2).T
        shares = batch.shares(np.where(kept, derivatives, 0.0))
        blocks[:, on, k, 2 : 2 + d] = matmul(np.ascontiguousarray(shares.transpose(1, 0, 2)), X)
        weights = []
        for i, p in enumerate(on):
            if not curved[p, k]:
                continue
            curvatures = LOSSES[loss].second_derivative(
                s[i], batch.y, derivatives[i], sharp=bool(sharp[p, k])
            )
            weights.append((int(p), batch.shares(np.where(kept, curvatures, 0.0))))
        return weights

    sets = range(wire.folds + 1)
    of_sets = in_parallel(describe_set, sets, X.size)
    places = [(p, k) for k, weights in zip(sets, of_sets, strict=True) for p, _ in weights]
    if places:
        p, k = np.array(places).T
        weights = np.stack([own for weights in of_sets for _, own in weights], axis=1)
        size = -(-len(X) // _SPANS)

        def describe_span(first: int) -> None:
            span = slice(first, first + size)
            blocks[span, p, k, 2 + d :] = second_moments(X[span], weights[span])

        in_parallel(describe_span, range(0, len(X), size), size * X[0].size * d)
    wire.own(out)[batch.places] = wire.own(told)
