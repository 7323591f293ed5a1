"""What a worker sends up in a round, and the bytes in which it tells digests and numbers beside its rows.

These bytes have no headers of their own: both sides of a plan know how many digests and numbers there are.

::

    digests        16 bytes each
    confirmation   16 bytes, or none if all values are sent
    state          the check of the state, 16 bytes, or none
    numbers        losses, and then penalty and residual if they are sent, in the dtype of the run
    sealed         the numbers of a blind run, in their place
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.digests import VECTOR_DIGEST_BYTES
from asyncdmtl.errors import RemoteProtocolError


@dataclass(frozen=True, eq=False)
class Upload:
    """The rows, digests and losses that one worker sends up in a round.

    Attributes
    ----------
    rows : tuple of uint8 array (rows, bytes)
        The coded rows, one array for each range. At the server, the ranges that have arrived.
    size : int
        Bytes of the rows of all ranges.
    digests : tuple of bytes
        One for each group of units that the worker holds (`SummedGroups`); in detail, one for the update of
        each stored partition and for each aggregate that is a unit; or one for the rows (linear).
    losses : tuple of float
        The mean losses of the stored partitions.
    penalty : float
        The coupling's penalty at the current models; 0 from all but the first `PENALTY_WORKERS` workers,
        unless all values are sent in detail.
    residual : float
        `Trainer.residual` of the last step.
    state : bytes
        The check of the state that the worker holds (`WorkerSide.state_check`).
    confirmation : bytes
        In a message that leaves out what other workers tell: the number by which the worker confirms it and
        its digests (`SummedGroups`); else empty.
    sealed : tuple of bytes
        In a blind run, losses, penalty and residual as they are sent, in place of the numbers above.
    """

    rows: tuple[Bytes, ...]
    size: int
    digests: tuple[bytes, ...]
    losses: tuple[float, ...]
    penalty: float
    residual: float
    state: bytes = b""
    confirmation: bytes = b""
    sealed: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Layout:
    """What a worker tells beside its rows under one plan.

    Attributes
    ----------
    dtype : dtype
        The dtype of numbers.
    digests, losses : int
        Their numbers.
    measures : bool
        Whether penalty and residual follow the losses.
    state, confirmed : bool
        Whether there is a check of the state, and a confirmation.
    sealed, sealed_bytes : int
        The number of sealed numbers, and the bytes of each.
    """

    dtype: np.dtype[np.floating[Any]]
    digests: int = 0
    losses: int = 0
    measures: bool = False
    state: bool = False
    confirmed: bool = False
    sealed: int = 0
    sealed_bytes: int = 1

    @property
    def size(self) -> int:
        """All bytes."""
        return sum(self._sizes())

    def pack(self, upload: Upload) -> bytes:
        """What an upload tells beside its rows."""
        told = [*upload.losses, *((upload.penalty, upload.residual) if self.measures else ())]
        with np.errstate(over="ignore"):
            numbers = np.array(told, np.float64).astype(self.dtype.newbyteorder("<")).tobytes()
        confirmation, state = (upload.confirmation, upload.state if self.state else b"")
        return b"".join((*upload.digests, confirmation, state, numbers, *upload.sealed))

    def unpack(self, told: bytes, rows: tuple[Bytes, ...], size: int) -> Upload:
        """The upload with these rows, of `size` bytes in all ranges.

        Raises
        ------
        RemoteProtocolError
            The number of bytes is not that of the plan.
        """
        if len(told) != self.size:
            raise RemoteProtocolError(
                f"received {len(told)} bytes of digests and numbers, the plan says {self.size}"
            )
        start, parts = 0, []
        for length in self._sizes():
            parts.append(told[start : start + length])
            start += length
        digests, confirmation, state, packed, sealed = parts
        numbers = np.frombuffer(packed, self.dtype.newbyteorder("<")).astype(np.float64).tolist()
        penalty, residual = numbers[self.losses :] if self.measures else (0.0, 0.0)
        return Upload(
            rows,
            size,
            tuple(_split(digests, VECTOR_DIGEST_BYTES)),
            tuple(numbers[: self.losses]),
            penalty,
            residual,
            state,
            confirmation,
            tuple(_split(sealed, self.sealed_bytes)),
        )

    def _sizes(self) -> tuple[int, ...]:
        each = VECTOR_DIGEST_BYTES
        numbers = (self.losses + 2 * self.measures) * self.dtype.itemsize
        return (
            self.digests * each,
            self.confirmed * each,
            self.state * each,
            numbers,
            self.sealed * self.sealed_bytes,
        )


def _split(told: bytes, size: int) -> Iterable[bytes]:
    return (told[start : start + size] for start in range(0, len(told), size))
