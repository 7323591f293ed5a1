"""Starts a server with a stream of jobs and its workers, and tells how the stream went."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from launch import PORT, SERVER, WORKER, Processes
from namespaces import Host

from asyncdmtl.data.model_file import SavedModel

# Called with each event of the server.
OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class StreamPlan:
    """A stream to start.

    Attributes
    ----------
    data : str
        The recipe of the data.
    workers, copies : int
        Workers, and how many of them store each partition.
    jobs : sequence of mapping
        The tables of the jobs.
    in_flight : int
    folder : Path
        Where jobs and models are written.
    more : sequence of str
        Further options of the server.
    """

    data: str
    workers: int
    copies: int
    jobs: Sequence[Mapping[str, Any]]
    in_flight: int
    folder: Path
    more: Sequence[str] = ()


@dataclass
class Ended:
    """How a stream went.

    Attributes
    ----------
    seconds : float
        From the moment at which all workers had joined the first job to the end of the last one.
    reports, errors : dict of job
    ends : dict of job to float
        When its end was told, in seconds of `time.perf_counter`.
    code : int
        The server's exit code.
    started_up : float
        Processor time of the server and all workers up to the moment at which all had joined, in seconds.
    """

    seconds: float = 0.0
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    code: int = 0
    started_up: float = 0.0


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used so far."""
    words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, words[11:13])) / os.sysconf("SC_CLK_TCK")


def start_worker(started: Processes, host: Host, server: str, k: int, plan: StreamPlan) -> Any:
    """Start worker `k`."""
    return started.start(
        host, sys.executable, *WORKER, "--connect", server, "--name", f"w{k}", "--data", plan.data,
        "--share", f"{k}/{plan.workers}/{plan.copies}", "--save", str(plan.folder / f"w{k}.npz"),
        "--insecure", "--format", "json",
    )  # fmt: skip


def run_stream(
    started: Processes, hosts: Mapping[str, Host], plan: StreamPlan, on_event: OnEvent | None = None
) -> Ended:
    """Start the server and all workers, and follow the server until it ends.

    `on_event` is called with each event of the server, the first of which has its address.
    """
    file = plan.folder / "jobs.json"
    file.write_text(json.dumps({"jobs": list(plan.jobs)}), encoding="utf-8")
    server = started.start(
        hosts[SERVER], sys.executable, "-m", "asyncdmtl.server", "--listen",
        f"{hosts[SERVER].address}:{PORT if hosts[SERVER].namespace else 0}", "--insecure", "--format", "json",
        "--workers", str(plan.workers), "--data", plan.data, "--jobs", str(file),
        "--in-flight", str(plan.in_flight), *plan.more,
    )  # fmt: skip
    ended, joined, began = Ended(), 0, 0.0
    assert server.stdout is not None
    for line in server.stdout:
        event = json.loads(line)
        now = time.perf_counter()
        if event["event"] == "listening":
            address = f"{event['host']}:{event['port']}"
            for k in range(plan.workers):
                start_worker(started, hosts[f"w{k}"], address, k, plan)
        elif event["event"] == "joined" and event["job"] == plan.jobs[0]["name"]:
            joined += 1
            if joined == plan.workers:
                began = now
                ended.started_up = sum(processor_seconds(process.pid) for process in started.processes)
        elif event["event"] == "finished":
            ended.reports[event["job"]] = event["report"]
            ended.ends[event["job"]] = now
        elif event["event"] == "failed" and "job" in event:
            ended.errors[event["job"]] = event["error"]
            ended.ends[event["job"]] = now
        if on_event is not None:
            on_event(event)
    ended.code = server.wait()
    ended.seconds = max(ended.ends.values(), default=began) - began
    return ended


def models_of(folder: Path, job: str, workers: Sequence[int]) -> set[str]:
    """Digests of the models that workers saved of a job: one, if all are equal bit for bit."""
    found = set()
    for k in workers:
        file = folder / f"w{k}-{job}.npz"
        if file.exists():
            models = SavedModel.load(file).models
            bits = np.asarray(models.coef_).tobytes() + np.asarray(models.intercept_).tobytes()
            found.add(hashlib.sha256(bits).hexdigest())
    return found
