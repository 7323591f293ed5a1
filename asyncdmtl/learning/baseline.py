"""Baselines of a run: each task fitted alone, and one model for all tasks, on the same rows.

A baseline minimises `Σ_i weight_i·loss_i + ½ α ‖w‖²` over the rows with an unpenalised intercept and the
losses of `LOSSES`. (Those of scikit-learn differ: its Huber loss estimates a scale, and its squared hinge
penalises the intercept.) `α` is chosen from a grid by leave-one-out. For the squared loss the left-out losses
are exact; otherwise one Newton step approximates the model without a row, so a grid costs no more than its
fits.
Reference: Rad and Maleki, "A Scalable Estimate of the Out-of-Sample Prediction Error via Approximate
Leave-One-Out Cross-Validation", J. R. Statist. Soc. B 82(4), 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.losses import LOSSES, check_targets
from asyncdmtl.learning.tasks import Partition, TaskModels, merged, whole_tasks
from asyncdmtl.plan.placement import natural_key

# The grid of α, in units of the mean non-zero eigenvalue of XᵀX, so that it suits data of any scale. It
# descends, since each fit starts from the result of the one before.
_ALPHAS = np.logspace(3, -4, 15)

# Newton's method ends after a step whose predicted decrease is below this fraction of the objective. For
# smooth losses the error that remains is about the square of this fraction.
_GAP = 1e-4

# The most Newton steps of a fit. Ten are usual.
_NEWTON_STEPS = 50

# The shortest step, as a fraction of a Newton step: shorter ones change the objective by rounding only.
_SHORTEST_STEP = 1e-9

# Curvature that is added for the intercept, as a fraction of the rows' weight. It matters only if every row
# is beyond its margin, so that the loss has no curvature at all.
_INTERCEPT_RIDGE = 1e-8


def single_task(partitions: Sequence[Partition], loss: str, *, intercept: bool = True) -> TaskModels:
    """Each task fitted alone on all its rows, with ℓ2 regularisation chosen by leave-one-out.

    A task of one or two rows gets the middle of the grid. A task of one class gets a constant score.

    Raises
    ------
    UsageError
        The loss is unknown, or there is no partition. It is a DataError if targets do not suit the loss.
    """
    _check(partitions, loss)
    whole = whole_tasks(partitions)
    tasks = tuple(sorted(whole, key=natural_key))
    # In many small fits, BLAS threads would mostly wait for each other.
    with single_threaded():
        fits = [_fit(whole[task], loss, intercept) for task in tasks]
    return TaskModels(tasks, np.array([w for w, _ in fits]), np.array([b for _, b in fits]), loss)


def pooled(partitions: Sequence[Partition], loss: str, *, intercept: bool = True) -> TaskModels:
    """One model for all tasks, fitted as `single_task` fits a task, to the rows of all tasks.

    Raises
    ------
    UsageError
        As `single_task`.
    """
    _check(partitions, loss)
    tasks = tuple(sorted({partition.task for partition in partitions}, key=natural_key))
    with single_threaded():
        w, b = _fit(merged("all tasks", partitions), loss, intercept)
    return TaskModels(tasks, np.tile(w, (len(tasks), 1)), np.full(len(tasks), b), loss)


def _check(partitions: Sequence[Partition], loss: str) -> None:
    if loss not in LOSSES:
        raise UsageError("loss", f"must be one of {', '.join(LOSSES)}", loss)
    if not partitions:
        raise UsageError("partitions", "must be at least one", partitions)
    for partition in partitions:
        check_targets(loss, partition.y, f"task {partition.task!r}")


def _fit(rows: Partition, loss: str, intercept: bool) -> tuple[Floats, float]:
    """Coefficients (features,) and intercept."""
    weights = np.ones(rows.rows) if rows.weights is None else rows.weights
    counted = weights > 0.0
    X, y, weights = rows.X[counted], rows.y[counted], weights[counted]
    if (LOSSES[loss].classification and y.min() == y.max()) or (LOSSES[loss].counts and not y.any()):
        return np.zeros(rows.features), _constant(loss, y[0], float(weights.sum())) if intercept else 0.0
    centre = weights @ X / weights.sum() if intercept else np.zeros(rows.features)
    X = X - centre
    # Models are combinations of rows. If rows are fewer than columns, coordinates in their span suffice.
    Q, X = (None, X) if len(X) >= rows.features else _rotated(X)
    scale = math.sqrt(float(weights @ (X**2).sum(axis=1)) / min(X.shape)) or 1.0
    X = np.column_stack([X / scale, np.ones(len(y))]) if intercept else X / scale
    problem = _Regularised(X, y, weights, loss, intercept)
    u = problem.best(_ALPHAS if len(y) > 2 else _ALPHAS[[len(_ALPHAS) // 2]])
    coef, b = (u[:-1], float(u[-1])) if intercept else (u, 0.0)
    w: Floats = (coef if Q is None else Q @ coef) / scale
    return w, b - float(centre @ w)


def _constant(loss: str, y: float, rows: float) -> float:
    """The score of a task of one class, or of no counts: that of one row more of the other, or margin 1."""
    size = math.log(rows + 1.0) if LOSSES[loss].unattained else 1.0
    return size if y else -size


def _rotated(X: Floats) -> tuple[Floats, Floats]:
    """`Q` (features, rows) with orthonormal columns, and `X·Q` (rows, rows), with `X = (X·Q)·Qᵀ`."""
    Q, R = np.linalg.qr(X.T)
    return Q, np.ascontiguousarray(R.T)


class _Regularised:
    """`f(u) = Σ_i weight_i·loss_i(A_i·u) + ½ α ‖u‖²`; if `intercept`, the norm leaves out the last number."""

    def __init__(self, A: Floats, y: Floats, weights: Floats, loss: str, intercept: bool) -> None:
        self.A, self.y, self.weights, self.loss = A, y, weights, loss
        self._penalised = np.ones(A.shape[1])
        if intercept:
            self._penalised[-1] = 0.0

    def best(self, alphas: Floats) -> Floats:
        """The minimum for the `α` with the smallest left-out loss."""
        u, best, least = np.zeros(self.A.shape[1]), np.zeros(0), math.inf
        for alpha in alphas:
            u, hessian = self._minimise(u, alpha)
            left_out = self._left_out(u, hessian) if len(alphas) > 1 else 0.0
            if not len(best) or left_out < least:
                best, least = u, left_out
        return best

    def _minimise(self, u: Floats, alpha: float) -> tuple[Floats, Floats]:
        """The result of Newton's method from `u`, and its Hessian. Steps that do not lower `f` are halved."""
        value, gradient, hessian = self._at(u, alpha)
        for _ in range(_NEWTON_STEPS):
            step = -_solved(hessian, gradient)
            promised = -float(gradient @ step)
            shorter = 1.0
            moved = self._at(u + step, alpha)
            while moved[0] > value - 1e-4 * shorter * promised and shorter > _SHORTEST_STEP:
                shorter /= 2.0
                moved = self._at(u + shorter * step, alpha)
            if moved[0] > value:
                break  # only rounding errors remain
            u, done = u + shorter * step, promised <= _GAP * value
            value, gradient, hessian = moved
            if done:
                break
        return u, hessian

    def _at(self, u: Floats, alpha: float) -> tuple[float, Floats, Floats]:
        """Value, gradient and Hessian of `f`; for Huber loss, the Hessian of a quadratic upper bound."""
        s = self.A @ u
        values, derivatives = LOSSES[self.loss].value_and_derivative(s, self.y)
        ridge = alpha * self._penalised
        held = ridge + _INTERCEPT_RIDGE * self.weights.sum() * (1.0 - self._penalised)
        value = float(self.weights @ values) + 0.5 * float(ridge @ u**2)
        gradient = (self.weights * derivatives) @ self.A + ridge * u
        curvatures = self.weights * LOSSES[self.loss].second_derivative(s, self.y, derivatives, sharp=False)
        hessian = (self.A * curvatures[:, None]).T @ self.A
        hessian[np.diag_indices_from(hessian)] += held
        return value, gradient, hessian

    def _left_out(self, u: Floats, hessian: Floats) -> float:
        """The weighted sum of each row's loss under the model of all other rows, one Newton step from `u`."""
        s, loss = self.A @ u, LOSSES[self.loss]
        _, derivatives = loss.value_and_derivative(s, self.y)
        leverages = self.weights * (_solved(hessian, self.A.T).T * self.A).sum(axis=1)
        curvatures = LOSSES[self.loss].second_derivative(s, self.y, derivatives, sharp=False)
        kept = np.maximum(1.0 - leverages * curvatures, 1e-10)
        values, _ = loss.value_and_derivative(s + leverages * derivatives / kept, self.y)
        return float(self.weights @ values)


def _solved(matrix: Floats, right: Floats) -> Floats:
    """The solution of a system with a symmetric positive definite matrix."""
    # Imported here, so that commands start without SciPy.
    from scipy.linalg import cho_factor, cho_solve

    # SciPy brings a BLAS library of its own.
    with single_threaded():
        solution: Floats = cho_solve(cho_factor(matrix, check_finite=False), right, check_finite=False)
    return solution
