"""A network that fails on demand: a proxy with real TCP on both sides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

Bend = Callable[[bytes], bytes]


class Proxy:
    """Passes bytes between its clients and a server, until a test changes that.

    Attributes
    ----------
    up, down : callable
        Functions that change the bytes to the server, and from the server.
    passing : Event
        While it is cleared, nothing passes and neither end is told, as with an unplugged cable.
    connected : int
        The number of connections so far.
    """

    def __init__(self, server: tuple[str, int]) -> None:
        self.up: Bend = bytes
        self.down: Bend = bytes
        self.passing = asyncio.Event()
        self.passing.set()
        self.connected = 0
        self.address = ("127.0.0.1", 0)
        self._server = server
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listen in a `with` block; then close everything."""
        listener = await asyncio.start_server(self._accept, *self.address)
        self.address = listener.sockets[0].getsockname()[:2]
        try:
            yield self
        finally:
            listener.close()
            self.cut()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break all connections, as if a machine on the way had died: both ends get a reset."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        try:
            onward = await asyncio.open_connection(*self._server)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, onward[1]}
        for source, target, up in ((reader, onward[1], True), (onward[0], writer, False)):
            task = asyncio.create_task(self._pass(source, target, up))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                await self.passing.wait()
                target.write((self.up if up else self.down)(data))
                await target.drain()
        target.close()
        self._writers.discard(target)
