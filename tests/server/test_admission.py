"""Admission over real sockets, with workers that a test controls."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from support.peers import Peer
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.arithmetic.probe import Machine
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import AsyncDMTLError, DataError, IntegrityError, PeerError, UsageError
from asyncdmtl.learning.tasks import Declaration, Partition
from asyncdmtl.net.authentication import UNSECURED_SERVER
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.transport import listen
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import (
    VERSION,
    Declare,
    DeclareSome,
    Failure,
    Hello,
    Message,
    Prepare,
    Ready,
    Welcome,
)
from asyncdmtl.server import membership
from asyncdmtl.server.admission import REFUSED, Admission, Downlinks
from asyncdmtl.server.events import Joined, Left, Refused, ServerEvent
from asyncdmtl.server.member import Member
from asyncdmtl.server.member_log import MemberLog
from asyncdmtl.server.membership import Membership

PARTITIONS = make_partitions(4, "squared")
SETTINGS = make_settings()
INFOS = tuple(part.info(SETTINGS) for part in PARTITIONS)

LIMIT = 20.0

Event = TypeVar("Event", bound=ServerEvent)


class Group:
    """Records the calls of the multicast server."""

    def __init__(self) -> None:
        self.probed: list[str] = []
        self.dropped: list[str] = []
        self.misled: list[str] = []
        self.error: AsyncDMTLError | None = None

    async def probe(self, member: Member) -> None:
        self.probed.append(member.name)
        if self.error is not None:
            raise self.error

    def drop(self, worker: str) -> None:
        self.dropped.append(worker)

    def note_misled(self, worker: str) -> None:
        self.misled.append(worker)


class Run:
    """An admission that listens on the loopback."""

    def __init__(self, group: Group | None, **options: Any) -> None:
        self.events: list[ServerEvent] = []
        self.changed = asyncio.Event()
        self.membership = Membership()
        self.ledger = Ledger()
        self.address = ("127.0.0.1", 0)
        probe: Any = group
        made = run_options(**{"silence_timeout": LIMIT, "join_timeout": LIMIT, **options})
        log = MemberLog("run", self._note)
        self.admission = Admission(
            "run", made, self.membership, self.ledger, UNSECURED_SERVER, log, Downlinks(probe)
        )

    def _note(self, event: ServerEvent) -> None:
        self.events.append(event)
        self.changed.set()

    async def event(self, kind: type[Event], count: int = 1) -> Event:
        """The `count`-th event of a kind, once it has come."""
        while len(found := [event for event in self.events if isinstance(event, kind)]) < count:
            self.changed.clear()
            await self.changed.wait()
        return found[count - 1]

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for changes of the membership until `true` holds."""
        while not true():
            await self.membership.change(None)

    @contextlib.asynccontextmanager
    async def peer(self, name: str) -> AsyncIterator[Peer]:
        async with Peer.connected(name, self.address) as peer:
            yield peer

    @contextlib.asynccontextmanager
    async def joined(self, name: str, partitions: Sequence[Partition] = PARTITIONS) -> AsyncIterator[Peer]:
        """A worker that has declared these partitions, and is a member."""
        count = sum(isinstance(event, Joined) for event in self.events) + 1
        async with self.peer(name) as peer:
            await declare(peer, name, partitions)
            await self.event(Joined, count)
            yield peer

    def settle(self) -> None:
        """Settle the encoding, as the start of a run does."""
        self.membership.encoding.set_result(Encoding.empty())


async def declare(
    peer: Peer, name: str, partitions: Sequence[Partition], machine: Machine | None = None
) -> None:
    peer.say(Hello(VERSION, name, LIMIT))
    await peer.hear(Welcome)
    declared = tuple(part.declaration() for part in partitions)
    peer.say(Declare(declared, machine=machine or Machine.here(SETTINGS.arithmetic)))


@contextlib.asynccontextmanager
async def running(group: Group | None = None, **options: Any) -> AsyncIterator[Run]:
    run = Run(group, **options)
    async with asyncio.timeout(LIMIT):
        socket = await listen("127.0.0.1", 0, run.admission.accept)
        run.address = socket.sockets[0].getsockname()[:2]
        try:
            yield run
        finally:
            socket.close()
            await run.admission.close()
            await run.membership.close()


