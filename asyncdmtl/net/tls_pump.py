"""TLS between a session and a socket: plaintext on one side, ciphertext on the other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from asyncdmtl.net.tls import TLSChannel, is_plaintext
from asyncdmtl.protocol.frame_reader import SCRATCH_BYTES
from asyncdmtl.protocol.framing import Buffer
from asyncdmtl.protocol.messages.base import Message
from asyncdmtl.protocol.session import Session


class PlaintextError(Exception):
    """The peer does not speak TLS."""


class TLSPump:
    """Encrypts messages as fast as the socket accepts them, and decrypts received bytes.

    Ciphertext is a copy of the plaintext. It is made only as far as the socket has room, so that memory holds
    one piece of it at a time.

    Parameters
    ----------
    channel : TLSChannel
    session : Session
    transport : asyncio.Transport
    has_room : callable
        A function that returns whether the socket accepts more bytes.

    Attributes
    ----------
    buffer : memoryview
        The buffer for the next received ciphertext.
    """

    def __init__(
        self,
        channel: TLSChannel,
        session: Session,
        transport: asyncio.Transport,
        has_room: Callable[[], bool],
    ) -> None:
        self.channel = channel
        self.buffer = memoryview(bytearray(SCRATCH_BYTES))
        self._session = session
        self._transport = transport
        self._has_room = has_room
        self._outgoing: deque[Iterator[Buffer]] = deque()
        if session.role == "worker":
            channel.handshake()
            self.send_pending()

    @property
    def idle(self) -> bool:
        """True if everything that was written has been passed to the socket."""
        return not self._outgoing

    def received(self, count: int) -> list[Message]:
        """The messages that `count` bytes of ciphertext in the buffer complete.

        Raises
        ------
        PlaintextError
            The bytes are not TLS.
        ssl.SSLError
            TLS failed; `send_pending` then sends the alert that tells the peer.
        RemoteProtocolError
            The peer broke a rule of the session.
        """
        channel, session = self.channel, self._session
        if not channel.overhead_in and is_plaintext(self.buffer[:count]):
            raise PlaintextError
        channel.feed(self.buffer[:count])
        messages: list[Message] = []
        while channel.open and (decrypted := channel.read_into(session.get_buffer())):
            messages += session.buffer_updated(decrypted)
        self.send_pending()
        return messages

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Begin to send the plaintext in some buffers, which must not change until it is sent."""
        self._outgoing.append(self.channel.encrypt(buffers))
        self.pump()

    def pump(self) -> None:
        """Encrypt and send waiting plaintext, as far as the socket has room."""
        while self._outgoing and self._has_room():
            if (ciphertext := next(self._outgoing[0], None)) is None:
                self._outgoing.popleft()
            else:
                self._transport.write(ciphertext)
        self._count()

    def drop(self) -> None:
        """Discard the plaintext that waits."""
        self._outgoing.clear()

    def send_pending(self) -> None:
        """Send TLS's own messages: handshakes and alerts."""
        if (ciphertext := self.channel.pending()) and not self._transport.is_closing():
            self._transport.write(ciphertext)
        self._count()

    def end(self) -> None:
        """Tell the peer that no more bytes follow."""
        if self.channel.open:
            self._transport.write(self.channel.end())

    def _count(self) -> None:
        self._session.count_encryption(received=self.channel.overhead_in, sent=self.channel.overhead_out)
