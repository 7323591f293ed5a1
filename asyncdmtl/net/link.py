"""The bytes of one TCP connection, with TLS or without: an asyncio protocol around a session."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from asyncdmtl.errors import AsyncDMTLError, AuthenticationError, RemoteProtocolError
from asyncdmtl.net.addresses import format_address
from asyncdmtl.net.arrivals import Arrivals
from asyncdmtl.net.kernel import KernelCount, kernel_count
from asyncdmtl.net.large_heads import read_large
from asyncdmtl.net.tls import TLSChannel, tls_error
from asyncdmtl.net.tls_pump import PlaintextError, TLSPump
from asyncdmtl.protocol.framing import Buffer
from asyncdmtl.protocol.messages.base import Message
from asyncdmtl.protocol.session import Session

# Unsent bytes from which on senders wait. A body is written whole, so that more bytes may be pending.
HIGH_WATER_BYTES = 1 << 20


class LinkOwner(Protocol):
    """The connection that a link belongs to."""

    @property
    def peer(self) -> str:
        """The peer in words, for errors."""

    @property
    def lost(self) -> bool:
        """Whether the connection has failed."""

    def opened(self) -> None:
        """The link is open; TLS, if it is used, begins after this."""

    def handshake_done(self) -> None:
        """TLS has begun."""

    def received(self, messages: list[Message]) -> None:
        """Messages have arrived."""

    def link_failed(self, error: AsyncDMTLError, *, tell: bool = False, linger: bool = False) -> None:
        """The connection has failed; `tell` the peer why, or `linger` until it has read the last message."""

    def link_closed(self, reason: str) -> None:
        """The TCP connection is closed."""


class Link(asyncio.BufferedProtocol):
    """One TCP connection.

    Received bytes go directly from the socket into the session's buffers. Rows go from their arrays to the
    socket without a copy (on uvloop), or through TLS a piece at a time. Seven methods are those of an asyncio
    protocol, which must be in one class.

    Parameters
    ----------
    session : Session
    owner : LinkOwner
    tls : callable or None
        A function that makes the TLS of the connection; None for plaintext.

    Attributes
    ----------
    host : str
        The peer's address, without port.
    address : str
        The peer's address, with port.
    secured : asyncio.Event
        Set once the connection is encrypted, or needs no encryption, or has failed.
    closed : asyncio.Event
        Set once the TCP connection is closed.
    nothing_received : bool
        Whether no byte has come from the peer yet.
    arrivals : Arrivals
        Tells the speed of the link from the peer.
    """

    def __init__(self, session: Session, owner: LinkOwner, tls: Callable[[], TLSChannel] | None) -> None:
        self.host = "?"
        self.address = "?"
        self.secured = asyncio.Event()
        self.closed = asyncio.Event()
        self.nothing_received = True
        self.arrivals = Arrivals()
        self._session = session
        self._owner = owner
        self._tls = tls
        self._pump: TLSPump | None = None
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._counted: KernelCount | None = None
        self._held = False
        self._reads_large = False

    @property
    def made(self) -> bool:
        """True once the connection was made, even if it is closed now."""
        return self._transport is not None

    @property
    def open(self) -> bool:
        """True while the connection is open and not being closed."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def local(self) -> str:
        """This end's address, without port."""
        name = None if self._transport is None else self._transport.get_extra_info("sockname")
        return str(name[0]) if isinstance(name, tuple) else ""

    @property
    def binding(self) -> bytes:
        """The channel binding (`TLSChannel.binding`), which proofs cover; empty without TLS."""
        return b"" if self._pump is None else self._pump.channel.binding

    @property
    def certified(self) -> tuple[str, ...]:
        """The names in the peer's verified certificate."""
        return () if self._pump is None else self._pump.channel.peer_names

    @property
    def drained(self) -> bool:
        """Whether few of the written bytes still wait for the socket."""
        return self._writable.is_set() and (self._pump is None or self._pump.idle)

    @property
    def may_tell(self) -> bool:
        """Whether another message can be sent now: the handshake is done, and no message is partly sent."""
        return self._pump is None or (self._pump.channel.open and self._pump.idle)

    def unsent_bytes(self) -> int:
        """Bytes that wait for the socket."""
        return self._transport.get_write_buffer_size() if self._transport is not None and self.open else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        made = self._transport = cast(asyncio.Transport, transport)
        made.set_write_buffer_limits(HIGH_WATER_BYTES)
        peer = made.get_extra_info("peername")
        self.host = peer[0] if isinstance(peer, tuple) else str(peer)
        self.address = format_address(*peer[:2]) if isinstance(peer, tuple) else str(peer)
        self._writable.set()
        self._owner.opened()
        if self._tls is None:
            self.secured.set()
        elif self.open:
            self._pump = TLSPump(self._tls(), self._session, made, self._writable.is_set)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called by the event loop."""
        return self._session.get_buffer() if self._pump is None else self._pump.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the event loop."""
        self.nothing_received = False
        if self._owner.lost:
            return
        self._process(lambda: self._messages(nbytes))
        self.arrivals.note(nbytes, time.perf_counter(), complete=self._session.idle)

    def hold(self, *, held: bool) -> None:
        """Read nothing more while `held`, except by `read_once`."""
        self._held = held
        self._read_or_pause()

    def read_once(self) -> None:
        """Read what has arrived, up to the length of one buffer."""
        if self._transport is not None and self.open and not self._reads_large:
            self._transport.resume_reading()

    def eof_received(self) -> None:
        """Called by the event loop; the transport then closes by itself."""
        self.kernel_count()
        try:
            self._session.receive_eof()
        except RemoteProtocolError as error:
            self._owner.link_failed(type(error)(f"{self._owner.peer}: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._owner.link_closed(str(exc) if exc else "the peer closed it")
        self.closed.set()

    def pause_writing(self) -> None:
        """Called by the event loop."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._writable.set()
        if self._pump is not None:
            self._pump.pump()

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Begin to send some buffers, which must not change until they are sent."""
        assert self._transport is not None
        if self._pump is None:
            self._transport.writelines(buffers)
        else:
            self._pump.write(buffers)

    async def writable(self) -> None:
        """Wait until the socket accepts more bytes."""
        await self._writable.wait()

    def release(self) -> None:
        """Wake up all tasks that wait for this link; they no longer wait for room in the socket."""
        self._writable.set()
        self.secured.set()

    def kernel_count(self) -> KernelCount | None:
        """The kernel's counters of this connection; the last ones after it has closed."""
        if self._transport is not None and self.open:
            socket = self._transport.get_extra_info("socket")
            if socket is not None and socket.fileno() >= 0:
                self._counted = kernel_count(socket) or self._counted
        return self._counted

    def hang_up(self, *, linger: bool) -> None:
        """End the connection: at once, or with `linger` after the peer has read the last message.

        Meanwhile, bytes from the peer are read and dropped: if no program reads them, the kernel answers with
        a reset, by which the peer may lose the last message.
        """
        if self._pump is not None:
            self._pump.drop()
        if self._transport is None or not self.open:
            return
        if self._reads_large:
            self._reads_large = False
            self._read_or_pause()
        if self._pump is not None:
            self._pump.end()
        if linger:
            self._transport.write_eof()
        else:
            self._transport.close()

    def abort(self) -> None:
        """Abort the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _messages(self, count: int) -> list[Message]:
        """The messages that `count` received bytes complete."""
        if self._pump is None:
            return self._session.buffer_updated(count)
        messages = self._pump.received(count)
        if self._pump.channel.open and not self.secured.is_set():
            self._owner.handshake_done()
            self.secured.set()
        return messages

    def _process(self, receive: Callable[[], list[Message]]) -> None:
        """Pass the messages that `receive` returns to the owner, and its errors."""
        try:
            messages = receive()
        except RemoteProtocolError as error:
            self._owner.link_failed(type(error)(f"{self._owner.peer}: {error}"), tell=True)
        except PlaintextError:
            self._refuse_plaintext()
        except ssl.SSLError as error:
            assert self._pump is not None
            self._pump.send_pending()
            self._owner.link_failed(tls_error(error, self._owner.peer), linger=True)
        else:
            self._owner.received(messages)
        large = None if self._owner.lost or self._reads_large else self._session.large
        if large is not None:
            self._reads_large = True
            read_large(large, self._large_read)
        if self._held or self._reads_large:
            self._read_or_pause()

    def _large_read(self, read: Callable[[], Message]) -> None:
        """Go on after the thread has read a large head; nothing was received meanwhile."""
        self._reads_large = False
        if not self._owner.lost:
            self._process(lambda: self._session.accept_large(read))
            self._read_or_pause()

    def _read_or_pause(self) -> None:
        """Receive bytes, unless the connection is held or a large head is being read."""
        if self._transport is not None and self.open:
            if self._held or self._reads_large:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _refuse_plaintext(self) -> None:
        """Fail because the peer does not speak TLS; a server tells it so in plaintext."""
        if self._session.role == "server":
            self._pump = None
            reason = "does not speak TLS, which this server does: --tls-ca"
        else:
            reason = "does not speak TLS, which --tls-ca asks for"
        error = AuthenticationError(f"{self._owner.peer} {reason}")
        self._owner.link_failed(error, tell=self._session.role == "server")
