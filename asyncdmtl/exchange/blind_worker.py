"""A worker's side of a round of a blind run: what it codes is masked, and what it decodes is unmasked.

Every unit is masked before it is encoded: a worker sends `E_k (V_k + S_k)`, and what comes down is a
combination of `V + S`. So the coding is as without masks, a worker decodes `v_n + s_n` with its own masked
units as side information, and takes `s_n` off. All workers derive the masks of a round from what they have in
common (`asyncdmtl.blinding.masks`), so that nothing is told for them: heads are as without masks, too.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, replace

import msgpack
import numpy as np
from blake3 import blake3

from asyncdmtl.arrays import Bytes
from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.blinding.masks import root_of, runs_of
from asyncdmtl.blinding.sealed import (
    SEALED_NUMBER_BYTES,
    check_numbers,
    number_bytes,
    opened_number,
    sealed_number,
    split,
    tagged_number,
)
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.exchange.blind_confirmation import BlindGroups
from asyncdmtl.exchange.coded_worker import RelayWorkerSide
from asyncdmtl.exchange.sides import DEFAULT_OPTIONS, PENALTY_WORKERS, SideOptions
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.plan.plan import Plan

# The number of a round, where masks are told apart by it.
_ROUND = struct.Struct("<Q")


class BlindWorkerSide(RelayWorkerSide):
    """A worker of a blind run under `relay`. Parameters are those of `CodedWorkerSide`."""

    _groups: BlindGroups

    def __init__(
        self, plan: Plan, worker: int, trainer: Trainer, options: SideOptions = DEFAULT_OPTIONS
    ) -> None:
        assert options.group is not None
        self._group: GroupKey = options.group
        self._origin = options.origin
        self._reached = False
        # What this worker has sealed in this round, by kind and number, and the values.
        self._own_seals: dict[tuple[str, int], tuple[bytes, float]] = {}
        super().__init__(plan, worker, trainer, options)
        count, size = len(plan.units.holders), self._format.padded_bytes
        self._number_bytes = self._problem.dtype.itemsize
        self._masks = self._group.masks(_common(self._problem), size, count)
        self._own_runs = runs_of(list(self._own_units))
        self._wanted_runs = runs_of(plan.packed_order(self._delivery.wanted))

    def _make_groups(self, options: SideOptions) -> BlindGroups:
        return BlindGroups(self.plan, options.digest, number_bytes(self._problem.settings), options.keys)

    def begin(self, plan: int, round_: int) -> None:
        """Begin a round."""
        super().begin(plan, round_)
        self._reached = False
        self._own_seals.clear()

    def told(self, upload: Upload) -> Upload:
        """What this worker sends of an upload, without a number in the clear."""
        sealed = [
            self._sealed("loss", n, loss) for n, loss in zip(self.trainer.own, upload.losses, strict=True)
        ]
        has_penalty = self._detailed or self.worker < PENALTY_WORKERS
        sealed.append(self._sealed("penalty", 0, upload.penalty) if has_penalty else b"")
        sealed.append(self._sealed("residual", 0, upload.residual))
        own = upload.rows, upload.size, upload.digests, (), 0.0, 0.0, upload.state
        return super().told(Upload(*own, sealed=tuple(sealed)))

    def _sealed(self, kind: str, number: int, value: float) -> bytes:
        """A number, sealed if workers must read it, else a tag of it."""
        if self._problem.settings.tolerance:
            sealed = sealed_number(self._group, kind, self.place[1], number, value)
            self._own_seals[kind, number] = sealed, value
            return sealed
        return tagged_number(self._group, kind, self.place[1], number, value, self._number_bytes)

    def _opened(self, kind: str, number: int, sealed: bytes) -> float:
        """A number of this round; one that this worker has sealed itself need not be opened."""
        own, value = self._own_seals.get((kind, number), (b"", 0.0))
        return value if own == sealed else opened_number(self._group, kind, self.place[1], number, sealed)

    def take_told(self, told: bytes) -> None:
        """Take in the numbers of all workers, if they may end the training.

        Raises
        ------
        RemoteProtocolError
            They are not as many as the plan says.
        IntegrityError
            A number was not sealed by a worker of this group for this round, or cannot be.
        """
        numbers = split(told, SEALED_NUMBER_BYTES)
        expected = len(self._problem.infos) + 2 if self._problem.settings.tolerance else 0
        if len(numbers) != expected:
            raise RemoteProtocolError(
                f"the server passed on {len(numbers)} numbers, the plan says {expected}"
            )
        if not numbers:
            return
        *losses, penalty, residual = (
            self._opened(kind, n, sealed) for (kind, n), sealed in zip(self._kinds(), numbers, strict=True)
        )
        check_numbers(losses, penalty, residual)
        self._reached = self._problem.converged(self._problem.objective(losses, penalty), residual)

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

    def own_vectors(self) -> dict[int, Bytes]:
        """The bytes of this worker's own units, masked, by number: other workers take off the masks."""
        vectors = self._vectors(self._packets)
        return {unit: vector.view(np.uint8) for unit, vector in zip(self._own_units, vectors, strict=True)}

    def _packets_to_code(self) -> Bytes:
        return self._format.allocate(len(self._own_units))

    def _prepare_packets(self, state: bytes) -> None:
        """Mask the units of this round."""
        number, round_ = self.place
        root = self._origin or root_of(number, self.plan.digest)
        self._masks.begin(root + _ROUND.pack(round_) + state)
        self._masks.apply(self._own_runs, self._own.reshape(-1), self._packets.reshape(-1))

    def _finish_decoding(self) -> None:
        """Take the masks off what was decoded."""
        wanted = self._wanted.reshape(-1)
        self._masks.apply(self._wanted_runs, wanted, wanted)

    def _advance(self, stop: int) -> None:
        """Do nothing: masks are taken off once all packets are here."""


class BlindUncodedWorkerSide(BlindWorkerSide):
    """A worker of a blind run under `uncoded`: its own units do not help to decode others.

    Under a detailed plan the server looks for a worker that sends wrong rows (`BlindCheckingServerSide`).
    Then this worker tells digests of its masked units, too, and rows come down after all have gone up.
    """

    def __init__(
        self, plan: Plan, worker: int, trainer: Trainer, options: SideOptions = DEFAULT_OPTIONS
    ) -> None:
        super().__init__(plan, worker, trainer, options)
        self.streams = not options.detailed

    def compute(self) -> Upload:
        """Compute local updates at the current models, and mask them."""
        upload = super().compute()
        if not self._detailed:
            return upload
        masked = self._packets.reshape(-1, self._format.padded_bytes)
        known = self._group.digest_for_all
        return replace(upload, digests=(*upload.digests, *map(known, masked)))

    def _known_packets(self) -> Bytes:
        return self._format.allocate(0)


def _common(problem: Problem) -> bytes:
    """A digest of all that the vectors of every round follow from, beside the state of the training."""
    # Only holders of a partition are told its digest. All are told the mark of its content (`opened_info`).
    infos = [astuple(replace(info, digest=b"")) for info in problem.infos]
    facts = problem.settings.as_dict(), infos
    return blake3(msgpack.packb(facts)).digest()
