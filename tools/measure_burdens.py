"""Measure a server under burdens of strangers and of one bad member: `tools/measure_burdens.py [BURDEN...]`.

Runs `python -m asyncdmtl.server` and its workers as processes over TCP on the loopback, with a secret, and
puts a burden on the server:

    declarations    40 valid declarations of 8 MB each, from one that knows the secret
    flapper         a member that joins and leaves as fast as it can
    mute            a member that joins, falls silent, and comes back when the server has given it up
    strangers       2,000 connections from 8 addresses that send nothing, and come back when closed
    silent          300 connections that send nothing, from the address of a member
    proofs          20 failed proofs a second in a member's name, from its address
    together        the last three at the same time

It prints the rounds a second before and during the burden, the processor time of server and workers for each
round (which says more where other processes run), the most seconds by which the server's event loop was late,
its memory before and the most during the burden, the seconds in which a member that lost its connection took
part again, and those of a first join.
It runs on Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import burdens
import click
from measure_memory import Watch

from asyncdmtl.data import recipes
from asyncdmtl.net import event_loop
from asyncdmtl.net.credentials import SECRET_VARIABLE

SPEC = "synthetic:tasks=4,rows=200,parts=1,features=40,rank=1,test_rows=0"
NAMES = ("p0", "p1", "p2", "p3")

# The partitions of each worker; each is stored twice. The last worker is the member that comes back.
STORED = {"w0": (0, 1), "w1": (1, 2), "w2": (2, 3), "member": (3, 0)}

# The address of the member, which failed proofs and silent connections share, and those of strangers.
SHARED = "127.0.0.9"
ADDRESSES = tuple(f"127.0.1.{k}" for k in range(1, 9))

# Seconds that are measured before a burden, and under it.
BEFORE, UNDER = 8.0, 30.0

# Seconds of silence after which a worker counts as lost under the burden "mute", and seconds that this burden
# is measured: long enough for some delays.
SILENCE, UNDER_MUTE = 2.0, 120.0

# The most seconds to wait for the answers to all declarations.
LONGEST = 120.0

# Ticks of a second in which the kernel counts processor time.
TICKS = os.sysconf("SC_CLK_TCK")

# Seconds between two looks at the clock of the server's event loop.
TICK = 0.005


def serve(words: list[str], file: str) -> None:
    """Run the server's command, and write to a file when its event loop was late, and by how much."""
    from asyncdmtl.cli import server
    from asyncdmtl.cli.main import main

    out = Path(file).open("w", buffering=1)  # noqa: SIM115 - for as long as the process lives

    async def watch() -> None:
        while True:
            begun, used = time.monotonic(), time.process_time()
            await asyncio.sleep(TICK)
            late, used = time.monotonic() - begun - TICK, time.process_time() - used
            if late > 2 * TICK:
                out.write(f"{begun} {late} {min(late, used)}\n")

    async def watched(inner: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.create_task(watch())
        try:
            return await inner
        finally:
            task.cancel()

    def run(inner: Coroutine[Any, Any, Any], **options: Any) -> Any:
        return event_loop.run(watched(inner), **options)

    vars(server)["run"] = run
    main(["server", *words])


class Training:
    """A run that goes on: a server, its workers, and what the server has reported so far."""

    def __init__(self, folder: Path) -> None:
        self.secret = secrets.token_hex(32)
        self.rounds: list[float] = []
        self.plans: list[tuple[float, tuple[str, ...]]] = []
        self.where = ("127.0.0.1", 0)
        self._late = folder / "late"
        self._processes: list[subprocess.Popen[str]] = []
        self._listening = threading.Event()
        self._environment = {**os.environ, SECRET_VARIABLE: self.secret}
        self._environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def begin(self, silence: float) -> None:
        """Start the server, and the workers that do not lose their connections.

        A worker that is silent for so many seconds counts as lost.
        """
        words = (
            "--listen", "127.0.0.1:0", "--format", "json", "--log-level", "error", "--data", SPEC,
            "--workers", str(len(STORED)), "--strategy", "relay", "--coupling", "l21", "--update", "gradient",
            "--tolerance", "0", "--rounds", str(10**7), "--silence-timeout", str(silence),
        )  # fmt: skip
        server = self._start(__file__, "serve", str(self._late), *words)
        self.memory = Watch(server.pid)
        threading.Thread(target=self._follow, args=(server,), daemon=True).start()
        if not self._listening.wait(60):
            raise click.ClickException("the server does not listen")
        for name in list(STORED)[:-1]:
            self.work(name, STORED[name], self.where)

    def work(self, name: str, stored: tuple[int, ...], where: burdens.Where) -> None:
        """Start a worker."""
        words = ("--data", SPEC, "--partitions", ",".join(NAMES[k] for k in stored), "--log-level", "error")
        self._start("-m", "asyncdmtl.worker", *words, "--connect", "{}:{}".format(*where), "--name", name)

    def rate(self, begin: float, end: float) -> float:
        """Rounds a second in a time."""
        return sum(begin <= when < end for when in self.rounds) / (end - begin)

    def used(self) -> float:
        """Seconds of the processor that the server and all workers have used."""
        told = (
            Path(f"/proc/{each.pid}/stat").read_text().rpartition(")")[2].split() for each in self._processes
        )
        return sum(int(fields[11]) + int(fields[12]) for fields in told) / TICKS

    def late(self, begin: float, end: float) -> str:
        """The most seconds by which the event loop was late in a time, and the most processor time in them.

        In the rest, other processes used the processor.
        """
        lines = [[float(word) for word in line.split()] for line in self._late.read_text().splitlines()]
        within = [line[1:] for line in lines if begin <= line[0] < end] or [[0.0, 0.0]]
        return "{:.3f} s ({:.3f} of the processor)".format(*map(max, *within, within[0]))

    async def planned(self, name: str, since: float, seconds: float = 60.0) -> float:
        """Seconds from `since` until a plan that began later has this worker; NaN if none comes."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for when, workers in self.plans:
                if when > since and name in workers:
                    return when - since
            await asyncio.sleep(0.01)
        return float("nan")

    async def settled(self) -> None:
        """Wait until all workers make rounds."""
        await self.planned("member", 0.0)
        await asyncio.sleep(1.0)

    def end(self) -> None:
        """Kill all processes."""
        self.memory.end()
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *words], env=self._environment, text=True, stdout=subprocess.PIPE
        )
        self._processes.append(process)
        if "serve" not in words:
            threading.Thread(target=lambda: process.stdout and process.stdout.read(), daemon=True).start()
        return process

    def _follow(self, server: subprocess.Popen[str]) -> None:
        assert server.stdout is not None
        for line in server.stdout:
            event, now = json.loads(line), time.monotonic()
            if event["event"] == "listening":
                self.where = event["host"], event["port"]
                self._listening.set()
            elif event["event"] == "round":
                self.rounds.append(now)
            elif event["event"] == "planned":
                self.plans.append((now, tuple(event["workers"])))
            elif event["event"] in ("failed", "finished"):
                print(f"the run ended: {event.get('error', 'finished')}", flush=True)


class Relay:
    """A relay between a worker and the server, from an address of its own, whose connections can be cut."""

    def __init__(self, where: burdens.Where) -> None:
        self.opened: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._where = where
        self._transports: list[asyncio.WriteTransport] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> burdens.Where:
        """Listen; the address for the worker."""
        self._server = await asyncio.start_server(self._opened, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    def cut(self) -> None:
        """Reset the open connections."""
        for transport in self._transports:
            transport.abort()
        self._transports.clear()

    async def _opened(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.opened.done():
            self.opened.set_result(time.monotonic())
        try:
            theirs, ours = await asyncio.open_connection(*self._where, local_addr=(SHARED, 0))
        except OSError:
            writer.transport.abort()
            return
        self._transports += [writer.transport, ours.transport]
        for source, target in ((reader, ours), (theirs, writer)):
            self._tasks.add(task := asyncio.create_task(self._carry(source, target)))
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        # uvloop raises RuntimeError where a connection was cut.
        with contextlib.suppress(OSError, RuntimeError):
            while piece := await source.read(1 << 16):
                target.write(piece)
                await target.drain()
        target.transport.abort()


Burden = Callable[[Training], Awaitable[Any]]


def _secret(training: Training) -> bytes:
    return training.secret.encode()


async def _flapper(training: Training, *, mute: bool = False) -> int:
    stored = recipes.load(SPEC, seed=0, only=[NAMES[1]], test=False).partitions
    return await burdens.flap(training.where, _secret(training), "flapper", stored, mute=mute)


async def _together(training: Training) -> None:
    await asyncio.gather(*(BURDENS[name](training) for name in ("strangers", "silent", "proofs")))


BURDENS: dict[str, Burden] = {
    "declarations": lambda t: burdens.declarations(t.where, _secret(t), NAMES[0], 40),
    "flapper": _flapper,
    "mute": partial(_flapper, mute=True),
    "strangers": lambda t: burdens.strangers(t.where, 2000, ADDRESSES),
    "silent": lambda t: burdens.strangers(t.where, 300, (SHARED,)),
    "proofs": lambda t: burdens.failed_proofs(t.where, ("member", "late", "x"), SHARED, 0.05),
    "together": _together,
}


# Seconds of the burdens under which no member comes back.
LIMITS = {"declarations": LONGEST, "flapper": UNDER, "mute": UNDER_MUTE}


async def measure(name: str, folder: Path) -> None:
    """Make a run, put a burden on its server, and print what was measured."""
    training = Training(folder)
    try:
        training.begin(SILENCE if name == "mute" else 10.0)
        relay, later = Relay(training.where), Relay(training.where)
        training.work("member", STORED["member"], await relay.open())
        await training.settled()
        begin, used = time.monotonic(), [training.used()]
        await asyncio.sleep(BEFORE)
        middle, memory = time.monotonic(), training.memory.peak()
        used.append(training.used())
        burden: asyncio.Future[Any] = asyncio.ensure_future(BURDENS[name](training))
        if name in LIMITS:
            await asyncio.wait([burden], timeout=LIMITS[name])
            returned = joined = None
        else:
            await asyncio.sleep(5.0)
            returned = joined = 0.0
            for _ in range(2):
                cut = time.monotonic()
                relay.cut()
                returned = max(returned, await training.planned("member", cut))
                await asyncio.sleep(1.0)
            training.work("late", (1, 2), await later.open())
            joined = await training.planned("late", await later.opened)
        end, most = time.monotonic(), training.memory.peak()
        used.append(training.used())
        burden.cancel()
        result: Any = (await asyncio.gather(burden, return_exceptions=True))[0]
        if isinstance(result, Exception):
            raise result
        _print(name, training, (begin, middle, end), returned, joined)
        spent = (
            (later - earlier) * 1e3 / max(1.0, training.rate(*times) * (times[1] - times[0]))
            for earlier, later, times in zip(used, used[1:], ((begin, middle), (middle, end)), strict=False)
        )
        print(f"{'':14} processor time of a round {' -> '.join(f'{each:.2f} ms' for each in spent)}")
        print(f"{'':14} memory of the server {memory / 1e6:.0f} MB -> at most {most / 1e6:.0f} MB")
        if name in ("flapper", "mute"):
            parts = [training.rate(middle + k, middle + k + 10) for k in range(0, int(LIMITS[name]), 10)]
            print(f"{'':14} in each 10 s {[round(rate, 1) for rate in parts]}, it joined {result} times")
        elif name == "declarations" and isinstance(result, list):
            print(f"{'':14} {len(result)} in {end - middle:.1f} s, for example: {result[0]}")
    finally:
        training.end()


def _print(
    name: str, training: Training, times: tuple[float, float, float], back: float | None, joined: float | None
) -> None:
    begin, middle, end = times
    before, under = training.rate(begin, middle), training.rate(middle, end)
    told = f"{name:14} rounds a second {before:6.1f} -> {under:6.1f} ({under / max(before, 1e-9):4.0%})"
    told += f", late {training.late(begin, middle)} -> {training.late(middle, end)}"
    if back is not None:
        told += f", back within {back:.2f} s, first join {joined:.2f} s"
    print(told, flush=True)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(BURDENS)))
def main(names: tuple[str, ...]) -> None:
    """Measure a server under burdens."""
    for name in names or BURDENS:
        with tempfile.TemporaryDirectory() as folder:
            event_loop.run(measure(name, Path(folder)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[3:], sys.argv[2])
    else:
        main()
