"""The plan, an immutable value: the rows that every worker sends and receives, and the vectors it decodes.

`asyncdmtl.plan.planner` makes a plan without data, and one plan serves every round. A plan travels as a
recipe and a digest: both ends build the same matrices from the recipe, and compare the digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import UsageError
from asyncdmtl.plan.codes.codec import VectorFormat
from asyncdmtl.plan.codes.coders import Coders
from asyncdmtl.plan.codes.matrices import ColumnDelivery, Delivery, combined_rows, packets
from asyncdmtl.plan.notebook import plan_as_html
from asyncdmtl.plan.parameters import PlanParameters, Strategy
from asyncdmtl.plan.rates.job import (
    JobBound,
    job_bound,
    job_bound_with_silent_workers,
    job_downlink_bound,
)
from asyncdmtl.plan.rates.optimum import UplinkOptimum, uplink_optimum
from asyncdmtl.plan.rates.rounding import UplinkObjective
from asyncdmtl.plan.validation import check_byte_rows, check_vectors, numeric_dtype, whole_number

# The kinds of vectors that the columns of `Plan.combined` can stand for.
BroadcastKind = Literal["updates", "aggregates", "models"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan(PlanParameters):
    """Matrices, loads and bounds of one strategy for one placement; made by `make_plan`.

    All loads count vectors of the size of one local update, as exact fractions. Vectors are numbered by
    `units` (the partitions, unless tasks are aggregated). The attributes of `PlanParameters` come first.

    Attributes
    ----------
    uplink_matrix : uint8 array (Σ uplink_rows, columns)
        `E`; rows in the order of the workers, zero outside the columns of units that the worker holds.
    downlink_matrix : uint8 array (R_down·P, Σ uplink_rows), or (R_down·P, T·P) where the server aggregates
        `D`; it combines uplink rows, for `central` the tasks' aggregates, for `personal` their models.
    deliveries : tuple of Delivery, length K
        The rows of the downlink that each worker is sent, the vectors it wants, and those it knows.
    objective : UplinkObjective or None
        The cost or time of the uplink with its proof, if prices or speeds were given to `make_plan`; else
        None. It is not part of the recipe.
    """

    uplink_matrix: Bytes
    downlink_matrix: Bytes
    deliveries: tuple[Delivery, ...]
    objective: UplinkObjective | None = None

    def __post_init__(self) -> None:
        self._protect()

    @property
    def broadcasts(self) -> BroadcastKind:
        """The kind of vectors that the downlink combines: the columns of `combined`."""
        kinds: dict[Strategy, BroadcastKind] = {"central": "aggregates", "personal": "models"}
        return kinds.get(self.strategy, "updates")

    @property
    def uplink_load(self) -> Fraction:
        """`R_up`: vectors sent up by all workers together."""
        return sum(self.uplink_rows) * self.packet_load

    @property
    def downlink_load(self) -> Fraction:
        """`R_down`: vectors broadcast, each coded row counted once."""
        return len(self.downlink_matrix) * self.packet_load

    @property
    def wire_downlink_load(self) -> Fraction:
        """Vectors sent down when every worker is sent its own copy, as over TCP."""
        return sum(len(delivery.rows) for delivery in self.deliveries) * self.packet_load

    def _repr_html_(self) -> str:
        rates = [rows * self.packet_load for rows in self.uplink_rows]
        up = self.uplink_load, self.uplink_bound
        down = self.downlink_load, self.downlink_bound
        return plan_as_html(f"Plan, strategy {self.strategy}", self.placement, rates, up, down)

    def __getstate__(self) -> dict[str, object]:
        """The state to pickle or copy, without cached results: coders hold pointers."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Restore the state of a pickled or copied plan, with read-only matrices."""
        self.__dict__.update(state)
        self._protect()

    def _protect(self) -> None:
        for matrix in (self.uplink_matrix, self.downlink_matrix):
            matrix.flags.writeable = False

    @cached_property
    def optimum(self) -> UplinkOptimum:
        """`R_CO` of the units with its certificate: the smallest uplink load of `relay` on these units.

        It applies if all workers want the units; with helpers, a smaller load may suffice.
        """
        return uplink_optimum(self.units.blocks)

    @property
    def certificate(self) -> tuple[tuple[int, ...], ...]:
        """The partition of the workers that proves `R_CO` of the units."""
        return self.optimum.certificate

    @cached_property
    def job_bound(self) -> JobBound:
        """The job's lower bound of the uplink load for any scheme, coded or not, with its proof."""
        if self.silent:
            at_server = self.strategy != "relay"
            return job_bound_with_silent_workers(
                self.placement, self.tasks, self.silent, at_server=at_server, helpers=self.helpers
            )
        at_server = self.strategy == "personal"
        return job_bound(self.placement, self.tasks, at_server=at_server, helpers=self.helpers)

    @property
    def uplink_bound(self) -> Fraction:
        """The smallest uplink load of any scheme for the job (`job_bound`).

        Under `personal` the server needs every aggregate; otherwise every worker does.
        """
        return self.job_bound.load

    @property
    def downlink_bound(self) -> Fraction:
        """The smallest downlink load of any scheme: the most that a worker lacks.

        Under `personal` it is the number of models that some worker wants.
        """
        if self.broadcasts == "models":
            return Fraction(len({task for delivery in self.deliveries for task in delivery.wanted}))
        return Fraction(job_downlink_bound(self.placement, self.tasks, self.helpers))

    @cached_property
    def combined(self) -> Bytes:
        """`G`: each downlink row as a combination of the vectors that workers decode (see `broadcasts`)."""
        if self.broadcasts != "updates":
            return self.downlink_matrix
        return combined_rows(
            self.downlink_matrix, self.uplink_matrix, self.units.blocks, self.uplink_rows, self.subpackets
        )

    def in_columns(self, delivery: Delivery) -> ColumnDelivery:
        """A delivery with columns of `combined` in place of vectors."""
        known, wanted = self.packed_order(delivery.known), self.packed_order(delivery.wanted)
        if self.broadcasts != "updates":
            return ColumnDelivery(
                delivery.rows, packets(wanted, self.subpackets), packets(known, self.subpackets)
            )
        columns = self.units.columns
        return ColumnDelivery(
            delivery.rows, columns(wanted, self.subpackets), columns(known, self.subpackets)
        )

    def packed_order(self, vectors: Sequence[int]) -> tuple[int, ...]:
        """Vectors of a delivery in the order of their packets in memory."""
        return tuple(vectors) if self.broadcasts != "updates" else self.units.in_layout(vectors)

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that are equal for equal matrices, deliveries and placements, and differ otherwise."""
        hasher = hashlib.blake2b(digest_size=16, usedforsecurity=False)
        hasher.update(repr(self.recipe()).encode())
        for delivery in self.deliveries:
            for numbers in (delivery.rows, delivery.wanted, delivery.known):
                hasher.update(np.array([len(numbers), *numbers], dtype="<i8").data)
        for matrix in (self.uplink_matrix, self.downlink_matrix):
            hasher.update(repr(matrix.shape).encode())
            hasher.update(matrix.reshape(-1).data)
        return hasher.digest()

    @cached_property
    def coders(self) -> Coders:
        """The encoders, decoders and recombiner, each made at its first use."""
        return Coders(
            self.placement.workers,
            tuple(self.units.columns(held, self.subpackets) for held in self.units.held),
            self.uplink_rows,
            self.uplink_matrix,
            self.downlink_matrix,
            self.combined,
            tuple(map(self.in_columns, self.deliveries)),
        )

    def vector_format(self, length: int, dtype: DTypeLike, *, grouped: bool = False) -> VectorFormat:
        """The layout of vectors of `length` numbers in packets; `grouped` if rows go to a multicast group.

        Raises
        ------
        UsageError
            `length` is no whole number of at least 1, or `dtype` is no dtype of numbers.
        """
        length, dtype = whole_number("length", length, 1), numeric_dtype(dtype)
        return VectorFormat.of(length, dtype, self.subpackets, grouped=grouped, merged=self.merged)

    def encode(self, worker: int, updates: NDArray[Any]) -> Bytes:
        """The coded rows that `worker` sends up.

        Parameters
        ----------
        worker : int
        updates : array (len(units.held[worker]), d) of any numeric dtype
            The vectors of the units that the worker holds, ascending: without aggregated tasks the local
            updates of its partitions.

        Returns
        -------
        uint8 array (uplink_rows[worker], packet bytes)

        Raises
        ------
        UsageError
            The worker does not exist, or vectors have another shape or kind.
        """
        worker = self._checked(worker)
        held = self.units.held[worker]
        check_vectors("updates", updates, len(held))
        packed = self._pack(held, updates, self.units.in_layout(held))
        return self.coders.encoder(worker)(packed)

    def collect(self, uplink: Mapping[int, Bytes], length: int, dtype: DTypeLike) -> NDArray[Any]:
        """Decode all units, at a server that aggregates, from the rows of the workers that responded.

        Parameters
        ----------
        uplink : mapping of worker to its rows, as `encode` returned them
            All workers, or all but `silent` of them.
        length, dtype
            The numbers of one vector and their dtype.

        Returns
        -------
        array (units, length)
            Without aggregated tasks the updates of all N partitions.

        Raises
        ------
        UsageError
            A worker does not exist, or rows have another shape or dtype than `encode` returns.
        CodingError
            The rows of these workers do not determine all units.
        """
        layout = self.vector_format(length, dtype)
        if not isinstance(uplink, Mapping):
            raise UsageError("uplink", "must map workers to their rows", type(uplink).__name__)
        parts = {self._checked(k): part for k, part in uplink.items()}
        for k, part in parts.items():
            check_byte_rows(f"rows of worker {k}", part, (self.uplink_rows[k], layout.packet_bytes))
        chosen, decoder = self.coders.collector(tuple(parts))
        firsts = np.concatenate([[0], np.cumsum(self.uplink_rows)])
        rows = {int(firsts[k]) + i: row for k, part in parts.items() for i, row in enumerate(part)}
        everything = tuple(range(len(self.units.holders)))
        packed = decoder([rows[i] for i in chosen], ())
        return _reordered(layout.vectors(packed), self.units.in_layout(everything), everything)

    def recombine(self, uplink: Sequence[Bytes]) -> Bytes:
        """The rows that the server broadcasts, from the rows of all workers in their order.

        A server that aggregates combines the packets of its results instead of the uplink. Returns a
        uint8 array (len(downlink_matrix), packet bytes); worker `k` is sent its rows `deliveries[k].rows`.

        Raises
        ------
        UsageError
            The parts are not 2-D arrays of uint8 with rows of one length, or have too few or too many rows.
        """
        if not isinstance(uplink, list | tuple):
            raise UsageError("uplink", "must be a list of arrays, one per worker", type(uplink).__name__)
        parts = list(uplink)
        lengths = {part.shape[1] for part in parts if isinstance(part, np.ndarray) and part.ndim == 2}
        for part in parts:
            check_byte_rows("uplink", part, None)
        count, expected = sum(map(len, parts)), self.downlink_matrix.shape[1]
        if len(lengths) != 1 or count != expected:
            rule = f"must have {expected} rows of equal length in all, from the workers in their order"
            raise UsageError("uplink", rule, [part.shape for part in parts])
        return self.coders.recombiner([row for rows in parts for row in rows] or parts[0])

    def decode(self, worker: int, rows: Bytes, known: NDArray[Any]) -> NDArray[Any]:
        """The vectors that `worker` decodes from the rows that it was sent.

        Parameters
        ----------
        worker : int
        rows : uint8 array (len(deliveries[worker].rows), packet bytes)
        known : array (len(deliveries[worker].known), d)
            The worker's side information, in ascending order: its local updates, or under `central` the
            aggregates of the tasks that it stores whole.

        Returns
        -------
        array (len(deliveries[worker].wanted), d) of the dtype of `known`
            In ascending order.

        Raises
        ------
        UsageError
            The worker does not exist, or arrays have another shape or dtype.
        """
        worker = self._checked(worker)
        delivery = self.deliveries[worker]
        check_vectors("known", known, len(delivery.known))
        layout = self.vector_format(known.shape[1], known.dtype)
        check_byte_rows("rows", rows, (len(delivery.rows), layout.packet_bytes))
        packed = self._pack(delivery.known, known, self.packed_order(delivery.known))
        decoded = layout.vectors(self.coders.decoder(worker)(rows, packed))
        return _reordered(decoded, self.packed_order(delivery.wanted), delivery.wanted)

    def _pack(self, numbers: Sequence[int], vectors: NDArray[Any], order: Sequence[int]) -> Bytes:
        """Packets of vectors that are given in ascending order."""
        layout = self.vector_format(vectors.shape[1], vectors.dtype)
        return layout.pack(_reordered(vectors, numbers, order))

    def _checked(self, worker: int) -> int:
        """Return `worker`, if it is the index of a worker; else raise UsageError."""
        return whole_number("worker", worker, 0, len(self.placement.workers) - 1)


def _reordered(vectors: NDArray[Any], before: Sequence[int], after: Sequence[int]) -> NDArray[Any]:
    """The rows of `vectors`, which are in the order `before`, rearranged into the order `after`."""
    if tuple(before) == tuple(after):
        return vectors
    place = {number: i for i, number in enumerate(before)}
    return vectors[[place[number] for number in after]]
