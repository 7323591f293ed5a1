"""Proofs of identity, with real servers and workers over TCP and TLS, in one process."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest
import uvloop
from support.certificates import Authority
from support.clusters import Cluster, run_cluster, stored_at
from support.messages import wire_bytes
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.errors import AuthenticationError, LinkError, PeerError, UsageError
from asyncdmtl.learning.training import train
from asyncdmtl.net.authentication import ServerSecurity, WorkerSecurity
from asyncdmtl.net.credentials import Credentials
from asyncdmtl.net.failed_proofs import FREE_FAILURES, LONGEST_DELAY, FailedProofs
from asyncdmtl.net.tls import server_context, worker_context
from asyncdmtl.plan.placement import Placement
from asyncdmtl.protocol import framing
from asyncdmtl.protocol.frame_reader import FrameReader
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.registry import VERSION, Challenge, Failure, Hello, Message, Proof, Welcome
from asyncdmtl.report.run_report import report_run
from asyncdmtl.server.events import Joined, Left, Refused
from asyncdmtl.server.records import RoundRecord

SECRET, OTHER = b"a secret of 24 bytes ...", b"another secret ........."
PARTITIONS = make_partitions(4, "squared")
PLACEMENT = Placement({"w0": ["p0", "p1", "p2"], "w1": ["p2", "p3", "p0"]})

SHARED = ServerSecurity(Credentials(SECRET, {}, "test"))
BY_NAME = ServerSecurity(Credentials(None, {"w0": SECRET, "w1": OTHER}, "test"))


options = partial(run_options, workers=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def tls(authority: Authority) -> ssl.SSLContext:
    return server_context(*authority.issue("127.0.0.1"))


@pytest.fixture(scope="module")
def trusting(authority: Authority) -> ssl.SSLContext:
    return worker_context(authority.ca)


async def finish(cluster: Cluster, security: WorkerSecurity) -> None:
    """Check that an authorised worker can take part after failed attempts of others."""
    async with asyncio.timeout(30):
        worker = cluster.join("w0", PARTITIONS, security=security)
        await asyncio.gather(cluster.server, worker)
    assert [event.worker for event in cluster.events if isinstance(event, Joined)] == ["w0"]


async def test_a_run_with_proofs_and_tls_has_the_same_result(
    tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    workers = {"w0": WorkerSecurity(SECRET, trusting), "w1": WorkerSecurity(OTHER, trusting)}
    record, models = await run_cluster(
        options(workers=2),
        PLACEMENT,
        PARTITIONS,
        security=ServerSecurity(BY_NAME.credentials, tls),
        securities=workers,
    )
    twin = train(PARTITIONS, make_settings()).models
    assert all(found.coef_.tobytes() == twin.coef_.tobytes() for found in models)
    kinds = {(entry.worker, entry.kind, entry.direction): entry for entry in record.ledger.entries()}
    for name in workers:
        assert kinds[name, "challenge", "down"].messages == kinds[name, "proof", "up"].messages == 1
        for direction in ("up", "down"):
            assert kinds[name, "tls", direction].framing > 0
    assert report_run(record)["kernel_ledger_difference"] == {"up": 0, "down": 0}


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_large_bodies_pass_through_tls(
    tls: ssl.SSLContext, trusting: ssl.SSLContext, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    partitions = make_partitions(2, "squared", features=400_000)
    settings = make_settings(rounds=2, dtype="float64")
    placement = Placement({"w0": ["p0"], "w1": ["p1"]})
    worker = WorkerSecurity(tls=trusting)
    with asyncio.Runner(loop_factory=loop) as runner:
        record, models = runner.run(
            run_cluster(
                options(workers=2, settings=settings),
                placement,
                partitions,
                security=ServerSecurity(tls=tls),
                securities={"w0": worker, "w1": worker},
            )
        )
    twin = train(partitions, settings).models
    assert all(found.coef_.tobytes() == twin.coef_.tobytes() for found in models)
    assert report_run(record)["kernel_ledger_difference"] == {"up": 0, "down": 0}
    payload, _ = record.ledger.total()
    overhead = sum(entry.framing for entry in record.ledger.entries() if entry.kind == "tls")
    assert 0 < overhead < 0.002 * payload


@pytest.mark.parametrize(
    ("server", "name", "secret"),
    [
        (SHARED, "w0", OTHER),
        (BY_NAME, "w1", SECRET),
        (BY_NAME, "nobody", SECRET),
    ],
    ids=["wrong secret", "another's name", "unknown name"],
)
async def test_an_unproven_name_is_refused(server: ServerSecurity, name: str, secret: bytes) -> None:
    async with Cluster(options(), security=server) as cluster:
        with pytest.raises(PeerError, match="did not prove that it knows the secret of its name") as caught:
            await cluster.join(name, PARTITIONS, security=WorkerSecurity(secret))
        assert caught.value.exit_code == AuthenticationError.exit_code
        await cluster.event(Refused, worker=name)
        await finish(cluster, WorkerSecurity(SECRET))


async def test_a_worker_without_a_secret_names_the_option_for_it() -> None:
    async with Cluster(options(), security=SHARED) as cluster:
        with pytest.raises(AuthenticationError, match="asks for a secret: give --secret-file"):
            await cluster.join("w0", PARTITIONS)
        await finish(cluster, WorkerSecurity(SECRET))


async def test_a_worker_with_a_secret_leaves_a_server_that_does_not_ask() -> None:
    async with Cluster(options()) as cluster:
        with pytest.raises(AuthenticationError, match="does not ask for the secret"):
            await cluster.join("w0", PARTITIONS, security=WorkerSecurity(SECRET))
        await finish(cluster, WorkerSecurity())


async def read_messages(reader: asyncio.StreamReader) -> AsyncIterator[Message]:
    frames = FrameReader(1 << 20, 0)
    while data := await reader.read(1 << 16):
        for frame in frames.feed(data):
            yield registry.unpack(frame.head, frame.body)


async def test_a_server_that_only_pretends_to_know_the_secret_is_left() -> None:
    heard: list[Message] = []

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for message in read_messages(reader):
            heard.append(message)
            if isinstance(message, Hello):
                writer.write(wire_bytes(Challenge("run", bytes(32))))
            if isinstance(message, Proof):
                # The best that it can do is to return the worker's own proof.
                writer.write(wire_bytes(Welcome("run", make_settings().as_dict(), proof=message.proof)))
        writer.close()

    async with await asyncio.start_server(pretend, "127.0.0.1", 0) as server:
        cluster = Cluster(options())
        cluster.address = server.sockets[0].getsockname()
        with pytest.raises(AuthenticationError, match="did not prove that it knows the secret"):
            await cluster.join("w0", PARTITIONS, security=WorkerSecurity(SECRET))
    assert [message.kind for message in heard] == ["hello", "proof", "failure"]


class Wire:
    """A proxy between worker and server, which records the worker's bytes.

    With TLS contexts, it speaks TLS with both.
    """

    def __init__(self, target: tuple[str, int], *, at_server: Any = None) -> None:
        self.said = b""
        self.writers: list[asyncio.StreamWriter] = []
        self._target = target
        self._at_server = at_server

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection(*self._target, ssl=self._at_server)
        self.writers += [writer, onward[1]]
        try:
            await asyncio.gather(self._pass(reader, onward[1], True), self._pass(onward[0], writer, False))
        finally:
            writer.close()
            onward[1].close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, remember: bool) -> None:
        try:
            while data := await reader.read(1 << 16):
                self.said += data if remember else b""
                writer.write(data)
            writer.close()
        except ConnectionError:
            writer.close()


@asynccontextmanager
async def wiretapped(
    cluster: Cluster, *, at_worker: ssl.SSLContext | None = None, at_server: ssl.SSLContext | None = None
) -> AsyncIterator[Wire]:
    wire, target = Wire(cluster.address, at_server=at_server), cluster.address
    async with await asyncio.start_server(wire.connected, "127.0.0.1", 0, ssl=at_worker) as server:
        cluster.address = server.sockets[0].getsockname()
        yield wire
        cluster.address = target


async def test_recorded_proofs_are_refused() -> None:
    async with Cluster(options(workers=2), security=SHARED) as cluster:
        async with wiretapped(cluster) as wire:
            first = cluster.join("w0", PARTITIONS, security=WorkerSecurity(SECRET))
            await cluster.event(Joined, worker="w0")
            first.cancel()
            await cluster.event(Left, worker="w0")
        assert SECRET not in wire.said
        greeting = len(wire_bytes(Hello(VERSION, "w0")))
        reader, writer = await asyncio.open_connection(*cluster.address)
        answers = aiter(read_messages(reader))
        writer.write(wire.said[:greeting])
        assert isinstance(await anext(answers), Challenge)
        writer.write(wire.said[greeting : greeting + len(wire_bytes(Proof(bytes(32), bytes(32))))])
        failure = await anext(answers)
        assert isinstance(failure, Failure)
        assert failure.exit_code == AuthenticationError.exit_code
        assert "did not prove that it knows the secret" in failure.reason
        writer.close()


async def test_a_proof_cannot_be_passed_on_over_another_tls_connection(
    authority: Authority, tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    # The attacker that passes on all messages even has a certificate for the server's address that the worker
    # trusts.
    between = server_context(*authority.issue("attacker", "127.0.0.1"))
    async with Cluster(options(), security=ServerSecurity(SHARED.credentials, tls)) as cluster:
        security = WorkerSecurity(SECRET, trusting)
        async with wiretapped(cluster, at_worker=between, at_server=trusting) as wire:
            with pytest.raises(PeerError, match="did not prove"):
                await cluster.join("w0", PARTITIONS, security=security)
            assert wire_bytes(Hello(VERSION, "w0"))[:20] in wire.said
        await finish(cluster, security)


async def test_a_server_whose_certificate_is_not_accepted_is_left(
    authority: Authority, stranger: Authority, tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    cases = [
        (WorkerSecurity(tls=worker_context(stranger.ca)), "unable to get local issuer certificate"),
        (WorkerSecurity(tls=trusting, server_name="example.org"), "not valid for 'example.org'"),
    ]
    async with Cluster(options(), security=ServerSecurity(tls=tls)) as cluster:
        for security, complaint in cases:
            with pytest.raises(AuthenticationError, match=complaint):
                await cluster.join("w0", PARTITIONS, security=security)
            assert "does not accept this certificate" in (await cluster.event(Refused)).reason
            cluster.events.clear()
        await finish(cluster, WorkerSecurity(tls=trusting))
    expired = ServerSecurity(tls=server_context(*authority.issue("127.0.0.1", expired=True)))
    async with Cluster(options(), security=expired) as cluster:
        with pytest.raises(AuthenticationError, match="certificate has expired"):
            await cluster.join("w0", PARTITIONS, security=WorkerSecurity(tls=trusting))


async def test_a_worker_must_show_a_certificate_for_its_name(
    authority: Authority, stranger: Authority
) -> None:
    context = partial(worker_context, authority.ca)
    cases: list[tuple[ssl.SSLContext, str]] = [
        (context(), "asks for a certificate of this end"),
        (context(*stranger.issue("w0")), "unknown ca"),
        (context(*authority.issue("w0", expired=True)), "certificate expired"),
        (context(*authority.issue("w1")), "showed a certificate for w1"),
    ]
    server = ServerSecurity(tls=server_context(*authority.issue("127.0.0.1"), authority.ca))
    for shown, complaint in cases:
        async with Cluster(options(), security=server) as cluster:
            with pytest.raises((AuthenticationError, PeerError), match=complaint) as caught:
                await cluster.join("w0", PARTITIONS, security=WorkerSecurity(tls=shown))
            assert caught.value.exit_code == AuthenticationError.exit_code
            await cluster.event(Refused)
            await finish(cluster, WorkerSecurity(tls=context(*authority.issue(common_name="w0"))))


async def test_a_worker_that_speaks_plainly_to_a_server_that_does_not(
    tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with Cluster(options(), security=ServerSecurity(tls=tls)) as cluster:
        with pytest.raises(PeerError, match="does not speak TLS, which this server does: --tls-ca") as caught:
            await cluster.join("w0", PARTITIONS)
        assert caught.value.exit_code == AuthenticationError.exit_code
        await finish(cluster, WorkerSecurity(tls=trusting))


async def test_a_worker_that_speaks_tls_to_a_server_that_does_not(trusting: ssl.SSLContext) -> None:
    async with Cluster(options()) as cluster:
        with pytest.raises(AuthenticationError, match="does not speak TLS, which --tls-ca asks for"):
            await cluster.join("w0", PARTITIONS, security=WorkerSecurity(tls=trusting))
        assert "--tls-cert" in (await cluster.event(Refused)).reason
        await finish(cluster, WorkerSecurity())


async def test_failed_proofs_keep_no_worker_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither failed proofs in its name nor from its address delay the right worker."""
    delays: list[float] = []

    def failed(books: FailedProofs, host: str) -> float:
        delays.append(count_failure(books, host))
        return 0.0

    count_failure = FailedProofs.failed
    monkeypatch.setattr(FailedProofs, "failed", failed)
    async with Cluster(options(workers=2), security=BY_NAME) as cluster:
        member = cluster.join("w0", PARTITIONS, security=WorkerSecurity(SECRET))
        await cluster.event(Joined, worker="w0")
        for _ in range(12):
            with pytest.raises(PeerError, match="did not prove"):
                await cluster.join("w1", PARTITIONS, security=WorkerSecurity(SECRET))
        assert delays[FREE_FAILURES - 2] == 0.0
        assert delays[-1] == LONGEST_DELAY
        late = cluster.join("w1", PARTITIONS, security=WorkerSecurity(OTHER))
        await asyncio.gather(cluster.server, member, late)


