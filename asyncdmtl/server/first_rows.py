"""The collection of a round's rows from the first workers whose rows suffice.

Any K − S of the K workers under a plan that tolerates S silent ones suffice. The choice is made anew for each
range, so that a worker that stops in the middle of a round does not stop the round, if another one that was
late has come meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import AsyncDMTLError, WaitError
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.protocol.messages.registry import MoreRows, Snapshot, Uplink
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.lateness import Lateness, LateUpload
from asyncdmtl.server.member import Member
from asyncdmtl.server.peers import OPTION, Peers, ReplanError
from asyncdmtl.server.row_collection import NoteUplink, RowCollection
from asyncdmtl.server.state_requests import StateRequests

# If a late member lacks a state, which is given after a round, and this round does not end without its rows:
# the seconds until a new plan, at least, and as a multiple of those that the last round took.
PATIENCE, PATIENT_ROUNDS = 1.0, 5.0


class FirstRows(RowCollection):
    """Collects the rows of one round from the first K − S workers.

    A task for each member reads what comes from it. Rows of earlier rounds are counted and dropped. Uploads
    that come late go to `lateness`, to be compared with those that were used.

    Parameters
    ----------
    peers, assignment, number, note_uplink
        As for `RowCollection`.
    lateness : Lateness
    requests : StateRequests
        Takes the states that members give between their rows.
    """

    def __init__(
        self,
        peers: Peers,
        assignment: Assignment,
        number: int,
        note_uplink: NoteUplink,
        lateness: Lateness,
        requests: StateRequests,
    ) -> None:
        super().__init__(peers, assignment, number, note_uplink)
        self._lateness = lateness
        self._requests = requests
        self._uploads: list[Upload | None] = [None] * len(assignment.members)
        self._ranges: list[dict[int, Bytes]] = [{} for _ in self.side.ranges]
        self._chosen = False
        self._changed = asyncio.Event()
        self._readers = {
            k: asyncio.create_task(self._read(k, member))
            for k, member in enumerate(assignment.members)
            if not member.gone
        }

    async def uploads(self) -> Sequence[Upload | None]:
        """The uploads of the first members, with the rows of the first range.

        Raises
        ------
        ReplanError
            Too many members are lost.
        """
        await self._enough(0)
        self._chosen = True
        for upload, member in zip(self._uploads, self.assignment.members, strict=True):
            if upload is None:
                self._lateness.late_rounds[member.name] += 1
        return tuple(self._uploads)

    async def range(self, i: int) -> Sequence[Bytes | None]:
        """Range `i` of the rows of the first members; raises as `uploads`."""
        await self._enough(i)
        rows = self._ranges[i]
        return [rows.get(k) for k in range(len(self.assignment.members))]

    async def end(self) -> None:
        """Stop reading. What has not come is late."""
        for task in self._readers.values():
            task.cancel()
        if self._readers:
            await asyncio.wait(self._readers.values())
        # A failure of a connection shows again when the next round reads from it.
        for task in self._readers.values():
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, AsyncDMTLError):
                raise error

    async def _enough(self, i: int) -> None:
        """Wait until so many members have sent range `i` that their rows suffice.

        Raises
        ------
        ReplanError
            Too few members can send it, or too few do while a late one lacks a state, which a new plan gives.
        """
        needed = len(self.assignment.members) - self.assignment.plan.silent
        while True:
            self._changed.clear()
            await self._lose_failed()
            if len(self._ranges[i]) >= needed:
                return
            there = sum(k in self._ranges[i] or self._may_come(k) for k in self._readers)
            if there < needed:
                raise ReplanError
            try:
                async with asyncio.timeout(self._patience()):
                    await self._changed.wait()
            except TimeoutError:
                raise ReplanError from None

    def _patience(self) -> float | None:
        """Seconds to wait for the next rows; None if only a limit of a connection ends the wait."""
        stuck = any(not self._requests.serves(member) for member in self._lateness.waiting)
        return max(PATIENCE, PATIENT_ROUNDS * self.peers.membership.pace.round_seconds) if stuck else None

    def _may_come(self, k: int) -> bool:
        """Whether further rows of this round may come from member `k`."""
        member = self.assignment.members[k]
        served = self._lateness.may_send(member, self.number) or self._requests.serves(member)
        return served and not self._readers[k].done()

    async def _lose_failed(self) -> None:
        """Lose the members whose connections failed, or that sent something unusable."""
        for k, task in self._readers.items():
            member = self.assignment.members[k]
            if member.lost is None and task.done() and (error := task.exception()) is not None:
                if not isinstance(error, AsyncDMTLError):
                    raise error
                await self.peers.lose(member, error)

    async def _read(self, k: int, member: Member) -> None:
        """Read what a member sends, up to its last rows of this round."""
        try:
            while self._lateness.heard(member) < self.number:
                message = await self._message(member)
                if isinstance(message, Uplink):
                    self._take_upload(k, member, message)
                elif isinstance(message, Snapshot):
                    self._requests.take(member, message)
                else:
                    self._ignore(member, message.body)
            if k not in self._ranges[0]:
                return
            for i in range(1, len(self.side.ranges)):
                count, width = self.side.uplink_range(k, i)
                rows = np.empty((0, width), np.uint8)
                if count:
                    more = await self._message(member)
                    if not isinstance(more, MoreRows):
                        # It has all rows of this round, gives up its own, and has begun the next round.
                        member.connection.inbox.put_back(more)
                        return
                    rows = self.rows_of(k, i, more)
                self._ranges[i][k] = rows
                self._changed.set()
        finally:
            self._changed.set()

    async def _message(self, member: Member) -> Uplink | MoreRows | Snapshot:
        """The next message of a member, with rows or with the state of the training."""
        clock = asyncio.get_running_loop().time
        seconds = self.peers.seconds
        if self._lateness.heard(member) < self.number:
            left = self._lateness.quiet_since(member) + seconds - clock()
            if left <= 0:
                told = f"no uplink came from {member.connection.peer}"
                raise WaitError(told, seconds=seconds, option=OPTION)
            seconds = min(seconds, left)
        return await member.connection.receive((Uplink, MoreRows, Snapshot), seconds, OPTION)

    def _take_upload(self, k: int, member: Member, uplink: Uplink) -> None:
        """Take in an upload, of this round or of an earlier one."""
        self._lateness.hear(member, uplink.round, asyncio.get_running_loop().time())
        # A worker that has rows of this round already knows that it is late, and sends none.
        bare = self._chosen and not uplink.body.nbytes and not uplink.rest
        if uplink.round != self.number or bare:
            self._ignore(member, uplink.body)
            upload = self.side.layout(k).unpack(uplink.told, (), self.side.uplink_bytes(k))
            self.side.check(k, upload)
            self._lateness.uploads.append(LateUpload(k, uplink.round, upload))
            # It may lack a state from now on, and rows of this round are not waited for as long then.
            self._changed.set()
            return
        upload = self._uploads[k] = self.upload_of(k, uplink)
        self._ranges[0][k] = upload.rows[0]
        if self._chosen:
            self._lateness.uploads.append(LateUpload(k, uplink.round, upload))
        self._changed.set()

    def _ignore(self, member: Member, rows: Bytes) -> None:
        """Count rows of an earlier round."""
        self._lateness.ignored_bytes[member.name] += rows.nbytes
