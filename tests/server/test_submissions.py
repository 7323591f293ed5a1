from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from asyncdmtl.errors import RemoteProtocolError, UsageError
from asyncdmtl.protocol.messages.registry import JobCall, JobEnded, StreamEnd, Submit
from asyncdmtl.protocol.messages.streams import LONGEST_REPORT, Then
from asyncdmtl.server.submissions import MOST_PROGRAMS, Submissions


class Program:
    """A connection over which a test submits jobs."""

    def __init__(self, *messages: Submit) -> None:
        self.messages = list(messages)
        self.heard: list[Any] = []
        self.lost = self.closed = False
        self.on_lost: Any = None

    async def receive(self, *_: Any) -> Submit:
        return self.messages.pop(0)

    def write(self, message: Any) -> None:
        assert not self.lost
        self.heard.append(message)

    async def close(self) -> None:
        self.closed = True

    @property
    def ends(self) -> list[tuple[str, int]]:
        """The ends of jobs that it heard."""
        return [(each.job, each.exit_code) for each in self.heard if isinstance(each, JobEnded)]


class Stream:
    """Submissions to a stream that takes each name once."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.ended = 0
        self.abandoned: list[str] = []
        self.submissions = Submissions(self.add, self.end, self.abandoned.append)

    async def add(self, table: Mapping[str, Any]) -> None:
        if table["name"] in self.names:
            raise UsageError("name of a job", "must be that of no other job in the stream", table["name"])
        self.names.append(table["name"])

    async def end(self) -> None:
        self.ended += 1

    async def serve(self, program: Any) -> None:
        await self.submissions.serve(program)


def job(name: str, then: Then = Then.WAIT) -> Submit:
    return Submit(f'{{"name": "{name}", "rounds": 3}}', then)


async def test_a_program_learns_the_ends_of_its_own_jobs_and_may_go_then() -> None:
    stream, program, other = Stream(), Program(job("a", Then.MORE), job("b")), Program(job("c"))
    await stream.serve(program)
    await stream.serve(other)
    stream.submissions.tell({"job": "b", "report": {"rounds": 3}})
    assert [(each.job, each.report) for each in program.heard] == [("b", b'{"rounds": 3}')]
    stream.submissions.tell({"job": "of a file", "report": {}})
    stream.submissions.tell({"job": "a", "error": "lost", "exit_code": 3})
    assert program.ends == [("b", 0), ("a", 3)]
    assert isinstance(program.heard[-1], StreamEnd)
    assert other.heard == []
    await stream.submissions.close()
    assert program.closed
    assert other.closed


async def test_a_job_that_breaks_a_rule_ends_at_once_and_spares_the_one_of_its_name() -> None:
    stream, first, second = Stream(), Program(job("a")), Program(job("a"))
    await stream.serve(first)
    await stream.serve(second)
    assert second.ends == [("a", UsageError.exit_code)]
    assert isinstance(second.heard[-1], StreamEnd)
    stream.submissions.tell({"job": "a", "report": {}})
    assert first.ends == [("a", 0)]


async def test_a_program_that_is_gone_is_told_nothing() -> None:
    stream, program = Stream(), Program(job("a"))
    await stream.serve(program)
    assert stream.submissions.call(JobCall("12345678", "a"))
    assert [each.job for each in program.heard] == ["a"]
    program.lost = True
    program.on_lost()
    assert stream.abandoned == ["a"]
    assert not stream.submissions.call(JobCall("12345678", "a"))
    stream.submissions.tell({"job": "a", "report": {}})
    await stream.submissions.close()
    assert not program.closed


async def test_after_the_end_the_stream_takes_no_jobs() -> None:
    stream, program = Stream(), Program(Submit("", Then.END))
    await stream.serve(program)
    await stream.serve(Program(Submit("", Then.END)))
    assert stream.ended == 1
    assert isinstance(program.heard[-1], StreamEnd)
    with pytest.raises(UsageError, match="stream must take jobs still; it ends with those that it has"):
        await stream.serve(Program(job("a")))


@pytest.mark.parametrize("text", ["{", "[" * 3000, "[]", "{}", '{"name": "../a"}', '{"name": 3}'])
async def test_what_is_no_job_ends_the_connection(text: str) -> None:
    with pytest.raises(RemoteProtocolError, match="a job must be"):
        await Stream().serve(Program(Submit(text, Then.WAIT)))


async def test_a_report_that_is_too_long_is_left_out() -> None:
    stream, program = Stream(), Program(job("a"))
    await stream.serve(program)
    stream.submissions.tell({"job": "a", "report": {"x": "y" * LONGEST_REPORT}})
    assert [(each.error, each.report) for each in program.heard[:1]] == [("", b"")]


async def test_programs_are_limited() -> None:
    stream = Stream()
    await asyncio.gather(*(stream.serve(Program(Submit("", Then.WAIT))) for _ in range(MOST_PROGRAMS)))
    with pytest.raises(UsageError, match=f"must be at most {MOST_PROGRAMS} at one time"):
        await stream.serve(Program(job("a")))
