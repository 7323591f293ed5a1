"""The messages of a stream of jobs: a worker stands by, and is called to one job after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncdmtl.arrays import Bytes
from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol import fields
from asyncdmtl.protocol.messages.base import Message
from asyncdmtl.protocol.messages.joining import DEFAULT_SILENCE, PROOF_BYTES

# The most characters of a job's name.
LONGEST_JOB_NAME = 64

# The most characters of the name of a column that is to be predicted.
LONGEST_TARGET = 1_000


@dataclass(frozen=True, eq=False)
class Standby(Message):
    """Asks the worker to stand by: the server makes a stream of jobs and calls the worker to each.

    Attributes
    ----------
    run : str
        The stream's name.
    silence : float
        Seconds of silence after which the server gives the worker up.
    proof : bytes
        The server's proof, for a worker that gave one; else empty.
    """

    number, kind, sender = 25, "standby", "server"
    run: str
    silence: float = DEFAULT_SILENCE
    proof: bytes = b""

    def fields(self) -> list[Any]:
        return [self.run, self.silence, self.proof]

    @classmethod
    def parse(cls, values: Sequence[Any], body: Bytes) -> Standby:
        run, silence, proof = fields.exactly(values, 3, cls.kind)
        return cls(
            fields.name(run, "run"),
            fields.finite(silence, "seconds of silence", 0.0, above=True),
            fields.binary(proof, "proof", PROOF_BYTES, 1 if proof else 0),
        )


@dataclass(frozen=True, eq=False)
class JobCall(Message):
    """Calls the worker to a job: it is to greet the server for this run over a further connection.

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
            raise RemoteProtocolError("a job's name must be short, of letters, digits, '-', '_' and '.'")
        return cls(fields.name(run, "run"), job, fields.text(target, "target", LONGEST_TARGET))


@dataclass(frozen=True, eq=False)
class StreamEnd(Message):
    """Tells the worker that no more jobs will follow."""

    number, kind, sender = 27, "stream-end", "server"


def is_job_name(name: object) -> bool:
    """Whether this is a job's name, which is part of names of files: letters, digits, '-', '_' and '.'."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= LONGEST_JOB_NAME
        and name.isascii()
        and name[0] != "."
        and all(c.isalnum() or c in "-_." for c in name)
    )