async def test_a_worker_is_welcomed_and_becomes_a_member() -> None:
    async with running() as run, run.peer("w0") as peer:
        peer.say(Hello(VERSION, "w0", LIMIT))
        welcome = await peer.hear(Welcome)
        assert (welcome.run, welcome.settings, welcome.silence) == ("run", SETTINGS.as_dict(), LIMIT)
        machine = Machine.here(SETTINGS.arithmetic)
        declared = tuple(part.declaration() for part in PARTITIONS[:2])
        peer.say(Declare(declared, 2, False, bytes(16), machine))
        assert await run.event(Joined) == Joined("w0", 2, False)
        member = run.membership.members["w0"]
        assert (member.declared, member.round, member.over, member.state) == (declared, 2, False, bytes(16))
        assert member.connection.worker_may_return
        assert not member.ready
        # Bytes from before it was a member count for it, and so do later ones.
        assert member.connection.session.ledger is run.ledger
        assert {entry.worker for entry in run.ledger.entries()} == {"w0"}
        run.settle()
        assert (await peer.hear(Prepare)).encoding == Encoding.empty().as_dict()
        peer.say(Ready(INFOS[:2]))
        await run.until(lambda: member.ready)
        assert member.infos == INFOS[:2]
        # Only the start of the run decides which rows are believed.
        assert run.membership.infos == {}


async def test_a_declaration_may_come_in_pieces() -> None:
    async with running() as run, run.peer("w0") as peer, run.peer("w1") as other:
        machine = Machine.here(SETTINGS.arithmetic)
        declared = tuple(part.declaration() for part in PARTITIONS[:2])
        for name, end, last in (("w0", peer, declared[1:]), ("w1", other, declared[:1])):
            end.say(Hello(VERSION, name, LIMIT))
            await end.hear(Welcome)
            end.say(DeclareSome(declared[:1]))
            end.say(Declare(last, machine=machine))
        assert await run.event(Joined) == Joined("w0", 2, False)
        assert run.membership.members["w0"].declared == declared
        assert "a partition is declared twice" in (await other.hear(Failure)).reason


async def test_a_declaration_of_too_many_pieces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncdmtl.server.admission.MAX_PIECES", 2)
    async with running() as run, run.peer("w0") as peer:
        peer.say(Hello(VERSION, "w0", LIMIT))
        await peer.hear(Welcome)
        for part in PARTITIONS[:2]:
            peer.say(DeclareSome((part.declaration(),)))
        assert "must have at most 2 pieces" in (await peer.hear(Failure)).reason


async def test_a_slow_worker_delays_no_other() -> None:
    async with running() as run, run.peer("slow") as slow:
        slow.say(Hello(VERSION, "slow", LIMIT))
        await slow.hear(Welcome)
        async with run.joined("w0"):
            assert list(run.membership.members) == ["w0"]


async def test_rows_of_partitions_without_infos_are_kept_once_the_run_has_started() -> None:
    async with running() as run:
        run.membership.infos_settled = True
        run.settle()
        async with run.joined("w0", PARTITIONS[:1]) as peer:
            await peer.hear(Prepare)
            peer.say(Ready(INFOS[:1]))
            await run.until(lambda: run.membership.infos)
            assert run.membership.infos == {"p0": INFOS[0]}


async def refusal(run: Run, messages: Callable[[Peer], Awaitable[None]], name: str = "w1") -> Failure:
    """The failure that a refused worker receives."""
    count = sum(isinstance(event, Refused) for event in run.events) + 1
    async with run.peer(name) as peer:
        await messages(peer)
        failure = await peer.hear(Failure)
        refused = await run.event(Refused, count)
        assert refused.reason == failure.reason
        assert refused.worker == name
    return failure


def declaring(*partitions: Partition, machine: Machine | None = None) -> Callable[[Peer], Awaitable[None]]:
    async def says(peer: Peer) -> None:
        await declare(peer, "w1", partitions, machine)

    return says


async def greeting(peer: Peer) -> None:
    peer.say(Hello(VERSION, "w1", LIMIT))


async def speaking_another_version(peer: Peer) -> None:
    peer.writer.write(peer.packed(Hello(VERSION + 1, "w1")))


