"""A whole cluster on this machine: one server process and worker processes that talk over TCP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asyncdmtl.errors import AsyncDMTLError, LinkError, PeerError
from asyncdmtl.net.addresses import format_address
from asyncdmtl.net.credentials import VARIABLE

log = logging.getLogger(__name__)

Event = dict[str, Any]

# How long processes may take to end by themselves before they are killed.
GRACE = 5.0

# The longest line of a process: a report of many rounds.
LINE = 1 << 30


class LocalCluster:
    """Starts the processes, hands on what the server reports, and leaves none of them running.

    The processes get a standard input that ends with this process, however it ends, and end with it. They
    share a secret, so that nobody else on this machine can take part.

    Parameters
    ----------
    server : sequence of str
        Options of `python -m asyncdmtl.server`, without --listen and --format.
    workers : mapping of name to sequence of str
        Options of `python -m asyncdmtl.worker`, without --connect, --name and --format.
    on_event : callable
        Called with every event of the server.
    """

    def __init__(
        self,
        server: Sequence[str],
        workers: Mapping[str, Sequence[str]],
        on_event: Callable[[Event], None],
    ) -> None:
        self._server_options = server
        self._worker_options = workers
        self._on_event = on_event
        self._server: Process | None = None
        self._workers: dict[str, Process] = {}
        self._training = False
        self._secret = secrets.token_hex(32)

    async def run(self) -> Event:
        """Run to the end; return the server's last event, which carries the report.

        A worker that fails once training has begun is the server's affair, which goes on if it can.

        Raises
        ------
        PeerError
            A process failed; its message and exit code are those of the process.
        LinkError
            A process was killed.
        """
        try:
            # Nobody would start a worker again, so there is none to wait for.
            alone = ("--listen", "127.0.0.1:0", "--rejoin-timeout", "0")
            self._server = await _start(self._secret, "server", *alone, *self._server_options)
            listening = await _event("the server", self._server)
            address = format_address(listening["host"], listening["port"])
            async with asyncio.TaskGroup() as group:
                finished = group.create_task(self._follow(self._server))
                for name, options in self._worker_options.items():
                    own = ("--connect", address, "--name", name, *options)
                    self._workers[name] = await _start(self._secret, "worker", *own)
                    group.create_task(self._watch(name, self._workers[name]))
            return finished.result()
        except* AsyncDMTLError as group_error:
            raise _first(group_error) from None
        finally:
            await asyncio.shield(self._end())

    def kill(self) -> None:
        """Kill what still runs, at once: the last resort of a caller who was interrupted again."""
        for process in self._processes():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    def _processes(self) -> list[Process]:
        return [*([self._server] if self._server else []), *self._workers.values()]

    async def _follow(self, server: Process) -> Event:
        while True:
            event = await _event("the server", server)
            self._training = self._training or event["event"] == "planned"
            self._on_event(event)
            if event["event"] == "finished":
                await server.wait()
                return event

    async def _watch(self, name: str, worker: Process) -> None:
        """Wait for a worker to finish; if it fails, let the server first say what it makes of it."""
        try:
            while (await _event(f"worker {name!r}", worker))["event"] != "finished":
                pass
        except AsyncDMTLError as error:
            assert self._server is not None
            await asyncio.wait([asyncio.create_task(self._server.wait())], timeout=1.0)
            if not self._training:
                raise
            log.warning("%s", error)

    async def _end(self) -> None:
        running = [process for process in self._processes() if process.returncode is None]
        for process in running:
            process.terminate()
        if running:
            await asyncio.wait([asyncio.create_task(process.wait()) for process in running], timeout=GRACE)
        self.kill()
        for process in running:
            await process.wait()


async def _start(secret: str, module: str, *options: str) -> Process:
    # Options in the environment are meant for the command that started this, which hands on what it will.
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("ASYNCDMTL_") or key == "ASYNCDMTL_KERNEL"
    }
    environment[VARIABLE] = secret
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"asyncdmtl.{module}", *options, "--format", "json", "--until-eof",
        stdin=PIPE, stdout=PIPE, limit=LINE, start_new_session=True, env=environment,
    )  # fmt: skip


async def _event(name: str, process: Process) -> Event:
    """The next event of a process; an error if it says that it failed, or ends without a word."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        code = await process.wait()
        if code < 0:
            raise LinkError(f"{name} was killed by {signal.Signals(-code).name}", peer=name)
        raise PeerError(f"{name} ended without a word, with exit code {code}", exit_code=max(code, 1))
    event: Event = json.loads(line)
    if event["event"] == "failed":
        await process.wait()
        error = event["error"] if name == "the server" else f"{name}: {event['error']}"
        raise PeerError(error, exit_code=event["exit_code"])
    return event


def _first(group: BaseExceptionGroup[AsyncDMTLError]) -> AsyncDMTLError:
    """The first error of a group, nested ones included."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AsyncDMTLError)
    return error
