"""Burdens on a server: strangers, failed proofs, large declarations, a member that joins and leaves.

They come over real sockets, from addresses of the loopback network, and need no more than a member has. All
but the declarations go on until they are cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Sequence
from typing import Any

from asyncdmtl.arithmetic.probe import Machine
from asyncdmtl.data.stored import Stored
from asyncdmtl.errors import AsyncDMTLError
from asyncdmtl.learning.tasks import Declaration
from asyncdmtl.net.authentication import greet_server
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.transport import connect
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import VERSION, Assign, Declare, Failure, Hello, Welcome
from asyncdmtl.worker.joining import declare_and_encode, read_settings
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.own_partitions import OwnPartitions
from asyncdmtl.worker.state import WorkerState

Where = tuple[str, int]

# Seconds for each step of a connection of these.
PATIENCE = 60.0

# The columns of a large declaration: its head then has some 8 MB, the most that a server reads.
COLUMNS = 98_000


async def strangers(where: Where, count: int, addresses: Sequence[str]) -> None:
    """Hold `count` connections that send nothing; each is made again as soon as it is closed."""

    async def one(address: str) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(*where, local_addr=(address, 0))
                try:
                    await reader.read(1)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.05)

    await asyncio.gather(*(one(address) for address, _ in zip(itertools.cycle(addresses), range(count))))


async def failed_proofs(where: Where, names: Sequence[str], address: str, each: float) -> None:
    """Fail a proof in one of these names every `each` seconds."""
    tasks: set[asyncio.Task[None]] = set()

    async def one(name: str) -> None:
        with contextlib.suppress(AsyncDMTLError, OSError):
            connection = Connection("worker", Ledger(), PATIENCE, name)
            try:
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: connection.link, *where, local_addr=(address, 0))
                await greet_server(connection, Hello(VERSION, name), secrets.token_bytes(32), PATIENCE)
            finally:
                connection.abort()

    for name in itertools.cycle(names):
        tasks.add(task := asyncio.create_task(one(name)))
        task.add_done_callback(tasks.discard)
        await asyncio.sleep(each)


def large(name: str) -> Declaration:
    """A valid declaration of a partition with as many columns as a head can hold."""
    column = {"count": 3, "mean": 0.5, "M2": 2.0}
    names = [f"column {i}" for i in range(COLUMNS)]
    moments = {"count": 3, "mean": 0.5, "M2": 2.0}
    survey: dict[str, Any] = {
        "rows": 3,
        "target": {"name": "y", "text": False, "values": [], "more": True, "moments": moments},
        "columns": [[name, column] for name in names],
        "weighted": False,
        "fingerprints": {
            "rows": "0" * 16, "columns": [[name, "0" * 16] for name in names], "each": "", "rounded": "",
        },
    }  # fmt: skip
    return Declaration(name, "task", bytes(16), 3, survey)


async def declarations(where: Where, secret: bytes, partition: str, count: int) -> list[str]:
    """Declare a large partition over `count` connections at once, under as many names; the answers."""
    part = large(partition)

    async def one(name: str) -> str:
        connection = await connect(*where, lambda: Connection("worker", Ledger(), PATIENCE, name), PATIENCE)
        try:
            await greet_server(connection, Hello(VERSION, name), secret, PATIENCE)
            connection.be_patient(patient=True)
            await connection.send(Declare((part,), machine=Machine.here("reproducible")), PATIENCE, "")
            await connection.receive((Failure,), PATIENCE, "")
        except AsyncDMTLError as error:
            return str(error)
        finally:
            await connection.close()
        return ""

    return list(await asyncio.gather(*(one(f"large{k}") for k in range(count))))


class MuteConnection(Connection):
    """A connection that sends no heartbeats once it is `mute`."""

    mute = False

    def beat(self) -> None:
        """As `Connection.beat`, if it is not mute."""
        if not self.mute:
            super().beat()


async def flap(
    where: Where, secret: bytes, name: str, stored: Sequence[Stored], *, mute: bool = False
) -> int:
    """Join as `name`, leave at the first plan, and come back at once; return how often it joined.

    With `mute`, it does not leave, but sends nothing until the server gives it up.
    """
    options = WorkerOptions(name, PATIENCE, PATIENCE, PATIENCE, PATIENCE)
    partitions, state, joined = OwnPartitions(stored), WorkerState(name), 0
    try:
        while True:
            connection = await connect(
                *where, lambda: MuteConnection("worker", Ledger(), PATIENCE, name), PATIENCE
            )
            assert isinstance(connection, MuteConnection)
            with contextlib.suppress(AsyncDMTLError):
                welcome: Welcome = await greet_server(connection, Hello(VERSION, name), secret, PATIENCE)
                state.enter(welcome.run)
                settings = read_settings(connection, welcome)
                await declare_and_encode(connection, options, settings, partitions, state)
                await connection.receive((Assign,), PATIENCE, "")
                joined += 1
                connection.mute = mute
                if mute:
                    await connection.receive((Failure,), PATIENCE, "")
            connection.abort()
            await connection.close()
    except asyncio.CancelledError:
        return joined
