"""A worker's end of a connection over a real socket, which a test controls."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TypeVar

from asyncdmtl.arithmetic.probe import Machine
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.digests import Digest
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import (
    VERSION,
    Assign,
    Declare,
    Heartbeat,
    Hello,
    Message,
    Prepare,
    Ready,
    Welcome,
)
from asyncdmtl.protocol.session import Session
from asyncdmtl.worker.own_partitions import OwnPartitions

Wanted = TypeVar("Wanted", bound=Message)

# Bytes of the kernel's receive buffer of a peer that does not read; the kernel keeps some more.
SMALL = 1 << 14


class Peer:
    """A worker that joins like any other; then a test controls it.

    Attributes
    ----------
    session : Session
    writer : StreamWriter
    """

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.session = Session("worker", Ledger(), name)
        self.session.body_limit = 1 << 30
        self.writer = writer
        self._name = name
        self._reader = reader
        self._inbox: deque[Message] = deque()

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, name: str, address: tuple[str, int]) -> AsyncIterator[Peer]:
        """A peer that is connected and has sent nothing yet."""
        end = socket.socket()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        end.setblocking(False)
        await asyncio.get_running_loop().sock_connect(end, address)
        reader, writer = await asyncio.open_connection(sock=end, limit=SMALL)
        try:
            yield cls(name, reader, writer)
        finally:
            writer.transport.abort()

    async def hear(self, wanted: type[Wanted]) -> Wanted:
        """The next message that is no heartbeat."""
        while True:
            while self._inbox:
                message = self._inbox.popleft()
                if not isinstance(message, Heartbeat):
                    assert isinstance(message, wanted), message
                    return message
            data = await self._reader.read(SMALL)
            assert data, "the server has hung up"
            self._inbox += self.session.receive(data)

    def say(self, message: Message) -> None:
        """Send a message."""
        self.writer.write(self.packed(message))

    def packed(self, message: Message) -> bytes:
        """The bytes of a message, for a test to send."""
        return b"".join(map(bytes, self.session.send(message)))

    async def join(self, partitions: Sequence[Partition], silence: float) -> Assign:
        """Do as an honest worker does until the first plan."""
        self.say(Hello(VERSION, self._name, silence))
        welcome = await self.hear(Welcome)
        settings, digest = Settings.from_dict(welcome.settings), Digest(welcome.run)
        plain = (part.declaration() for part in partitions)
        declared = tuple(replace(part, digest=digest.keyed(part.digest)) for part in plain)
        self.say(Declare(declared, machine=Machine.here(settings.arithmetic)))
        prepare = await self.hear(Prepare)
        own = OwnPartitions(partitions)
        infos = own.encode(Encoding.from_dict(prepare.encoding), settings)
        keyed = tuple(replace(info, digest=digest.keyed(info.digest)) for info in infos)
        self.say(Ready(keyed, own.answers(prepare.challenges)))
        return await self.hear(Assign)
