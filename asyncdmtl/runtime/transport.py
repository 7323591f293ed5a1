"""TCP connections that carry a session: messages in, messages out."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import TypeVar, cast

from asyncdmtl.errors import AsyncDMTLError, LinkError, PeerError, RemoteProtocolError, UsageError, WaitError
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages import Failure, Heartbeat, Hello, Message, Welcome
from asyncdmtl.protocol.session import Role, Session
from asyncdmtl.runtime.kernel import KernelCount, kernel_count

Wanted = TypeVar("Wanted", bound=Message)

# What may wait unsent before `send` waits too. Bodies are written whole, so this is a mark, not a limit.
HIGH_WATER = 1 << 20
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0

# Seconds: between heartbeats, for last words to a peer that may be gone, and at the most for any wait.
PULSE, LAST_WORDS, LONGEST_WAIT = 2.0, 1.0, 1e9

# However impatient a peer says that it is.
FASTEST_PULSE = 0.02


class Connection(asyncio.BufferedProtocol):
    """One end of a TCP connection.

    Made by `connect` or `listen`. Received bytes go straight from the socket into the session's buffers;
    rows go from their arrays to the socket uncopied (on uvloop). Both sides send heartbeats, so that a peer
    of which nothing is heard for `silence` seconds is lost, whatever it is busy with.

    Parameters
    ----------
    role : "server" or "worker"
    ledger : Ledger
    silence : float
        Seconds.
    worker : str
        The worker's name, for a worker's own end.
    on_open : callable, optional
        Called with the connection once it is open.

    Attributes
    ----------
    on_lost : callable or None
        Called once when the connection ends or fails.
    """

    def __init__(
        self,
        role: Role,
        ledger: Ledger,
        silence: float,
        worker: str = "?",
        on_open: Callable[[Connection], None] | None = None,
    ) -> None:
        self.session = Session(role, ledger, worker)
        self.address = "?"
        self.on_lost: Callable[[], None] | None = None
        self._silence = silence
        self._interval = min(PULSE, silence / 4)
        self._on_open = on_open
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[Message] = deque()
        self._arrival = asyncio.Event()
        self._writable = asyncio.Event()
        self._closed = asyncio.Event()
        self._failure: AsyncDMTLError | None = None
        self._counted: KernelCount | None = None
        self._heard = self._loop.time()
        self._transport: asyncio.Transport | None = None
        self._pulse: asyncio.TimerHandle | None = None

    @property
    def peer(self) -> str:
        """The peer in words: the worker's name or "the server", and its address."""
        name = "the server" if self.session.role == "worker" else f"worker {self.session.worker!r}"
        return f"{name} at {self.address}"

    @property
    def lost(self) -> bool:
        """True once the connection has ended or failed."""
        return self._failure is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(HIGH_WATER)
        peer = transport.get_extra_info("peername")
        self.address = format_address(*peer[:2]) if isinstance(peer, tuple) else str(peer)
        self._writable.set()
        self._beat()
        if self._on_open is not None:
            self._on_open(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called by the event loop."""
        return self.session.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the event loop."""
        self._heard = self._loop.time()
        if self._failure is not None:
            return
        try:
            received = self.session.buffer_updated(nbytes)
        except RemoteProtocolError as error:
            self._fail(RemoteProtocolError(f"{self.peer}: {error}"), tell=True)
            return
        for message in received:
            if isinstance(message, Hello | Welcome):
                self._beat_within(message.silence)
            if isinstance(message, Failure):
                self._fail(PeerError(f"{self.peer} ended it: {message.reason}", exit_code=message.exit_code))
            elif not isinstance(message, Heartbeat):
                self._inbox.append(message)
        self._arrival.set()

    def eof_received(self) -> None:
        """Called by the event loop; the transport closes by itself."""
        self._count_kernel()
        try:
            self.session.receive_eof()
        except RemoteProtocolError as error:
            self._fail(RemoteProtocolError(f"{self.peer}: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        reason = str(exc) if exc else "the peer closed it"
        self._fail(LinkError(f"the connection to {self.peer} was lost: {reason}", peer=self.session.worker))
        self._closed.set()

    def pause_writing(self) -> None:
        """Called by the event loop."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._writable.set()

    async def send(self, message: Message, seconds: float, option: str) -> None:
        """Write `message`; return when little of it still waits for the socket.

        Raises
        ------
        WaitError
            The peer did not take it within `seconds`, which `option` sets.
        PeerError, LinkError, RemoteProtocolError
            What ended the connection.
        """
        self._write(message)
        try:
            async with asyncio.timeout(seconds):
                await self._writable.wait()
        except TimeoutError:
            error = WaitError(f"{self.peer} did not take {message.kind}", seconds=seconds, option=option)
            self._fail(error)
            raise error from None
        if self._failure is not None and not self._inbox:
            raise self._failure

    async def receive(self, wanted: tuple[type[Wanted], ...], seconds: float, option: str) -> Wanted:
        """The next message, which must be of one of the kinds `wanted`.

        Raises
        ------
        WaitError
            Nothing came within `seconds`, which `option` sets.
        PeerError, LinkError, RemoteProtocolError
            What ended the connection.
        """
        kinds = " or ".join(kind.kind for kind in wanted)
        try:
            async with asyncio.timeout(seconds):
                while not self._inbox:
                    if self._failure is not None:
                        raise self._failure
                    self._arrival.clear()
                    await self._arrival.wait()
        except TimeoutError:
            raise WaitError(f"no {kinds} came from {self.peer}", seconds=seconds, option=option) from None
        message = self._inbox.popleft()
        if not isinstance(message, wanted):
            error = RemoteProtocolError(f"{self.peer} sent {message.kind} where {kinds} was due")
            self._fail(error, tell=True)
            raise error
        return message

    def take(self, wanted: type[Wanted]) -> Wanted | None:
        """The next message if it is here already and of the kind `wanted`; else None."""
        if self._inbox and isinstance(self._inbox[0], wanted):
            return cast(Wanted, self._inbox.popleft())
        return None

    async def fail(self, error: AsyncDMTLError) -> None:
        """Tell the peer about `error` and close."""
        self._fail(error, tell=True)
        await self.close()

    def abort(self) -> None:
        """Cut the connection off without a word."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Send what still waits and close; what the peer does not take in time is dropped."""
        if self._transport is None:
            return
        self._count_kernel()
        self._stop_pulse()
        self._transport.close()
        try:
            async with asyncio.timeout(min(self._silence, 2.0)):
                await self._closed.wait()
        except TimeoutError:
            self._transport.abort()
            await self._closed.wait()

    def kernel_count(self) -> KernelCount | None:
        """The kernel's counters of this connection; after its end, those at its end."""
        self._count_kernel()
        return self._counted

    def _write(self, message: Message) -> None:
        if self._failure is not None:
            raise self._failure
        assert self._transport is not None
        self._transport.writelines(self.session.send(message))

    def _fail(self, error: AsyncDMTLError, tell: bool = False) -> None:
        if self._failure is not None:
            return
        if tell and self.session.failure_due:
            self._write(Failure(error.exit_code, str(error)))
        self._failure = error
        self._arrival.set()
        self._writable.set()
        if self.on_lost is not None:
            self.on_lost()
        self._count_kernel()
        self._stop_pulse()
        if self._transport is not None:
            self._transport.close()
            self._loop.call_later(LAST_WORDS, self._transport.abort)

    def _beat(self) -> None:
        """Send a heartbeat if the state allows it, and look after the peer's; then again, and again."""
        quiet = self._loop.time() - self._heard
        if quiet > self._silence:
            error = WaitError(
                f"nothing was heard from {self.peer}", seconds=self._silence, option="--silence-timeout"
            )
            self._fail(error, tell=True)
            return
        if self.session.beating:
            self._write(Heartbeat())
        self._pulse = self._loop.call_later(self._interval, self._beat)

    def _beat_within(self, patience: float) -> None:
        """Beat often enough for a peer that gives up after so many seconds of silence."""
        self._interval = max(FASTEST_PULSE, min(self._interval, patience / 4))
        self._stop_pulse()
        self._pulse = self._loop.call_later(self._interval, self._beat)

    def _stop_pulse(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None

    def _count_kernel(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        connection = self._transport.get_extra_info("socket")
        if connection is not None and connection.fileno() >= 0:
            self._counted = kernel_count(connection) or self._counted


def check_positive(**seconds: float) -> None:
    """UsageError, naming the option, unless every limit is more than 0 seconds."""
    for name, value in seconds.items():
        if not 0 < value <= LONGEST_WAIT:
            option = "--" + name.replace("_", "-")
            raise UsageError(option, f"must be more than 0 and at most {LONGEST_WAIT:g} seconds", value)


def parse_address(text: str, option: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPV6]:PORT`; UsageError names `option`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(option, "must be HOST:PORT with a port from 0 to 65535", text)
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """`HOST:PORT`, or `[IPV6]:PORT`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def listen(host: str, port: int, make: Callable[[], Connection]) -> asyncio.Server:
    """Accept connections on an address; port 0 takes a free one. LinkError if that cannot be."""
    try:
        return await asyncio.get_running_loop().create_server(make, host, port, backlog=1024)
    except UnicodeError as error:
        raise UsageError("--listen", "must name a host", host) from error
    except OSError as error:
        address = format_address(host, port)
        raise LinkError(f"cannot listen on {address}: {_reason(error)}", peer=address) from error


async def connect(host: str, port: int, make: Callable[[], Connection], max_wait: float) -> Connection:
    """Connect to a server, which may not be up yet.

    Tries again with growing pauses for `max_wait` seconds, which the option --max-wait sets; then LinkError.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + max_wait
    pause = FIRST_PAUSE
    while True:
        try:
            async with asyncio.timeout_at(end + FIRST_PAUSE):
                return (await loop.create_connection(make, host, port))[1]
        except UnicodeError as error:
            raise UsageError("--connect", "must name a host", host) from error
        except OSError as error:
            if loop.time() + pause > end:
                address = format_address(host, port)
                raise LinkError(
                    f"cannot reach a server at {address}: {_reason(error)} "
                    f"(gave up after {max_wait:g} s, the limit set by --max-wait)",
                    peer=address,
                ) from error
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _reason(error: OSError) -> str:
    """The kernel's words for an error, without those that the event loop wraps around them."""
    if isinstance(error, TimeoutError):
        return "no answer"
    return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
