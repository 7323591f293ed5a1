"""The jobs that programs submit to a server's stream over connections of their own."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from asyncdmtl.errors import AsyncDMTLError, RemoteProtocolError, UsageError
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.transport import LONGEST_WAIT
from asyncdmtl.protocol.messages.registry import JobCall, JobEnded, StreamEnd, Submit
from asyncdmtl.protocol.messages.streams import LONGEST_REASON, LONGEST_REPORT, Then, is_job_name

# The most programs that may be connected at one time to submit jobs or to wait for their ends.
MOST_PROGRAMS = 256


class Submissions:
    """The jobs that programs submit, and the ends that these are told.

    A program that is gone is told nothing, and its jobs go on.

    Parameters
    ----------
    add : callable
        Adds the job of a table to the stream; it raises UsageError if that breaks a rule.
    end : callable
        Says that the stream takes no more jobs.
    abandon : callable
        Called with the name of each job of a program that is gone.
    """

    def __init__(
        self,
        add: Callable[[Mapping[str, Any]], Awaitable[None]],
        end: Callable[[], Awaitable[None]],
        abandon: Callable[[str], None],
    ) -> None:
        self._add = add
        self._end = end
        self._abandon = abandon
        self._ended = False
        self._programs: set[_Program] = set()
        self._of_job: dict[str, _Program] = {}

    async def serve(self, connection: Connection) -> None:
        """Take in the jobs of a program, up to its last one.

        Raises
        ------
        UsageError
            Too many programs are connected, or the stream takes no more jobs.
        AsyncDMTLError
            The connection failed, or a message breaks a rule.
        """
        if len(self._programs) >= MOST_PROGRAMS:
            raise UsageError(
                "programs that submit jobs", f"must be at most {MOST_PROGRAMS} at one time", None
            )
        program = _Program(connection)
        self._programs.add(program)
        connection.on_lost = lambda: self._on_lost(program)
        then = Then.MORE
        while then is Then.MORE:
            message = await connection.receive((Submit,), LONGEST_WAIT, "--start-timeout")
            then = message.then
            if message.job:
                await self._take(program, message.job)
            if then is Then.END and not self._ended:
                self._ended = True
                await self._end()
        program.sends = False
        program.finish()

    def call(self, call: JobCall) -> bool:
        """Call the program that submitted a job to it, and return whether it is there."""
        program = self._of_job.get(call.job)
        if program is None or program.connection.lost:
            return False
        program.connection.write(call)
        return True

    def tell(self, ended: Mapping[str, Any]) -> None:
        """Tell a program that a job has ended.

        Parameters
        ----------
        ended : mapping
            `job`, its name, with `report`, or with `error` and `exit_code`.
        """
        if (program := self._of_job.pop(ended["job"], None)) is None:
            return
        report = json.dumps(ended["report"]).encode() if "report" in ended else b""
        program.tell(
            JobEnded(
                ended["job"],
                ended.get("error", "")[:LONGEST_REASON],
                ended.get("exit_code", 0),
                report if len(report) <= LONGEST_REPORT else b"",
            )
        )

    async def close(self) -> None:
        """End all connections, once what was written is sent."""
        for program in list(self._programs):
            await program.connection.close()

    def _on_lost(self, program: _Program) -> None:
        self._programs.discard(program)
        for job in list(program.jobs):
            self._abandon(job)

    async def _take(self, program: _Program, text: str) -> None:
        """Add a job that a program submits, or tell it why that is not possible."""
        table = _table(text)
        name = table["name"]
        if self._ended:
            raise UsageError("stream", "must take jobs still; it ends with those that it has", name)
        before = self._of_job.get(name)
        self._of_job[name] = program
        program.jobs.add(name)
        try:
            await self._add(table)
        except AsyncDMTLError as error:
            self.tell({"job": name, "error": str(error), "exit_code": error.exit_code})
            if before is not None:
                # The name is that of an earlier job, which goes on.
                self._of_job[name] = before


class _Program:
    """A program that submits jobs: its connection, its jobs that have not ended, whether it sends more."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.jobs: set[str] = set()
        self.sends = True

    def tell(self, ended: JobEnded) -> None:
        """Tell it the end of a job."""
        self.jobs.discard(ended.job)
        if not self.connection.lost:
            self.connection.write(ended)
        self.finish()

    def finish(self) -> None:
        """Let it go, if it sends no more jobs, and all have ended."""
        if not (self.sends or self.jobs or self.connection.lost):
            self.connection.write(StreamEnd())


def _table(text: str) -> dict[str, Any]:
    """The table of a job in a message."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("a job must be JSON") from error
    if not isinstance(table, dict) or not is_job_name(table.get("name")):
        raise RemoteProtocolError("a job must be a table with a name of letters, digits, '-', '_' and '.'")
    return table
