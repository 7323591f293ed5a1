"""Start processes on hosts, read their events, and kill those that are left in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from namespaces import Host, network

from asyncdmtl.plan.placement import Placement

SERVER = "server"
PORT = 7700

WORKER = ("-m", "asyncdmtl.worker")


# Called at the end of each round with its number and the processes of the workers by name.
OnRound = Callable[[int, Mapping[str, "subprocess.Popen[str]"]], None]


class Processes:
    """The processes of a run. All are killed when one fails, when time is up, or at the end.

    Attributes
    ----------
    environment : dict of str
        The environment of the processes that are started from now on.
    processes : list of Popen
        All of them, in the order in which they were started.
    """

    def __init__(self, environment: Mapping[str, str], limit: float) -> None:
        self.environment = {**os.environ, **environment, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.processes: list[subprocess.Popen[str]] = []
        self._late = threading.Event()
        self._clock = threading.Timer(limit, self._time_is_up)
        self._clock.start()

    def start(self, host: Host, *words: str) -> subprocess.Popen[str]:
        """Start a program on a host, in a process group of its own."""
        process = subprocess.Popen(
            host.command(*words), env=self.environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def line(self, process: subprocess.Popen[str]) -> str:
        """The next line that a process writes."""
        assert process.stdout is not None
        if not (line := process.stdout.readline()):
            raise click.ClickException(self._told(process.wait()))
        return line

    def event(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """The next event that a process of the program reports; an error if it failed."""
        event: dict[str, Any] = json.loads(self.line(process))
        if event["event"] == "failed":
            raise click.ClickException(event["error"])
        return event

    def end(self, process: subprocess.Popen[str]) -> None:
        """Wait until a process has ended with exit code 0."""
        if code := process.wait():
            raise click.ClickException(self._told(code))

    def close(self) -> None:
        """Kill the processes that are left."""
        self._clock.cancel()
        for process in self.processes:
            with_group(process, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
        self._log.close()

    def _time_is_up(self) -> None:
        self._late.set()
        for process in self.processes:
            with_group(process, signal.SIGKILL)

    def _told(self, code: int) -> str:
        if self._late.is_set():
            return "it took too long"
        self._log.seek(0)
        last = self._log.read().strip().splitlines()[-3:]
        return f"a process ended with {code}: {' / '.join(last)}"


def with_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal to a process and all processes that it started."""
    if process.poll() is None:
        os.killpg(process.pid, number)


@contextmanager
def processes(environment: Mapping[str, str], limit: float) -> Iterator[Processes]:
    """Processes that are killed when the block ends."""
    started = Processes(environment, limit)
    try:
        yield started
    finally:
        started.close()


@dataclass(frozen=True)
class Trained:
    """A finished run: its report, and the time in seconds at which the tool read the end of each round."""

    report: dict[str, Any]
    times: tuple[float, ...]


def train(
    started: Processes,
    hosts: Mapping[str, Host],
    placement: Placement,
    spec: str,
    options: Sequence[str],
    save: Path | None = None,
    worker: Sequence[str] = WORKER,
    on_round: OnRound | None = None,
) -> Trained:
    """Run a server on the host "server", and each worker of the placement on the host of its name.

    Parameters
    ----------
    started : Processes
    hosts : mapping of name to Host
    placement : Placement
    spec : str
        The value of `--data`.
    options : sequence of str
        Options of the server, besides those for data, address and output.
    save : Path, optional
        The file to which the first worker writes the models.
    worker : sequence of str
        The program of the workers, as arguments of Python.
    on_round : OnRound, optional

    Raises
    ------
    click.ClickException
        A process failed.
    """
    common = ("--insecure", "--log-level", "error", "--data", spec)
    server = started.start(
        hosts[SERVER], sys.executable, "-m", "asyncdmtl.server", *common, "--format", "json",
        "--listen", f"{hosts[SERVER].address}:{PORT if hosts[SERVER].namespace else 0}",
        "--workers", str(len(placement.workers)), *options,
    )  # fmt: skip
    listening = started.event(server)
    address = f"{listening['host']}:{listening['port']}"
    workers = {
        name: started.start(
            hosts[name], sys.executable, *worker, *common, "--connect", address, "--name", name,
            "--partitions", ",".join(stored), *(("--save", str(save)) if save and not position else ()),
        )
        for position, (name, stored) in enumerate(placement.as_dict().items())
    }  # fmt: skip
    times: list[float] = []

    def note(event: dict[str, Any]) -> None:
        if event["event"] == "round":
            times.append(time.perf_counter())
            if on_round is not None:
                on_round(event["round"], workers)

    report = follow(started, server, note)
    for process in (server, *workers.values()):
        started.end(process)
    return Trained(report, tuple(times))


def follow(
    started: Processes, server: subprocess.Popen[str], on_event: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Pass on the events of a server until its end; return its report."""
    while (event := started.event(server))["event"] != "finished":
        on_event(event)
    report: dict[str, Any] = event["report"]
    return report


def saved_models(file: Path) -> dict[str, bytes]:
    """The numbers of the models in a file, as bytes, so that runs can be compared bit for bit."""
    with np.load(file) as arrays:
        return {name: arrays[name].tobytes() for name in arrays.files if name in ("coef", "intercept")}


def train_on_links(
    placement: Placement,
    spec: str,
    options: Sequence[str],
    rates: Mapping[str, str | tuple[str, str]],
    limit: float,
    on_round: OnRound | None = None,
) -> tuple[Trained, dict[str, bytes]]:
    """Make one run in network namespaces; the models are those of the first worker.

    Parameters
    ----------
    placement, spec, options, on_round
        As for `train`.
    rates : mapping of worker to str
        The limit of each worker's link, as for `network`.
    limit : float
        Seconds after which the run has failed.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        network([SERVER, *placement.workers], rates) as hosts,
        processes({}, limit) as started,
    ):
        saved = Path(folder) / "models.npz"
        trained = train(started, hosts, placement, spec, options, saved, on_round=on_round)
        return trained, saved_models(saved)
