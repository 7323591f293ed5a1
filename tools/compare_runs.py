"""Start the systems of `compare_systems.py` in namespaces, and measure their rounds."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click
from launch import PORT, SERVER, WORKER, Processes, processes, train
from namespaces import Counters, Host
from systems.common import training_like

from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.plan.placement import Placement

TOOLS = Path(__file__).parent
SYSTEMS = TOOLS / "systems"


@dataclass(frozen=True)
class Case:
    """An exchange: in every round, each worker sends a vector of float32 to all others."""

    workers: int
    numbers: int
    rounds: int

    @property
    def vector_bytes(self) -> int:
        """Bytes of one vector."""
        return 4 * self.numbers

    @property
    def names(self) -> list[str]:
        """The names of the workers' hosts."""
        return [f"w{k}" for k in range(self.workers)]


@dataclass(frozen=True)
class Measured:
    """A round of a system: median seconds, and bytes that the kernel counted, headers included.

    `sent_bytes` are those of all hosts together; `busiest_bytes` those of the host that sends or receives
    most, in that direction.
    """

    seconds: float
    fastest: float
    slowest: float
    sent_bytes: int
    busiest_bytes: int


def sent(hosts: Mapping[str, Host]) -> dict[str, Counters]:
    """The counters of the kernel so far, for every host."""
    return {name: host.counters() for name, host in hosts.items()}


