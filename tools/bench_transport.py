"""Measure the speed of the runtime's connection beside blocking sockets: `python tools/bench_transport.py`.

Both move the same bytes between the same two processes, in turns, over the loopback interface: a message goes
down to a worker, which sends it back up. The received bytes are compared with the sent ones. The median of
several repetitions counts.

Then a server makes rounds of 100 MB, with workers in processes, and a task on its event loop measures the
longest delay of a wake-up.
"""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from results import Table, processor, results_option, write_results

from asyncdmtl.learning.settings import Settings
from asyncdmtl.net import event_loop
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.transport import connect, listen
from asyncdmtl.plan.placement import Placement
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import (
    VERSION,
    AfterRound,
    Assign,
    Declare,
    Downlink,
    Hello,
    Prepare,
    Ready,
    StateTransfer,
    Uplink,
    Welcome,
)
from asyncdmtl.server.events import Listening, Planned, ServerEvent
from asyncdmtl.server.records import RunOptions
from asyncdmtl.server.server import Server

HERE = "127.0.0.1"
SILENCE = 60.0
LIMIT = (SILENCE, "--limit")


async def joined_server(connection: Connection) -> None:
    """Bring a connection, at the server's end, to the state in which rows travel in both directions."""
    await connection.receive((Hello,), *LIMIT)
    await connection.send(Welcome("bench", {}, SILENCE), *LIMIT)
    await connection.receive((Declare,), *LIMIT)
    await connection.send(Prepare({}), *LIMIT)
    await connection.receive((Ready,), *LIMIT)
    await connection.send(Assign(0, 0, False, StateTransfer.KEEP, {}, bytes(16), ()), *LIMIT)
    await connection.receive((Uplink,), *LIMIT)


async def joined_worker(connection: Connection) -> None:
    """Do the same at a worker's end."""
    await connection.send(Hello(VERSION, "bench", SILENCE), *LIMIT)
    await connection.receive((Welcome,), *LIMIT)
    await connection.send(Declare(()), *LIMIT)
    await connection.receive((Prepare,), *LIMIT)
    await connection.send(Ready(()), *LIMIT)
    await connection.receive((Assign,), *LIMIT)
    await connection.send(Uplink(0, 0, b"", np.empty(0, np.uint8)), *LIMIT)


def receive_blocking(plain: socket.socket, target: NDArray[np.uint8]) -> None:
    """Fill an array from a blocking socket."""
    view = target.data
    while view:
        count = plain.recv_into(view)
        if not count:
            raise ConnectionError("the other process ended")
        view = view[count:]


async def readable(plain: socket.socket) -> None:
    """Wait on the event loop, which meanwhile sends the connection's remaining bytes."""
    ready = asyncio.Event()
    running = asyncio.get_running_loop()
    running.add_reader(plain, ready.set)
    await ready.wait()
    running.remove_reader(plain)
    plain.setblocking(True)  # libuv changed that


