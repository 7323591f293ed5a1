from __future__ import annotations

from typing import Any

import msgpack
import pytest
from support.messages import BODY, EXAMPLES

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.streams import LONGEST_JOB_NAME, is_job_name


@pytest.mark.parametrize("name", ["a", "job-1", "A_b.c", "x" * LONGEST_JOB_NAME])
def test_names_of_jobs_are_parts_of_names_of_files(name: str) -> None:
    assert is_job_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "x" * (LONGEST_JOB_NAME + 1), 3])
def test_other_names_are_refused(name: Any) -> None:
    assert not is_job_name(name)


@pytest.mark.parametrize(
    ("kind", "position", "value", "complaint"),
    [
        ("standby", 1, 7, "run"),
        ("standby", 2, 0.0, "seconds of silence"),
        ("standby", 3, b"short", "proof"),
        ("standby", 4, 1, "submits"),
        ("submit", 1, "x" * 3001, "job"),
        ("submit", 2, "never", "then"),
        ("job-ended", 1, "../a", "job's name"),
        ("job-ended", 2, 5, "error"),
        ("job-ended", 3, 256, "exit code"),
        ("job-ended", 4, "text", "a report must be binary"),
        ("job", 1, "", "run"),
        ("job", 2, "../a", "job's name"),
        ("job", 3, "x" * 1001, "target"),
        ("hello", 4, 5, "run"),
    ],
)
def test_a_wrong_field_is_named(kind: str, position: int, value: Any, complaint: str) -> None:
    message = EXAMPLES[kind]
    values = [message.number, *message.fields()]
    values[position] = value
    with pytest.raises(RemoteProtocolError, match=complaint):
        registry.unpack(msgpack.packb(values), BODY[:0])
