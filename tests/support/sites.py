"""A server and workers as processes of their own, which tests stop, kill and start again."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from asyncdmtl.data import recipes
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.training import train

LIMIT = 60
SPEC = "synthetic:tasks=3,rows=12,features=40,parts=2,test_rows=0"
PLACEMENT = """
[workers]
a = ["p0", "p1", "p2", "p3"]
b = ["p2", "p3", "p4", "p5"]
c = ["p4", "p5", "p0", "p1"]
"""
NAMES = ("a", "b", "c")


class Site:
    """A server at a fixed address and workers, as processes that can be killed."""

    def __init__(self, folder: Path, *options: str, spec: str = SPEC) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.folder, self.spec = folder, spec
        self.checkpoints = folder / "checkpoints"
        (folder / "placement.toml").write_text(PLACEMENT)
        # LAPACK takes a quarter of the time, and these processes share their processor.
        shared = ("--workers=3", "--rejoin-timeout=20", "--arithmetic=fast")
        self._options = ("--data", spec, *shared, *options)
        self.processes: list[subprocess.Popen[str]] = []
        self.server: subprocess.Popen[str]
        self.workers: dict[str, subprocess.Popen[str]] = {}

    def serve(self, *options: str) -> None:
        stored = ("--checkpoint", str(self.checkpoints), "--checkpoint-every=7")
        self.server = self._start("server", "--listen", self.address, *self._options, *stored, *options)

    def work(self, name: str) -> None:
        placed = ("--placement", str(self.folder / "placement.toml"), "--data", self.spec)
        saved = ("--save", str(self.folder / f"{name}.npz"))
        self.workers[name] = self._start("worker", "--connect", self.address, "--name", name, *placed, *saved)

    def _start(self, module: str, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", f"asyncdmtl.{module}", *options, "--format=json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def event(self, kind: str, **least: Any) -> dict[str, Any]:
        """The server's next event of a kind, with at least these values."""
        assert self.server.stdout is not None
        for line in self.server.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == kind and all(event[name] >= value for name, value in least.items()):
                return event
        raise AssertionError(f"no event {kind}; {self.server.communicate()[1]}")

    def end(self, rounds: int, strategy: str, **chosen: Any) -> dict[str, Any]:
        """Wait for the end of the run, check all models, and return the report.

        `chosen` are settings as they were before the run chose them.
        """
        report: dict[str, Any] = self.event("finished")["report"]
        # The server deletes its checkpoints after its report.
        assert self.server.wait(LIMIT) == 0
        for name, process in self.workers.items():
            _, err = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, (name, err)
        settings = replace(Settings.from_dict(report["settings"]), **chosen)
        twin = train(recipes.load(self.spec, seed=0).partitions, settings)
        assert len(twin.objectives) == rounds
        for name in self.workers:
            models = SavedModel.load(self.folder / f"{name}.npz").models
            if strategy != "personal":
                assert models.tasks == twin.models.tasks
            expected = twin.models.of([twin.models.tasks.index(task) for task in models.tasks])
            assert models.coef_.tobytes() == expected.coef_.tobytes()
        made = {entry["round"]: entry["objective"] for entry in report["rounds"]}
        assert all(twin.objectives[round_] == objective for round_, objective in made.items())
        assert report["rounds"][-1]["round"] == rounds - 1
        return report


@contextmanager
def site(folder: Path, *options: str, spec: str = SPEC) -> Iterator[Site]:
    """A site whose processes are killed in the end."""
    made = Site(folder, *options, spec=spec)
    try:
        yield made
    finally:
        for process in made.processes:
            process.kill()
            process.communicate()
