"""Models of each task alone, and one for all, trained beside candidates to be compared with on test rows.

Each minimises the mean loss over its rows plus `½ α ‖w‖²`, with a free intercept if models have one, for each
`α` of a grid, by steps of Newton's method; a step that did not lower this is halved. In every round, the
holders of rows also tell the losses of their rows under models that are approximately without that row, one
step away. The `α` with the least of these is chosen in the end. `baseline` does the same where all rows are
in one place. Reference: Rad and Maleki, "A Scalable Estimate of the Out-of-Sample Prediction Error via
Approximate Leave-One-Out Cross-Validation", J. R. Statist. Soc. B 82(4), 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asyncdmtl.arithmetic.elementary import log1p
from asyncdmtl.arithmetic.products import matmul
from asyncdmtl.arithmetic.solving import inverse
from asyncdmtl.arithmetic.sums import total
from asyncdmtl.arithmetic.triangles import second_moments, symmetric, upper
from asyncdmtl.arrays import Floats, Indices
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.batches import Batch
from asyncdmtl.learning.curvature import ALPHAS, COMPARED, log_means
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.problem import Problem

# What the last step may have promised in the end, as a share of the first loss.
_ENOUGH = 1e-4

# The share of the mean curvature that is added for an intercept: rows beyond their margin have none.
_RIDGE = 1e-8

# The least that may be left of a row's weight on its own prediction without it, see `baseline`.
_LEFT = 1e-10

# A gradient of an intercept at 0 that is as large as this, of at most ½, is of rows of one class.
_ONE_CLASS = 0.5 * (1.0 - 1e-9)


class Comparison:
    """The models (α, T + 1, d) to compare with: of each task alone, and last the one for all.

    Attributes
    ----------
    models : (α, T + 1, d) float64 array
        The models at which losses, gradients and curvatures are told next.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        T, d, A = len(problem.tasks), problem.d, len(ALPHAS)
        sums = [float(total(problem.weights[list(S)])) for S in problem.partitions_of]
        self._weights = np.array([*sums, float(total(np.array(sums)))])
        rows = [sum(problem.infos[n].rows for n in S) for S in problem.partitions_of]
        self._rows = np.array([*rows, sum(rows)])
        self._penalised = np.ones(d)
        self._penalised[problem.features :] = 0.0
        self.models = np.zeros((A, T + 1, d))
        # The best models so far, and what was told there.
        self._best, self._gradients = np.zeros((A, T + 1, d)), np.zeros((A, T + 1, d))
        self._H = np.zeros((A, T + 1, d, d))
        # The loss at the best models, the one of left-out rows, and what the last step promised.
        self._losses, self._left_out, self._promised = (np.full((A, T + 1), np.inf) for _ in range(3))
        # Of each task and of all: the loss at models of 0 and the unit of α, both 0 before the first round,
        # and 1 if its rows are of one class, so that its model is an intercept.
        self._facts = np.zeros((3, T + 1))

    @property
    def near(self) -> bool:
        """Whether all models with the chosen α are near their optima."""
        first, units, constant = self._facts
        promised = np.take_along_axis(self._promised, self._chosen[None], axis=0)[0]
        return bool(((units > 0.0) & ((promised <= _ENOUGH * first) | (constant > 0.0))).all())

    def coefficients(self) -> Floats:
        """The best models so far, (T + 1, features + 1), with the intercept, 0 if there is none, last."""
        W = np.zeros((len(self._rows), self._problem.features + 1))
        W[:, : self._problem.d] = self._best[self._chosen, np.arange(len(W))]
        return W

    def inverses(self) -> Floats | None:
        """The inverse second derivatives (α, T + 1, d, d) at the best models, penalty included.

        None before the first round has told them.
        """
        return self._inverses() if self._facts[1].any() else None

    def describe(self, batch: Batch, inverses: Floats | None, out: Floats) -> None:
        """Write what a batch of partitions tells into rows `batch.places` of `out`, (partitions, numbers).

        `inverses` are those of `inverses`, which are the same for all batches.
        """
        X, loss = batch.X, self._problem.settings.loss
        if self._problem.d > X.shape[2]:
            X = np.concatenate([X, np.ones((*X.shape[:2], 1))], axis=2)
        bent = np.zeros((len(X), COMPARED, len(ALPHAS), X.shape[1]))
        told = np.zeros((len(X), COMPARED, len(ALPHAS), out.shape[1] // (COMPARED * len(ALPHAS))))
        for kind, own in enumerate((batch.tasks, [len(self._rows) - 1] * len(X))):
            weights = batch.shares(np.ones(batch.y.shape)) * (batch.weight / self._weights[own])[:, None]
            for a in range(len(ALPHAS)):
                s = matmul(X, self.models[a, own][:, :, None])[:, :, 0]
                values, slopes = LOSSES[loss].value_and_derivative(s, batch.y)
                curvatures = LOSSES[loss].second_derivative(s, batch.y, slopes, sharp=False)
                bent[:, kind, a] = batch.shares(curvatures)
                gradients = matmul(batch.shares(slopes)[:, None, :], X)[:, 0]
                left_out = np.zeros(len(X))
                if inverses is not None:
                    leverages = weights * total(matmul(X, inverses[a, own]) * X, 2)
                    moved = s + leverages * slopes / np.maximum(1.0 - leverages * curvatures, _LEFT)
                    values_out, _ = LOSSES[loss].value_and_derivative(moved, batch.y)
                    left_out = total(batch.shares(values_out), 1)
                mean = total(batch.shares(values), 1)
                told[:, kind, a, : 2 + X.shape[2]] = np.column_stack([left_out, mean, gradients])
        moments = second_moments(X, bent.reshape(len(X), -1, X.shape[1]))
        told[..., 2 + X.shape[2] :] = moments.reshape(*told.shape[:3], -1)
        out[batch.places] = told.reshape(len(X), -1)

    def take(self, told: Floats) -> None:
        """Take a step, given what all tasks told, (T, numbers)."""
        d = self._problem.d
        blocks = told.reshape(len(told), COMPARED, len(ALPHAS), -1).transpose(1, 2, 0, 3)
        shares = self._weights[:-1] / self._weights[-1]
        both = np.concatenate([blocks[0], total(shares[:, None] * blocks[1], 1)[:, None]], axis=1)
        H = symmetric(both[..., 2 + d :], d)
        losses, gradients = both[..., 1], both[..., 2 : 2 + d]
        if not self._facts[1].any():
            self._begin(losses[0], gradients[0], H[0])
            if self._problem.loss.counts:
                # Nothing was told yet at the models that begin.
                return
        else:
            self._left_out = both[..., 0].copy()
        better = losses + self._penalty(self.models) <= self._losses + self._penalty(self._best)
        self._best = np.where(better[..., None], self.models, self._best)
        self._gradients = np.where(better[..., None], gradients, self._gradients)
        self._H = np.where(better[..., None, None], H, self._H)
        self._losses = np.where(better, losses, self._losses)
        slopes = self._gradients + self._alphas[..., None] * self._penalised * self._best
        step = matmul(self._inverses(), slopes[..., None])[..., 0]
        self._promised = np.where(better, 0.5 * total(slopes * step, 2), self._promised)
        half = 0.5 * (self.models - self._best)
        way = np.where(better[..., None], -step, half)
        self.models = self._best + np.where(self._facts[2][:, None] > 0.0, 0.0, way)

    def told(self) -> Floats:
        """What holders of each task must know of its models, and of those for all: (T, numbers).

        Under the strategy "personal" only the server takes steps.
        """
        parts = self._parts_of_holders()
        both = np.concatenate(
            [np.moveaxis(part, 1, 0).reshape(len(self._rows), -1) for part in parts], axis=1
        )
        return np.concatenate([both[:-1], np.broadcast_to(both[-1], both[:-1].shape)], axis=1)

    def take_told(self, rows: Sequence[int], told: Floats) -> None:
        """Know what another one `told` of some tasks, at least one."""
        own, all_ = np.split(told, 2, axis=1)
        both, places = np.concatenate([own, all_[:1]]), [*rows, len(self._rows) - 1]
        parts = self._parts_of_holders()
        ends = np.cumsum([part[:, 0].size for part in parts])
        triangles = parts[-1]
        for part, numbers in zip(parts, np.split(both, ends[:-1], axis=1), strict=True):
            part[:, places] = np.moveaxis(numbers.reshape(len(places), *part[:, 0].shape), 0, 1)
        self._H[:, places] = symmetric(triangles[:, places], self._problem.d)

    def state(self) -> Floats:
        """All that changes, as one vector."""
        return np.concatenate([np.ravel(part) for part in self._parts()])

    def restore(self, state: Floats) -> None:
        """Continue from what `state` returned; UsageError if a number is out of range."""
        parts = self._parts()
        *models, _, _, _, facts = numbers = np.split(state, np.cumsum([part.size for part in parts])[:-1])
        if np.isnan(state).any() or not all(np.isfinite(part).all() for part in (*models, facts)):
            raise UsageError("state", "must have finite models to compare with", "not a number")
        for part, given in zip(parts, numbers, strict=True):
            part[...] = given.reshape(part.shape)

    def _parts(self) -> Sequence[Floats]:
        models = self.models, self._best, self._gradients, self._H
        return *models, self._losses, self._left_out, self._promised, self._facts

    def _parts_of_holders(self) -> Sequence[Floats]:
        """Parts (α, T + 1, …) that holders must know; the last are the triangles of second derivatives."""
        return self.models, self._best, self._left_out, self._facts, upper(self._H)

    @property
    def _chosen(self) -> Indices:
        """The positions (T + 1,) of the α with the least left-out losses."""
        # One or two rows do not permit a choice: the middle of the grid.
        least: Indices = np.argmin(self._left_out, axis=0)
        return np.where(self._rows > 2, least, len(ALPHAS) // 2)

    @property
    def _alphas(self) -> Floats:
        alphas: Floats = ALPHAS[:, None] * self._facts[1]
        return alphas

    def _begin(self, losses: Floats, gradients: Floats, H: Floats) -> None:
        """Find the units of α, and the models that stay constant, by what is told at models of 0."""
        F = self._problem.features
        units = total(np.einsum("tii->ti", H)[:, :F], 1) / np.minimum(F, np.maximum(self._rows - 1, 1))
        self._facts[0], self._facts[1] = losses, np.where(units > 0.0, units, 1.0)
        if self._problem.settings.loss == "logistic" and self._problem.d > F:
            constant = np.abs(gradients[:, -1]) >= _ONE_CLASS
            # The odds of one row more of either class.
            far = np.where(gradients[:, -1] < 0.0, 1.0, -1.0) * log1p(self._weights)
            self._facts[2] = constant
            self.models[:, :, -1] = np.where(constant, far, 0.0)
        if self._problem.loss.counts and self._problem.d > F:
            intercepts, constant = log_means(gradients[:, -1], self._weights)
            self._facts[2] = constant
            self.models[:, :, -1] = intercepts

    def _penalty(self, models: Floats) -> Floats:
        return 0.5 * self._alphas * total(self._penalised * models * models, 2)

    def _inverses(self) -> Floats:
        ridges = self._alphas[..., None] * self._penalised
        ridges = ridges + (_RIDGE * self._facts[1])[:, None] * (1.0 - self._penalised)
        # Holders of other tasks are told nothing of a task.
        ridges[:, self._facts[1] == 0.0] = 1.0
        return inverse(self._H + ridges[..., None] * np.eye(self._problem.d))
