"""A network that fails in every way that TCP lets through, between one worker and the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from random import Random

Address = tuple[str, int]

# Bytes that a pipe passes on at a time.
CHUNK = 1 << 16

# Bytes from the beginning of a worker's connection that are kept, so that they can be replayed.
REMEMBERED = 1 << 14


class Link:
    """Passes bytes between a worker and the server, until told otherwise.

    Parameters
    ----------
    server : callable
        Where the server listens now; None while there is none.
    latency : float
        Seconds that every piece is on its way.

    Attributes
    ----------
    address : (host, port)
        Where the worker connects to.
    plugged : Event
        While it is cleared nothing gets through, no end of a connection either: a cable is out.
    chunk, latency : int, float
        Bytes at a time, and seconds for each such piece.
    """

    def __init__(self, server: Callable[[], Address | None], latency: float) -> None:
        self.address: Address = ("127.0.0.1", 0)
        self.plugged = asyncio.Event()
        self.plugged.set()
        self.chunk, self.latency = CHUNK, latency
        self._usual = latency
        self._server = server
        self._pipes: set[Pipe] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._said = bytearray()

    async def open(self) -> None:
        """Listen."""
        self._listener = await asyncio.start_server(self._accept, *self.address)
        self.address = self._listener.sockets[0].getsockname()[:2]

    async def close(self) -> None:
        """Leave nothing behind."""
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.reset()

    def reset(self) -> None:
        """Both ends of all connections get a reset."""
        for pipe in self._pipes:
            pipe.reset()

    def finish(self) -> None:
        """Both ends of all connections get an end, as if the other had closed."""
        for pipe in self._pipes:
            pipe.finish()

    def half_close(self, up: bool) -> None:
        """Close one direction of all connections; the other direction stays open."""
        for pipe in self._pipes:
            pipe.half_close(up)

    def lose_track(self) -> None:
        """Drop everything on the present connections from now on, without telling either end."""
        for pipe in self._pipes:
            pipe.dead = True

    def flip(self, up: bool, after: int) -> None:
        """Flip a bit of the byte that follows the next `after` bytes in one direction of each connection."""
        for pipe in self._pipes:
            pipe.flips[up] = after

    def slow_down(self, chunk: int, latency: float) -> None:
        """Pass less at a time, and later."""
        self.chunk, self.latency = chunk, latency

    def heal(self) -> None:
        """Plug all connections in again, at full speed."""
        self.plugged.set()
        self.chunk, self.latency = CHUNK, self._usual

    async def repeat(self) -> None:
        """Replay on another connection what the worker sent on its last one, as an eavesdropper might."""
        server = self._server()
        if server is None:
            return
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(*server)
            try:
                writer.write(bytes(self._said))
                async with asyncio.timeout(2.0):
                    while await reader.read(CHUNK):
                        pass
            except TimeoutError:
                pass
            finally:
                writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._join(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.plugged.wait()
        server = self._server()
        if server is None:
            return writer.transport.abort()
        try:
            theirs, ours = await asyncio.open_connection(*server)
        except OSError:
            return writer.transport.abort()
        self._said.clear()
        pipe = Pipe(writer, ours)
        self._pipes.add(pipe)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(pipe, reader, ours, True))
                group.create_task(self._pass(pipe, theirs, writer, False))
        finally:
            self._pipes.discard(pipe)
            pipe.abort()
        return None

    async def _pass(
        self, pipe: Pipe, source: asyncio.StreamReader, target: asyncio.StreamWriter, up: bool
    ) -> None:
        try:
            while data := await source.read(self.chunk):
                if up and len(self._said) < REMEMBERED:
                    self._said += data
                await self.plugged.wait()
                await asyncio.sleep(self.latency)
                if not pipe.dead:
                    target.write(pipe.bend(data, up))
                    await target.drain()
            await self.plugged.wait()
            if not pipe.dead:
                target.write_eof()
        except (OSError, RuntimeError):  # RuntimeError: the other direction closed it
            await self.plugged.wait()
            if not pipe.dead:
                pipe.reset()


class Pipe:
    """One connection of a worker, and the one that goes on from it to the server.

    Attributes
    ----------
    dead : bool
        Whether nothing passes any more.
    flips : dict of bool to int
        Upwards or not → after how many more bytes a bit is changed.
    """

    def __init__(self, worker: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.dead = False
        self.flips: dict[bool, int] = {}
        self._writers = {False: worker, True: server}

    def bend(self, data: bytes, up: bool) -> bytes:
        """Bytes as the fault leaves them on their way."""
        if up not in self.flips:
            return data
        self.flips[up] -= len(data)
        if self.flips[up] >= 0:
            return data
        place = self.flips.pop(up) + len(data)
        return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]

    def reset(self) -> None:
        """Reset both ends; bytes on their way are lost."""
        for writer in self._writers.values():
            taken = writer.get_extra_info("socket")
            if not writer.transport.is_closing() and taken is not None:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def finish(self) -> None:
        """Close both ends in order."""
        for writer in self._writers.values():
            writer.close()

    def half_close(self, up: bool) -> None:
        """Close the direction to the server (`up`) or to the worker."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writers[up].write_eof()

    def abort(self) -> None:
        """Drop both ends."""
        for writer in self._writers.values():
            writer.transport.abort()


async def forge(group: Address, interface: str, seconds: float, rng: Random) -> None:
    """For some seconds, send heard datagrams to the group again, and forged ones that resemble them."""
    loop = asyncio.get_running_loop()
    member = socket.inet_aton(group[0]) + socket.inet_aton(interface)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        receiver.bind(group)
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
        sender.connect(group)
        for end in (receiver, sender):
            end.setblocking(False)
        kept = [rng.randbytes(100)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    kept.append(await loop.sock_recv(receiver, CHUNK))
                    # The receiver gets what is sent here, too.
                    if rng.random() < 0.3:
                        with contextlib.suppress(OSError):
                            sender.send(_forged(rng.choice(kept), rng))
                    del kept[:-200]


def _forged(datagram: bytes, rng: Random) -> bytes:
    """A datagram that was heard, perhaps with something wrong in it."""
    made = bytearray(datagram)
    what = rng.choice(("replayed", "flipped", "numbered", "cut", "grown"))
    if what == "flipped" and made:
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    elif what == "numbered":
        made[6:12] = rng.randbytes(6)
    elif what == "cut":
        del made[rng.randrange(len(made) + 1) :]
    elif what == "grown":
        made += rng.randbytes(rng.randrange(1, 300))
    return bytes(made)