async def test_the_answer_to_a_failed_proof_is_late_and_the_next_worker_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FailedProofs, "failed", lambda books, host: 30.0)
    async with Cluster(options(), security=BY_NAME) as cluster:
        delayed = cluster.join("w1", PARTITIONS, security=WorkerSecurity(SECRET))
        worker = cluster.join("w0", PARTITIONS, security=WorkerSecurity(SECRET))
        await cluster.event(Joined, worker="w0")
        assert not delayed.done()
        await asyncio.gather(cluster.server, worker)


async def answer_to(cluster: Cluster, data: bytes) -> Failure | None:
    """The server's answer to a stranger before it closes the connection; None if there is none."""
    reader, writer = await asyncio.open_connection(*cluster.address)
    writer.write(data)
    try:
        answers = [message async for message in read_messages(reader)]
    except ConnectionResetError:
        answers = []
    writer.transport.abort()
    assert all(isinstance(answer, Failure) for answer in answers)
    return cast(Failure, answers[0]) if answers else None


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_a_greeting_byte_by_byte_is_cut_off(encrypted: bool, tls: ssl.SSLContext) -> None:
    security = ServerSecurity(SHARED.credentials, tls if encrypted else None)
    # The beginning of a handshake record, or of a frame.
    first = b"\x16\x03\x01\x02\x00\x01" if encrypted else wire_bytes(Hello(VERSION, "x" * 100))
    async with Cluster(options(silence_timeout=0.5, join_timeout=30), security=security) as cluster:
        reader, writer = await asyncio.open_connection(*cluster.address)
        ended = asyncio.create_task(reader.read())
        sent = 0
        while not ended.done():
            writer.write(first[sent : sent + 1] if sent < len(first) - 1 else b"")
            sent += 1
            await asyncio.wait([ended], timeout=0.05)
        refused = await cluster.event(Refused)
        assert "after 0.5 s (the limit is set by --silence-timeout)" in refused.reason
        writer.close()