async def test_a_name_belongs_to_one_worker() -> None:
    async with running() as run, run.joined("w1"):
        failure = await refusal(run, greeting)
        assert failure.reason == "--name must be unique; already joined, got 'w1'"
        # The member's connection may be broken; then the name will be free soon.
        assert failure.worker_may_return
        assert failure.exit_code == UsageError.exit_code


async def test_the_name_is_checked_again_after_the_declaration() -> None:
    async with running() as run, run.peer("w1") as first:
        first.say(Hello(VERSION, "w1", LIMIT))
        await first.hear(Welcome)
        async with run.joined("w1"):
            first.say(Declare((), machine=Machine.here(SETTINGS.arithmetic)))
            assert "--name must be unique" in (await first.hear(Failure)).reason


async def test_an_excluded_worker_may_not_come_back() -> None:
    async with running() as run:
        run.membership.excluded["w1"] = "it was too slow"
        failure = await refusal(run, greeting)
        assert failure.reason == "worker may not come back (it was too slow), got 'w1'"
        assert not failure.worker_may_return


async def test_a_member_that_is_gone_may_come_again() -> None:
    async with running() as run:
        async with run.joined("w1"):
            gone = run.membership.members["w1"]
        await run.until(lambda: gone.gone)
        async with run.joined("w1"):
            assert await run.event(Joined, 2) == Joined("w1", 4, True)
            assert run.membership.members["w1"] is not gone


@pytest.mark.parametrize(
    ("known", "declared", "complaint"),
    [
        (
            None,
            replace(PARTITIONS[0], id="p9"),
            "worker 'w1' may store known partitions only; unknown, got 'p9'",
        ),
        (
            PARTITIONS[:2],
            PARTITIONS[2],
            "worker 'w1' may store known partitions only; unknown, got 'p2'",
        ),
        (
            PARTITIONS[:2],
            replace(PARTITIONS[0], y=PARTITIONS[0].y + 1),
            "partition 'p0' of worker 'w1' must be the same data as at the start of the run (task t0, 4 rows",
        ),
    ],
    ids=["cover", "known", "data"],
)
async def test_partitions_that_do_not_fit_are_refused(
    known: Sequence[Partition] | None, declared: Partition, complaint: str
) -> None:
    async with running(cover=("p0", "p1", "p2")) as run:
        if known is not None:
            run.membership.known = {part.id: part.declaration() for part in known}
        assert (await refusal(run, declaring(declared))).reason.startswith(complaint)
        assert run.membership.members == {}


async def test_unknown_partitions_are_refused_for_good_once_the_run_has_started() -> None:
    async with running() as run:
        run.membership.known = {"p0": PARTITIONS[0].declaration()}
        # Until then, partitions may be forgotten again.
        for settled in (False, True):
            run.membership.infos_settled = settled
            assert (await refusal(run, declaring(PARTITIONS[1]))).worker_may_return is not settled


async def test_surveys_of_known_partitions_are_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def note(declared: Sequence[Declaration]) -> None:
        checked.extend(part.id for part in declared)

    monkeypatch.setattr("asyncdmtl.server.admission.check_surveys", note)
    async with running() as run, run.joined("w0", PARTITIONS[:2]):
        assert checked == ["p0", "p1"]
        run.membership.known = {part.id: part.declaration() for part in PARTITIONS[:2]}
        async with run.joined("w2", PARTITIONS[:1]):
            # Neither are those of partitions that are refused.
            for part in (PARTITIONS[2], replace(PARTITIONS[0], y=PARTITIONS[0].y + 1)):
                await refusal(run, declaring(part))
            assert checked == ["p0", "p1"]


async def test_holders_that_join_later_share_the_declaration() -> None:
    async with running() as run:
        known = {part.id: part.declaration() for part in PARTITIONS}
        run.membership.known = known
        async with run.joined("w0", PARTITIONS[:1]):
            assert run.membership.members["w0"].declared[0] is known["p0"]


async def test_members_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "MAX_MEMBERS", 1)
    async with running() as run, run.joined("w0"):
        failure = await refusal(run, greeting)
        assert "all places are taken" in failure.reason
        assert failure.worker_may_return


async def test_a_refused_declaration_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[object] = []
    fail = Connection.fail

    async def note(connection: Connection, error: AsyncDMTLError) -> None:
        kept.append(error.__traceback__)
        await fail(connection, error)

    monkeypatch.setattr(Connection, "fail", note)
    async with running(cover=("p9",)) as run:
        await refusal(run, declaring(PARTITIONS[0]))
    assert kept == [None]


