"""One end of a TCP connection that carries a session: messages in, messages out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from asyncdmtl.errors import (
    AsyncDMTLError,
    AuthenticationError,
    CorruptionError,
    LinkError,
    PeerError,
    RemoteProtocolError,
    WaitError,
)
from asyncdmtl.net.inbox import Inbox, Wanted
from asyncdmtl.net.link import Link
from asyncdmtl.net.peer_monitor import PeerMonitor
from asyncdmtl.net.tls import TLSChannel
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.base import Message, Role
from asyncdmtl.protocol.messages.joining import Hello, Welcome
from asyncdmtl.protocol.messages.keys import KeyControl
from asyncdmtl.protocol.messages.liveness import Failure, Heartbeat
from asyncdmtl.protocol.messages.multicast import MulticastControl
from asyncdmtl.protocol.messages.peers import PeerReport, PeerRows
from asyncdmtl.protocol.messages.streams import Standby
from asyncdmtl.protocol.session import Session

# A message that goes past the inbox.
Rows = TypeVar("Rows", bound=Message)

# Seconds that a peer has to read the reason of a failure, before the connection is aborted.
LAST_MESSAGE_SECONDS = 1.0

# The most seconds to wait, before an orderly end, until the peer has received everything.
CLOSE_SECONDS = 2.0


class Connection:
    """One end of a TCP connection, made by `connect` or `listen`.

    Both ends send heartbeats. A peer that is silent for `silence` seconds counts as lost, even if it is busy.
    Silent means that it sent neither a message nor a valid piece of one, or that it accepted no bytes
    although some wait for it.

    Parameters
    ----------
    role : "server" or "worker"
        Which end this is.
    ledger : Ledger
        Where bytes are counted.
    silence : float
        Seconds.
    worker : str
        The worker's name, for a worker's own end.
    on_open : callable, optional
        Called with the connection once it is open, before any TLS.
    tls : callable, optional
        Makes the TLS of the connection; without it there is none.

    Attributes
    ----------
    session : Session
    link : Link
    inbox : Inbox
        Messages that have arrived and have not been received.
    failure : AsyncDMTLError or None
        The error that ended the connection; None while it is open.
    on_lost : callable or None
        Called once when the connection ends or fails.
    on_multicast_control : callable or None
        Called at once with each message about multicast rows, past the inbox. If it is None, these messages
        are dropped.
    on_peer_rows : callable or None
        The same for messages about rows between workers.
    on_keys : callable or None
        The same for messages about the key of a blind run.
    worker_may_return : bool
        Whether the worker may connect again after this connection has failed. The server sets it before it
        sends a failure; a worker reads it from the server's failure.
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
        self.link = Link(self.session, self, tls)
        self.inbox = Inbox()
        self.failure: AsyncDMTLError | None = None
        self.on_lost: Callable[[], None] | None = None
        self.on_multicast_control: Callable[[MulticastControl], None] | None = None
        self.on_peer_rows: Callable[[PeerReport | PeerRows], None] | None = None
        self.on_keys: Callable[[KeyControl], None] | None = None
        self.worker_may_return = False
        self._silence = silence
        self._on_open = on_open
        self._monitor = PeerMonitor(self, self.link.unsent_bytes, silence)

    @property
    def peer(self) -> str:
        """The peer in words: the worker's name or "the server", and its address."""
        name = "the server" if self.session.role == "worker" else f"worker {self.session.worker!r}"
        return f"{name} at {self.link.address}"

    @property
    def lost(self) -> bool:
        """True once the connection has ended or failed."""
        return self.failure is not None

    def write(self, message: Message) -> None:
        """Begin to send a message, whose rows must not change until it is sent.

        Raises
        ------
        PeerError, LinkError, RemoteProtocolError
            The connection has ended.
        """
        if self.failure is not None:
            raise self.failure
        self.link.write(self.session.send(message))

    def be_patient(self, *, patient: bool) -> None:
        """Permit the peer, while it is heard, to accept nothing for longer than the silence."""
        self._monitor.patient = patient

    async def drain(self, seconds: float, option: str) -> None:
        """Wait until few of the written bytes still wait for the socket.

        Raises
        ------
        WaitError
            The peer did not accept them within `seconds`, which `option` sets.
        PeerError, LinkError, RemoteProtocolError
            The connection has ended.
        """
        try:
            async with asyncio.timeout(seconds):
                while not self.link.drained:
                    await self.link.writable()
        except TimeoutError:
            error = WaitError(f"{self.peer} did not take what it was sent", seconds=seconds, option=option)
            self.link_failed(error)
            raise error from None
        if self.failure is not None and not self.inbox:
            raise self.failure

    async def send(self, message: Message, seconds: float, option: str) -> None:
        """`write` a message, and `drain`."""
        self.write(message)
        await self.drain(seconds, option)

    async def receive(self, wanted: tuple[type[Wanted], ...], seconds: float, option: str) -> Wanted:
        """The next message, which must be of one of the kinds `wanted`.

        Raises
        ------
        WaitError
            No message came within `seconds`, which `option` sets.
        PeerError, LinkError, RemoteProtocolError
            The connection has ended.
        """
        kinds = " or ".join(kind.kind for kind in wanted)
        try:
            async with asyncio.timeout(seconds):
                while not self.inbox:
                    if self.failure is not None:
                        raise self.failure
                    await self.inbox.changed()
        except TimeoutError:
            raise WaitError(f"no {kinds} came from {self.peer}", seconds=seconds, option=option) from None
        message = self.inbox.take_any()
        if not isinstance(message, wanted):
            error = RemoteProtocolError(f"{self.peer} sent {message.kind} where {kinds} was due")
            self.link_failed(error, tell=True)
            raise error
        return message

    async def secured(self) -> None:
        """Wait until the connection is encrypted, if it is to use TLS.

        Raises
        ------
        AuthenticationError
            One end does not accept the other's certificate, or the peer does not speak TLS.
        WaitError, LinkError
            The handshake was not completed.
        """
        try:
            async with asyncio.timeout(self._silence):
                await self.link.secured.wait()
        except TimeoutError:
            raise WaitError(
                f"TLS with {self.peer} came to no end", seconds=self._silence, option="--silence-timeout"
            ) from None
        if self.failure is not None:
            raise self.failure

    async def fail(self, error: AsyncDMTLError) -> None:
        """Tell the peer about `error` and close."""
        self.link_failed(error, tell=True)
        await self.close()

    async def close(self) -> None:
        """Send the waiting bytes and close; bytes that the peer does not accept in time are dropped."""
        if not self.link.made:
            return
        self.link.kernel_count()
        self._monitor.stop()
        if self.failure is None:
            self.link.hang_up(linger=False)
        try:
            async with asyncio.timeout(min(self._silence, CLOSE_SECONDS)):
                await self.link.closed.wait()
        except TimeoutError:
            self.link.abort()
            await self.link.closed.wait()
        except asyncio.CancelledError:
            self.link.abort()
            raise

    def abort(self) -> None:
        """Abort the connection without telling the peer a reason."""
        self._monitor.stop()
        self.link.abort()

    def opened(self) -> None:
        """Called by the link."""
        self._monitor.start()
        if self._on_open is not None:
            self._on_open(self)

    def handshake_done(self) -> None:
        """Called by the link."""
        self._monitor.heard()

    def received(self, messages: list[Message]) -> None:
        """Called by the link."""
        self._monitor.heard(self.session.progress)
        for message in messages:
            self._take_in(message)

    def link_failed(self, error: AsyncDMTLError, *, tell: bool = False, linger: bool = False) -> None:
        """Called by the link and this class: end the connection because of `error` unless it has ended."""
        if self.failure is not None:
            return
        # A peer whose bytes were corrupted on the way may try again.
        self.worker_may_return = self.worker_may_return or isinstance(error, CorruptionError)
        if tell := tell and self.session.failure_due and self.link.may_tell:
            self.link.release()
            self.write(Failure(error.exit_code, str(error), self.worker_may_return))
        self.failure = error
        self.link.release()
        self.inbox.wake()
        if self.on_lost is not None:
            self.on_lost()
        self.link.kernel_count()
        self._monitor.stop()
        # A peer that has been silent for long would not read a last message.
        self.link.hang_up(linger=(linger or tell) and self._monitor.recently_heard)
        asyncio.get_running_loop().call_later(LAST_MESSAGE_SECONDS, self.link.abort)

    def link_closed(self, reason: str) -> None:
        """Called by the link."""
        told = f"the connection to {self.peer} was lost: {reason}"
        self.link_failed(LinkError(told, peer=self.session.worker))

    def beat(self) -> None:
        """Called by the monitor."""
        if self.session.heartbeats_due and self.link.may_tell:
            self.write(Heartbeat())

    def peer_is_silent(self, *, heard: bool) -> None:
        """Called by the monitor."""
        if heard:
            told = f"{self.peer} took nothing of what it was sent"
        elif self.session.idle:
            told = f"nothing was heard from {self.peer}"
        else:
            told = f"nothing more was heard from {self.peer}, in the middle of a message,"
        error = WaitError(told, seconds=self._silence, option="--silence-timeout")
        self.link_failed(error, tell=True)

    def _take_in(self, message: Message) -> None:
        """Act on a message that has arrived, or put it into the inbox."""
        if isinstance(message, Hello | Welcome | Standby):
            self._monitor.beat_within(message.silence)
        if isinstance(message, Failure):
            self.worker_may_return = message.worker_may_return
            told = f"{self.peer} ended it: {message.reason}"
            self.link_failed(PeerError(told, exit_code=message.exit_code))
        elif isinstance(message, MulticastControl):
            self._pass_on(self.on_multicast_control, message)
        elif isinstance(message, PeerReport | PeerRows):
            self._pass_on(self.on_peer_rows, message)
        elif isinstance(message, KeyControl):
            self._pass_on(self.on_keys, message)
        elif isinstance(message, Heartbeat):
            self._note_heartbeat()
        else:
            self.inbox.put(message)

    def _note_heartbeat(self) -> None:
        """Refuse a peer that floods this end with heartbeats, which the protocol permits at any time."""
        if self._monitor.beats_heard.is_too_large():
            told = f"{self.peer} sends heartbeats without end, which keeps this end busy"
            self.link_failed(RemoteProtocolError(told), tell=True)

    def _pass_on(self, listener: Callable[[Rows], None] | None, message: Rows) -> None:
        if listener is None:
            self._note_heartbeat()
        if listener is None or self.failure is not None:
            return
        try:
            listener(message)
        except RemoteProtocolError as error:
            self.link_failed(RemoteProtocolError(f"{self.peer}: {error}"), tell=True)
        except AuthenticationError as error:
            self.link_failed(error, tell=True)
