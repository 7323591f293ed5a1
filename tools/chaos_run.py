"""One run of `tools/chaos.py`: real processes, a bad network between them, and checks of the result."""

from __future__ import annotations

import asyncio
import math
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos_network import Address, Link, forge
from chaos_outcome import ChaosError, Outcome, check_models, check_rounds, issue_certificate, without_names
from chaos_processes import FORBIDDEN, Event, ForkServer, Process, make_pipe
from chaos_scenario import FOR_GOOD, GROUP, LIE, LOOPBACK, OTHERS, SERVER, Fault, Scenario

from asyncdmtl.learning.training import Trained
from asyncdmtl.net.credentials import GROUP_SECRET_VARIABLE, SECRET_VARIABLE

# The most seconds of a run; after that it hangs.
LIMIT = 120.0

# The most seconds from the end of the server to the end of the workers.
LAST = 5.0
GROUP_SECRET = "what all workers of a blind run have"
SECRET, WRONG = "as long as a secret has to be", "not what the others have, but long"
# The number of times that a worker that gave up is started again, as an operator would do.
MOST_STARTS = 20
# The most sockets that a server may have open for itself.
OWN_SOCKETS = 9

# The most sockets that it may have open for each worker: one in use, and some connections that are ending.
SOCKETS_EACH = 6