async def test_a_machine_that_computes_other_bits_is_refused() -> None:
    here = Machine.here(SETTINGS.arithmetic)
    other = replace(here, digests={name: bytes(16) for name in vars(here)["digests"]})
    async with running() as run:
        failure = await refusal(run, declaring(PARTITIONS[0], machine=other))
        assert failure.reason.startswith("arithmetic of worker 'w1' must give the same bits as the server's")


async def test_a_worker_that_says_hello_and_no_more_is_refused_in_time() -> None:
    async with running(join_timeout=0.05) as run:

        async def mute(peer: Peer) -> None:
            await greeting(peer)
            await peer.hear(Welcome)

        assert "--join-timeout" in (await refusal(run, mute)).reason


async def test_connections_that_say_nothing_are_not_reported() -> None:
    async with running() as run:
        async with run.peer("nobody"):
            pass
        # Its end has been handled once a later connection has been refused.
        failure = await refusal(run, speaking_another_version, "?")
        assert failure.reason.endswith(f"protocol version {VERSION + 1}, this server {VERSION}")
        assert len(run.events) == 1
        await asyncio.gather(*run.admission._tasks)
        # The bytes of all refused connections are counted under one name.
        assert {entry.worker for entry in run.ledger.entries()} == {REFUSED}


async def prepared(peer: Peer, message: Message) -> None:
    await peer.hear(Prepare)
    peer.say(message)


@pytest.mark.parametrize(
    ("infos", "complaint"),
    [
        (INFOS[:1], "worker 'w0' must encode what it declared"),
        (
            (replace(INFOS[0], digest=bytes(16)), *INFOS[1:]),
            "partition 'p0' of worker 'w0' must be encoded as",
        ),
    ],
)
async def test_rows_that_became_something_else_cost_the_worker_its_place(infos: Any, complaint: str) -> None:
    async with running() as run:
        run.membership.infos.update({info.id: info for info in INFOS})
        run.membership.infos_settled = True
        run.settle()
        async with run.joined("w0") as peer:
            await prepared(peer, Ready(infos))
            failure = await peer.hear(Failure)
            assert failure.reason.startswith(complaint)
            assert not failure.worker_may_return
            assert (await run.event(Left)).reason == failure.reason
            assert isinstance(run.membership.members["w0"].lost, DataError)


@pytest.mark.parametrize(("exit_code", "ended"), [(UsageError.exit_code, True), (1, False)])
async def test_a_worker_that_cannot_encode_its_rows_is_lost(exit_code: int, ended: bool) -> None:
    async with running() as run:
        run.settle()
        async with run.joined("w0") as peer:
            await prepared(peer, Failure(exit_code, "bad data", False))
            assert "bad data" in (await run.event(Left)).reason
            member = run.membership.members["w0"]
            await run.until(lambda: member.lost)
            assert member.ended == ended
            assert member.connection.worker_may_return != ended


async def test_a_worker_that_was_replaced_meanwhile_is_not_prepared() -> None:
    async with running() as run:
        async with run.joined("w0"):
            gone = run.membership.members["w0"]
        await run.until(lambda: gone.gone)
        async with run.joined("w0") as again:
            run.settle()
            await again.hear(Prepare)
            again.say(Ready(INFOS))
            await run.until(lambda: run.membership.members["w0"].ready)
            assert gone.lost is None


async def test_a_worker_that_joined_may_be_refused_later() -> None:
    async with running() as run, run.joined("w0") as peer:
        member = run.membership.members["w0"]
        run.admission.refuse(member, DataError("partition 'p0'", "must be other data", 1))
        failure = await peer.hear(Failure)
        assert failure.reason == "partition 'p0' must be other data, got 1"
        assert not failure.worker_may_return
        assert (await run.event(Refused)).worker == "w0"


@pytest.mark.parametrize("resumable", [True, False])
async def test_admissions_end_with_the_server(resumable: bool) -> None:
    async with running() as run, run.peer("w0") as peer:
        peer.say(Hello(VERSION, "w0", LIMIT))
        await peer.hear(Welcome)
        run.admission.resumable = resumable
        closing = asyncio.create_task(run.admission.close())
        failure = await peer.hear(Failure)
        assert (failure.reason, failure.worker_may_return) == ("the server ended", resumable)
        peer.writer.transport.abort()
        await closing