async def test_a_stranger_may_send_no_more_than_a_greeting() -> None:
    async with Cluster(options(), security=SHARED) as cluster:
        reader, writer = await asyncio.open_connection(*cluster.address)
        writer.write(wire_bytes(Hello(VERSION, "w0")) + framing.pack_prefix(1 << 13, 0))
        answers = [message async for message in read_messages(reader)]
        writer.close()
        assert isinstance(answers[-1], Failure)
        assert "announces a head of 8192 bytes" in answers[-1].reason


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_strangers_that_hold_connections_keep_no_worker_out(
    monkeypatch: pytest.MonkeyPatch, encrypted: bool, tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    monkeypatch.setattr("asyncdmtl.net.strangers.MAX_STRANGERS", 40)
    monkeypatch.setattr("asyncdmtl.net.strangers.MAX_FROM_ONE_SITE", 10)
    security = ServerSecurity(SHARED.credentials, tls if encrypted else None)
    worker = WorkerSecurity(SECRET, trusting if encrypted else None)
    async with Cluster(options(workers=2), security=security) as cluster:
        silent = [await silent_stranger(cluster, site) for site in range(1, 9) for _ in range(10)]
        first = cluster.join("w0", PARTITIONS, security=worker)
        await cluster.event(Joined, worker="w0")
        silent += [await silent_stranger(cluster, 1) for _ in range(20)]
        second = cluster.join("w1", PARTITIONS, security=worker)
        await asyncio.gather(cluster.server, first, second)
        # The strangers were closed to make room, without an event for each.
        assert not [event for event in cluster.events if isinstance(event, Refused)]
        for writer in silent:
            writer.close()


async def silent_stranger(cluster: Cluster, site: int) -> asyncio.StreamWriter:
    """A connection from one of several addresses that sends nothing."""
    _, writer = await asyncio.open_connection(*cluster.address, local_addr=(f"127.0.0.{site}", 0))
    return writer


async def test_a_stranger_that_spoke_is_told_why_it_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncdmtl.net.strangers.MAX_STRANGERS", 1)
    async with Cluster(options(), security=SHARED) as cluster:
        reader, writer = await asyncio.open_connection(*cluster.address)
        answers = aiter(read_messages(reader))
        writer.write(wire_bytes(Hello(VERSION, "w0")))
        assert isinstance(await anext(answers), Challenge)
        silent = await silent_stranger(cluster, 2)
        failure = await anext(answers)
        assert isinstance(failure, Failure)
        assert "made room for a new connection" in failure.reason
        assert failure.worker_may_return
        for opened in (writer, silent):
            opened.close()
        await finish(cluster, WorkerSecurity(SECRET))


async def test_a_probe_that_says_nothing_is_no_refused_worker(caplog: pytest.LogCaptureFixture) -> None:
    async with Cluster(options()) as cluster:
        for _ in range(3):
            (await silent_stranger(cluster, 1)).close()
        await finish(cluster, WorkerSecurity())
        assert not [event for event in cluster.events if isinstance(event, Refused)]
    assert "refused" not in caplog.text


async def test_last_words_arrive_however_much_was_still_being_said() -> None:
    async with Cluster(options()) as cluster:
        answer = await answer_to(cluster, b"\xff" * 4_000_000)
        assert answer is not None
        assert "does not match its check" in answer.reason


EXPOSURES = [
    ("127.0.0.1", "", "", None),
    ("127.8.0.1", "", "", None),
    ("::1", "", "", None),
    ("localhost", "", "", None),
    ("0.0.0.0", "", "", "can read this run and take part in it"),
    ("::", "tls", "", "can take part in it"),
    ("10.0.0.1", "", "secret", "can read this run"),
    ("example.org", "tls", "secret", None),
]


@pytest.mark.parametrize(("host", "encrypted", "secret", "warning"), EXPOSURES)
def test_a_server_that_others_can_reach_wants_both_or_insecure(
    tls: ssl.SSLContext, host: str, encrypted: str, secret: str, warning: str | None
) -> None:
    security = ServerSecurity(SHARED.credentials if secret else None, tls if encrypted else None)
    if warning is None:
        assert security.check_exposure(host, False) is None
        return
    with pytest.raises(UsageError, match="--listen must be a loopback address unless --insecure is given"):
        security.check_exposure(host, False)
    assert str(security.check_exposure(host, True)).endswith(warning)


def test_a_worker_reaches_others_encrypted_or_insecurely(trusting: ssl.SSLContext) -> None:
    assert WorkerSecurity().check_exposure("127.0.0.1", False) is None
    assert WorkerSecurity(tls=trusting).check_exposure("10.0.0.1", False) is None
    with pytest.raises(UsageError, match="unless --tls-ca or --insecure is given"):
        WorkerSecurity(SECRET).check_exposure("10.0.0.1", False)
    assert "can read this run" in str(WorkerSecurity(SECRET).check_exposure("10.0.0.1", True))


def test_options_that_belong_together(authority: Authority) -> None:
    certificate, key = authority.issue("127.0.0.1")
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: ServerSecurity.from_files(tls_cert=certificate), "--tls-key must be given"),
        (lambda: ServerSecurity.from_files(tls_key=key), "--tls-cert must be given"),
        (lambda: ServerSecurity.from_files(tls_client_ca=authority.ca), "--tls-client-ca needs --tls-cert"),
        (lambda: WorkerSecurity.from_files("w0", tls_cert=certificate), "--tls-cert needs --tls-ca"),
        (lambda: WorkerSecurity.from_files("w0", tls_key=key), "--tls-key needs --tls-ca"),
        (lambda: WorkerSecurity.from_files("w0", tls_server_name="x"), "--tls-server-name needs --tls-ca"),
        (
            lambda: WorkerSecurity.from_files("w0", tls_ca=authority.ca, tls_server_name=".x"),
            "--tls-server-name must name a host",
        ),
    ]
    for make, complaint in cases:
        with pytest.raises(UsageError, match=complaint):
            make()


