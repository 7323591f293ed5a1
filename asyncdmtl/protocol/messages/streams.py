"""The messages of a stream of jobs.

A worker stands by, and is called to one job after another. A program submits jobs, and learns how they end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol import fields
from asyncdmtl.protocol.messages.base import Message
from asyncdmtl.protocol.messages.joining import DEFAULT_SILENCE, PROOF_BYTES

# The most characters of a job's name.
LONGEST_JOB_NAME = 64

_NAME_RULE = "a job's name must be short, of letters, digits, '-', '_' and '.'"

# The most characters of the name of a column that is to be predicted.
LONGEST_TARGET = 1_000

# The most characters of a job that is submitted, which must fit into a short head.
LONGEST_JOB = 3_000

# The most characters of the reason for which a job failed.
LONGEST_REASON = 10_000

# The most bytes of a report that a program is sent at the end of a job. Longer ones are at the server only.
LONGEST_REPORT = 1 << 25

# The largest exit code of a program.
LARGEST_EXIT_CODE = 255


class Then(StrEnum):
    """What follows a job that is submitted."""

    MORE = "more"
    """Another one."""
    WAIT = "wait"
    """The program waits until all its jobs have ended."""
    END = "end"
    """The program waits, and the server takes no more jobs of anyone."""


@dataclass(frozen=True, eq=False)
class Standby(Message):
    """Asks the worker to stand by: the server makes a stream of jobs and calls the worker to each.

    To a program that submits jobs it says that the server takes them.

    Attributes
    ----------
    run : str
        The stream's name.
    silence : float
        Seconds of silence after which the server gives the worker up.
    proof : bytes
        The server's proof, for a worker that gave one; else empty.
    submits : bool
        Whether jobs are taken from the other end, which is a program that submits them.
    """

    number, kind, sender = 25, "standby", "server"
    run: str
    silence: float = DEFAULT_SILENCE
    proof: bytes = b""
    submits: bool = False

    @property
    def event(self) -> str:
        return f"{self.kind}, submit" if self.submits else self.kind

    def fields(self) -> list[Any]:
        return [self.run, self.silence, self.proof, self.submits]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Standby:
        run, silence, proof, submits = fields.exactly(values, 4, cls.kind)
        return cls(
            fields.name(run, "run"),
            fields.finite(silence, "seconds of silence", 0.0, above=True),
            fields.binary(proof, "proof", PROOF_BYTES, 1 if proof else 0),
            fields.flag(submits, "submits"),
        )


@dataclass(frozen=True, eq=False)
class JobCall(Message):
    """Calls the worker to a job: it is to greet the server for this run over a further connection.

    A program that brings the workers of a job is called to it, too.

    Attributes
    ----------
    run : str
        The run's name.
    job : str
        The job's name, which the user chose.
    target : str
        The column that is predicted; empty for that of the worker's own options.
    """

    number, kind, sender = 26, "job", "server"
    run: str
    job: str
    target: str = ""

    def fields(self) -> list[Any]:
        return [self.run, self.job, self.target]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> JobCall:
        run, job, target = fields.exactly(values, 3, cls.kind)
        if not is_job_name(job):
            raise RemoteProtocolError(_NAME_RULE)
        return cls(fields.name(run, "run"), job, fields.text(target, "target", LONGEST_TARGET))


@dataclass(frozen=True, eq=False)
class StreamEnd(Message):
    """Tells the worker that no more jobs will follow."""

    number, kind, sender = 27, "stream-end", "server"


@dataclass(frozen=True, eq=False)
class Submit(Message):
    """Adds a job to the stream.

    Attributes
    ----------
    job : str
        The job's table as JSON, with its name; empty if none is added. A table with `settings`, a `strategy`
        and a number of `workers` is a job whose workers the program brings.
    then : Then
        What follows.
    """

    number, kind, sender = 39, "submit", "worker"
    job: str
    then: Then

    def fields(self) -> list[Any]:
        return [self.job, self.then.value]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Submit:
        job, then = fields.exactly(values, 2, cls.kind)
        return cls(
            fields.text(job, "job", LONGEST_JOB),
            Then(fields.choice(then, "then", tuple(each.value for each in Then))),
        )


@dataclass(frozen=True, eq=False)
class JobEnded(Message):
    """Tells a program that a job which it submitted has ended.

    Attributes
    ----------
    job : str
        The job's name.
    error : str
        Why it failed; empty if it did not.
    exit_code : int
        The exit code of a run that ends so.
    report : bytes
        The job's report as JSON; empty if it failed, or if the report is too long.
    """

    number, kind, sender = 40, "job-ended", "server"
    job: str
    error: str = ""
    exit_code: int = 0
    report: bytes = b""

    def fields(self) -> list[Any]:
        return [self.job, self.error, self.exit_code, self.report]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> JobEnded:
        job, error, code, report = fields.exactly(values, 4, cls.kind)
        if not is_job_name(job):
            raise RemoteProtocolError(_NAME_RULE)
        if type(report) is not bytes or len(report) > LONGEST_REPORT:
            raise RemoteProtocolError(f"a report must be binary of at most {LONGEST_REPORT} bytes")
        return cls(
            job,
            fields.text(error, "error", LONGEST_REASON),
            fields.integer(code, "exit code", 0, LARGEST_EXIT_CODE),
            report,
        )


def is_job_name(name: object) -> bool:
    """Whether this is a job's name, which is part of names of files: letters, digits, '-', '_' and '.'."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= LONGEST_JOB_NAME
        and name.isascii()
        and name[0] != "."
        and all(c.isalnum() or c in "-_." for c in name)
    )
