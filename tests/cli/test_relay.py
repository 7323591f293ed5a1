from __future__ import annotations

import pytest
from click.testing import CliRunner

from asyncdmtl.cli import main
from asyncdmtl.errors import LinkError, UsageError


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        (["--workers", "0"], UsageError, "--workers must be at least 1"),
        (["--workers", "1", "--connect", "nowhere"], UsageError, "--connect"),
        (["--workers", "1", "--connect", "127.0.0.1:1,10.0.0.1:1"], UsageError, "got '10.0.0.1'"),
        (["--workers", "1", "--listen", "0.0.0.0:0"], UsageError, "--insecure"),
        (["--workers", "1", "--tls-cert", "/no/such/file"], UsageError, "--tls-"),
        (["--workers", "1", "--connect", "127.0.0.1:1", "--max-wait", "0"], LinkError, "cannot reach"),
    ],
)
def test_bad_input_is_named(arguments: list[str], error: type[Exception], complaint: str) -> None:
    result = CliRunner().invoke(main.main, ["relay", "--name", "r", *arguments])
    assert isinstance(result.exception, error)
    assert complaint in str(result.exception)


def test_name_and_workers_must_be_given() -> None:
    result = CliRunner().invoke(main.main, ["relay", "--name", "r"])
    assert "--workers" in result.output
