"""One end of a TCP connection that carries a session: messages in, messages out."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

from asyncdmtl.errors import (
    AsyncDMTLError,
    AuthenticationError,
    CorruptionError,
    LinkError,
    PeerError,
    RemoteProtocolError,
    WaitError,
)
from asyncdmtl.net.addresses import format_address
from asyncdmtl.net.kernel import KernelCount, kernel_count
from asyncdmtl.net.tls import PLAIN_TYPE, TLSChannel, failure
from asyncdmtl.protocol.frame_reader import SCRATCH_BYTES
from asyncdmtl.protocol.framing import Buffer
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.base import Role
from asyncdmtl.protocol.messages.registry import (
    Assign,
    Failure,
    Heartbeat,
    Hello,
    Message,
    MulticastControl,
    Welcome,
)
from asyncdmtl.protocol.session import Session

Wanted = TypeVar("Wanted", bound=Message)

# What may wait unsent before `send` waits too. Bodies are written whole, so this is a mark, not a limit.
HIGH_WATER = 1 << 20

# Seconds: between heartbeats, and for last words to a peer that may be gone.
PULSE, LAST_WORDS = 2.0, 1.0

# However impatient a peer says that it is.
FASTEST_PULSE = 0.02


class Connection(asyncio.BufferedProtocol):
    """One end of a TCP connection.

    Made by `connect` or `listen`. Received bytes go straight from the socket into the session's buffers;
    rows go from their arrays to the socket uncopied (on uvloop), through TLS a slice at a time. Both sides
    send heartbeats, so that a peer of which nothing is heard for `silence` seconds is lost, whatever it is
    busy with; heard is a whole message or a good piece of one, not a byte now and then. So is a peer that for
    so long takes nothing of what waits for it.

    Parameters
    ----------
    role : "server" or "worker"
    ledger : Ledger
    silence : float
        Seconds.
    worker : str
        The worker's name, for a worker's own end.
    on_open : callable, optional
        Called with the connection once it is open, before any TLS.
    tls : callable, optional
        Makes the TLS of the connection; without it, there is none.

    Attributes
    ----------
    host : str
        The peer's address, without port.
    on_lost : callable or None
        Called once when the connection ends or fails.
    worker_may_return : bool
        Whether the worker may connect again after this connection has failed: at the server what its failures
        tell the worker, at the worker what the server's failure told.
    on_multicast_control : callable or None
        Called at once with what is said of rows that come from a group, whatever else is waited for; without
        it that is dropped.
    """

    def __init__(
        self,
        role: Role,
        ledger: Ledger,
        silence: float,
        worker: str = "?",
        on_open: Callable[[Connection], None] | None = None,
        tls: Callable[[], TLSChannel] | None = None,
    ) -> None:
        self.session = Session(role, ledger, worker)
        self.host = "?"
        self.address = "?"
        self.on_lost: Callable[[], None] | None = None
        self.on_multicast_control: Callable[[MulticastControl], None] | None = None
        self.worker_may_return = False
        self._silence = silence
        self._interval = min(PULSE, silence / 4)
        self._on_open = on_open
        self._tls = tls
        self._channel: TLSChannel | None = None
        self._ciphertext = memoryview(b"")
        self._secured = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[Message] = deque()
        self._arrival = asyncio.Event()
        self._writable = asyncio.Event()
        self._closed = asyncio.Event()
        self._failure: AsyncDMTLError | None = None
        self._counted: KernelCount | None = None
        self._heard = self._taken = self._loop.time()
        self._progress = self._waiting = 0
        self._outgoing: deque[Iterator[Buffer]] = deque()
        self._transport: asyncio.Transport | None = None
        self._pulse: asyncio.TimerHandle | None = None

    @property
    def peer(self) -> str:
        """The peer in words: the worker's name or "the server", and its address."""
        name = "the server" if self.session.role == "worker" else f"worker {self.session.worker!r}"
        return f"{name} at {self.address}"

    @property
    def local(self) -> str:
        """This end's address, without port."""
        name = None if self._transport is None else self._transport.get_extra_info("sockname")
        return str(name[0]) if isinstance(name, tuple) else ""

    @property
    def failure(self) -> AsyncDMTLError | None:
        """What ended the connection, once it has ended."""
        return self._failure

    @property
    def lost(self) -> bool:
        """True once the connection has ended or failed."""
        return self._failure is not None

    @property
    def binding(self) -> bytes:
        """What only the two ends of this TLS connection know; empty without TLS."""
        return b"" if self._channel is None else self._channel.binding

    @property
    def certified(self) -> tuple[str, ...]:
        """The names in the peer's checked certificate."""
        return () if self._channel is None else self._channel.peer_names

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(HIGH_WATER)
        peer = transport.get_extra_info("peername")
        self.host = peer[0] if isinstance(peer, tuple) else str(peer)
        self.address = format_address(*peer[:2]) if isinstance(peer, tuple) else str(peer)
        self._writable.set()
        self._heard = self._taken = self._loop.time()
        self._beat()
        if self._on_open is not None:
            self._on_open(self)
        if self._tls is None:
            self._secured.set()
        elif not self._transport.is_closing():
            self._channel = self._tls()
            self._ciphertext = memoryview(bytearray(SCRATCH_BYTES))
            if self.session.role == "worker":
                self._channel.handshake()
                self._say_for_tls()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called by the event loop."""
        return self.session.get_buffer() if self._channel is None else self._ciphertext

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the event loop."""
        if self._failure is not None:
            return
        try:
            received = (
                self.session.buffer_updated(nbytes)
                if self._channel is None
                else self._decrypt(self._channel, self._ciphertext[:nbytes])
            )
        except RemoteProtocolError as error:
            # The peer is not to blame for a bad cable.
            self.worker_may_return = self.worker_may_return or isinstance(error, CorruptionError)
            self._fail(type(error)(f"{self.peer}: {error}"), tell=True)
            return
        except ssl.SSLError as error:
            self._say_for_tls()
            self._fail(failure(error, self.peer), linger=True)
            return
        if self.session.progress > self._progress:
            self._heard, self._progress = self._loop.time(), self.session.progress
        for message in received:
            if isinstance(message, Hello | Welcome):
                self._beat_within(message.silence)
            if isinstance(message, Failure):
                self.worker_may_return = message.worker_may_return
                self._fail(PeerError(f"{self.peer} ended it: {message.reason}", exit_code=message.exit_code))
            elif isinstance(message, MulticastControl):
                self._on_multicast_control(message)
            elif not isinstance(message, Heartbeat):
                # A newer plan makes the one before it pointless; and nobody makes us keep many.
                if isinstance(message, Assign) and self._inbox and isinstance(self._inbox[-1], Assign):
                    self._inbox.pop()
                self._inbox.append(message)
        self._arrival.set()

    def _on_multicast_control(self, message: MulticastControl) -> None:
        if self.on_multicast_control is None or self._failure is not None:
            return
        try:
            self.on_multicast_control(message)
        except RemoteProtocolError as error:
            self._fail(RemoteProtocolError(f"{self.peer}: {error}"), tell=True)

    def eof_received(self) -> None:
        """Called by the event loop; the transport closes by itself."""
        self._count_kernel()
        try:
            self.session.receive_eof()
        except RemoteProtocolError as error:
            self._fail(type(error)(f"{self.peer}: {error}"))

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
        self._pump()

    @property
    def drained(self) -> bool:
        """Whether little of what was written still waits for the socket."""
        return not self._outgoing and self._writable.is_set()

    def write(self, message: Message) -> None:
        """Begin to send `message`: what it is made of must not change until it is sent.

        Raises
        ------
        PeerError, LinkError, RemoteProtocolError
            What ended the connection.
        """
        if self._failure is not None:
            raise self._failure
        assert self._transport is not None
        buffers = self.session.send(message)
        if self._channel is None:
            self._transport.writelines(buffers)
        else:
            self._outgoing.append(self._channel.encrypt(buffers))
            self._pump()

    async def drain(self, seconds: float, option: str) -> None:
        """Wait until little of what was written still waits for the socket.

        Raises
        ------
        WaitError
            The peer did not take it within `seconds`, which `option` sets.
        PeerError, LinkError, RemoteProtocolError
            What ended the connection.
        """
        try:
            async with asyncio.timeout(seconds):
                while not self.drained:
                    await self._writable.wait()
        except TimeoutError:
            error = WaitError(f"{self.peer} did not take what it was sent", seconds=seconds, option=option)
            self._fail(error)
            raise error from None
        if self._failure is not None and not self._inbox:
            raise self._failure

    async def send(self, message: Message, seconds: float, option: str) -> None:
        """`write` a message, and `drain`."""
        self.write(message)
        await self.drain(seconds, option)

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

    def put_back(self, message: Message) -> None:
        """Have a message that was received received once more, before all others."""
        self._inbox.appendleft(message)
        self._arrival.set()

    def clear(self) -> None:
        """Forget messages that came and that nobody has received."""
        self._inbox.clear()

    async def fail(self, error: AsyncDMTLError) -> None:
        """Tell the peer about `error` and close."""
        self._fail(error, tell=True)
        await self.close()

    def abort(self) -> None:
        """Cut the connection off without a word."""
        self._stop_pulse()
        if self._transport is not None:
            self._transport.abort()

    async def secured(self) -> None:
        """Wait until all that is sent and received is encrypted, if it is to be.

        Raises
        ------
        AuthenticationError
            One end does not accept the other's certificate, or the peer does not speak TLS.
        WaitError, LinkError
            The handshake came to no end.
        """
        try:
            async with asyncio.timeout(self._silence):
                await self._secured.wait()
        except TimeoutError:
            raise WaitError(
                f"TLS with {self.peer} came to no end", seconds=self._silence, option="--silence-timeout"
            ) from None
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Send what still waits and close; what the peer does not take in time is dropped."""
        if self._transport is None:
            return
        self._count_kernel()
        self._stop_pulse()
        if self._failure is None:
            self._hang_up(self._transport, linger=False)
        try:
            async with asyncio.timeout(min(self._silence, 2.0)):
                await self._closed.wait()
        except TimeoutError:
            self._transport.abort()
            await self._closed.wait()
        except asyncio.CancelledError:
            self._transport.abort()
            raise

    def kernel_count(self) -> KernelCount | None:
        """The kernel's counters of this connection; after its end, those at its end."""
        self._count_kernel()
        return self._counted

    def _pump(self) -> None:
        """Encrypt and write as much as the peer may be expected to take soon: ciphertext is a copy."""
        while self._outgoing and self._writable.is_set() and self._transport is not None:
            if (ciphertext := next(self._outgoing[0], None)) is None:
                self._outgoing.popleft()
            else:
                self._transport.write(ciphertext)
        if self._channel is not None:
            self._count_tls(self._channel)

    def _decrypt(self, channel: TLSChannel, ciphertext: memoryview) -> list[Message]:
        """The messages that ciphertext completes."""
        if not channel.overhead_in and ciphertext[0] == PLAIN_TYPE:
            self._refuse_plaintext()
            return []
        channel.feed(ciphertext)
        received: list[Message] = []
        while channel.open and (count := channel.read_into(self.session.get_buffer())):
            received += self.session.buffer_updated(count)
        self._say_for_tls()
        if channel.open and not self._secured.is_set():
            self._heard = self._loop.time()
            self._secured.set()
        return received

    def _refuse_plaintext(self) -> None:
        if self.session.role == "server":
            # The peer can be told only in the way in which it speaks.
            self._channel = None
            error = AuthenticationError(f"{self.peer} does not speak TLS, which this server does: --tls-ca")
        else:
            error = AuthenticationError(f"{self.peer} does not speak TLS, which --tls-ca asks for")
        self._fail(error, tell=self.session.role == "server")

    def _say_for_tls(self) -> None:
        """Send what TLS itself has to say, handshake and alerts, and count it."""
        assert self._channel is not None
        assert self._transport is not None
        if (ciphertext := self._channel.pending()) and not self._transport.is_closing():
            self._transport.write(ciphertext)
        self._count_tls(self._channel)

    def _count_tls(self, channel: TLSChannel) -> None:
        self.session.count_encryption(received=channel.overhead_in, sent=channel.overhead_out)

    def _fail(self, error: AsyncDMTLError, tell: bool = False, linger: bool = False) -> None:
        if self._failure is not None:
            return
        # Within a message that the peer has not taken, there is no room for another.
        tell = tell and self.session.failure_due and not self._outgoing
        if tell := tell and (self._channel is None or self._channel.open):
            self._writable.set()
            self.write(Failure(error.exit_code, str(error), self.worker_may_return))
        self._failure = error
        self._outgoing.clear()
        self._arrival.set()
        self._writable.set()
        self._secured.set()
        if self.on_lost is not None:
            self.on_lost()
        self._count_kernel()
        self._stop_pulse()
        if self._transport is not None:
            self._hang_up(self._transport, linger or tell)
            self._loop.call_later(LAST_WORDS, self._transport.abort)

    def _hang_up(self, transport: asyncio.Transport, linger: bool) -> None:
        """End the connection, at once or when the peer has read our last words.

        What it still sends is read and dropped meanwhile: the kernel answers bytes that nobody reads with a
        reset, which may overtake those words. One that was long silent will not read them.
        """
        if transport.is_closing():
            return
        if self._channel is not None and self._channel.open:
            transport.write(self._channel.end())
        if linger and self._loop.time() - self._heard < self._silence / 2:
            transport.write_eof()
        else:
            transport.close()

    def _beat(self) -> None:
        """Send a heartbeat if the state allows it, and look after the peer's; then again, and again."""
        now, waiting = self._loop.time(), 0
        if self._transport is not None and not self._transport.is_closing():
            waiting = self._transport.get_write_buffer_size()
        if not waiting or waiting < self._waiting:
            self._taken = now
        self._waiting = waiting
        left = self._silence - (now - min(self._heard, self._taken))
        if left < 0:
            self._fail(self._silent(now), tell=True)
            return
        # What waits is a sign of life too, once the peer takes it.
        if self.session.heartbeats_due and not waiting and not self._outgoing:
            self.write(Heartbeat())
        self._pulse = self._loop.call_later(min(self._interval, left), self._beat)

    def _silent(self, now: float) -> WaitError:
        """The peer said nothing for long, or took nothing."""
        if now - self._heard <= self._silence:
            told = f"{self.peer} took nothing of what it was sent"
        elif self.session.idle:
            told = f"nothing was heard from {self.peer}"
        else:
            told = f"nothing more was heard from {self.peer}, in the middle of a message,"
        return WaitError(told, seconds=self._silence, option="--silence-timeout")

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
