"""The plan: an immutable value that says what every worker sends, is sent, and decodes.

`asyncdmtl.plan.planner` makes a plan without data, and one plan serves every round. A plan travels as a
recipe and a digest: both ends build the same matrices from the recipe, and compare the digest.
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
from asyncdmtl.errors import UsageError
from asyncdmtl.field import gf256
from asyncdmtl.plan.codes.codec import VectorFormat
from asyncdmtl.plan.codes.coders import Coders
from asyncdmtl.plan.codes.matrices import Delivery
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.bounds import downlink_bound
from asyncdmtl.plan.rates.optimum import UplinkOptimum, uplink_optimum
from asyncdmtl.plan.rates.stragglers import silent_rates
from asyncdmtl.plan.validation import whole_number

Strategy = Literal["relay", "central", "personal", "uncoded"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

# The strategies that a run may ask for. `auto` chooses among the exact ones; `linear` is exact up to
# rounding.
CHOICES = ("auto", *STRATEGIES, "linear")

# What the columns of `Plan.combined` stand for.
BroadcastKind = Literal["updates", "aggregates", "models"]

# Version of a recipe's format: a peer refuses a recipe of another version.
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
        Where updates are aggregated, and what is coded (docs/theory.md, section 2).
    subpackets : int
        `P`: the packets that every vector is cut into.
    seed : int
        The seed of the random entries of both matrices.
    uplink_rows : tuple of int, length K
        Packets that each worker sends: `R_k·P`.
    senders : tuple of int
        The worker that sends each update, where updates go up uncoded; else empty.
    uplink_matrix : uint8 array (R_up·P, N·P)
        `E`; rows in the order of the workers, zero outside a worker's stored columns.
    downlink_matrix : uint8 array (R_down·P, R_up·P), or (R_down·P, T·P) where the server aggregates
        `D`; it combines uplink rows, for `central` the tasks' aggregates, for `personal` their models.
    deliveries : tuple of Delivery, length K
        The rows of the downlink that each worker is sent, the vectors it wants, and those it knows.
    silent : int
        How many workers may stay silent (`central`).
    """

    placement: Placement
    tasks: tuple[int, ...]
    strategy: Strategy
    subpackets: int
    seed: int
    uplink_rows: tuple[int, ...]
    senders: tuple[int, ...]
    uplink_matrix: Bytes
    downlink_matrix: Bytes
    deliveries: tuple[Delivery, ...]
    silent: int = 0

    @property
    def broadcasts(self) -> BroadcastKind:
        """The kind of vectors that the downlink combines: the columns of `combined`."""
        kinds: dict[Strategy, BroadcastKind] = {"central": "aggregates", "personal": "models"}
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
        """Leave out what was computed from the plan: coders hold pointers that mean nothing to a copy."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Take over the state of a pickled or copied plan; its matrices are read-only again."""
        self.__dict__.update(state)
        for matrix in (self.uplink_matrix, self.downlink_matrix):
            matrix.flags.writeable = False

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
        """The least uplink load of any scheme: `N` if the server aggregates, `R_CO` if workers do."""
        if self.silent:
            return silent_rates(self.placement, self.silent).bound
        if self.broadcasts != "updates":
            return Fraction(len(self.placement.partitions))
        return self.optimum.load

    @property
    def downlink_bound(self) -> Fraction:
        """The least downlink load of any scheme: what one worker lacks at most; `T` under `personal`."""
        if self.broadcasts == "updates":
            return Fraction(downlink_bound(self.placement))
        if self.broadcasts == "models":
            return Fraction(max(self.tasks) + 1)
        return Fraction(max(len(delivery.wanted) for delivery in self.deliveries))

    @cached_property
    def combined(self) -> Bytes:
        """`G`: each downlink row as a combination of the vectors that workers decode (see `broadcasts`)."""
        if self.broadcasts != "updates":
            return self.downlink_matrix
        return gf256.matmul(self.downlink_matrix, self.uplink_matrix)

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
        """All that `asyncdmtl.plan.recipe.rebuild_plan` needs, in plain msgpack and JSON types."""
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

    @cached_property
    def coders(self) -> Coders:
        """The prepared encoders, decoders and recombiner, each made when it is first asked for."""
        return Coders(
            self.placement,
            self.subpackets,
            self.uplink_rows,
            self.uplink_matrix,
            self.downlink_matrix,
            self.combined,
            self.deliveries,
        )

    def vector_format(self, length: int, dtype: DTypeLike, *, grouped: bool = False) -> VectorFormat:
        """How vectors of `length` numbers are cut into packets; `grouped` if rows go to a multicast group."""
        return VectorFormat.of(length, dtype, self.subpackets, grouped=grouped)

    def encode(self, worker: int, updates: NDArray[Any]) -> Bytes:
        """The coded rows that `worker` sends up.

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
        return self.coders.encoder(worker)(self.vector_format(updates.shape[1], updates.dtype).pack(updates))

    def collect(self, uplink: Mapping[int, Bytes], length: int, dtype: DTypeLike) -> NDArray[Any]:
        """Decode all updates, at a server that aggregates, from the rows of the workers that responded.

        Parameters
        ----------
        uplink : mapping of worker to its rows, as `encode` returned them
            All workers, or all but `silent` of them.
        length, dtype
            The numbers of one update and their dtype.

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
        chosen, decoder = self.coders.collector(tuple(uplink))
        firsts = np.concatenate([[0], np.cumsum(self.uplink_rows)])
        rows = {int(firsts[k]) + i: row for k, part in uplink.items() for i, row in enumerate(part)}
        return self.vector_format(length, dtype).vectors(decoder([rows[i] for i in chosen], ()))

    def recombine(self, uplink: Sequence[Bytes]) -> Bytes:
        """The rows that the server broadcasts, from the rows of all workers in their order.

        Where the server aggregates, it combines the packets of its results instead of the uplink. Returns a
        uint8 array (len(downlink_matrix), packet bytes); worker `k` is sent its rows `deliveries[k].rows`.

        Raises
        ------
        UsageError
            The parts are not 2-D arrays of uint8, or have too few or too many rows.
        """
        parts = list(uplink)
        for part in parts:
            _check_array("uplink", part)
        if not parts or any(part.ndim != 2 for part in parts):
            raise UsageError("uplink", "must be 2-D arrays of rows, one from each worker", len(parts))
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
        return layout.vectors(self.coders.decoder(worker)(rows, layout.pack(known)))

    def _checked(self, worker: int) -> int:
        """Return `worker`, if it is the index of a worker; else raise UsageError."""
        return whole_number("worker", worker, 0, len(self.placement.workers) - 1)


def _check_array(argument: str, value: object) -> None:
    if not isinstance(value, np.ndarray) or value.dtype.hasobject:
        raise UsageError(argument, "must be a NumPy array of numbers", type(value).__name__)