async def test_a_worker_that_connects_at_the_end_of_all_admissions_is_told() -> None:
    async with running() as run, run.peer("w0"):
        connection = run.admission.accept()
        failed: list[AsyncDMTLError] = []

        async def fail(error: AsyncDMTLError) -> None:
            failed.append(error)

        connection.fail = fail  # type: ignore[method-assign]
        # Its admission is cancelled in the turn of the event loop in which it begins.
        run.admission._opened(connection)
        await run.admission.close()
        assert [str(error) for error in failed] == ["the server ended"]


async def test_a_defect_of_the_server_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as run, run.peer("w0") as peer:

        def broken(member: Member) -> bool:
            raise ZeroDivisionError("a defect")

        run.membership.add = broken  # type: ignore[method-assign]
        await declare(peer, "w0", PARTITIONS)
        failure = await peer.hear(Failure)
        assert failure.reason == "internal error: ZeroDivisionError('a defect')"
        assert "admission of worker 'w0'" in caplog.text


async def test_a_worker_is_told_that_the_server_has_too_many_files_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as run, run.peer("w0") as peer:

        def full(member: Member) -> bool:
            raise OSError(errno.EMFILE, "Too many open files")

        run.membership.add = full  # type: ignore[method-assign]
        await declare(peer, "w0", PARTITIONS)
        failure = await peer.hear(Failure)
        assert failure.reason.startswith("the server has too many open files, the limit of this process is")
        assert "Traceback" not in caplog.text


async def test_too_many_that_have_not_joined_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncdmtl.net.strangers.MAX_FROM_ONE_SITE", 1)
    async with running() as run, run.peer("w0") as first:
        first.say(Hello(VERSION, "w0", LIMIT))
        await first.hear(Welcome)
        async with run.joined("w1"):
            failure = await first.hear(Failure)
            assert "worker 'w0' at 127.0.0.1" in failure.reason
            assert failure.reason.endswith("made room for a new connection: there are too many")
            assert failure.worker_may_return
        # Such connections are reported together, not one by one.
        assert not any(isinstance(event, Refused) for event in run.events)


async def test_members_are_probed_before_they_are_ready() -> None:
    group = Group()
    async with running(group) as run:
        run.settle()
        async with run.joined("w0") as peer:
            await prepared(peer, Ready(INFOS))
            await run.until(lambda: run.membership.members["w0"].ready)
            assert group.probed == ["w0"]
            group.error = PeerError("it crashed")
            async with run.joined("w1") as other:
                await prepared(other, Ready(INFOS))
                assert "it crashed" in (await run.event(Left)).reason
                assert not run.membership.members["w1"].ready


@pytest.mark.parametrize("hears", [True, False])
@pytest.mark.parametrize("exit_code", [IntegrityError.exit_code, 1])
async def test_a_listener_that_decoded_something_wrong_is_noted(hears: bool, exit_code: int) -> None:
    group = Group()
    async with running(group) as run, run.joined("w0") as peer:
        member = run.membership.members["w0"]
        member.hears = hears
        peer.say(Failure(exit_code, "wrong", True))
        await run.until(lambda: member.gone)
        assert group.dropped == ["w0"]
        assert group.misled == (["w0"] if hears and exit_code == IntegrityError.exit_code else [])


async def test_each_connection_has_a_ledger_of_its_own_until_it_joins() -> None:
    async with running() as run:
        made = run.admission.accept()
        assert isinstance(made, Connection)
        assert made.session.ledger is not run.ledger
        made.abort()


async def test_a_worker_may_store_what_the_placement_says_only() -> None:
    async with running(cover=("p0", "p1"), permitted={"w0": ["p0", "p1"], "w1": ["p1"]}) as run:
        async with run.joined("w0", PARTITIONS[:2]):
            failure = await refusal(run, declaring(PARTITIONS[0]))
            assert failure.reason.startswith("worker 'w1' may store what --cover says only; not listed")
        async with run.peer("a0") as peer:
            await declare(peer, "a0", PARTITIONS[1:2])
            assert "worker 'a0' may store what --cover says only" in (await peer.hear(Failure)).reason
