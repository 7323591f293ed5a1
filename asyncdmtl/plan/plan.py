"""The plan: an immutable value that says what every worker sends, is sent, and decodes.

A plan is made without data (asyncdmtl.plan.planner) and serves every round. It travels as a recipe, from
which both ends build the same matrices, and a digest, by which they know that they did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import CodingError, UsageError
from asyncdmtl.field import linalg
from asyncdmtl.plan.codes import matrices
from asyncdmtl.plan.codes.codec import Decoder, Encoder, Recombiner, VectorFormat
from asyncdmtl.plan.codes.matrices import Delivery, Matrix
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import downlink_bound
from asyncdmtl.plan.rates.optimum import UplinkOptimum, uplink_optimum
from asyncdmtl.plan.rates.stragglers import silent_rates
from asyncdmtl.plan.validation import whole_number

Strategy = Literal["relay", "central", "personal", "uncoded"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

# What a run may ask for: auto chooses among the exact ones; linear is exact up to rounding only.
CHOICES = ("auto", *STRATEGIES, "linear")

Vectors = Literal["updates", "aggregates", "models"]
RECIPE_VERSION = 1


@dataclass(frozen=True, eq=False)
class Plan:
    """Matrices, loads and bounds of one strategy for one placement.

    All loads count vectors of the size of one local update, as exact fractions. `K`, `N`, `T`, `P` are the
    numbers of workers, partitions, tasks and packets per vector.

    Attributes
    ----------
    placement : Placement
    tasks : tuple of int, length N
        The task that owns each partition.
    strategy : "relay", "central", "personal" or "uncoded"
    subpackets : int
        `P`.
    seed : int
        Of the random entries of both matrices.
    uplink_rows : tuple of int, length K
        Packets that each worker sends: `R_k·P`.
    senders : tuple of int
        Where updates go up uncoded, the worker that sends each of them; else empty.
    uplink_matrix : uint8 array (R_up·P, N·P)
        `E`; rows in the order of the workers, zero outside a worker's stored columns.
    downlink_matrix : uint8 array (R_down·P, R_up·P), or (R_down·P, T·P) where the server aggregates
        `D`; it combines uplink rows, for `central` the tasks' aggregates, for `personal` their models.
    silent : int
        How many workers may stay silent (`central`).
    deliveries : tuple of Delivery, length K
        Which rows of the downlink each worker is sent, what it wants and what it knows.
    """

    placement: Placement
    tasks: tuple[int, ...]
    strategy: Strategy
    subpackets: int
    seed: int
    uplink_rows: tuple[int, ...]
    senders: tuple[int, ...]
    uplink_matrix: Matrix
    downlink_matrix: Matrix
    deliveries: tuple[Delivery, ...]
    silent: int = 0

    @property
    def broadcasts(self) -> Vectors:
        """What the columns of `combined` are: what the downlink is made of."""
        kinds: dict[Strategy, Vectors] = {"central": "aggregates", "personal": "models"}
        return kinds.get(self.strategy, "updates")

    @property
    def uplink_load(self) -> Fraction:
        """`R_up`: vectors sent up by all workers together."""
        return Fraction(sum(self.uplink_rows), self.subpackets)

    @property
    def downlink_load(self) -> Fraction:
        """`R_down`: vectors broadcast, each coded row counted once."""
        return Fraction(len(self.downlink_matrix), self.subpackets)

    @property
    def wire_downlink_load(self) -> Fraction:
        """Vectors sent down when every worker is sent its own copy, as over TCP."""
        return Fraction(sum(len(delivery.rows) for delivery in self.deliveries), self.subpackets)

    def __getstate__(self) -> dict[str, object]:
        """Without what was computed from the plan: coders hold pointers that mean nothing to a copy."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def optimum(self) -> UplinkOptimum:
        """`R_CO` of the placement with its certificate."""
        return uplink_optimum(self.placement)

    @property
    def certificate(self) -> tuple[tuple[int, ...], ...]:
        """The partition of the workers that proves `R_CO`."""
        return self.optimum.certificate

    @property
    def uplink_bound(self) -> Fraction:
        """The least that any scheme sends up: `N` if the server aggregates, `R_CO` if workers do."""
        if self.silent:
            return silent_rates(self.placement, self.silent).bound
        if self.broadcasts != "updates":
            return Fraction(len(self.placement.partitions))
        return self.optimum.load

    @property
    def downlink_bound(self) -> Fraction:
        """The least that any scheme broadcasts: what the neediest worker lacks; all models if `personal`."""
        if self.broadcasts == "updates":
            return Fraction(downlink_bound(self.placement))
        if self.broadcasts == "models":
            return Fraction(max(self.tasks) + 1)
        return Fraction(max(len(delivery.wanted) for delivery in self.deliveries))

    @cached_property
    def combined(self) -> Matrix:
        """`G`: each downlink row as a combination of what workers decode: updates, or aggregates."""
        if self.broadcasts != "updates":
            return self.downlink_matrix
        return matrices.product(self.downlink_matrix, self.uplink_matrix)

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that agree iff both matrices, the deliveries and the placement do."""
        hasher = hashlib.blake2b(digest_size=16)
        hasher.update(repr((self.recipe(), self.deliveries)).encode())
        for matrix in (self.uplink_matrix, self.downlink_matrix):
            hasher.update(repr(matrix.shape).encode())
            hasher.update(matrix.reshape(-1).data)
        return hasher.digest()

    def recipe(self) -> dict[str, Any]:
        """What `planner.rebuild_plan` needs to build this plan again, in plain msgpack and JSON types."""
        return {
            "version": RECIPE_VERSION,
            "strategy": self.strategy,
            "workers": list(self.placement.workers),
            "partitions": list(self.placement.partitions),
            "stored": [list(stored) for stored in self.placement.stored],
            "tasks": list(self.tasks),
            "subpackets": self.subpackets,
            "uplink_rows": list(self.uplink_rows),
            "senders": list(self.senders),
            "seed": self.seed,
            "silent": self.silent,
        }

    def collector(self, responders: Sequence[int] | None = None) -> tuple[tuple[int, ...], Decoder]:
        """How the server decodes all updates, where it aggregates: which uplink rows it takes, and a decoder.

        Parameters
        ----------
        responders : sequence of int, optional
            The workers whose rows are there; default all. Prepared once for each set.

        Raises
        ------
        CodingError
            The rows of these workers do not determine all updates.
        """
        present = tuple(range(len(self.uplink_rows)) if responders is None else sorted(set(responders)))
        if present not in self._collectors:
            owners = np.repeat(np.arange(len(self.uplink_rows)), self.uplink_rows)
            there = np.flatnonzero(np.isin(owners, present))
            chosen = there[list(linalg.independent_rows(self.uplink_matrix[there]))]
            columns = self.uplink_matrix.shape[1]
            if len(chosen) < columns:
                absent = [name for k, name in enumerate(self.placement.workers) if k not in present]
                raise CodingError(f"the updates cannot be decoded without the rows of {', '.join(absent)}")
            rows = tuple(map(int, chosen))
            everything = Delivery(rows, tuple(range(columns // self.subpackets)), ())
            self._collectors[present] = rows, Decoder(self.uplink_matrix, everything, self.subpackets)
        return self._collectors[present]

    @cached_property
    def recombiner(self) -> Recombiner:
        """The prepared product with the downlink matrix."""
        return Recombiner(self.downlink_matrix)

    def encoder(self, worker: int) -> Encoder:
        """The prepared encoder of one worker, made once."""
        if worker not in self._encoders:
            first = sum(self.uplink_rows[:worker])
            rows = self.uplink_matrix[first : first + self.uplink_rows[worker]]
            self._encoders[worker] = Encoder(rows, self.placement.stored[worker], self.subpackets)
        return self._encoders[worker]

    def decoder(self, worker: int) -> Decoder:
        """The prepared decoder of one worker, made once."""
        if worker not in self._decoders:
            self._decoders[worker] = Decoder(self.combined, self.deliveries[worker], self.subpackets)
        return self._decoders[worker]

    @cached_property
    def _collectors(self) -> dict[tuple[int, ...], tuple[tuple[int, ...], Decoder]]:
        return {}

    @cached_property
    def _encoders(self) -> dict[int, Encoder]:
        return {}

    @cached_property
    def _decoders(self) -> dict[int, Decoder]:
        return {}

    def vector_format(self, length: int, dtype: DTypeLike, *, grouped: bool = False) -> VectorFormat:
        """How vectors of `length` numbers of `dtype` are cut into this plan's packets, for a group or not."""
        return VectorFormat.of(length, dtype, self.subpackets, grouped=grouped)

    def encode(self, worker: int, updates: NDArray[Any]) -> Bytes:
        """What `worker` sends up.

        Parameters
        ----------
        worker : int
        updates : array (|M_k|, d) of any dtype
            The local updates of the partitions that the worker stores, in ascending order.

        Returns
        -------
        uint8 array (uplink_rows[worker], packet bytes)
        """
        expected = len(self.placement.stored[self._checked(worker)])
        _check_array("updates", updates)
        if updates.ndim != 2 or len(updates) != expected:
            raise UsageError("updates", f"must have the shape ({expected}, d)", updates.shape)
        return self.encoder(worker)(self.vector_format(updates.shape[1], updates.dtype).pack(updates))

    def collect(self, uplink: Mapping[int, Bytes], length: int, dtype: DTypeLike) -> NDArray[Any]:
        """All updates, at a server that aggregates, from the rows of the workers that responded.

        Parameters
        ----------
        uplink : mapping of worker to what `encode` gave it
            All workers, or all but `silent` of them.
        length, dtype
            Of one update.

        Returns
        -------
        array (N, length)

        Raises
        ------
        CodingError
            The rows of these workers do not determine all updates.
        """
        for k, part in uplink.items():
            shape = (self.uplink_rows[self._checked(k)], self.vector_format(length, dtype).packet_bytes)
            _check_array(f"rows of worker {k}", part)
            if part.shape != shape:
                raise UsageError(f"rows of worker {k}", f"must have the shape {shape}", part.shape)
        chosen, decoder = self.collector(tuple(uplink))
        firsts = np.concatenate([[0], np.cumsum(self.uplink_rows)])
        rows = {int(firsts[k]) + i: row for k, part in uplink.items() for i, row in enumerate(part)}
        return self.vector_format(length, dtype).vectors(decoder([rows[i] for i in chosen], ()))

    def recombine(self, uplink: Sequence[Bytes]) -> Bytes:
        """What the server broadcasts, from the rows of all workers in their order.

        Where the server aggregates, the rows to combine are the results' packets, not the uplink.
        Returns a uint8 array (len(downlink_matrix), packet bytes); worker `k` is sent the rows
        `deliveries[k].rows` of it.
        """
        parts = list(uplink)
        for part in parts:
            _check_array("uplink", part)
        if not parts or any(part.ndim != 2 for part in parts):
            raise UsageError("uplink", "must be 2-D arrays of rows, one from each worker", len(parts))
        return self.recombiner([row for rows in parts for row in rows] or parts[0])

    def decode(self, worker: int, rows: Bytes, known: NDArray[Any]) -> NDArray[Any]:
        """What `worker` makes of the rows that it was sent.

        Parameters
        ----------
        worker : int
        rows : uint8 array (len(deliveries[worker].rows), packet bytes)
        known : array (len(deliveries[worker].known), d)
            Its side information, ascending: its local updates, or its tasks' aggregates for `central`.

        Returns
        -------
        array (len(deliveries[worker].wanted), d) of the dtype of `known`
        """
        delivery = self.deliveries[self._checked(worker)]
        _check_array("known", known)
        _check_array("rows", rows)
        if known.ndim != 2 or len(known) != len(delivery.known):
            raise UsageError("known", f"must have the shape ({len(delivery.known)}, d)", known.shape)
        layout = self.vector_format(known.shape[1], known.dtype)
        if rows.shape != (len(delivery.rows), layout.packet_bytes):
            shape = (len(delivery.rows), layout.packet_bytes)
            raise UsageError("rows", f"must have the shape {shape}", rows.shape)
        return layout.vectors(self.decoder(worker)(rows, layout.pack(known)))

    def _checked(self, worker: int) -> int:
        """`worker`, if it is the index of one; else UsageError."""
        return whole_number("worker", worker, 0, len(self.placement.workers) - 1)


def _check_array(argument: str, value: object) -> None:
    if not isinstance(value, np.ndarray) or value.dtype.hasobject:
        raise UsageError(argument, "must be a NumPy array of numbers", type(value).__name__)