def test_security_does_not_show_secrets() -> None:
    for security in (SHARED, BY_NAME, WorkerSecurity(SECRET)):
        assert SECRET.decode() not in repr(security)


async def test_refusals_are_in_the_log_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "asyncdmtl"):
        async with Cluster(options(), security=SHARED) as cluster:
            with pytest.raises(PeerError):
                await cluster.join("w0", PARTITIONS, security=WorkerSecurity(OTHER))
            await cluster.event(Refused)
    assert "did not prove" in caplog.text
    assert SECRET.decode() not in caplog.text
    assert OTHER.decode() not in caplog.text


async def test_a_connection_that_breaks_in_the_handshake_is_tried_again(
    tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    tried = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tried
        tried += 1
        await reader.read(1)
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        cluster = Cluster(options())
        cluster.address = server.sockets[0].getsockname()
        with pytest.raises(LinkError, match=r"cannot reach a server .* --max-wait"):
            await cluster.join("w0", PARTITIONS, security=WorkerSecurity(tls=trusting), max_wait=0.2)
    assert tried > 1


async def test_a_worker_that_was_cut_off_proves_itself_again(
    tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    settings = make_settings(rounds=300, dtype="float64")
    server = ServerSecurity(BY_NAME.credentials, tls)
    async with Cluster(options(workers=2, settings=settings), security=server) as cluster:
        own = stored_at(PLACEMENT, PARTITIONS)
        async with wiretapped(cluster) as wire:
            first = cluster.join("w0", own["w0"], security=WorkerSecurity(SECRET, trusting))
            await cluster.event(Joined, worker="w0")
            second = cluster.join("w1", own["w1"], security=WorkerSecurity(OTHER, trusting))
            await cluster.event(RoundRecord, round=3)
            for writer in wire.writers:
                writer.transport.abort()
            # Without it, no worker holds p1, so that the run waits.
            await cluster.event(Joined, worker="w0", again=True)
            await cluster.server
            found = await asyncio.gather(first, second)
    twin = train(PARTITIONS, settings).models
    assert all(models.coef_.tobytes() == twin.coef_.tobytes() for models in found)
