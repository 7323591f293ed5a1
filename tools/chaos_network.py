"""A bad network between one worker and the server, with every kind of fault that TCP does not hide."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from random import Random

Address = tuple[str, int]

# The most bytes that a pipe passes on at a time.
CHUNK = 1 << 16

# Bytes from the beginning of a worker's connection that are kept for a replay.
REMEMBERED = 1 << 14


class Link:
    """Passes bytes between a worker and the server, with faults on demand.

    Parameters
    ----------
    server : callable
        A function that returns the server's current address; None while there is no server.
    latency : float
        Seconds by which every piece is delayed.

    Attributes
    ----------
    address : (host, port)
        The address to which the worker connects.
    plugged : Event
        While it is cleared, nothing passes, not even the end of a connection, as with an unplugged cable.
    chunk, latency : int, float
        The most bytes of a piece, and the seconds by which each piece is delayed.
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
        """Close everything."""
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.reset()

    def reset(self) -> None:
        """Reset both ends of all connections."""
        for pipe in self._pipes:
            pipe.reset()

    def finish(self) -> None:
        """Close both ends of all connections in order."""
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
        """Pass fewer bytes at a time, with a longer delay."""
        self.chunk, self.latency = chunk, latency

    def heal(self) -> None:
        """Plug all connections in again, at full speed."""
        self.plugged.set()
        self.chunk, self.latency = CHUNK, self._usual

    async def repeat(self) -> None:
        """Replay the beginning of the worker's last connection on a new one, as an eavesdropper might."""
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
    """One connection of a worker, and the connection to the server that continues it.

    Attributes
    ----------
    dead : bool
        True once nothing passes any more.
    flips : dict of bool to int
        For each direction (True is up), the number of further bytes after which a bit is flipped.
    """

    def __init__(self, worker: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.dead = False
        self.flips: dict[bool, int] = {}
        self._writers = {False: worker, True: server}

    def bend(self, data: bytes, up: bool) -> bytes:
        """Bytes with a bit flipped, if one is due."""
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
    """For some seconds, send received datagrams to the group again, and forged ones that resemble them."""
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
                    # The receiver also gets the datagrams that are sent here.
                    if rng.random() < 0.3:
                        with contextlib.suppress(OSError):
                            sender.send(_forged(rng.choice(kept), rng))
                    del kept[:-200]


def _forged(datagram: bytes, rng: Random) -> bytes:
    """A received datagram, perhaps with a change."""
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
