from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support.certificates import Authority

from asyncdmtl.cli import main
from asyncdmtl.errors import LinkError, UsageError
from asyncdmtl.net.authentication import WorkerSecurity


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        (["--workers", "0"], UsageError, "--workers must be at least 1"),
        (["--workers", "1", "--connect", "nowhere"], UsageError, "--connect"),
        (["--workers", "1", "--connect", "127.0.0.1:1,10.0.0.1:1"], UsageError, "got '10.0.0.1'"),
        (["--workers", "1", "--listen", "0.0.0.0:0"], UsageError, "--insecure"),
        (["--workers", "1", "--tls-cert", "/no/such/file"], UsageError, "--tls-"),
        (["--workers", "1", "--downlink", "multicast", "--group", "10.0.0.1:1"], UsageError, "--group"),
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


def test_a_relay_shows_its_certificate_to_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("127.0.0.1", common_name="r")
    shown: list[tuple[Path | None, ...]] = []

    def from_files(name: str, secret_file: Path | None, *files: Path | None) -> None:
        shown.append(files)
        raise UsageError("nothing", "goes on", name)

    monkeypatch.setattr(WorkerSecurity, "from_files", from_files)
    words = ["relay", "--name=r", "--workers=1", f"--tls-cert={own.certificate}", f"--tls-key={own.key}"]
    CliRunner().invoke(main.main, [*words, f"--tls-ca={authority.ca}"])
    CliRunner().invoke(main.main, words)
    # Without TLS towards the parent, there is nothing to show it.
    assert shown == [(authority.ca, *own, None), (None, None, None, None)]