class Run:
    """Makes the run of one scenario.

    Parameters
    ----------
    scenario : Scenario
    fork_server : ForkServer
    folder : Path
        The folder for files and logs.
    limit : float
        Seconds after which a run counts as hanging.
    """

    def __init__(
        self, scenario: Scenario, fork_server: ForkServer, folder: Path, limit: float = LIMIT
    ) -> None:
        self.outcome = Outcome()
        self.address: Address | None = None
        self._scenario = scenario
        self._fork_server = fork_server
        self._folder = folder
        self._limit = limit
        self._links: dict[str, Link] = {}
        self._stored = dict(scenario.stored)
        self._processes: list[Process] = []
        self._workers: dict[str, Process] = {}
        self._starts: Counter[str] = Counter()
        self._dead: set[str] = set()
        self._disturbed: dict[str, float] = {}
        self._doubled: set[str] = set()
        self._strangers: list[tuple[str, Process]] = []
        self._server: Process | None = None
        self._server_ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._seen: Counter[str] = Counter()
        self._farthest = self._reached = -1
        self._pending = list(scenario.faults)
        self._happening: set[asyncio.Task[None]] = set()
        self._watching: set[asyncio.Task[None]] = set()
        self._last_plan: tuple[float, list[str]] = (0.0, [])
        self._last_round = 0.0
        self._lulls: list[float] = []
        self._report: dict[str, Any] = {}
        self._failed = ""

    async def run(self) -> Outcome:
        """Make the run; ChaosError if its outcome is not allowed, or if it does not end."""
        clock = asyncio.get_running_loop().time
        self._scenario.write(self._folder)
        twin = await asyncio.to_thread(self._scenario.twin, self._folder)
        began = clock()
        try:
            async with asyncio.timeout(self._limit):
                await self._begin()
                code = await self._server_ended
                await self._end(code)
        except TimeoutError:
            raise ChaosError(f"no end after {self._limit:g} s") from None
        finally:
            await self._clean_up()
        self._check_logs()
        self._check_ending(code, twin)
        for name, process in self._workers.items():
            if process.code == 0 and not (self._folder / f"{name}.model").exists():
                raise ChaosError(f"{name} ended without models")
        check_models(self._folder, self._scenario.strategy, twin)
        self.outcome.seconds = clock() - began
        return self.outcome

    async def _begin(self) -> None:
        if self._scenario.tls:
            issue_certificate(self._folder)
        for name in self._stored:
            await self._add_link(name)
        await self._serve()
        for name in self._stored:
            await self._work(name)

    async def _serve(self) -> None:
        out = make_pipe(self._folder / f"server-{len(self._processes)}.out")
        self._server = await self._start("server", self._scenario.server_words(self._folder), out)
        self._following = self._watch(self._follow(self._server))

    async def _work(self, name: str) -> None:
        """Start a worker, and start it again if it gives up."""
        self._starts[name] += 1
        out = self._folder / f"{name}-{self._starts[name]}.out"
        process = await self._start("worker", self._worker_words(name, name), out, lie=self._lie_of(name))
        self._workers[name] = process
        self._watch(self._tend(name, process))

    def _worker_words(self, name: str, save: str) -> list[str]:
        address = "{}:{}".format(*self._links[name].address)
        words = self._scenario.worker_words(self._stored[name], self._folder)
        return [*words, "--connect", address, "--name", name, "--save", str(self._folder / f"{save}.model")]

    async def _start(
        self, module: str, words: Sequence[str], out: Path, *, secret: str = SECRET, lie: Any = None
    ) -> Process:
        environment = {SECRET_VARIABLE: secret} if self._scenario.secret else {}
        if self._scenario.blind and module == "worker":
            environment[GROUP_SECRET_VARIABLE] = GROUP_SECRET
        process = self._fork_server.start(
            module, words, out, environment=environment, fresh=self._scenario.fresh, lie=lie,
            loss=self._scenario.loss if module == "worker" else 0.0,
        )  # fmt: skip
        self._processes.append(process)
        await process.begun.wait()
        return process

    def _lie_of(self, name: str) -> tuple[int, str] | None:
        if self._starts[name] > 1:
            return None
        for fault in [fault for fault in self._pending if fault.kind == LIE and fault.who == name]:
            self._pending.remove(fault)
            self.outcome.faults[LIE] += 1
            return fault.count, f"p{fault.place}"
        return None

    async def _follow(self, server: Process) -> None:
        """Follow the events of the server, and cause the faults that are due at them."""
        async for event in server.events():
            self._note(event)
        code = await server.wait()
        if not server.excused and not self._server_ended.done():
            self._server_ended.set_result(code)

    def _note(self, event: Event) -> None:
        kind = event["event"]
        self._seen[kind] += 1
        if kind == "listening":
            self.address = event["host"], event["port"]
        elif kind == "round":
            self.outcome.again += event["round"] <= self._farthest
            self._farthest = max(self._farthest, event["round"])
            self._last_round = asyncio.get_running_loop().time()
            if self._last_plan[0] > max(self._lulls, default=math.inf):
                self.outcome.lulls += [round(self._last_round - began, 3) for began in self._lulls]
                self._lulls.clear()
        elif kind == "planned":
            self._last_plan = asyncio.get_running_loop().time(), event["workers"]
            self._reached = event["round"] - 1
            self.outcome.plans += 1
        elif kind == "incident":
            self._disturb(event["worker"])
            if event["kind"] == "DisagreementError":
                self._lulls.append(self._last_round)
        elif kind == "finished":
            self._report = event["report"]
        elif kind == "failed":
            self._failed = event["error"]
        reached = self._farthest if kind == "round" else self._seen[kind]
        due = [fault for fault in self._pending if fault.event == kind and fault.count <= reached]
        for fault in due:
            self._pending.remove(fault)
            self._happening.add(self._watch(self._happen(fault)))

    async def _happen(self, fault: Fault) -> None:
        await asyncio.sleep(fault.delay)
        too_early = fault.kind in OTHERS and not self._seen["planned"]
        if too_early or self._server_ended.done():
            return
        self._measure()
        self.outcome.faults[fault.kind] += 1
        self._lulls.append(asyncio.get_running_loop().time())
        if fault.kind in SERVER:
            await self._happen_to_server(fault)
        elif fault.kind in OTHERS:
            await self._come(fault)
        elif fault.kind in GROUP:
            address, port = self._scenario.group.split(":")
            await forge((address, int(port)), LOOPBACK, fault.seconds, random.Random(fault.place))
        else:
            self._disturb(fault.who)
            await (self._happen_to_worker if fault.kind in _SIGNALS else self._happen_to_link)(fault)
            self._disturb(fault.who)

    async def _happen_to_server(self, fault: Fault) -> None:
        server = self._server
        assert server is not None
        if server.code is not None or server.excused:
            return
        if fault.kind == "stop server":
            server.send(signal.SIGSTOP)
            await self._pause(fault)
            server.send(signal.SIGCONT)
            return
        server.excused = True
        server.send(signal.SIGKILL if fault.kind == "kill server" else signal.SIGTERM)
        code = await server.wait()
        await asyncio.wait([self._following])
        if code == 0 or self._report:
            # The server had ended before the fault.
            self._server_ended.set_result(0)
            return
        self.address = None
        if code not in (-signal.SIGKILL, -signal.SIGTERM, 143):
            raise ChaosError(f"a server that was told to stop ended with exit code {code}")
        await self._pause(fault)
        await self._serve()

    async def _happen_to_worker(self, fault: Fault) -> None:
        name = fault.who
        process = self._workers.get(name)
        if process is None or process.code is not None or process.excused:
            return
        if fault.kind == "stop":
            process.send(signal.SIGSTOP)
            await self._pause(fault)
            process.send(signal.SIGCONT)
            return
        process.excused = True
        process.send(_SIGNALS[fault.kind])
        if fault.kind == FOR_GOOD:
            self._dead.add(name)
        if await process.wait() == 0 or fault.kind == FOR_GOOD:
            return
        await self._pause(fault)
        await self._work(name)

    async def _happen_to_link(self, fault: Fault) -> None:
        link = self._links[fault.who]
        if fault.kind in ("unplug", "delay", "throttle"):
            if fault.kind == "unplug":
                link.plugged.clear()
            elif fault.kind == "delay":
                link.slow_down(1 << 16, 0.02 + fault.place / 2e5)
            else:
                link.slow_down(200, 0.001)
            await self._pause(fault)
            link.heal()
        elif fault.kind == "flip":
            link.flip(fault.up, fault.place)
        elif fault.kind == "half-close":
            link.half_close(fault.up)
        elif fault.kind == "repeat":
            await link.repeat()
        else:
            {"reset": link.reset, "finish": link.finish, "lose track": link.lose_track}[fault.kind]()

    async def _come(self, fault: Fault) -> None:
        """Start another worker, with the name of an existing one or a new name and some of the partitions."""
        if fault.kind == "late":
            name = f"late{len(self._stored)}"
            rng = random.Random(fault.place)
            units = self._scenario.units
            self._stored[name] = tuple(sorted(rng.sample(units, rng.randint(1, len(units)))))
            self._disturb(name)
            await self._add_link(name)
            await self._work(name)
            return
        secret, k = (WRONG if fault.up else SECRET), len(self._strangers)
        if secret == SECRET or not self._scenario.secret:
            # The server cannot distinguish the two, so that one of them may end without models.
            self._doubled.add(fault.who)
        words = [*self._worker_words(fault.who, f"stranger-{k}"), "--max-wait=1"]
        out = self._folder / f"stranger-{k}.out"
        self._strangers.append((secret, await self._start("worker", words, out, secret=secret)))
        self._disturb(fault.who)

    async def _tend(self, name: str, process: Process) -> None:
        """Start a worker again if it gave up, as an operator would do."""
        code = await process.wait()
        if code == 0 or process.excused or self._server_ended.done():
            return
        self._disturb(name)
        if self._starts[name] >= MOST_STARTS:
            raise ChaosError(f"{name} gave up {MOST_STARTS} times")
        await asyncio.wait([self._server_ended], timeout=1.0)
        if not self._server_ended.done():
            self.outcome.returns[f"exit code {code}: {without_names(process.last_words())}"] += 1
            await self._work(name)

    async def _end(self, code: int) -> None:
        """Wait for the end of the workers, and stop those that may have missed the end of the run."""
        for task in self._happening:
            task.cancel()
        await asyncio.gather(*self._happening, return_exceptions=True)
        for link in self._links.values():
            link.heal()
        for process in self._processes:
            process.send(signal.SIGCONT)
        workers = [*self._workers.items(), *(("", process) for _, process in self._strangers)]
        waits = {asyncio.create_task(process.wait()) for _, process in workers}
        await asyncio.wait(waits, timeout=LAST * self._scenario.patience)
        for name, process in workers:
            if process.code is None:
                if name and not self._may_miss_the_end(name):
                    raise ChaosError(f"{name} did not end with the server, whose exit code is {code}")
                self.outcome.orphans += 1
                process.excused = True
                process.send(signal.SIGTERM)
        await asyncio.gather(*waits)

    def _may_miss_the_end(self, name: str) -> bool:
        """Whether a worker took no part in the last plan, or a fault hit it since then or shortly before."""
        when, members = self._last_plan
        return (
            name not in members
            or name in self._doubled
            or self._disturbed.get(name, 0.0) > when - 2 * self._scenario.silence
        )

    async def _clean_up(self) -> None:
        for task in self._watching:
            task.cancel()
        found = await asyncio.gather(*self._watching, return_exceptions=True)
        for process in self._processes:
            process.excused = True
            await process.begun.wait()
            process.send(signal.SIGKILL)
        await asyncio.gather(*(process.wait() for process in self._processes))
        for link in self._links.values():
            await link.close()
        for error in found:
            if isinstance(error, Exception):
                raise error

    def _check_logs(self) -> None:
        for process in self._processes:
            if lines := process.complaints():
                raise ChaosError(f"{process.err} says: {lines[0]}")
            if FORBIDDEN.search(words := process.last_words()):
                raise ChaosError(f"{process.out} says: {words}")
        if FORBIDDEN.search(self._failed):
            raise ChaosError(f"the server says: {self._failed}")

    def _check_ending(self, code: int, twin: Trained) -> None:
        """Check that server, workers and strangers ended as they must."""
        if code == 0:
            self.outcome.rounds = check_rounds(self._report, self._reached, twin, blind=self._scenario.blind)
            self.outcome.ending = "done"
        elif code == 3 and (lost := self._lost_units()) and all(f"'{unit}" in self._failed for unit in lost):
            self.outcome.ending = "partitions lost"
        elif (
            code == 5
            and SERVER.keys() & self.outcome.faults
            and all(p.code == 0 for p in self._workers.values())
        ):
            # The server was killed after it had deleted its checkpoints, before it told its report.
            self.outcome.ending = "done by all, without a report"
        else:
            raise ChaosError(f"the server ended with exit code {code}: {self._failed}")
        for name, process in self._workers.items():
            bad = process.code != 0 and not process.excused and name not in self._dead
            if bad and code == 0 and not self._may_miss_the_end(name):
                raise ChaosError(f"{name} ended with exit code {process.code}: {process.last_words()}")
        for secret, process in self._strangers:
            if self._scenario.secret and secret == WRONG and process.code == 0:
                raise ChaosError("a stranger with another secret was let in")

    def _lost_units(self) -> list[str]:
        """Partitions or files whose only holders never come back."""
        alive = {unit for name, units in self._stored.items() if name not in self._dead for unit in units}
        return [unit for unit in self._scenario.units if unit not in alive]

    def _measure(self) -> None:
        """Record the sockets and the memory of the server."""
        found = {} if self._server is None else self._server.resources()
        self.outcome.sockets = max(self.outcome.sockets, found.get("sockets", 0))
        self.outcome.memory = max(self.outcome.memory, found.get("VmRSS", 0))
        most = OWN_SOCKETS + SOCKETS_EACH * len(self._stored)
        if found.get("sockets", 0) > most:
            raise ChaosError(f"the server has {found['sockets']} sockets open, more than {most}")

    def _watch(self, what: Any) -> asyncio.Task[None]:
        """Run a coroutine beside the run, which ends if the coroutine fails."""
        task = asyncio.create_task(what)
        self._watching.add(task)
        task.add_done_callback(self._seen_to)
        return task

    def _seen_to(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._server_ended.done():
            self._server_ended.set_exception(error)

    async def _pause(self, fault: Fault) -> None:
        await asyncio.sleep(fault.seconds)

    async def _add_link(self, name: str) -> None:
        self._links[name] = Link(lambda: self.address, self._scenario.latency)
        await self._links[name].open()

    def _disturb(self, name: str) -> None:
        self._disturbed[name] = asyncio.get_running_loop().time()


_SIGNALS: Mapping[str, signal.Signals] = {
    "kill": signal.SIGKILL, FOR_GOOD: signal.SIGKILL, "terminate": signal.SIGTERM, "stop": signal.SIGSTOP,
}  # fmt: skip


async def run_one(scenario: Scenario, fork_server: ForkServer, limit: float = LIMIT) -> Outcome:
    """Make the run of a scenario in a folder of its own, which is kept if the outcome is a bug."""
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{scenario.seed}-"))
    try:
        outcome = await Run(scenario, fork_server, folder, limit).run()
    except Exception as error:
        error.add_note(f"logs: {folder}")
        raise
    await asyncio.to_thread(shutil.rmtree, folder)
    return outcome
