"""The encoders and decoders of one plan. Each is made at its first use, and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.arrays import Bytes, Indices
from asyncdmtl.errors import CodingError
from asyncdmtl.field import linalg
from asyncdmtl.field.gf256 import dense_product
from asyncdmtl.plan.codes.codec import Decoder, Encoder, Recombiner
from asyncdmtl.plan.codes.matrices import ColumnDelivery


@dataclass(eq=False)
class Coders:
    """Encoders, decoders and the recombiner of a plan, made from its matrices.

    `stored` are the columns of the packets that each worker encodes, `combined` the downlink rows as
    combinations of the packets that workers decode.
    """

    workers: tuple[str, ...]
    stored: tuple[Indices, ...]
    uplink_rows: tuple[int, ...]
    uplink_matrix: Bytes
    downlink_matrix: Bytes
    combined: Bytes
    deliveries: tuple[ColumnDelivery, ...]
    _encoders: dict[int, Encoder] = field(default_factory=dict, init=False)
    _decoders: dict[tuple[int, tuple[int, ...]], Decoder] = field(default_factory=dict, init=False)
    _recombiners: dict[tuple[int, ...], Recombiner] = field(default_factory=dict, init=False)
    _collectors: dict[tuple[int, ...], tuple[tuple[int, ...], Decoder]] = field(
        default_factory=dict, init=False
    )

    def encoder(self, worker: int) -> Encoder:
        """The encoder of one worker, from stored packets to uplink rows."""
        if worker not in self._encoders:
            first = sum(self.uplink_rows[:worker])
            rows = self.uplink_matrix[first : first + self.uplink_rows[worker]]
            self._encoders[worker] = Encoder(rows, self.stored[worker])
        return self._encoders[worker]

    def decoder(self, worker: int, absent: tuple[int, ...] = ()) -> Decoder:
        """The decoder of one worker, from received rows and known packets to wanted packets.

        Parameters
        ----------
        worker : int
        absent : tuple of int
            The workers, ascending, whose uplink rows are not in the downlink.

        Raises
        ------
        CodingError
            The rows of the others do not suffice.
        """
        if (worker, absent) not in self._decoders:
            combined = self.combined_without(absent) if absent else self.combined
            self._decoders[worker, absent] = Decoder(combined, self.deliveries[worker])
        return self._decoders[worker, absent]

    def combined_without(self, absent: Sequence[int]) -> Bytes:
        """`combined`, if the server combines the uplink rows of all workers but the `absent` ones."""
        there = self._rows_without(absent)
        return dense_product(np.ascontiguousarray(self.downlink_matrix[:, there]), self.uplink_matrix[there])

    def _rows_without(self, absent: Sequence[int]) -> NDArray[np.bool_]:
        """Which uplink rows are not those of the `absent` workers."""
        owners = np.repeat(np.arange(len(self.uplink_rows)), self.uplink_rows)
        return ~np.isin(owners, list(absent))

    @cached_property
    def recombiner(self) -> Recombiner:
        """The server's product with the downlink matrix."""
        return Recombiner(self.downlink_matrix)

    def recombiner_without(self, absent: tuple[int, ...]) -> Recombiner:
        """The same product for the uplink rows of all workers but the `absent` ones, which are ascending."""
        if not absent:
            return self.recombiner
        if absent not in self._recombiners:
            there = self._rows_without(absent)
            self._recombiners[absent] = Recombiner(np.ascontiguousarray(self.downlink_matrix[:, there]))
        return self._recombiners[absent]

    def collector(self, responders: Sequence[int] | None = None) -> tuple[tuple[int, ...], Decoder]:
        """The decoder of a server that aggregates, and the uplink rows from which it decodes all vectors.

        Parameters
        ----------
        responders : sequence of int, optional
            The workers whose rows have arrived; default all. Each set of workers is prepared once.

        Raises
        ------
        CodingError
            The rows of these workers do not determine all vectors.
        """
        present = tuple(range(len(self.uplink_rows)) if responders is None else sorted(set(responders)))
        if present not in self._collectors:
            owners = np.repeat(np.arange(len(self.uplink_rows)), self.uplink_rows)
            there = np.flatnonzero(np.isin(owners, present))
            chosen = there[list(linalg.independent_rows(self.uplink_matrix[there]))]
            columns = self.uplink_matrix.shape[1]
            if len(chosen) < columns:
                absent = [name for k, name in enumerate(self.workers) if k not in present]
                raise CodingError(f"the updates cannot be decoded without the rows of {', '.join(absent)}")
            rows = tuple(map(int, chosen))
            everything = ColumnDelivery(rows, np.arange(columns), np.arange(0))
            self._collectors[present] = rows, Decoder(self.uplink_matrix, everything)
        return self._collectors[present]
