"""Damage the connections between a real server and real workers: `tools/fuzz_protocol.py --live --inputs
2000`.

Runs over TCP on the loopback, one after the other. In each run, honest workers train while strangers send
garbage, half a frame or an endless frame. Further workers are connected through a proxy, which damages frames
in one direction.

The honest workers must end with the models of the one-process twin, bit for bit, and every other worker with
a permitted error or none. There may be no internal error, and no run may hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import time
from collections import Counter
from typing import Any

import fuzz_inputs
import fuzz_mutations
import numpy as np

from asyncdmtl.errors import AsyncDMTLError, LocalProtocolError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train
from asyncdmtl.net.udp import Group
from asyncdmtl.protocol import framing
from asyncdmtl.server.events import Joined, Listening, ServerEvent
from asyncdmtl.server.records import MulticastOptions, RunOptions
from asyncdmtl.server.server import Server
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker

# Two honest workers hold every partition but the last, so they are the majority against any wrong update.
HONEST = {"w0": (0, 1, 2, 3, 4), "w1": (0, 1, 2), "w2": (3, 4), "w3": (1, 3, 5)}
STRATEGIES = ("relay", "central", "personal", "uncoded")
SETTINGS = Settings(loss="squared", coupling="nuclear", strength=0.05, rounds=4)
# Partitions whose vectors are sent whole, and partitions whose vectors take several ranges.
PARTITIONS = {
    width: [
        Partition(
            f"p{n}", f"t{n // 2}", np.random.default_rng(n).standard_normal((4, width)), np.arange(4.0) - n
        )
        for n in range(6)
    ]
    for width in (7, 20_000)
}
LOOPBACK = "127.0.0.1"
STRANGERS, BENT = 20, 6
LIMIT = 60.0


class Damage:
    """Damage to one direction of one connection, from the `number`-th frame on.

    Attributes
    ----------
    kind : str
    done : asyncio.Event
    """

    KINDS = ("bend", "lie", "double", "splice", "garbage", "half", "cut")

    def __init__(self, rng: random.Random, mutator: fuzz_mutations.Mutator) -> None:
        self.kind = rng.choice(self.KINDS)
        self._number = rng.randrange(12)
        self._rng = rng
        self._mutator = mutator

    def __call__(self, frame: bytes) -> bytes:
        """The bytes to send in place of a frame; EOFError to send no more, TimeoutError to be silent."""
        self._number -= 1
        if self._number >= 0:
            return frame
        if self._number < -1 and self.kind == "half":
            raise TimeoutError
        if self._number < -1:
            return frame
        if self.kind == "cut":
            raise EOFError
        if self.kind == "half":
            return frame[: len(frame) // 2]
        if self.kind == "garbage":
            return self._rng.randbytes(len(frame))
        return self._mutator.damaged(frame, self.kind)


class Proxy:
    """A TCP proxy that damages one direction of each connection."""

    def __init__(self, address: tuple[str, int], damage: Damage, upwards: bool) -> None:
        self._address = address
        self._damage = damage
        self._upwards = upwards
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> tuple[str, int]:
        self._server = await asyncio.start_server(self._opened, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _opened(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs, ours = await asyncio.open_connection(*self._address)
        except OSError:
            writer.transport.abort()
            return
        up, down = (self._damage, None) if self._upwards else (None, self._damage)
        try:
            await asyncio.gather(_copy(reader, ours, up), _copy(theirs, writer, down))
        finally:
            ours.transport.abort()
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, damage: Damage | None) -> None:
    """Pass bytes on until the end, frame by frame if some are to be damaged."""
    waiting = b""
    with contextlib.suppress(OSError, EOFError):
        while data := await reader.read(1 << 16):
            waiting += data
            while damage is not None and (size := fuzz_mutations.frame_size(waiting)) is not None:
                frame, waiting = waiting[:size], waiting[size:]
                try:
                    writer.write(damage(frame))
                except TimeoutError:
                    await asyncio.Event().wait()
            if damage is None:
                writer.write(waiting)
                waiting = b""
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.close()


class Run:
    """One training run under attack.

    Parameters
    ----------
    seed : int
        The seed of all choices. The interleaving of processes still depends on the kernel.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._mutator = fuzz_mutations.Mutator(self._rng, fuzz_inputs.corpus(self._rng, sessions=20))
        self._seen: Counter[str] = Counter()
        self._joined: set[str] = set()
        self._news = asyncio.Event()
        self._address = (LOOPBACK, 0)
        self._partitions = PARTITIONS[self._rng.choice((7, 7, 20_000))]
        group = Group("239.192.77.77", 20_000 + seed % 10_000)
        self._multicast = MulticastOptions(group, LOOPBACK, 1e9) if self._rng.random() < 0.5 else None
        self.outcomes: Counter[str] = Counter()
        self.settled: Counter[str] = Counter()

    async def run(self) -> None:
        """Raises AssertionError, or the error that should not have happened."""
        options = RunOptions(
            SETTINGS, self._rng.choice(STRATEGIES), cover=tuple(p.id for p in self._partitions),
            join_timeout=LIMIT, round_timeout=5.0, silence_timeout=2.0, multicast=self._multicast,
        )  # fmt: skip
        server = asyncio.create_task(Server(options, self._note).run("127.0.0.1", 0))
        try:
            async with asyncio.timeout(LIMIT), contextlib.AsyncExitStack() as stack:
                await self._until(lambda: self._seen["listening"] > 0, server)
                await self._attacked(server, stack)
        finally:
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)

    async def _attacked(self, server: asyncio.Task[Any], stack: contextlib.AsyncExitStack) -> None:
        workers = {name: self._work(name, HONEST[name], self._address) for name in ("w0", "w1", "w2")}
        await self._until(lambda: self._joined >= set(workers), server)
        bent: dict[str, tuple[str, asyncio.Task[Any]]] = {}
        for i in range(BENT):
            damage, upwards = Damage(self._rng, self._mutator), self._rng.random() < 0.5
            address = await stack.enter_async_context(Proxy(self._address, damage, upwards))
            name, stored = f"z{i}", self._rng.sample(range(5), self._rng.randint(1, 5))
            bent[name] = f"{damage.kind} {'up' if upwards else 'down'}", self._work(name, stored, address)
        strangers = [asyncio.create_task(self._stranger()) for _ in range(STRANGERS)]
        await self._until(lambda: self._all_settled(bent), server)
        workers["w3"] = self._work("w3", HONEST["w3"], self._address)
        try:
            await server
            await self._check_honest(workers)
            await asyncio.wait([task for _, task in bent.values()], timeout=5.0)
        finally:
            others = [*(task for _, task in bent.values()), *strangers, *workers.values()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        for what, task in bent.values():
            self.outcomes[f"{what}: {_outcome(task)}"] += 1

    def _all_settled(self, bent: dict[str, tuple[str, asyncio.Task[Any]]]) -> bool:
        """Whether each worker with a damaged connection has joined, under whatever name, or ended."""
        waiting = {name for name, (_, task) in bent.items() if not task.done()} - self._joined
        return len(waiting) <= len(self._joined - set(bent) - set(HONEST))

    async def _check_honest(self, workers: dict[str, asyncio.Task[Any]]) -> None:
        twin = train(self._partitions, SETTINGS).models
        for name, task in workers.items():
            models = await task
            expected = twin.of([twin.tasks.index(t) for t in models.tasks])
            if (models.coef_.tobytes(), models.intercept_.tobytes()) != (
                expected.coef_.tobytes(),
                expected.intercept_.tobytes(),
            ):
                raise AssertionError(f"{name} ended with other models than the twin")

    def _work(self, name: str, stored: Any, address: tuple[str, int]) -> asyncio.Task[Any]:
        options = WorkerOptions(
            name, max_wait=1.0, round_timeout=LIMIT, silence_timeout=2.0, interface=LOOPBACK
        )
        worker = Worker(options, [self._partitions[n] for n in stored])
        return asyncio.create_task(worker.run(*address))

    async def _stranger(self) -> None:
        """Connect, send something, slowly or not, and stay until the server closes the connection."""
        rng = self._rng
        honest = fuzz_inputs.honest(rng, "server")
        data = rng.choice(
            (
                rng.randbytes(rng.randrange(1, 5000)),
                self._mutator(honest)[20:],
                honest[4 + honest[3] :][: rng.randrange(1, 60)],
                framing.pack_prefix(4096, 0) + rng.randbytes(100),
                framing.pack_prefix(rng.randrange(1 << 32), rng.randrange(1 << 64)),
                b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200),
            )
        )
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(*self._address)
            try:
                step = rng.choice((1, 7, 1000, 100_000))
                for start in range(0, len(data), max(step, len(data) // 50)):
                    writer.write(data[start : start + step])
                    await writer.drain()
                    await asyncio.sleep(0)
                while await reader.read(1 << 16):
                    pass
            finally:
                writer.transport.abort()

    async def _until(self, condition: Any, server: asyncio.Task[Any]) -> None:
        while not condition():
            self._news.clear()
            if server.done():
                server.result()
                raise AssertionError("the run ended before its last worker had joined")
            news = asyncio.create_task(self._news.wait())
            await asyncio.wait([news, server], timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()

    def _note(self, event: ServerEvent) -> None:
        self._seen[event.name] += 1
        if isinstance(event, Listening):
            self._address = (event.host, event.port)
        elif isinstance(event, Joined):
            self._joined.add(event.worker)
        if "internal error" in str(event):
            raise AssertionError(str(event))
        self._news.set()


def _outcome(task: asyncio.Task[Any]) -> str:
    """The outcome of a worker with a damaged connection; AssertionError if it is not permitted."""
    if task.cancelled():
        return "still waiting"
    error = task.exception()
    if error is None:
        return "done"
    if not isinstance(error, AsyncDMTLError) or isinstance(error, LocalProtocolError):
        raise AssertionError(f"a worker ended with {error!r}") from error
    if "internal error" in str(error):
        raise AssertionError(str(error))
    return type(error).__name__


class _Alarm(logging.Handler):
    """Collects errors in the log, and exceptions that no task awaited, as bugs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


def main(inputs: int, seconds: float, seed: int) -> int:
    """Make runs until there were `inputs` peers, or for `seconds`; return the exit code."""
    alarm = _Alarm()
    for name in ("asyncdmtl", "asyncio"):
        logging.getLogger(name).addHandler(alarm)
        logging.getLogger(name).propagate = False
    outcomes: Counter[str] = Counter()
    peers = runs = 0
    began = time.monotonic()
    while peers < inputs and time.monotonic() - began < seconds:
        run = Run(seed + runs)
        try:
            asyncio.run(run.run())
            gc.collect()
            if alarm.found:
                raise AssertionError("\n".join(alarm.found))
        except Exception as error:
            print(f"BUG, --live --seed {seed + runs}: {error!r}")
            raise
        outcomes += run.outcomes
        runs += 1
        peers += BENT + STRANGERS
    spent = time.monotonic() - began
    print(f"{runs} runs with {peers} bad peers in {spent:.0f} s: all honest workers have the right models")
    for what, count in sorted(outcomes.items()):
        print(f"  {what} {count}")
    return 0
