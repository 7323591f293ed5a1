"""The processes of a run of `tools/chaos.py`, which the fork server starts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Event = dict[str, Any]

# Text that no process may print or log, under any fault.
FORBIDDEN = re.compile(
    r"internal error|Traceback|\b\w+Warning\b|never retrieved|was destroyed|Fatal|defect of asyncdmtl"
)
# The most bytes of a line of standard output, which may be a whole report.
LINE = 1 << 24


class ForkServer:
    """Starts processes: see `chaos_fork_server`."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._jobs: dict[int, Process] = {}

    async def __aenter__(self) -> ForkServer:
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, Path(__file__).with_name("chaos_fork_server.py"), stdin=PIPE, stdout=PIPE,
            env=environment, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        await self._process.stdout.readline()
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._listening

    def start(
        self,
        module: str,
        words: Sequence[str],
        out: Path,
        *,
        environment: Mapping[str, str],
        fresh: bool,
        lie: tuple[int, str] | None = None,
        loss: float = 0.0,
        attack: str | None = None,
    ) -> Process:
        """Ask for the start of a server or worker, which has started once `begun` is set.

        Its output goes to `out`, and its log to a file beside that.
        """
        number, process = next(self._numbers), Process(out)
        self._jobs[number] = process
        job = {
            "id": number, "module": module, "words": list(words), "out": str(out), "err": str(process.err),
            "environment": dict(environment), "fresh": fresh, "lie": lie,
            "loss": loss, "attack": attack,
        }  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        return process

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            process = self._jobs[answer["id"]]
            if "pid" in answer:
                process.pid = answer["pid"]
                process.begun.set()
            else:
                process.code = answer["code"]
                del self._jobs[answer["id"]]
                process.ended.set()


class Process:
    """One process.

    Attributes
    ----------
    out, err : Path
        Files of its output and of its log. `out` may be a pipe of `make_pipe`, for `events`.
    begun, ended : asyncio.Event
    pid, code : int
        `code` is its exit code, negative for the signal that killed it; None while it runs.
    excused : bool
        Whether its end, with an error, is expected.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.err = out, out.with_suffix(".err")
        self.pid = 0
        self.code: int | None = None
        self.begun, self.ended = asyncio.Event(), asyncio.Event()
        self.excused = False
        # Opened before there is a writer: a pipe keeps its content only while a process has it open.
        self._pipe = os.open(out, os.O_RDONLY | os.O_NONBLOCK) if out.is_fifo() else -1

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal, if it still runs."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def wait(self) -> int:
        """Wait for the end of the process, and return its exit code."""
        await self.ended.wait()
        assert self.code is not None
        return self.code

    async def events(self) -> AsyncIterator[Event]:
        """The events that the process prints, as they come. It may be called only once."""
        reader = asyncio.StreamReader(limit=LINE)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._pipe, "rb", buffering=0)
        )
        ending = asyncio.create_task(self._end_pipe())
        try:
            while line := await reader.readline():
                with contextlib.suppress(json.JSONDecodeError):
                    yield json.loads(line)
        finally:
            ending.cancel()
            transport.close()

    async def _end_pipe(self) -> None:
        """Make the reader of the pipe see its end, even if no writer has opened it."""
        await self.ended.wait()
        os.close(os.open(self.out, os.O_WRONLY | os.O_NONBLOCK))

    def last_words(self) -> str:
        """The error that the process reported last, or "" if there is none."""
        said = self.out.read_text() if self.out.is_file() else ""
        lines = [json.loads(line) for line in said.splitlines() if line.endswith("}")]
        return next((line["error"] for line in reversed(lines) if line.get("event") == "failed"), "")

    def complaints(self) -> list[str]:
        """Log lines that are forbidden."""
        logged = self.err.read_text(errors="replace") if self.err.exists() else ""
        return [line for line in logged.splitlines() if FORBIDDEN.search(line)]

    def resources(self) -> dict[str, int]:
        """The numbers of its sockets and threads, and its memory in KiB; empty if it has ended."""
        root = Path("/proc") / str(self.pid)
        try:
            files = [str(entry.readlink()) for entry in (root / "fd").iterdir()]
            status = (root / "status").read_text()
        except OSError:
            return {}
        found = {word: int(value) for word, value in re.findall(r"^(Threads|VmRSS):\s+(\d+)", status, re.M)}
        return {"sockets": sum(file.startswith("socket:") for file in files), **found}


def make_pipe(path: Path) -> Path:
    """A named pipe for the events of a process."""
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    return path
