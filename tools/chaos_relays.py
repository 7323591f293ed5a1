"""Test runs whose relays are killed and frozen: `tools/chaos_relays.py --runs 100`.

Each seed determines a small problem, two to four relays, of which one may be behind another, and workers that
know the address of their relay and that of the server. While the run goes on, relays are killed at random
rounds, some of which are started again, or are frozen for longer than the silence that is permitted; workers
are killed and started again. The models of all workers must be those of the one-process twin, bit for bit. A
wrong result, a hang, an internal error, a traceback or a worker that ends without models is a bug; its seed
is printed. Only a worker that was killed itself may come back after the end of the run; these are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from operator import not_
from pathlib import Path

from chaos_processes import ForkServer, Process, make_pipe

from asyncdmtl.data import recipes
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.learning.training import train
from asyncdmtl.net.credentials import SECRET_VARIABLE
from asyncdmtl.net.event_loop import run
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import write_placement

ROUNDS = 60
# Seconds of silence that nodes permit each other, and for which a frozen relay stays so.
SILENCE, FROZEN = 3.0, 6.0
# Seconds after the end of the server within which workers end, except for those that missed it.
LAST = 20.0
# Seconds between looks at whether a relay listens.
LOOK = 0.02
SECRET = "as long as a secret has to be"


class RelayError(Exception):
    """A run did not end as it must."""


@dataclass(frozen=True)
class Fault:
    """Something that happens to a relay or worker at a round; after `seconds` it comes back, if ever."""

    round: int
    kind: str
    node: str
    seconds: float | None


@dataclass(frozen=True)
class Tree:
    """The problem and the topology of a run.

    `parents` maps each relay and worker to its relay, or to "" for the server.
    """

    seed: int
    strategy: str
    parts: int
    placement: Placement
    parents: dict[str, str]
    relays: tuple[str, ...]
    faults: tuple[Fault, ...]

    @property
    def spec(self) -> str:
        """The recipe of the data."""
        return f"synthetic:tasks={self.parts},parts=1,rows=12,features=6,test_rows=0"

    def behind(self, relay: str) -> int:
        """The number of workers behind a relay, those behind other relays included."""
        nodes = [name for name, parent in self.parents.items() if parent == relay]
        return sum(self.behind(node) if node in self.relays else 1 for node in nodes)


def draw(seed: int) -> Tree:
    """The run of a seed."""
    random_ = random.Random(seed)
    count, workers = random_.randint(2, 4), random_.randint(5, 7)
    parts = random_.randint(3, 6)
    placement = Placement.cyclic(workers, parts, random_.randint(2, 3))
    relays = tuple(f"r{i}" for i in range(count))
    parents = dict.fromkeys(relays, "")
    if count > 2 and random_.random() < 0.5:
        parents[relays[-1]] = relays[0]
    # Every relay has a worker of its own, and perhaps the server has one.
    for k, name in enumerate(placement.workers):
        parents[name] = relays[k] if k < count else random_.choice([*relays, ""])
    faults = []
    for _ in range(random_.randint(1, 3)):
        kind = random_.choice(["kill", "kill", "freeze"])
        back = FROZEN if kind == "freeze" else random_.choice([None, 0.0, 1.0])
        faults.append(Fault(random_.randint(1, ROUNDS - 1), kind, random_.choice(relays), back))
    if random_.random() < 0.5:
        victim = random_.choice(placement.workers)
        faults.append(Fault(random_.randint(1, ROUNDS - 1), "kill", victim, random_.choice([0.0, 1.0])))
    strategy = random_.choice(["relay", "relay", "central", "uncoded", "personal"])
    return Tree(seed, strategy, parts, placement, parents, relays, tuple(faults))


class RelayRun:
    """Makes the run of one tree with real processes.

    Parameters
    ----------
    tree : Tree
    fork_server : ForkServer
    folder : Path
        The folder for files and logs.

    Attributes
    ----------
    orphans : list of str
        Workers that were killed, and came back too late for the end.
    """

    def __init__(self, tree: Tree, fork_server: ForkServer, folder: Path) -> None:
        self._tree, self._fork_server, self._folder = tree, fork_server, folder
        self._ports = dict(zip(("", *tree.relays), free_ports(len(tree.relays) + 1), strict=True))
        self._processes: dict[str, Process] = {}
        self._all: list[Process] = []
        self._happening: list[asyncio.Task[None]] = []
        self.orphans: list[str] = []

    async def make(self) -> None:
        """Make the run; RelayError if it does not end as it must."""
        tree = self._tree
        write_placement(tree.placement, self._folder / "placement.json")
        await self._start("")
        for name in tree.parents:
            await self._start(name)
            # A worker whose relay does not listen yet would go to the server.
            if name in tree.relays:
                await self._listens(self._processes[name])
        pending = list(tree.faults)
        try:
            async for event in self._processes[""].events():
                if event["event"] == "failed":
                    raise RelayError(f"the server failed: {event['error']}")
                if event["event"] != "round":
                    continue
                for fault in [fault for fault in pending if fault.round <= event["round"]]:
                    pending.remove(fault)
                    self._happening.append(asyncio.create_task(self._happen(fault)))
            if code := await self._processes[""].wait():
                raise RelayError(f"the server ended with exit code {code}")
            await asyncio.gather(*self._happening)
            await self._end_workers()
            self._check()
        finally:
            for task in self._happening:
                task.cancel()
            for process in self._all:
                process.send(signal.SIGKILL)
                await process.wait()

    async def _end_workers(self) -> None:
        """Wait for all workers; RelayError if one failed or goes on that was not killed itself."""
        workers = {name: self._processes[name] for name in self._tree.placement.workers}
        endings = [asyncio.create_task(process.wait()) for process in workers.values()]
        await asyncio.wait(endings, timeout=LAST)
        killed = {fault.node for fault in self._tree.faults}
        for name, process in workers.items():
            if process.code == 0:
                continue
            if name not in killed:
                raise RelayError(f"{name} has the exit code {process.code}: {process.last_words()}")
            self.orphans.append(name)
            process.send(signal.SIGKILL)
        await asyncio.gather(*endings)

    async def _start(self, name: str) -> None:
        tree = self._tree
        out = self._folder / f"{name or 'server'}-{len(self._all)}.out"
        waits = [f"--silence-timeout={SILENCE}", "--format=json", "--log-level=info"]
        if not name:
            module, out = "server", make_pipe(out)
            words = [f"--listen={self._address('')}", f"--data={tree.spec}", f"--strategy={tree.strategy}"]
            words += [f"--workers={len(tree.placement.workers)}", f"--rounds={ROUNDS}", "--strength=0.1"]
            words += ["--coupling=l21", "--update=gradient"]
        else:
            parent = tree.parents[name]
            addresses = [self._address(parent), *([self._address("")] if parent else [])]
            words = [f"--name={name}", f"--connect={','.join(addresses)}"]
            if name in tree.relays:
                module = "relay"
                words += [f"--listen={self._address(name)}", f"--workers={tree.behind(name)}"]
                words += ["--rejoin-timeout=1"]
            else:
                module = "worker"
                words += [f"--data={tree.spec}", f"--placement={self._folder / 'placement.json'}"]
                words += [f"--save={self._folder / name}.npz"]
        environment = {SECRET_VARIABLE: SECRET}
        process = self._fork_server.start(module, [*words, *waits], out, environment=environment, fresh=False)
        self._processes[name] = process
        self._all.append(process)
        await process.begun.wait()

    async def _listens(self, relay: Process) -> None:
        """Wait until a relay listens for workers; RelayError if it ends before."""
        while not (relay.out.exists() and "listening" in relay.out.read_text()):
            if relay.code is not None:
                raise RelayError(f"a relay ended with exit code {relay.code} before it listened")
            await asyncio.sleep(LOOK)

    async def _happen(self, fault: Fault) -> None:
        process = self._processes[fault.node]
        process.send(signal.SIGSTOP if fault.kind == "freeze" else signal.SIGKILL)
        if fault.seconds is None:
            return
        await asyncio.sleep(fault.seconds)
        if fault.kind == "freeze":
            process.send(signal.SIGCONT)
        else:
            await process.wait()
            await self._start(fault.node)

    def _check(self) -> None:
        """RelayError unless all models are those of the twin, and no log has a forbidden line."""
        for process in self._all:
            if complaints := process.complaints():
                raise RelayError(f"{process.out.name}: {complaints[0]}")
        ended = [name for name in self._tree.placement.workers if name not in self.orphans]
        files = [self._folder / f"{name}.npz" for name in ended]
        saved = [SavedModel.load(file) for file in files]
        settings = saved[0].settings
        assert settings is not None
        twin = train(recipes.load(self._tree.spec, seed=0).partitions, settings).models
        # Under `personal`, workers have the models of their own tasks.
        same = [
            twin.of([twin.tasks.index(task) for task in each.models.tasks]).coef_.tobytes()
            == each.models.coef_.tobytes()
            for each in saved
        ]
        if odd := list(compress(ended, map(not_, same))):
            raise RelayError(f"models of {odd} are not those of the twin")

    def _address(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"


def free_ports(count: int) -> list[int]:
    """Ports of the loopback on which nothing listens."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


