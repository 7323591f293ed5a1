"""A worker's side of a round of a blind run: what it codes is masked, and what it decodes is unmasked.

Every unit is masked before it is encoded: a worker sends `E_k (V_k + S_k)`, and what comes down is a
combination of `V + S`. So the coding is as without masks, a worker decodes `v_n + s_n` with its own masked
units as side information, and takes `s_n` off. The stream `s_n` is derived from the MAC of the group of units
that `v_n` belongs to (`GroupKey.mask`), which the server passes on. Holders of a unit make the same stream
from the same unit, and from another unit another stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.blinding.sealed import (
    SEALED_NUMBER_BYTES,
    check_numbers,
    number_bytes,
    opened_number,
    sealed_number,
    split,
    tagged_number,
)
from asyncdmtl.digests import VECTOR_DIGEST_BYTES
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.exchange.blind_confirmation import BlindGroups
from asyncdmtl.exchange.coded_worker import RelayWorkerSide
from asyncdmtl.exchange.sides import DEFAULT_OPTIONS, PENALTY_WORKERS, SideOptions
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.plan.plan import Plan

# Bytes behind an array that is masked: some versions of the library ask for room for one more block.
_ROOM = 15


class BlindWorkerSide(RelayWorkerSide):
    """A worker of a blind run under `relay`. Parameters are those of `CodedWorkerSide`."""

    _groups: BlindGroups

    def __init__(
        self, plan: Plan, worker: int, trainer: Trainer, options: SideOptions = DEFAULT_OPTIONS
    ) -> None:
        assert options.group is not None
        self._group: GroupKey = options.group
        self._reached = False
        # The digests of the groups that this worker decodes in this round.
        self._received: dict[int, bytes] = {}
        super().__init__(plan, worker, trainer, options)

    def begin(self, plan: int, round_: int) -> None:
        """Begin a round."""
        super().begin(plan, round_)
        self._reached, self._received = False, {}

    def _make_groups(self, options: SideOptions) -> BlindGroups:
        return BlindGroups(self.plan, options.digest, number_bytes(self._problem.settings))

    def told(self, upload: Upload) -> Upload:
        """What this worker sends of an upload, without a number in the clear."""
        numbers = [
            *(("loss", n, loss) for n, loss in zip(self.trainer.own, upload.losses, strict=True)),
            ("penalty", 0, upload.penalty),
            ("residual", 0, upload.residual),
        ]
        made = sealed_number if self._problem.settings.tolerance else tagged_number
        sealed = [made(self._group, kind, self.place[1], n, value) for kind, n, value in numbers]
        if not self._detailed and self.worker >= PENALTY_WORKERS:
            sealed[-2] = b""
        upload = replace(upload, losses=(), penalty=0.0, residual=0.0, sealed=tuple(sealed))
        return super().told(upload)

    def take_told(self, told: bytes) -> None:
        """Take in the digests of the groups that this worker decodes, and the numbers of all workers.

        Raises
        ------
        RemoteProtocolError
            They are not as many as the plan says.
        IntegrityError
            A number was not sealed by a worker of this group for this round, or cannot be.
        """
        places = self._groups.received_places(self.worker)
        size = len(places) * VECTOR_DIGEST_BYTES
        digests, numbers = split(told[:size], VECTOR_DIGEST_BYTES), split(told[size:], SEALED_NUMBER_BYTES)
        expected = len(self._problem.infos) + 2 if self._problem.settings.tolerance else 0
        if (len(digests), len(numbers)) != (len(places), expected):
            raise RemoteProtocolError(
                f"the server passed on {len(digests)} digests and {len(numbers)} numbers, "
                f"the plan says {len(places)} and {expected}"
            )
        self._received = dict(zip(places, digests, strict=True))
        if not numbers:
            return
        *losses, penalty, residual = (
            opened_number(self._group, kind, self.place[1], n, sealed)
            for (kind, n), sealed in zip(self._kinds(), numbers, strict=True)
        )
        check_numbers(losses, penalty, residual)
        self._reached = self._problem.converged(self._problem.objective(losses, penalty), residual)

    def apply(self, expected: bytes) -> None:
        """Check the decoded vectors by the digests of their groups, and take the step to the next models.

        Raises
        ------
        RemoteProtocolError
            The server sent a digest of all of them, which says nothing more.
        IntegrityError, DataError
            As `WorkerSide.apply`.
        """
        if expected:
            raise RemoteProtocolError("the server sent a digest of what its plan tells the digests of")
        super().apply(self._digest.combined(list(self._received.values())))

    @property
    def reached(self) -> bool:
        """Whether training is over after the round that was applied, by the numbers of all workers."""
        return self._reached

    def final_check(self) -> bytes:
        """The check of the state after the last round.

        It is not that of the same state during training: the server, which cannot open a sealed state, sees
        by it that a worker gives a state as the last one.
        """
        return self._digest.combined([self.state_check()])

    def _kinds(self) -> list[tuple[str, int]]:
        """What the numbers are that the server passes on, in their order."""
        losses = [("loss", n) for n in range(len(self._problem.infos))]
        return [*losses, ("penalty", 0), ("residual", 0)]

    def _packets_to_code(self) -> Bytes:
        self._masked = np.full(self._own.nbytes + _ROOM, 0, np.uint8)
        return self._masked[: self._own.nbytes].reshape(self._own.shape)

    def _allocate_wanted(self, vectors: int) -> Bytes:
        wanted = self._down_format.allocate(vectors)
        self._unmasked = np.full(wanted.nbytes + _ROOM, 0, np.uint8)
        return self._unmasked[: wanted.nbytes].reshape(wanted.shape)

    def _prepare_packets(self, digests: Sequence[bytes]) -> None:
        """Mask the units of this round."""
        groups, k = self._groups, self.worker
        if self._detailed:
            digests = groups.of_groups(groups.held[k], dict(zip(groups.digests_of[k], digests, strict=True)))
        made = dict(zip(groups.held[k], digests, strict=True))
        self._mask(list(self._own_units), made, self._own.reshape(-1), self._masked)

    def _finish_decoding(self) -> None:
        """Take the masks off what was decoded."""
        wanted = self.plan.packed_order(self._delivery.wanted)
        self._mask(wanted, self._received, self._unmasked, self._unmasked)

    def _mask(self, units: Sequence[int], of_group: dict[int, bytes], vectors: Bytes, out: Bytes) -> None:
        """Mask or unmask units that lie in `vectors` one after the other, into the same places of `out`."""
        size = self._format.padded_bytes
        for j, unit in enumerate(units):
            g = self._groups.group_of(unit)
            place = ("vector", *self.place, unit, of_group[g])
            self._group.mask(place, vectors[j * size : (j + 1) * size], out[j * size :])

    def _advance(self, stop: int) -> None:
        """Do nothing: masks are taken off once all packets are here."""


class BlindUncodedWorkerSide(BlindWorkerSide):
    """A worker of a blind run under `uncoded`: its own units do not help to decode others."""

    def _known_packets(self) -> Bytes:
        return self._format.allocate(0)
