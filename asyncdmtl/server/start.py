"""The start of a run: the server waits for workers, and settles the set of partitions."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import DataError, PlacementError, WaitError
from asyncdmtl.learning.tasks import Declaration
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.server.admission import Admission
from asyncdmtl.server.agreement import dissenters, pooled
from asyncdmtl.server.member import other_data, other_encoding
from asyncdmtl.server.member_log import MemberLog
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.possession import no_proof
from asyncdmtl.server.records import RunOptions

log = logging.getLogger(__name__)

# The number of times that a worker may leave before its rows are encoded, each of which lets the start begin
# again. After that it may not come back.
MOST_DEPARTURES = 3


class RunStart:
    """Waits for the workers that a run needs, and settles the partitions and their encoding.

    If claims of holders about a partition differ, the majority is believed (`dissenters`), and the other
    holders are refused. They may be started again with other data. Without a majority the run fails.

    A declaration counts once its rows are encoded: if a worker leaves before, and nobody else has its
    partitions, it is forgotten, and the start begins again. The other workers connect again for it.

    Parameters
    ----------
    options : RunOptions
    membership : Membership
    admission : Admission
    member_log : MemberLog
    """

    def __init__(
        self, options: RunOptions, membership: Membership, admission: Admission, member_log: MemberLog
    ) -> None:
        self._options = options
        self._membership = membership
        self._admission = admission
        self._log = member_log
        self._refused: set[str] = set()
        self._departures: Counter[str] = Counter()

    async def complete(self) -> tuple[Encoding, tuple[Declaration, ...]]:
        """Wait until the workers have joined and their rows are encoded.

        Workers that come later may store only partitions that are declared by then.

        Returns
        -------
        encoding : Encoding
            The encoding of the rows of all partitions.
        declared : tuple of Declaration
            All partitions, in natural order. `Membership.infos` lacks those that no holder could encode.

        Raises
        ------
        WaitError
            The workers did not join in time.
        PlacementError
            No worker holds a partition that must be covered.
        DataError
            Declarations do not fit together. The error names the partitions that differ and their holders.
        """
        membership = self._membership
        while True:
            await self.wait_for_workers()
            known = self._settle_partitions()
            encoding = (
                # The workers pool the surveys, which are sealed.
                Encoding.empty()
                if self._options.blind
                else await asyncio.to_thread(pooled, known, self._options.settings, membership.holders)
            )
            membership.encoding.set_result(encoding)
            while not all(member.ready or member.lost for member in membership.members.values()):
                await membership.change(None)
            if not self._begin_again():
                break
        await self.settle_infos()
        return encoding, tuple(known[name] for name in sorted(known, key=natural_key))

    def _settle_partitions(self) -> dict[str, Declaration]:
        """Settle the partitions of the run, which are those that the members have declared."""
        membership = self._membership
        known = membership.declared()
        if uncovered := self._uncovered():
            raise PlacementError(
                "placement", "must store every partition at some worker; without holder", uncovered
            )
        if not known:
            joined = list(membership.members)
            raise PlacementError("placement", "must have at least one partition; joined", joined)
        membership.known = known
        for member in membership.members.values():
            # From here on, all holders of a partition share one declaration object, since surveys may be
            # large.
            member.declared = tuple(known[part.id] for part in member.declared)
        return known

    def _begin_again(self) -> bool:
        """Forget the workers that left with partitions that nobody else has encoded; whether there are any.

        The encoding depends on their surveys, so that the other workers join again. If a partition must be
        covered, or its holders ended because of their own data, the run waits for it or fails as later on.
        """
        membership, options = self._membership, self._options
        members = membership.members.values()
        here = [member for member in members if member.ready and not member.gone]
        encoded = {name for member in here for name in member.partitions}
        missing = [name for name in membership.known or () if name not in encoded]
        enough = options.workers is not None and sum(member.workers for member in here) >= options.workers
        if not missing or options.cover is not None or (membership.hopeless(missing) and not enough):
            return False
        for member in [member for member in members if not encoded.issuperset(member.partitions)]:
            self._departures[member.name] += 1
            if self._departures[member.name] >= MOST_DEPARTURES:
                reason = f"it left {MOST_DEPARTURES} times before its rows were encoded"
                membership.excluded[member.name] = reason
        log.warning("the start begins again without %s", membership.no_holder(missing).peer)
        membership.begin_again()
        return True

    async def wait_for_workers(self) -> None:
        """Wait until enough workers have joined and agree; WaitError after --join-timeout."""
        clock, seconds = asyncio.get_running_loop().time, self._options.join_timeout
        end = clock() + seconds
        while not (self._enough() and await self._agreed()):
            if (left := end - clock()) <= 0:
                reason = f"not all workers joined: {self._lacking()}"
                raise WaitError(reason, seconds=seconds, option="--join-timeout")
            await self._membership.change(left)
            self._forget_lost()

    async def _agreed(self) -> bool:
        """Refuse workers whose data differ from the majority's; whether the rest are enough.

        Raises
        ------
        DataError
            As many holders of a partition have one content as another.
        """
        membership = self._membership
        everything = self._options.cover or tuple(membership.declared())
        claims = {m.name: {part.id: part.claim for part in m.declared} for m in membership.members.values()}
        odd, members = dissenters(claims), dict(membership.members)
        for name, dissent in odd.items():
            own, believed = (
                members[worker].declaration(dissent.partition) for worker in (name, dissent.believed[0])
            )
            error = await asyncio.to_thread(other_data, name, own, ", ".join(dissent.believed), believed)
            if dissent.tied:
                raise error
            self._admission.refuse(members[name], error)
        self._refused |= odd.keys()
        for name in odd:
            if membership.members.get(name) is members[name]:
                membership.forget(name)
        if not odd:
            return True
        covered = set(everything) <= set(membership.declared())
        # Others may have joined while the thread compared.
        return covered and self._enough() and await self._agreed()

    async def settle_infos(self) -> None:
        """Believe the majority about each encoded partition, and go on without the other holders.

        Raises
        ------
        DataError
            As many holders of a partition show one content as another.
        """
        membership = self._membership
        here = {m.name: m for m in membership.members.values() if m.ready and not m.gone}
        made = {name: {info.id: info for info in member.infos} for name, member in here.items()}
        odd = dissenters(
            {
                name: {part: (info, here[name].first_answer(part)) for part, info in infos.items()}
                for name, infos in made.items()
            }
        )
        if tied := next(((name, dissent) for name, dissent in odd.items() if dissent.tied), None):
            name, dissent = tied
            rule = "must be of the same rows at all its holders; no group of these has a majority"
            raise DataError(f"partition {dissent.partition!r}", rule, [name, *dissent.believed])
        for name in made.keys() - odd.keys():
            membership.infos.update(made[name])
            membership.possession.keep(name, here[name].shown)
        membership.infos_settled = True
        for name, dissent in odd.items():
            partition = dissent.partition
            own, believed = made[name][partition], membership.infos[partition]
            error = other_encoding(name, own, believed)
            if own == believed:
                error = no_proof(name, partition, dissent.believed)
            self._log.left(here[name].connection, "cannot take part:", error)
            await membership.lose(here[name], error, back=False)

    def _forget_lost(self) -> None:
        """Forget workers whose connections have ended; they may come again."""
        members = self._membership.members.values()
        for member in [member for member in members if member.connection.lost]:
            self._log.left(member.connection, "left", "before the start")
            self._membership.forget(member.name)

    def _enough(self) -> bool:
        if self._options.workers is not None:
            return sum(m.workers for m in self._membership.members.values()) >= self._options.workers
        return not self._uncovered(self._copies)

    @property
    def _copies(self) -> int:
        """The holders of each partition of --cover for which the start waits: one is never silent."""
        return self._options.silent + 1

    def _uncovered(self, copies: int = 1) -> list[str]:
        """The partitions of --cover that fewer members hold."""
        members = self._membership.members.values()
        holders = Counter(part.id for member in members for part in member.declared)
        return [name for name in self._options.cover or () if holders[name] < copies]

    def _lacking(self) -> str:
        """The missing workers, in words."""
        members = self._membership.members
        joined = ", ".join(sorted(members, key=natural_key)) or "none"
        if refused := self._refused - set(members):
            joined += f"; refused for their data: {', '.join(sorted(refused, key=natural_key))}"
        if self._options.workers is not None:
            here = sum(member.workers for member in members.values())
            return f"{here} of {self._options.workers} are here ({joined})"
        if missing := self._uncovered():
            return f"no holder of {missing} is here (joined: {joined})"
        few = self._uncovered(self._copies)
        return f"fewer than {self._copies} holders of {few} are here, as --silent needs (joined: {joined})"
