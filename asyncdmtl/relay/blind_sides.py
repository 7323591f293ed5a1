"""The work of a relay in a round of a blind run: rows are masked, and what it cannot read it passes on.

All holders of a unit mask it alike, whichever way their rows take (`asyncdmtl.blinding.masks`). So a relay
decodes and codes masked units as it does others, and adds nothing that has to be taken off.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from asyncdmtl.blinding.sealed import SEALED_NUMBER_BYTES, number_bytes
from asyncdmtl.digests import VECTOR_DIGEST_BYTES, Digest
from asyncdmtl.errors import PlanError, RemoteProtocolError
from asyncdmtl.exchange.blind_confirmation import BlindGroups
from asyncdmtl.exchange.blind_server import BlindServerSide
from asyncdmtl.exchange.sides import SideOptions
from asyncdmtl.exchange.strategies import BLIND_SIDES
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.plan.plan import Plan
from asyncdmtl.relay.sides import ForwardingSide, said_below


class BlindForwardingSide(ForwardingSide):
    """A relay of a blind run, under `relay` and `uncoded`.

    Digests are MACs, which it compares and passes on. It cannot compare rows with them: the workers do.
    Under `uncoded`, nodes tell digests of masked updates, too, and the relay compares these with what it is
    sent, as a blind server does (`BlindCheckingServerSide`).

    Parameters
    ----------
    plan, relay, below, problem, digest
        As for `RelaySide`.
    origin : bytes
        Which plan of the server this one is, or follows from (`root_of`).
    """

    below: _BelowBlind

    def __init__(
        self, plan: Plan, relay: int, below: _BelowBlind, problem: Problem, digest: Digest, origin: bytes
    ) -> None:
        super().__init__(plan, relay, below, problem, digest)
        self.origin = origin
        groups = BlindGroups(plan, digest, number_bytes(problem.settings))
        self.layout = groups.layout(relay, problem.dtype, detailed=True)
        # What the nodes tell of each partition: a MAC, and perhaps the digest of the masked update.
        self._checked = plan.strategy == "uncoded"
        self._told_of_masked: dict[int, bytes] = {}

    def take(self, digests: bytes) -> None:
        """Take in the MACs of what comes down, and the sealed numbers of all workers, for the nodes."""
        size, settings = len(self._delivery.wanted) * VECTOR_DIGEST_BYTES, self._problem.settings
        numbers = digests[size:]
        expected = (len(self._problem.infos) + 2) * SEALED_NUMBER_BYTES if settings.tolerance else 0
        if len(numbers) != expected:
            raise RemoteProtocolError(
                f"{len(numbers)} bytes of sealed numbers came, the plan says {expected}"
            )
        super().take(digests[:size])
        self.below.pass_on(numbers)

    def finish(self) -> None:
        """Do nothing: only workers can compare what was decoded with its MACs."""

    def _of_others(self, first: Upload) -> Upload:
        others = len(self.below.plan.placement.stored[-1])
        digests = (bytes(VECTOR_DIGEST_BYTES),) * (others * (1 + self._checked))
        return replace(first, digests=digests, sealed=(b"",) * others + first.sealed[-2:])

    def _together(self, uploads: Sequence[Upload]) -> Upload:
        digests, losses = (self._told_by_partition(uploads, what) for what in ("digests", "sealed"))
        masked: tuple[bytes, ...] = ()
        if self._checked:
            self._told_of_masked = self.below.told_of_masked(uploads)
            masked = tuple(self._told_of_masked[n] for n in self.stored)
        sealed = (*losses, *uploads[0].sealed[-2:])
        return replace(uploads[0], rows=(), size=self.sent_bytes, digests=(*digests, *masked), sealed=sealed)

    def _wrong_own(self) -> list[int]:
        """The partitions of which a node sent another masked update than it told, if it told one."""
        if not self._checked:
            return []
        units = self._own.reshape(len(self.stored), -1)
        return [
            n for n, unit in zip(self.stored, units, strict=True)
            if self._digest(unit) != self._told_of_masked[n]
        ]  # fmt: skip


class _BelowBlind(BlindServerSide):
    """The side towards the nodes, to which the relay gives the numbers of all workers."""

    def pass_on(self, numbers: bytes) -> None:
        """Take the sealed numbers of all workers, which the nodes are told."""
        self._numbers = (numbers,)


def make_blind_side(
    plan: Plan,
    relay: str,
    stored: Mapping[str, Sequence[str]],
    problem: Problem,
    digest: Digest,
    helpers: Collection[str] = (),
    *,
    origin: bytes,
    grouped: bool = False,
) -> BlindForwardingSide:
    """The side of a relay of a blind run under its parent's plan.

    Parameters
    ----------
    plan, relay, stored, problem, digest, helpers, grouped
        As for `make_relay_side`.
    origin : bytes
        As for `BlindForwardingSide`.

    Raises
    ------
    PlanError
        A relay cannot follow the plan, or its server is not blind.
    """
    if plan.strategy not in BLIND_SIDES:
        raise PlanError(f"a relay of a blind run cannot follow a plan of {plan.strategy}")
    below = said_below(plan, relay, stored, problem, helpers)
    options = SideOptions(grouped, digest, blind=True)
    made, index = _BelowBlind(below, problem, options), plan.placement.workers.index(relay)
    return BlindForwardingSide(plan, index, made, problem, digest, origin)
