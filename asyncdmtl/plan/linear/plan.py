"""Linear targets: plans by which all workers, and the server if it wants to, obtain `A·V` over the reals.

`A` (C × N) is the target, `V` (N × d) the local updates (docs/theory.md, section 5). Worker `k` sends `R_k`
combinations of the updates that it stores; the server solves for `A·V`. A worker needs `rank(A restricted to
the columns outside M_k)` rows of the broadcast, since its own updates determine the rest.

If only workers need the target, the server solves for the rows of the broadcast alone: `D·A·V`, with as many
rows as the neediest worker lacks. Then no worker need send what everyone but the server has.

    plan = make_linear_plan(placement, A)
    rows = {k: plan.encode(k, V[list(placement.stored[k])]) for k in range(K)}
    AV = plan.aggregate(rows)
    downlink = plan.broadcast(AV)
    plan.recover(k, downlink, V[list(placement.stored[k])])      # equals AV, up to rounding

Workers and partitions are indices into the placement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import CodingError, UsageError
from asyncdmtl.field import real
from asyncdmtl.plan.linear.matrices import solve_decoding
from asyncdmtl.plan.linear.targets import Target, packet_columns
from asyncdmtl.plan.notebook import plan_as_html
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.validation import whole_number

Float = TypeVar("Float", np.float32, np.float64)


@dataclass(frozen=True, eq=False)
class LinearPlan:
    """A plan by which the server and all workers obtain `A·V`; made by `make_linear_plan`.

    Attributes
    ----------
    placement : Placement
    target : (C, N) float64
        `A`.
    solved : (S, N) float64
        The combinations of updates that the server solves for: `A`, or the rows of the downlink if only
        workers need the target.
    silent : int
        The number of workers that may stay silent.
    subpackets : int
        P: every vector is padded with zeros and cut into P equal packets.
    dimensions : tuple of Fraction
        `R_k` in vectors; whole numbers if `subpackets` is 1.
    uplink_matrices : tuple of (R_k·P, |M_k|·P) float64
        Coefficients of the packets of the stored partitions, in the order of `placement.stored[k]`; packet
        `p` of the i-th stored partition is column `i·P + p`.
    uplink_bound : Fraction
        The smallest load, in multiples of 1/P, that meets every cut constraint
        `Σ_{k∈S} R_k ≥ rank(A on the columns that only S holds)`, for every S without any `silent` of its
        workers. If only workers need the target, a worker that wants it is outside of S. No linear scheme
        with P packets has a smaller load.
    fractional_bound : Fraction
        The same bound as a linear program, valid for any number of packets.
    bound_complete : bool
        False if there are so many workers that only the cut constraints found by a search are used. The
        bounds are valid in that case, too, but not the largest possible.
    downlink_matrix : (R_down, S) float64
        The matrix that the server multiplies with `solved·V`.
    missing_ranks : tuple of int
        For each worker, the rank of `A` on the columns outside `M_k`: the number of leading downlink rows
        that it needs; 0 for a worker that wants nothing. `downlink_load = downlink_bound` is the largest of
        them: no worker can decode from fewer.
    condition : float
        The worst condition number (largest over smallest non-zero singular value) of all systems: for the
        uplink coefficients, for every set of responders, and for every worker.
    """

    placement: Placement
    target: Floats
    solved: Floats
    silent: int
    subpackets: int
    uplink_matrices: tuple[Floats, ...]
    uplink_bound: Fraction
    fractional_bound: Fraction
    bound_complete: bool
    downlink_matrix: Floats
    missing_ranks: tuple[int, ...]
    condition: float
    _decoding: dict[tuple[int, ...], Floats] = field(default_factory=dict, repr=False, init=False)
    _recovery: dict[int, tuple[Floats, Floats]] = field(default_factory=dict, repr=False, init=False)

    def _repr_html_(self) -> str:
        up = self.uplink_load, self.uplink_bound
        down = self.downlink_load, self.downlink_bound
        return plan_as_html("Plan, strategy linear", self.placement, self.dimensions, up, down)

    def __getstate__(self) -> dict[str, object]:
        """The state to pickle or copy, without cached results."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.init}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Restore the state of a pickled or copied plan, with read-only matrices."""
        self.__dict__.update(state, _decoding={}, _recovery={})
        for matrix in (self.target, self.solved, self.downlink_matrix, *self.uplink_matrices):
            matrix.flags.writeable = False

    @property
    def dimensions(self) -> tuple[Fraction, ...]:
        """`R_k` in vectors."""
        return tuple(Fraction(W.shape[0], self.subpackets) for W in self.uplink_matrices)

    @property
    def uplink_load(self) -> Fraction:
        """`Σ R_k` in vectors."""
        return sum(self.dimensions, Fraction(0))

    @property
    def gap(self) -> Fraction:
        """`uplink_load − fractional_bound`: 0 means that no linear scheme has a smaller load."""
        return self.uplink_load - self.fractional_bound

    @property
    def downlink_load(self) -> Fraction:
        """`R_down`: the rows of the broadcast, in vectors, each counted once."""
        return Fraction(self.downlink_matrix.shape[0])

    @property
    def downlink_bound(self) -> Fraction:
        """`max_k rank(A on the columns outside M_k)`, a bound for every scheme that sends real vectors."""
        return Fraction(max(self.missing_ranks))

    def encode(self, worker: int, updates: NDArray[Float]) -> NDArray[Float]:
        """The rows that `worker` sends: (R_k·P, ⌈d/P⌉) from its updates (|M_k|, d), in their dtype.

        Raises
        ------
        UsageError
            The worker does not exist, or updates have another shape or dtype.
        """
        worker = self._worker(worker)
        stored = len(self.placement.stored[worker])
        _check_rows("updates", updates, stored)
        packets = _to_packets(updates, self.subpackets)
        return real.product(self.uplink_matrices[worker], packets).astype(updates.dtype)

    def decoding_matrix(self, responders: Sequence[int]) -> Floats:
        """The matrix from the rows of `responders`, stacked in ascending order, to `solved·V`.

        Shape (S·P, Σ R_k·P); computed once per set of responders.

        Raises
        ------
        CodingError
            The rows of these workers do not determine `solved·V`.
        """
        if not isinstance(responders, Sequence) or not responders:
            raise UsageError("responders", "must be a sequence of workers, at least one", responders)
        key = tuple(sorted({self._worker(k) for k in responders}))
        if (known := self._decoding.get(key)) is None:
            known = self._decode_from(key)
            known.flags.writeable = False
            self._decoding[key] = known
        return known

    def aggregate(self, rows: Mapping[int, NDArray[Float]], *, length: int | None = None) -> NDArray[Float]:
        """`solved·V` (S, d) at the server, from the rows of the workers that responded.

        `length` is d, by which padding is cut off if `subpackets` does not divide d. It is at most
        `subpackets` times the length of a row.

        Raises
        ------
        UsageError
            There are no rows, a worker is unknown, rows have another shape than `encode` returns, or `length`
            does not fit the rows.
        CodingError
            Too few workers responded to determine `solved·V`; the message names the silent ones.
        """
        if not isinstance(rows, Mapping) or not rows:
            raise UsageError("rows", "must map at least one worker to its rows", rows)
        rows = {self._worker(k): part for k, part in rows.items()}
        responders = sorted(rows)
        for k in responders:
            _check_rows(
                f"rows of worker {self.placement.workers[k]!r}", rows[k], self.uplink_matrices[k].shape[0]
            )
        if len({(rows[k].shape[1], rows[k].dtype) for k in responders}) > 1:
            raise UsageError("rows", "must have equal length and dtype", [rows[k].shape for k in responders])
        stacked = np.vstack([rows[k] for k in responders])
        if length is not None:
            length = whole_number("length", length, 1, self.subpackets * stacked.shape[1])
        total = real.product(self.decoding_matrix(responders), stacked).astype(stacked.dtype)
        result: NDArray[Float] = total.reshape(len(self.solved), self.subpackets * stacked.shape[1])
        return result if length is None else result[:, :length]

    def broadcast(self, combined: NDArray[Float]) -> NDArray[Float]:
        """The rows that the server broadcasts: (R_down, d) from `solved·V` (S, d)."""
        _check_rows("combined", combined, len(self.solved))
        return real.product(self.downlink_matrix, combined).astype(combined.dtype)

    def recover(self, worker: int, rows: NDArray[Float], updates: NDArray[Float]) -> NDArray[Float]:
        """`A·V` (C, d) at `worker`, from broadcast rows and its own updates (|M_k|, d) as side information.

        The first `missing_ranks[worker]` rows are used; more may be given.

        Raises
        ------
        UsageError
            The worker does not exist, there are too few rows, or updates have another shape or dtype.
        """
        worker = self._worker(worker)
        stored = self.placement.stored[worker]
        needed = self.missing_ranks[worker]
        _check_rows("updates", updates, len(stored))
        _check_rows("rows", rows, None)
        if len(rows) < needed or rows.shape[1] != updates.shape[1]:
            raise UsageError(
                "rows", f"must be at least {needed} rows of {updates.shape[1]} numbers", rows.shape
            )
        if (known := self._recovery.get(worker)) is None:
            known = self._recover_with(worker)
            self._recovery[worker] = known
        from_rows, from_updates = known
        total = real.product(from_rows, rows[:needed]) + real.product(from_updates, updates)
        return total.astype(updates.dtype)

    @cached_property
    def _reduced(self) -> Target:
        return Target(self.placement, self.target)

    @cached_property
    def _broadcast_rows(self) -> Floats:
        """The rows of the broadcast as combinations of updates: (R_down, N)."""
        return self.downlink_matrix @ self.solved

    def _decode_from(self, responders: tuple[int, ...]) -> Floats:
        reduced = self._reduced if self.solved is self.target else Target(self.placement, self.solved)
        P = self.subpackets
        W = []
        for k in responders:
            stored = list(self.placement.stored[k])
            W.append(np.zeros((self.uplink_matrices[k].shape[0], self.target.shape[1] * P)))
            # Columns are divided by their lengths, so that all solutions have the same accuracy.
            unit = np.repeat(1.0 / np.where(reduced.scales > 0, reduced.scales, 1.0)[stored], P)
            W[-1][:, packet_columns(stored, P)] = self.uplink_matrices[k] * unit
        try:
            D, _ = solve_decoding(reduced.columns, W, P)
        except CodingError as error:
            absent = [name for k, name in enumerate(self.placement.workers) if k not in responders]
            raise CodingError(f"A·V cannot be decoded without the rows of {', '.join(absent)}") from error
        return real.kron_identity(reduced.lift, P) @ D

    def _recover_with(self, worker: int) -> tuple[Floats, Floats]:
        """The X and Z with `A·V = X · leading rows + Z · V_stored`."""
        reduced, stored = self._reduced, list(self.placement.stored[worker])
        leading = self._broadcast_rows[: self.missing_ranks[worker]]
        columns = list(self.placement.missing(worker))
        # Columns are divided by their lengths, so that all solutions have the same accuracy.
        missing, lengths = reduced.columns[:, columns], reduced.scales[columns]
        G = leading[:, columns] / np.where(lengths > 0, lengths, 1.0)
        X = reduced.lift @ real.solve(G.T, missing.T).T
        return X, self.target[:, stored] - X @ leading[:, stored]

    def _worker(self, worker: int) -> int:
        return whole_number("worker", worker, 0, len(self.placement.workers) - 1)


def _to_packets(vectors: NDArray[Float], P: int) -> NDArray[Float]:
    """(n, d) to (n·P, ⌈d/P⌉), padded with zeros."""
    n, d = vectors.shape
    length = -(-d // P)
    if length * P == d:
        return vectors.reshape(n * P, length)
    padded = np.zeros((n, length * P), dtype=vectors.dtype)
    padded[:, :d] = vectors
    return padded.reshape(n * P, length)


def _check_rows(argument: str, rows: NDArray[Float], count: int | None) -> None:
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or count not in (None, rows.shape[0]):
        wanted = "rows" if count is None else f"{count} rows"
        raise UsageError(argument, f"must be an array of {wanted}", getattr(rows, "shape", rows))
    if rows.shape[1] < 1:
        raise UsageError(argument, "must have rows of at least one number", rows.shape)
    if rows.dtype not in (np.float32, np.float64):
        raise UsageError(argument, "must be float32 or float64", rows.dtype)