async def make_all(seeds: Sequence[int], limit: float, keep: Path | None) -> list[int]:
    """Make the runs of all seeds, print each, and return the seeds of bugs."""
    bugs = []
    counts: Counter[str] = Counter()
    async with ForkServer() as fork_server:
        for seed in seeds:
            tree, began = draw(seed), time.monotonic()
            workers = len(tree.placement.workers)
            told = f"seed {seed}: {tree.strategy}, {len(tree.relays)} relays, {workers} workers"
            with tempfile.TemporaryDirectory(prefix=f"relays-{seed}-") as folder:
                try:
                    async with asyncio.timeout(limit):
                        made = RelayRun(tree, fork_server, Path(folder))
                        await made.make()
                except (RelayError, TimeoutError, OSError) as error:
                    bugs.append(seed)
                    print(f"BUG, {told}: {error!r}; {tree.faults}", flush=True)
                    if keep is not None:
                        # The server's output is a pipe.
                        shutil.copytree(
                            folder, keep / str(seed), ignore=shutil.ignore_patterns("server-*.out")
                        )
                    continue
            counts["workers that missed the end"] += len(made.orphans)
            for fault in tree.faults:
                counts[f"{fault.kind} {'relay' if fault.node in tree.relays else 'worker'}"] += 1
            missing = f", but for {', '.join(made.orphans)}, which missed the end" if made.orphans else ""
            print(f"{told}: same models{missing}, {time.monotonic() - began:.1f} s", flush=True)
    print(f"{len(seeds)} runs, {len(bugs)} bugs {bugs or ''}; {dict(counts)}")
    return bugs


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="that of the first run")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a run hangs")
    parser.add_argument("--keep", type=Path, help="a folder for the files and logs of runs with bugs")
    given = parser.parse_args()
    seeds = range(given.seed, given.seed + given.runs)
    return 1 if run(make_all(seeds, given.limit, given.keep)) else 0


if __name__ == "__main__":
    sys.exit(main())
