"""The server's side of a round of a blind run: it combines masked rows, and compares what it cannot read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.blinding.sealed import number_bytes
from asyncdmtl.digests import VECTOR_DIGEST_BYTES
from asyncdmtl.errors import StateError
from asyncdmtl.exchange.blind_confirmation import BlindGroups
from asyncdmtl.exchange.coded_server import Claims, RelayServerSide, refuse_disagreement
from asyncdmtl.exchange.sides import DEFAULT_OPTIONS, NOBODY, Convergence, SideOptions, arrived
from asyncdmtl.exchange.states import ExactStates
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.plan.plan import Plan


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
        return BlindGroups(self.plan, options.digest, number_bytes(self.problem.settings), options.keys)

    def agree(self, uploads: Sequence[Upload | None], established: Mapping[str, int] = NOBODY) -> None:
        """Begin a round: compare the uploads of all workers, in their order."""
        super().agree(uploads, established)
        losses: dict[int, bytes] = {}
        there = arrived(uploads)
        for k, upload in there[::-1]:
            losses |= zip(self.plan.placement.stored[k], upload.sealed, strict=False)
        self._numbers = (*(losses[n] for n in range(len(losses))), *there[0][1].sealed[-2:])

    def told(self, worker: int, *, relay: bool = False) -> bytes:
        """The sealed numbers of all workers, by which `worker` finds whether training is over.

        A relay passes them on to its nodes; it is told digests, too, as of a server that is not blind.
        """
        numbers = b"".join(self._numbers) if self.problem.settings.tolerance else b""
        return super().told(worker, relay=relay) + numbers

    def told_of_masked(
        self, uploads: Sequence[Upload | None], established: Mapping[str, int] = NOBODY
    ) -> dict[int, bytes]:
        """The digest of each masked unit, under detailed plans of `uncoded`, by which holders tell it.

        Raises
        ------
        DisagreementError
            Holders of a unit told different ones.
        """
        plan, claims = self.plan, [Claims() for _ in self.plan.units.holders]
        for k, upload in arrived(uploads):
            held = plan.units.in_layout(plan.units.held[k])
            first = len(upload.digests) - len(held)
            for unit, digest in zip(held, upload.digests[first:], strict=True):
                claims[unit].setdefault((digest, 0.0), []).append(plan.placement.workers[k])
        names, partitions_of = plan.placement.partitions, self.problem.partitions_of
        parts = [[names[n] for n in plan.units.parts(unit, partitions_of)] for unit in range(len(claims))]
        refuse_disagreement(
            claims, list(zip(self._unit_names(), map(tuple, parts), strict=True)), established
        )
        return {unit: next(iter(groups))[0] for unit, groups in enumerate(claims) if groups}

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


class BlindCheckingServerSide(BlindServerSide):
    """The server of a blind run that finds the worker that sends wrong rows.

    Under detailed plans of `uncoded`, each unit goes up as it is, masked, from one of its holders. All of
    them tell a digest of the masked unit beside its MAC. The server compares what they tell with each other
    and with what came, before anything goes down. A masked unit is noise, and so its digest tells nothing if
    holders agree. If not, the server can find by trial in which bits they differ.
    """

    streams = False

    def __init__(self, plan: Plan, problem: Problem, options: SideOptions = DEFAULT_OPTIONS) -> None:
        super().__init__(plan, problem, options)
        self._masked = self._format.allocate(len(plan.units.holders))
        # The digest of each masked unit, as its holders told it.
        self._told_of_masked: list[bytes] = []

    def put(self, i: int, rows: Sequence[Bytes | None]) -> None:
        """Combine range `i`, and keep the masked units in it."""
        super().put(i, rows)
        self._collect(i, rows, self._masked)

    def finish(self, last: bool) -> None:
        """Compare the masked units that came with the digests of their holders.

        Raises
        ------
        IntegrityError
            A worker sent another one.
        """
        units = self.plan.units.in_layout(range(len(self._told_of_masked)))
        made = dict(zip(units, map(self._digest, self._masked.reshape(len(units), -1)), strict=True))
        if wrong := [u for u, told in enumerate(self._told_of_masked) if made[u] != told]:
            raise self._wrong_units(wrong, "the server was sent other masked updates")

    def _compared(self, uploads: Sequence[Upload | None], established: Mapping[str, int]) -> list[Claims]:
        """The claims about the MACs; those about masked units are compared, too."""
        found = super()._compared(uploads, established)
        told = self.told_of_masked(uploads, established)
        self._told_of_masked = [told[unit] for unit in range(len(told))]
        return found


def blind_server_side(
    plan: Plan, problem: Problem, options: SideOptions = DEFAULT_OPTIONS
) -> BlindServerSide:
    """The side of a blind server under a plan."""
    checking = options.detailed and plan.strategy == "uncoded"
    return (BlindCheckingServerSide if checking else BlindServerSide)(plan, problem, options)


class BlindStates(ExactStates):
    """The states of a blind run as its server has them: each is sealed, behind its check."""

    def check(self, state: Bytes) -> bytes:
        """The check that came with a sealed state; its receivers compare it with the state itself."""
        return state[:VECTOR_DIGEST_BYTES].tobytes()

    def initial(self) -> tuple[Bytes, bytes]:
        """Nothing: a worker that is given an empty state begins with its own initial one."""
        return np.empty(0, np.uint8), b""
