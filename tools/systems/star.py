"""A minimal star of asyncio streams and msgpack, whose cost is the floor for any framework.

The server passes every update on to all other workers as soon as it arrives.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import msgpack
import numpy as np
from systems.common import ALL_ROUNDS, HOST, NUMBERS, PORT, WORKERS, Server, check, checked, update

LIMIT = 4 * NUMBERS + 1024


async def read(reader: asyncio.StreamReader) -> bytes:
    """One message: its length, and msgpack."""
    return await reader.readexactly(int.from_bytes(await reader.readexactly(8), "big"))


def write(writer: asyncio.StreamWriter, message: bytes) -> None:
    writer.write(len(message).to_bytes(8, "big"))
    writer.write(message)


async def serve() -> None:
    streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    complete = asyncio.Event()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        streams.append((reader, writer))
        if len(streams) == WORKERS:
            complete.set()

    async def relay(sender: int) -> None:
        message = await read(streams[sender][0])
        for number, (_, writer) in enumerate(streams):
            if number != sender:
                write(writer, message)
        await asyncio.gather(*(writer.drain() for _, writer in streams))

    server = await asyncio.start_server(join, HOST, int(PORT), limit=LIMIT)
    async with server:
        await complete.wait()
        coordinator = Server()
        for round_ in ALL_ROUNDS:
            await asyncio.gather(*map(relay, range(WORKERS)))
            # Each worker sends a byte once it has all updates.
            await asyncio.gather(*(reader.readexactly(1) for reader, _ in streams))
            coordinator.round(round_)
            for _, writer in streams:
                writer.write(b"!")
        for _, writer in streams:
            writer.close()


async def work(worker: int) -> None:
    reader, writer = await asyncio.open_connection(HOST, int(PORT), limit=LIMIT)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for round_ in ALL_ROUNDS:
        own = update(worker, round_)
        write(writer, msgpack.packb([worker, round_, own.tobytes()]))
        received = {worker: own}
        while len(received) < WORKERS:
            sender, of, body = msgpack.unpackb(await read(reader), max_bin_len=LIMIT)
            assert of == round_
            received[sender] = np.frombuffer(body, np.float32)
        if checked(round_):
            check([received[k] for k in range(WORKERS)], round_)
        writer.write(b"!")
        await reader.readexactly(1)
    writer.close()


asyncio.run(serve() if sys.argv[1] == "server" else work(int(sys.argv[1])))
