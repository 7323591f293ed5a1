"""Let one worker of a run attack it, with a valid secret: `tools/attack.py [ATTACK...]`.

    python tools/attack.py                                  all attacks, strategies and copies
    python tools/attack.py update rows --strategies relay --copies 2
    python tools/attack.py --kind peers                     all attacks on runs with rows between workers

Server, workers and the attacker are processes over TCP on the loopback, as `python -m asyncdmtl.server` and
`python -m asyncdmtl.worker` make them; each worker has a secret of its own. All honest workers must end with
the models of the one-process twin; or the run must end with an error that names the attacker. No honest
worker may be excluded; incidents that name one are shown. The threat model of the docs says where an attack
can change models. Prints the outcome of each run; the exit code is not 0 if one is not permitted.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from attacks import ATTACKS, KINDS, ROUNDS
from chaos_processes import ForkServer, Process, make_pipe
from planting import HONEST

from asyncdmtl.data import recipes
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.training import train
from asyncdmtl.net.credentials import GROUP_SECRET_VARIABLE, SECRET_VARIABLE
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.plan.placement import Placement

SPEC = "synthetic:tasks=3,rows=12,features=20,parts=2,test_rows=0"
WORKERS, PARTITIONS = 4, 6

# The member that attacks, and the one that attacks beside the others; its name sorts first.
MEMBER, EXTRA, LATE = "w1", "a0", "w9"

# Seconds after which a run hangs: an undisturbed one takes a few, and a busy machine may take longer.
LIMIT = 300.0

# The secret of the workers of a blind run.
GROUP_SECRET = "as long as the secret of a group has to be"

# The most sockets and MiB of memory of a server, and of an honest worker. Up to 256 connections from one
# address may be joining.
MOST_SOCKETS, MOST_MEMORY = 300, 200

# Seconds between two looks at them.
LOOK = 0.1


class NotPermittedError(Exception):
    """A run ended otherwise than the threat model says."""


@dataclass
class Run:
    """One run that is attacked."""

    fork_server: ForkServer
    folder: Path
    attack: str
    strategy: str
    copies: int
    kind: str = "plain"
    events: list[dict[str, Any]] = field(default_factory=list)
    workers: dict[str, Process] = field(default_factory=dict)
    port: int = 0

    def __post_init__(self) -> None:
        self.scene = ATTACKS[self.attack].scene
        self.attacker = EXTRA if self.scene.startswith("extra") else MEMBER
        self.stored = Placement.cyclic(WORKERS, PARTITIONS, self.copies).as_dict()
        self.secrets = {name: secrets.token_hex(32) for name in (*self.stored, EXTRA, LATE)}
        self.changed = asyncio.Event()
        # The most sockets, and MiB of memory, of the server and honest workers.
        self.most = {"sockets": 0, "VmRSS": 0}

    async def run(self) -> str:
        """Make the run, and return its outcome in words; NotPermittedError if it may not end so."""
        names = [*self.stored, *([EXTRA] if self.scene == "extra" else [])]
        self._write_secrets()
        watching = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout(LIMIT):
                server, following = await self._serve(len(names))
                for name in names:
                    await self._work(name)
                server, following = await self._act(server, following)
                code = await server.wait()
                await following
                for name, worker in self.workers.items():
                    if name != self.attacker:
                        await worker.wait()
        except TimeoutError:
            raise NotPermittedError("the run hangs") from None
        finally:
            watching.cancel()
            for process in (*self.workers.values(), self.server):
                process.send(signal.SIGKILL)
        return self._judge(code)

    async def _watch(self) -> None:
        """Note the most sockets and memory."""
        while True:
            await asyncio.sleep(LOOK)
            honest = [worker for name, worker in self.workers.items() if name != self.attacker]
            for process in (self.server, *honest) if self.port else ():
                for what, found in process.resources().items():
                    if what in self.most:
                        self.most[what] = max(self.most[what], found >> 10 if what == "VmRSS" else found)

    def _write_secrets(self) -> None:
        lines = (f'{name} = "{secret}"' for name, secret in self.secrets.items())
        (self.folder / "secrets.toml").write_text("[workers]\n" + "\n".join(lines) + "\n")
        (self.folder / "secrets.toml").chmod(0o600)

    async def _act(
        self, server: Process, following: asyncio.Task[None]
    ) -> tuple[Process, asyncio.Task[None]]:
        """Do what the attack needs during the run."""
        if self.scene in ("member", "extra"):
            return server, following
        if not await self._round(HONEST + 2):
            return server, following
        if self.scene == "restart":
            server.send(signal.SIGKILL)
            await server.wait()
            await following
            return await self._serve(WORKERS, "--resume")
        await self._work(EXTRA if self.scene == "extra late" else LATE)
        return server, following

    async def _serve(self, workers: int, *more: str) -> tuple[Process, asyncio.Task[None]]:
        words = [
            "--listen", f"127.0.0.1:{self.port}", "--secret-file", str(self.folder / "secrets.toml"),
            "--data", SPEC, "--workers", str(workers), "--strategy", self.strategy,
            "--rounds", str(self.rounds), "--tolerance", "0", "--format", "json", "--log-level", "warning",
            "--rejoin-timeout", "3", "--round-timeout", "20", "--join-timeout", "120",
            "--checkpoint", str(self.folder / "checkpoints"),
            "--checkpoint-every", "4", *KINDS[self.kind].words, *more,
        ]  # fmt: skip
        out = make_pipe(self.folder / f"server{len(more)}.out")
        self.server = await self._start("server", words, out)
        following = asyncio.create_task(self._follow(self.server))
        await self._seen("listening")
        return self.server, following

    @property
    def rounds(self) -> int:
        """More rounds where a worker comes late."""
        return 6 * ROUNDS if "late" in self.scene else ROUNDS

    async def _work(self, name: str) -> None:
        stored = self.stored.get(name, self.stored["w0"])
        words = [
            "--connect", f"127.0.0.1:{self.port}", "--name", name, "--data", SPEC,
            "--partitions", ",".join(stored), "--save", str(self.folder / f"{name}.npz"),
            "--log-level", "warning", "--format", "json", "--max-wait", "20",
            "--round-timeout", "20", *KINDS[self.kind].workers,
        ]  # fmt: skip
        attack = self.attack if name == self.attacker else None
        out = self.folder / f"{name}.out"
        self.workers[name] = await self._start("worker", words, out, name, attack=attack)

    async def _start(
        self, module: str, words: Sequence[str], out: Path, name: str = "", attack: str | None = None
    ) -> Process:
        environment = {SECRET_VARIABLE: self.secrets[name]} if name else {}
        if name and self.kind == "blind":
            environment[GROUP_SECRET_VARIABLE] = GROUP_SECRET
        process = self.fork_server.start(
            module, words, out, environment=environment, fresh=False, attack=attack
        )
        await process.begun.wait()
        return process

    async def _follow(self, server: Process) -> None:
        async for event in server.events():
            self.events.append(event)
            if event["event"] == "listening":
                self.port = event["port"]
            self.changed.set()
        self.changed.set()

    async def _seen(self, kind: str) -> None:
        while self.server.code is None and all(event["event"] != kind for event in self.events):
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), 1.0)

    async def _round(self, number: int) -> bool:
        """Wait for a round; whether it was made."""
        while self.server.code is None:
            if any(event["event"] == "round" and event["round"] >= number for event in self.events):
                return True
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), 1.0)
        return False

    def _judge(self, code: int) -> str:
        """The outcome in words."""
        honest_names = [name for name in self.workers if name != self.attacker]
        honest = [self.workers[name] for name in honest_names]
        internal = [line for each in (self.server, *honest) for line in each.complaints()]
        if internal:
            raise NotPermittedError(f"a log has {internal[0]!r}")
        if self.most["sockets"] > MOST_SOCKETS or self.most["VmRSS"] > MOST_MEMORY:
            raise NotPermittedError("{sockets} sockets, {VmRSS} MiB".format(**self.most))
        told = {name: worker.last_words() for name, worker in self.workers.items() if worker.code}
        ended = self.events[-1]
        if code:
            error = str(ended.get("error", ""))
            if lost := [name for name in honest_names if f"worker {name!r} held" in error]:
                raise NotPermittedError(f"code {code} without honest {lost}: {error}")
            if f"{self.attacker!r}" not in error and f" {self.attacker}" not in error:
                raise NotPermittedError(f"code {code}, which does not name {self.attacker}: {error}")
            return f"code {code}: {error}"
        if told.get(LATE, "").startswith("cannot reach a server"):
            return f"not made: on this busy machine the run was over before {LATE} came"
        if others := {name: error for name, error in told.items() if name != self.attacker}:
            raise NotPermittedError(f"honest workers ended otherwise: {others}")
        report = ended["report"]
        blamed = {each["worker"] for each in report["incidents"]} - {self.attacker, ""}
        right = self._right_models(Settings.from_dict(report["settings"]))
        changes = ATTACKS[self.attack].changes(self.strategy, self.copies)
        if not (right or changes):
            raise NotPermittedError(f"other models than the twin's; incidents {report['incidents']}")
        words = "as the twin" if right else "other models, as the threat model says"
        if blamed:
            words += f"; incidents name {sorted(blamed)}, too"
        words += " ({} rounds, {sockets} sockets, {VmRSS} MiB)".format(len(report["rounds"]), **self.most)
        return words + (f"; {self.attacker} ended: {told[self.attacker]}" if self.attacker in told else "")

    def _right_models(self, settings: Settings) -> bool:
        twin = train(recipes.load(SPEC, seed=0, test=False).partitions, settings).models
        right = True
        for name in self.workers:
            if name == self.attacker:
                continue
            models = SavedModel.load(self.folder / f"{name}.npz").models
            expected = twin.of([twin.tasks.index(task) for task in models.tasks])
            if self.strategy == "linear":
                right &= bool(np.allclose(models.coef_, expected.coef_, rtol=1e-3, atol=1e-5))
            else:
                right &= models.coef_.tobytes() == expected.coef_.tobytes()
        return right


async def attack_all(
    attacks: Sequence[str],
    strategies: Sequence[str],
    copies: Sequence[int],
    kind: str = "",
    *,
    jobs: int = 1,
    seconds: float = math.inf,
) -> int:
    """Make the runs, `jobs` at a time; return how many ended otherwise than they may.

    Runs are of a `kind` of `attacks.KINDS`; by default, of the one that each attack needs. None begins after
    so many seconds.
    """
    bad, end = 0, time.monotonic() + seconds
    # Different attacks follow one another, so that a part of the runs has all of them.
    cases = ((name, kind or ATTACKS[name].kind) for name in attacks)
    left = iter(
        [
            (name, made, strategy, count)
            for (name, made), strategy, count in sorted(
                itertools.product(cases, strategies, copies),
                key=lambda case: (strategies.index(case[1]) + copies.index(case[2])) % len(strategies),
            )
            if count >= KINDS[made].least and strategy in (KINDS[made].strategies or strategies)
        ]
    )

    async def work(fork_server: ForkServer) -> None:
        nonlocal bad
        for name, made, strategy, count in left:
            if time.monotonic() > end:
                return
            folder, began = Path(tempfile.mkdtemp(prefix="attack-")), time.monotonic()
            try:
                told = await Run(fork_server, folder, name, strategy, count, made).run()
                shutil.rmtree(folder)
            except NotPermittedError as error:
                bad += 1
                told = f"NOT PERMITTED ({folder}): {error}"
            took = f"{time.monotonic() - began:5.1f} s"
            print(f"{name:17} {made:9} {strategy:9} {count} copies {took}  {told[:400]}", flush=True)

    async with ForkServer() as fork_server:
        await asyncio.gather(*(work(fork_server) for _ in range(jobs)))
    return bad


@click.command(help=__doc__.split("\n\n", 1)[0] if __doc__ else "")
@click.argument("attacks", nargs=-1, type=click.Choice(list(ATTACKS)))
@click.option(
    "--strategies", default=",".join((*STRATEGIES, "linear")), show_default=True, help="Separated by commas."
)
@click.option("--copies", default="1,2,3", show_default=True, help="Separated by commas.")
@click.option("--jobs", default=1, show_default=True, help="Runs at a time.")
@click.option("--seconds", default=math.inf, show_default=True, help="Begin no run later than this.")
@click.option("--kind", default="", type=click.Choice(["", *KINDS]), help="Default: what each attack needs.")
def main(
    attacks: tuple[str, ...], strategies: str, copies: str, jobs: int, seconds: float, kind: str
) -> None:
    """Let one worker attack its run."""
    counts = [int(each) for each in copies.split(",")]
    names = attacks or list(ATTACKS)
    bad = asyncio.run(attack_all(names, strategies.split(","), counts, kind, jobs=jobs, seconds=seconds))
    print(f"{bad} runs ended otherwise than the threat model says")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
