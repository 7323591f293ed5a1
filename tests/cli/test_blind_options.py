from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from asyncdmtl.cli import run, server, worker


@pytest.mark.parametrize(
    ("command", "words", "complaint"),
    [
        (
            server,
            ["--blind", "--strategy=central"],
            "decodes nothing: relay, uncoded, got '--strategy central'",
        ),
        (server, ["--blind", "--strategy=auto"], "decodes nothing: relay, uncoded, got '--strategy auto'"),
        (server, ["--blind", "--test-fraction=0.2"], "--test-fraction must be 0 with --blind"),
        (run, ["--blind", "--strategy=linear", "--strength=1"], "decodes nothing: relay, uncoded"),
        (worker, ["--name=w", "--group-secret-file=nowhere"], "--group-secret-file must be readable"),
    ],
)
def test_what_a_blind_run_cannot_do_is_refused_by_name(
    command: object, words: list[str], complaint: str
) -> None:
    done = CliRunner().invoke(command.main, words)  # type: ignore[attr-defined]
    assert done.exit_code != 0
    assert complaint in done.output + str(done.exception)


def test_a_secret_that_is_too_short_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.touch(mode=0o600)
    file.write_text("short")
    done = CliRunner().invoke(worker.main, ["--name=w", f"--group-secret-file={file}"])
    assert "must have at least 16 bytes in a secret, got 5" in done.output + str(done.exception)


def test_ways_to_a_key_that_do_not_fit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, complaint in (
        (["--group-agree"], "--group-agree needs --group-secret-file"),
        (["--group-ca=ca.pem"], "--group-ca needs --tls-cert and --tls-key"),
    ):
        done = CliRunner().invoke(worker.main, ["--name=w", *words])
        assert complaint in done.output + str(done.exception)
    monkeypatch.setenv("ASYNCDMTL_GROUP_SECRET", "a secret of the group")
    done = CliRunner().invoke(worker.main, ["--name=w", "--group-ca=ca.pem"])
    assert "--group-ca cannot be given together with --group-secret-file" in done.output + str(done.exception)
