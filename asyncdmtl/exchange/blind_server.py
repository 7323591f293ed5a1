"""The server's side of a round of a blind run: it combines masked rows, and compares what it cannot read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.blinding.sealed import number_bytes
from asyncdmtl.digests import VECTOR_DIGEST_BYTES
from asyncdmtl.errors import CodingError, StateError
from asyncdmtl.exchange.blind_confirmation import BlindGroups
from asyncdmtl.exchange.coded_server import RelayServerSide
from asyncdmtl.exchange.sides import NOBODY, Convergence, SideOptions, arrived
from asyncdmtl.exchange.states import ExactStates
from asyncdmtl.exchange.upload import Upload


class BlindServerSide(RelayServerSide):
    """The server of a blind run under `relay` and `uncoded`.

    Rows are combined as always. Losses, penalty and residual are sealed: equal numbers of holders are equal
    bytes, which the server compares, and passes on to all workers. They decide when training ends.
    """

    asks_for_the_end = True
    _groups: BlindGroups
    # The sealed losses of all partitions, the penalty and the residual of this round.
    _numbers: tuple[bytes, ...] = ()

    def _make_groups(self, options: SideOptions) -> BlindGroups:
        return BlindGroups(self.plan, options.digest, number_bytes(self.problem.settings))

    def check(self, worker: int, upload: Upload) -> None:
        """Compare what `worker` sent with the plan."""
        told = len(self._groups.digests_of[worker])
        digests = told if self._detailed else self._groups.counts(worker)[0]
        counts = {
            "bytes of rows": (upload.size, self.uplink_bytes(worker)),
            "digests": (len(upload.digests), digests),
            "losses in the clear": (len(upload.losses), 0),
            "sealed numbers": (len(upload.sealed), self._groups.numbers(worker, detailed=self._detailed)),
        }
        for what, (got, expected) in counts.items():
            if got != expected:
                name = self.plan.placement.workers[worker]
                raise CodingError(f"worker {name!r} sent {got} {what}, the plan says {expected}")

    def agree(self, uploads: Sequence[Upload | None], established: Mapping[str, int] = NOBODY) -> None:
        """Begin a round: compare the uploads of all workers, in their order."""
        super().agree(uploads, established)
        losses: dict[int, bytes] = {}
        there = arrived(uploads)
        for k, upload in there[::-1]:
            losses |= zip(self.plan.placement.stored[k], upload.sealed, strict=False)
        self._numbers = (*(losses[n] for n in range(len(losses))), *there[0][1].sealed[-2:])

    def digest(self, worker: int) -> bytes:
        """Nothing: the digests that `worker` is told take its place."""
        return b""

    def told(self, worker: int, *, relay: bool = False) -> bytes:
        """The digests by which `worker` takes the masks off, and the numbers that may end the training."""
        of_group = self._digests
        if self._detailed:
            members = dict(zip(self._groups.of_units, self._digests, strict=True))
            places = self._groups.received_places(worker)
            digests = self._groups.of_groups(places, members)
        else:
            digests = self._groups.received_digests(worker, of_group)
        numbers = self._numbers if self.problem.settings.tolerance else ()
        return b"".join((*digests, *numbers))

    def convergence(self, uploads: Sequence[Upload | None]) -> Convergence:
        """Unknown here: the workers decide when training ends."""
        return Convergence(math.nan, math.nan, False)

    def _agree_on_measures(self, uploads: Sequence[Upload | None]) -> None:
        """Raise StateError unless all workers have sent the same sealed penalty and residual."""
        workers = self.plan.placement.workers
        for what, place in (("penalty", -2), ("residual", -1)):
            told = {workers[k]: upload.sealed[place] for k, upload in arrived(uploads)}
            majority = ExactStates(self.problem, self._digest).majority(told)
            odd = tuple(told) if majority is None else majority.odd
            if odd:
                names = ", ".join(map(repr, odd))
                known = "" if majority is None else " than most workers"
                raise StateError(
                    f"{names} told different values of the {what}{known}, which are sealed",
                    workers=odd,
                    mendable=majority is not None,
                )


class BlindStates(ExactStates):
    """The states of a blind run as its server has them: each is sealed, behind its check."""

    def check(self, state: Bytes) -> bytes:
        """The check that came with a sealed state; its receivers compare it with the state itself."""
        return state[:VECTOR_DIGEST_BYTES].tobytes()

    def initial(self) -> tuple[Bytes, bytes]:
        """Nothing: a worker that is given an empty state begins with its own initial one."""
        return np.empty(0, np.uint8), b""