def measured(
    seconds: list[float],
    before: Mapping[str, Counters],
    after: Mapping[str, Counters],
    rounds: int,
    case: Case,
    least: int,
) -> Measured:
    """The figures of a round, from several; an error if a worker received less than `least` bytes in one."""
    counted = {name: after[name] - before[name] for name in before}
    if any(counted[name].received_bytes < least * rounds for name in case.names):
        raise click.ClickException("less came to a worker than must: something went past the network")
    most = max(max(c.sent_bytes, c.received_bytes) for c in counted.values())
    total = sum(c.sent_bytes for c in counted.values())
    return Measured(statistics.median(seconds), min(seconds), max(seconds), total // rounds, most // rounds)


def run_peer(
    name: str, python: Path, case: Case, hosts: Mapping[str, Host], limit: float
) -> tuple[Measured, str]:
    """Measure one of the scripts in `systems/`; return the digest of its models, too, if it trains."""
    with tempfile.TemporaryDirectory() as folder, processes({}, limit) as started:
        digest = Path(folder) / "digest"
        started.environment.update({
            "WORKERS": str(case.workers), "NUMBERS": str(case.numbers), "ROUNDS": str(case.rounds),
            "SERVER": f"{hosts[SERVER].address}:{PORT}", "PYTHONPATH": f"{TOOLS}{os.pathsep}{TOOLS.parent}",
            "FLWR_TELEMETRY_ENABLED": "0", "PYTHONWARNINGS": "ignore", "OUT": str(digest),
        })  # fmt: skip
        coordinator, others = STARTS[name](started, python, case, hosts, Path(folder))
        first = started.line(coordinator)
        if first.strip() != "warm":
            raise click.ClickException(f"{name} said {first.strip()!r}")
        before = sent(hosts)
        go_on(coordinator)
        seconds: list[float] = json.loads(started.line(coordinator))
        after = sent(hosts)
        go_on(coordinator)
        for process in (coordinator, *others):
            started.end(process)
        least = (case.workers - 1) * case.vector_bytes
        figures = measured(seconds, before, after, case.rounds, case, least)
        return figures, digest.read_text(encoding="utf-8") if digest.exists() else ""


def go_on(process: subprocess.Popen[str]) -> None:
    """Tell a coordinator that waits for this tool to continue."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


Started = tuple[subprocess.Popen[str], list[subprocess.Popen[str]]]


def script(name: str) -> Callable[[Processes, Path, Case, Mapping[str, Host], Path], Started]:
    """A function that starts a system whose server and workers are one script."""

    def start(run: Processes, python: Path, case: Case, hosts: Mapping[str, Host], folder: Path) -> Started:
        program = (str(python), str(SYSTEMS / f"{name}.py"))
        coordinator = run.start(hosts[SERVER], *program, SERVER)
        time.sleep(1.0 if name == "star" else 3.0)  # there is no sign that a server listens
        return coordinator, [run.start(hosts[f"w{k}"], *program, str(k)) for k in range(case.workers)]

    return start


def start_dask(run: Processes, python: Path, case: Case, hosts: Mapping[str, Host], folder: Path) -> Started:
    """Scheduler and coordinator on one host, a worker on each other."""
    address = f"tcp://{hosts[SERVER].address}:{PORT}"
    dask = (str(python), "-m", "dask")
    where = ("--host", hosts[SERVER].address, "--port", str(PORT))
    run.start(hosts[SERVER], *dask, "scheduler", "--no-dashboard", *where)
    options = ("--no-nanny", "--no-dashboard", "--nthreads", "1", "--memory-limit", "0")
    for name in case.names:
        scratch = str(folder / name)
        named = ("--name", name, "--local-directory", scratch)
        run.start(hosts[name], *dask, "worker", address, *named, *options)
    return run.start(hosts[SERVER], str(python), str(SYSTEMS / "dask_futures.py")), []


def mpi_script(name: str) -> Callable[[Processes, Path, Case, Mapping[str, Host], Path], Started]:
    """A function that starts a script by MPI's launcher, one process on each host."""

    def start(run: Processes, python: Path, case: Case, hosts: Mapping[str, Host], folder: Path) -> Started:
        return _start_mpi(name, run, python, case, hosts, folder)

    return start


def _start_mpi(
    name: str, run: Processes, python: Path, case: Case, hosts: Mapping[str, Host], folder: Path
) -> Started:
    """Start MPI's own launcher, with a stand-in for ssh, so that processes do not share memory."""
    chosen = "".join(f"{hosts[name].address}) name={hosts[name].namespace};;\n" for name in case.names)
    launcher = folder / "launch"
    launcher.write_text(
        '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\n'
        f"case $1 in\n{chosen}esac\nshift\n"
        "exec ip netns exec $name unshare --uts --ipc --mount sh -c "
        '"hostname $name; mount -t tmpfs none /dev/shm; exec $*"\n'
    )
    launcher.chmod(0o755)
    addresses = ",".join(hosts[name].address for name in case.names)
    mpiexec = run.start(
        hosts[SERVER], str(python.parent / "mpiexec"), "-launcher", "ssh", "-launcher-exec", str(launcher),
        "-iface", "eth0", "-hosts", addresses, "-ppn", "1", "-n", str(case.workers),
        str(python), str(SYSTEMS / f"{name}.py"),
    )  # fmt: skip
    return mpiexec, []


STARTS = {
    "star": script("star"),
    "flower": script("flower"),
    "dask": start_dask,
    "mpi": mpi_script("mpi"),
    "mpi-training": mpi_script("mpi_training"),
}


def run_own(
    options: Sequence[str],
    copies: int,
    case: Case,
    hosts: Mapping[str, Host],
    limit: float,
    *,
    exchange: bool = False,
) -> tuple[Measured, str]:
    """Measure a run of asyncdmtl with these options of its server, and return a digest of its models.

    The time includes gradients and steps, unless `exchange` asks for the exchange of updates that are there
    already (`exchange_only.py`), which compares the vectors itself. The bytes are those of the whole run.
    """
    placement = Placement.cyclic(case.workers, case.workers, copies)
    spec, chosen = training_like(case.workers, case.numbers, case.rounds + 1)
    common = [word for name, value in chosen.items() for word in (f"--{name}", str(value))]
    worker = (str(TOOLS / "exchange_only.py"),) if exchange else WORKER
    with tempfile.TemporaryDirectory() as folder, processes({}, limit) as started:
        before, saved = sent(hosts), Path(folder) / "models.npz"
        times = train(started, hosts, placement, spec, [*common, *options], saved, worker).times
        seconds = [later - earlier for earlier, later in pairwise(times)]
        least = (case.workers - copies) * case.vector_bytes
        counted = measured(seconds, before, sent(hosts), case.rounds + 1, case, least)
        return counted, hashlib.sha256(SavedModel.load(saved).models.coef_.tobytes()).hexdigest()
