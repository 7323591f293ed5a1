"""A whole cluster on this machine: one server process and worker processes that talk over TCP."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asyncdmtl.errors import AsyncDMTLError, PeerError
from asyncdmtl.runtime.transport import format_address

Event = dict[str, Any]

# How long processes may take to end by themselves before they are killed.
GRACE = 5.0


class LocalCluster:
    """Starts the processes, hands on what the server reports, and leaves none of them running.

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
        self._processes: dict[str, Process] = {}

    async def run(self) -> Event:
        """Run to the end; return the server's last event, which carries the report.

        Raises
        ------
        PeerError
            A process failed; its message and exit code are those of the process.
        """
        try:
            server = await self._start("server", "--listen", "127.0.0.1:0", *self._server_options)
            listening = await self._event(server)
            address = format_address(listening["host"], listening["port"])
            async with asyncio.TaskGroup() as group:
                finished = group.create_task(self._follow(server))
                for name, options in self._worker_options.items():
                    worker = await self._start(
                        "worker", "--connect", address, "--name", name, *options, key=name
                    )
                    group.create_task(self._watch(name, worker))
            return finished.result()
        except* AsyncDMTLError as group_error:
            raise _first(group_error) from None
        finally:
            await asyncio.shield(self._end())

    async def _start(self, module: str, *options: str, key: str = "server") -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"asyncdmtl.{module}", *options, "--format", "json",
            stdout=PIPE, limit=1 << 26, start_new_session=True,
        )  # fmt: skip
        self._processes[key] = process
        return process

    async def _event(self, process: Process) -> Event:
        """The next event of a process; PeerError if it says that it failed, or ends without a word."""
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            code = await process.wait()
            raise PeerError(f"a process ended without a word, with exit code {code}", exit_code=max(code, 1))
        event: Event = json.loads(line)
        if event["event"] == "failed":
            await process.wait()
            raise PeerError(event["error"], exit_code=event["exit_code"])
        return event

    async def _follow(self, server: Process) -> Event:
        while True:
            event = await self._event(server)
            self._on_event(event)
            if event["event"] == "finished":
                await server.wait()
                return event

    async def _watch(self, name: str, worker: Process) -> None:
        """Wait for a worker to finish; if it fails, let the server first say what it makes of it."""
        try:
            while (await self._event(worker))["event"] != "finished":
                pass
        except PeerError as error:
            await asyncio.wait([asyncio.create_task(self._processes["server"].wait())], timeout=1.0)
            raise PeerError(f"worker {name!r}: {error}", exit_code=error.exit_code) from None

    async def _end(self) -> None:
        running = [process for process in self._processes.values() if process.returncode is None]
        for process in running:
            process.terminate()
        if running:
            await asyncio.wait([asyncio.create_task(process.wait()) for process in running], timeout=GRACE)
        for process in running:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _first(group: BaseExceptionGroup[AsyncDMTLError]) -> AsyncDMTLError:
    """The first error of a group, nested ones included."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, AsyncDMTLError)
    return error
