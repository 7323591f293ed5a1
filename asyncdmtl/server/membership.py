"""The workers of a run, present and lost, and the facts about their partitions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import AsyncDMTLError, LinkError
from asyncdmtl.learning.tasks import Declaration, PartitionInfo
from asyncdmtl.net.kernel import KernelCount
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.server.group_keys import KeyExchange
from asyncdmtl.server.member import Member
from asyncdmtl.server.pace import Pace
from asyncdmtl.server.possession import Possession
from asyncdmtl.server.returns import Returns

# The most names in one message for people.
MOST_LISTED_NAMES = 20

# The most workers that take part at one time. Each has a socket, buffers of some 100 KB and a place in every
# plan, and the planner needs seconds for as many.
MAX_MEMBERS = 1024

# The most workers that are remembered after they have left. This bounds memory, whatever names workers have.
MAX_LEFT = 256


class Membership:
    """The workers of one run, whether connected or not, and their partitions.

    Attributes
    ----------
    members : dict of name to Member
        All workers that have joined, including the last `MAX_LEFT` that were lost.
    known : dict of partition to Declaration, or None
        The partitions of the run, once they are settled; workers that join later may not store others.
    encoding : Future of Encoding
        The encoding, once it is known.
    infos : dict of partition to PartitionInfo
        The encoded partitions.
    infos_settled : bool
        Whether `infos` are final, so that workers that join later must have the same.
    excluded : dict of name to str
        The workers that may not come back, each with the reason.
    pace : Pace
        Says when workers that join take part.
    returns : Returns
        Says when workers that come back take part.
    possession : Possession
        Challenges workers to show that they have the rows of their partitions.
    surveys : mapping of partition to bytes, or None
        At a relay of a blind run: the sealed surveys of all partitions, as the server passed them on.
    """

    surveys: Mapping[str, bytes] | None = None

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.known: dict[str, Declaration] | None = None
        self.encoding: asyncio.Future[Encoding] = asyncio.get_running_loop().create_future()
        self.infos: dict[str, PartitionInfo] = {}
        self.infos_settled = False
        self.excluded: dict[str, str] = {}
        self._clock = asyncio.get_running_loop().time
        self.pace = Pace(self._clock)
        self.possession = Possession()
        self.returns = Returns(self._clock)
        self._past_counts: dict[str, KernelCount] = {}
        self._changed = asyncio.Event()

    def resume(
        self, encoding: Encoding, declared: Iterable[Declaration], infos: Iterable[PartitionInfo]
    ) -> None:
        """Take over the partitions of a run that is resumed."""
        self.known = {part.id: part for part in declared}
        self.infos.update({info.id: info for info in infos})
        self.infos_settled = True
        self.encoding.set_result(encoding)

    def begin_again(self) -> None:
        """Forget all workers, their partitions and the encoding; those that are connected join again."""
        for name, member in list(self.members.items()):
            # Without a reason: the worker then counts this as a lost connection, and not as a refusal.
            member.connection.worker_may_return = True
            member.connection.abort()
            self.forget(name)
        self.known = None
        self.possession = Possession()
        self.encoding = asyncio.get_running_loop().create_future()
        self.note_change()

    def add(self, member: Member) -> bool:
        """Add a worker; return whether it had been a member before."""
        member.held_until = self.pace.due()
        before = self.members.pop(member.name, None)
        if before is not None:
            _add_count(self._past_counts, before)
            member.held_until = max(member.held_until, self.returns.due(member.name))
        self.members[member.name] = member
        self._forget_left()
        self.note_change()
        return before is not None

    @cached_property
    def keys(self) -> KeyExchange:
        """The exchange by which the workers of a blind run agree on a key."""
        return KeyExchange(self.change, lambda: self.known is not None)

    @property
    def full(self) -> bool:
        """Whether so many workers are here that no other one may join."""
        members = self.members.values()
        # Counted only once there are so many, lost ones included.
        return len(members) >= MAX_MEMBERS and sum(not member.gone for member in members) >= MAX_MEMBERS

    def forget(self, name: str) -> None:
        """Remove a worker as if it had never joined."""
        _add_count(self._past_counts, self.members.pop(name))

    def note_change(self) -> None:
        """Wake up the tasks that wait for a `change`."""
        self._changed.set()

    async def change(self, seconds: float | None) -> None:
        """Wait until a worker joins, becomes ready or leaves, or until these seconds have passed."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def present(self, *, held: bool = False) -> list[Member]:
        """The workers that are ready and not gone, in the natural order of their names.

        Parameters
        ----------
        held : bool
            Whether those count, too, that came back again and again, and do not take part yet.
        """
        now = self._clock()
        here = [member for member in self.members.values() if member.ready and not member.gone]
        counted = (member for member in here if held or member.held_until <= now)
        return sorted(counted, key=lambda member: natural_key(member.name))

    def newcomers(self, *, held: bool = False) -> bool:
        """Whether there is a ready worker that does not take part in rounds yet; `held` as for `present`."""
        return any(not member.current for member in self.present(held=held))

    def declared(self) -> dict[str, Declaration]:
        """All partitions that the members have declared."""
        # The first holder of a partition by name counts, in whatever order they joined.
        members = sorted(self.members.values(), key=lambda member: natural_key(member.name), reverse=True)
        return {part.id: part for member in members for part in member.declared}

    def holders(self, partition: str) -> str:
        """The names of the members that declared a partition, for a message."""
        holders = [member.name for member in self.members.values() if partition in member.partitions]
        return ", ".join(sorted(holders, key=natural_key)) or "the start of the run"

    def hopeless(self, partitions: Iterable[str]) -> bool:
        """Whether all holders of one of these partitions ended because of their own data or options.

        Another holder would have the same data, and end in the same way.
        """
        for name in partitions:
            holders = [member for member in self.members.values() if name in member.partitions]
            if holders and all(member.ended for member in holders):
                return True
        return False

    def no_holder(self, partitions: Sequence[str]) -> LinkError:
        """The error that no worker holds these partitions, with the reasons of former holders."""
        reasons, names, missing = [], [], set(partitions)
        for member in self.members.values():
            if held := [name for name in member.partitions if name in missing]:
                reasons.append(f"worker {member.name!r} held {_listed(held)} ({_absence(member)})")
                names.append(member.name)
        return LinkError(
            f"nobody is left who holds the partitions {_listed(partitions)}: {'; '.join(reasons)}",
            peer=", ".join(names),
        )

    async def lose(
        self, member: Member, error: AsyncDMTLError, *, back: bool, excluded: bool = False
    ) -> None:
        """Lose a worker: tell it why, and go on without it.

        Parameters
        ----------
        member : Member
        error : AsyncDMTLError
        back : bool
            Whether the worker is told that it may come back.
        excluded : bool
            Whether no worker may come back under this name.
        """
        member.lost = error
        if excluded:
            self.excluded[member.name] = str(error)
        member.connection.worker_may_return = back
        self.note_change()
        await member.connection.fail(error)

    async def tell_all(self, error: AsyncDMTLError, *, back: bool = False) -> None:
        """Tell every member that the run failed or, with `back`, that it may come back to the resumed run."""
        for member in self.members.values():
            member.connection.worker_may_return = back
        await asyncio.gather(*(member.connection.fail(error) for member in self.members.values()))

    def kernel_counts(self) -> dict[str, KernelCount]:
        """The kernel's counts of all connections of each worker."""
        counts = dict(self._past_counts)
        for member in self.members.values():
            _add_count(counts, member)
        return counts

    async def close(self) -> None:
        """End all connections."""
        self.encoding.cancel()
        await asyncio.gather(*(member.connection.close() for member in self.members.values()))

    def _forget_left(self) -> None:
        """Forget the workers that joined first among those that have left, if they are too many."""
        left = [name for name, member in self.members.items() if member.gone and not member.current]
        for name in left[: max(0, len(left) - MAX_LEFT)]:
            self.forget(name)


def _add_count(counts: dict[str, KernelCount], member: Member) -> None:
    """Add the kernel's counts of the connection of `member`, if there are any."""
    found, before = member.connection.link.kernel_count(), counts.get(member.name)
    if found is not None:
        counts[member.name] = found if before is None else before + found


def _absence(member: Member) -> object:
    """The reason why a worker no longer holds its declared partitions."""
    if (reason := member.lost or member.connection.failure) is not None:
        return reason
    if not member.ready:
        return "its rows are not prepared yet"
    return "its updates of them differ from those of other holders"


def _listed(names: Sequence[str]) -> str:
    """Names as text for a message, shortened if there are many."""
    more = f" and {len(names) - MOST_LISTED_NAMES} more" if len(names) > MOST_LISTED_NAMES else ""
    return f"{list(names[:MOST_LISTED_NAMES])}{more}"