async def work(port: int, plain_port: int, sizes: list[int], goes: int) -> None:
    """The other process, which sends back what it receives."""
    connection = await connect(HERE, port, lambda: Connection("worker", Ledger(), SILENCE, "bench"), SILENCE)
    with socket.create_connection((HERE, plain_port)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await joined_worker(connection)
        connection.session.body_limit = max(sizes)
        for size in sizes:
            buffer = np.empty(size, np.uint8)
            for _ in range(goes):
                await readable(plain)
                plain.sendall(plain.recv(1))
                receive_blocking(plain, buffer)
                plain.sendall(buffer.data)
                down = await connection.receive((Downlink,), *LIMIT)
                up = Uplink(0, down.round + 1, b"", down.body)
                await connection.send(up, *LIMIT)
        with suppress(Exception):
            await connection.receive((Downlink,), *LIMIT)
    await connection.close()


async def bench(sizes: list[int], goes: int) -> list[tuple[str, ...]]:
    """Time both, and print a line for each size; returns the cells of the lines."""
    opened: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
    server = await listen(HERE, 0, lambda: Connection("server", Ledger(), SILENCE, on_open=opened.set_result))
    with socket.create_server((HERE, 0)) as plain_server:
        ports = [server.sockets[0].getsockname()[1], plain_server.getsockname()[1]]
        words = [str(number) for number in (*ports, goes, *sizes)]
        worker = await asyncio.create_subprocess_exec(sys.executable, __file__, "worker", *words)
        try:
            connection = await opened
            with await asyncio.to_thread(lambda: plain_server.accept()[0]) as plain:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await joined_server(connection)
                connection.session.body_limit = max(sizes)
                rows = await compare(connection, plain, sizes, goes)
            await connection.close()
            await worker.wait()
            return rows
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
            server.close()


async def compare(
    connection: Connection, plain: socket.socket, sizes: list[int], goes: int
) -> list[tuple[str, ...]]:
    """Move the same bytes in both ways, in turns; returns the cells of the lines."""
    print(f"{'bytes':>10} {'blocking':>9} {'asyncdmtl':>10} {'ratio':>6}   GB/s each way, median of {goes}")
    round_ = 0
    rows: list[tuple[str, ...]] = []
    for size in sizes:
        sent = np.random.default_rng(size).integers(0, 256, size, np.uint8)
        back, times = np.empty(size, np.uint8), ([], [])  # type: tuple[Any, tuple[list[float], list[float]]]

        async def blocking(sent: Any = sent, back: Any = back) -> Any:
            plain.sendall(sent.data)
            receive_blocking(plain, back)
            return back

        async def ours(sent: Any = sent, round_: int = round_) -> Any:
            await connection.send(Downlink(0, round_, AfterRound.GO_ON, bytes(16), (sent,)), *LIMIT)
            return (await connection.receive((Uplink,), *LIMIT)).body

        for go in range(goes):
            back[:] = 0
            # The other process has finished the repetition before, and blocks.
            plain.sendall(b"!")
            plain.recv(1)
            await timed(blocking, times[0], sent)
            await timed(lambda at=round_ + go: ours(round_=at), times[1], sent)  # type: ignore[misc]
        round_ += goes
        rates = [2 * size / statistics.median(taken) / 1e9 for taken in times]
        ratio = rates[1] / rates[0]
        print(f"{size:>10} {rates[0]:>9.2f} {rates[1]:>10.2f} {ratio:>6.2f}", flush=True)
        rows.append((f"{size:,}", f"{rates[0]:.2f}", f"{rates[1]:.2f}", f"{ratio:.2f}"))
    return rows


async def timed(exchange: Callable[[], Awaitable[Any]], times: list[float], sent: NDArray[np.uint8]) -> None:
    """Measure the time of an exchange, and compare the received bytes with the sent ones."""
    start = time.perf_counter()
    back = await exchange()
    times.append(time.perf_counter() - start)
    if not np.array_equal(back, sent):
        raise click.ClickException(f"WRONG CONTENT of {sent.nbytes} bytes")


async def watch(late: list[float]) -> None:
    """Measure the delays, in seconds, with which the event loop wakes this task up."""
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + 0.001
        await asyncio.sleep(0.001)
        late.append(clock() - due)


async def stall(megabytes: float, rounds: int) -> tuple[str, ...]:
    """Serve a run from this process, and print the longest stall of its event loop; returns the cells."""
    K, copies = 3, 2
    placement = Placement.cyclic(K, K, copies)
    # Each of 3 workers sends half a vector up, and is sent one: 4.5 vectors in all.
    features = int(megabytes * 1e6 / (4 * 4.5))
    spec = f"synthetic:tasks={K},rows=2,parts=1,features={features},rank=1,test_rows=0"
    settings = Settings(loss="squared", coupling="l21", strength=0.1, rounds=rounds, dtype="float32")
    workers: list[asyncio.subprocess.Process] = []
    events: asyncio.Queue[ServerEvent] = asyncio.Queue()
    run = asyncio.create_task(
        Server(RunOptions(settings, "relay", workers=K), events.put_nowait).run(HERE, 0)
    )
    late: list[float] = []
    try:
        listening = await events.get()
        assert isinstance(listening, Listening)
        address = f"{HERE}:{listening.port}"
        for name, stored in placement.as_dict().items():
            words = ("--connect", address, "--name", name, "--data", spec, "--partitions", ",".join(stored))
            command = (sys.executable, "-m", "asyncdmtl.worker", "--log-level", "error", *words)
            workers.append(await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL))
        while not isinstance(await events.get(), Planned):
            pass
        watching = asyncio.create_task(watch(late))
        record = await run
        watching.cancel()
        for worker in workers:
            await worker.wait()
    finally:
        run.cancel()
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
            await worker.wait()
    made = [entry.up_bytes + entry.down_bytes for entry in record.rounds]
    took = sorted(entry.seconds for entry in record.rounds)[len(made) // 2]
    worst, most = max(late), float(np.quantile(late, 0.99))
    print(
        f"{len(made)} rounds of {made[-1] / 1e6:.0f} MB at the server, {took:.2f} s each: its event loop was "
        f"late by at most {worst * 1e3:.1f} ms, in 99 % of {len(late)} times by at most {most * 1e3:.1f} ms"
    )
    return f"{made[-1] / 1e6:.0f} MB", f"{took:.2f} s", f"{worst * 1e3:.1f} ms", f"{most * 1e3:.1f} ms"


@click.command(context_settings={"show_default": True})
@click.option("--sizes", default="65536,262144,1048576,4194304,16777216,67108864", help="Bytes of messages.")
@click.option("--goes", default=40, help="Times that each is sent.")
@click.option(
    "--megabytes", default=100.0, help="A round of the run in which stalls are measured; 0: no run."
)
@click.option("--rounds", default=10, help="Of that run.")
@results_option
def main(sizes: str, goes: int, megabytes: float, rounds: int, results_file: Path | None) -> None:
    """Compare the runtime's connection with blocking sockets, and measure stalls of the event loop."""
    print(f"{processor()}, {os.cpu_count()} cores, Linux {platform.release()}", end=", ")
    print(f"Python {platform.python_version()}, {event_loop.loop_name()}")
    rows = event_loop.run(bench([int(size) for size in sizes.split(",")], goes))
    head = ("bytes of a message", "blocking, GB/s each way", "asyncdmtl", "asyncdmtl ÷ blocking")
    tables = [Table("transport", head, tuple(rows))]
    if megabytes:
        head = (
            "a round at the server",
            "seconds",
            "latest wake-up of its event loop",
            "99 % of wake-ups within",
        )
        tables.append(Table("stalls", head, (event_loop.run(stall(megabytes, rounds)),)))
    if results_file is not None:
        write_results(results_file, tables)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        first, second, count, *chosen = map(int, sys.argv[2:])
        event_loop.run(work(first, second, chosen, count))
    else:
        main()
