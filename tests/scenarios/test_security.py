"""Proofs of identity as users set them up: real processes, certificates and secrets in files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.certificates import Authority

from asyncdmtl.cli import main
from asyncdmtl.errors import UsageError
from asyncdmtl.net.credentials import SECRET_VARIABLE

LIMIT = 60
SPEC = ["--data", "synthetic:tasks=2,rows=8,features=5,parts=1"]
SECRETS = {"w0": "the secret of w0 is this", "w1": "the secret of w1 is that"}


def command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"asyncdmtl.{module}".removesuffix("."), *arguments]


def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(module, *arguments),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, **environment},
        check=False,
    )


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server, and its address."""
    server = subprocess.Popen(
        command("server", "--listen=127.0.0.1:0", "--format=json", *SPEC, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    with server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert line, server.communicate(timeout=LIMIT)
            event = json.loads(line)
            yield server, f"{event['host']}:{event['port']}"
        finally:
            server.kill()


def private(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def test_tls_and_secrets_from_files(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("127.0.0.1")
    table = private(
        tmp_path / "secrets.toml", "[workers]\n" + "".join(f'{k} = "{v}"\n' for k, v in SECRETS.items())
    )
    own = {name: private(tmp_path / name, f"{secret}\n") for name, secret in SECRETS.items()}
    secured = [
        *("--secret-file", str(table), "--tls-cert", str(certificate), "--tls-key", str(key)),
        *("--workers=2", "--rounds=2", "--log-level=debug", "--log-file", str(tmp_path / "server.log")),
    ]
    outputs = []
    with serving(*secured) as (server, address):

        def worker(name: str, *options: str) -> list[str]:
            return [
                *("--connect", address, "--name", name, "--log-level=debug", "--max-wait=5", *SPEC),
                *("--log-file", str(tmp_path / f"{name}.log"), *options),
            ]

        trusting = ("--tls-ca", str(authority.ca))
        for name, options, code, complaint in (
            ("w0", (), 4, "does not speak TLS, which this server does: --tls-ca"),
            ("w0", trusting, 4, "asks for a secret: give --secret-file"),
            ("w1", (*trusting, "--secret-file", str(own["w0"])), 4, "did not prove that it knows the secret"),
            ("w0", (*trusting, "--tls-server-name=example.org"), 4, "not valid for 'example.org'"),
        ):
            done = run("worker", *worker(name, *options))
            assert done.returncode == code, done.stderr
            assert re.search(rf"^error: .*{re.escape(complaint)}", done.stderr, re.MULTILINE), done.stderr
            outputs.append(done.stdout + done.stderr)
        workers = [
            subprocess.Popen(
                command("worker", *worker(name, *trusting, "--secret-file", str(path))),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for name, path in own.items()
        ]
        for process in workers:
            outputs.append(process.communicate(timeout=LIMIT)[0])
            assert process.returncode == 0, outputs[-1]
        out, err = server.communicate(timeout=LIMIT)
        assert server.returncode == 0, err
    outputs += [out, err, *(path.read_text() for path in tmp_path.glob("*.log"))]
    report = json.loads(out.splitlines()[-1])["report"]
    assert report["kernel_ledger_difference"] == {"up": 0, "down": 0}
    assert {"challenge", "proof", "tls"} <= {entry["kind"] for entry in report["ledger"]}
    assert len(outputs) > 8
    for secret in SECRETS.values():
        assert all(secret not in output for output in outputs)


def test_a_secret_from_the_environment_is_shown_nowhere(tmp_path: Path) -> None:
    secret = {SECRET_VARIABLE: SECRETS["w0"]}
    with serving("--workers=1", "--rounds=1", **secret) as (server, address):
        refused = run("worker", "--connect", address, "--name=w0", *SPEC, **{SECRET_VARIABLE: SECRETS["w1"]})
        assert refused.returncode == 4
        done = run("worker", "--connect", address, "--name=w0", *SPEC, **secret)
        assert done.returncode == 0, done.stderr
        out, err = server.communicate(timeout=LIMIT)
        assert server.returncode == 0, err
    texts = [out, err, *(one.stdout + one.stderr for one in (refused, done))]
    for asked in (["server"], ["worker", "--name=w0"]):
        texts.append(CliRunner().invoke(main.main, [*asked, "--show-config"], env=secret).output)
        assert json.loads(texts[-1])["secret_file"] is None
    assert not any(value in text for value in SECRETS.values() for text in texts)


def test_client_certificates_are_for_names(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("127.0.0.1")
    with serving(
        "--workers=1", "--rounds=1", "--tls-cert", str(certificate), "--tls-key", str(key),
        "--tls-client-ca", str(authority.ca),
    ) as (server, address):  # fmt: skip

        def take_part(name: str, *options: str) -> subprocess.CompletedProcess[str]:
            return run(
                "worker", "--connect", address, "--name", name, "--tls-ca", str(authority.ca), *SPEC, *options
            )

        own = authority.issue(common_name="w0")
        shown = ("--tls-cert", str(own.certificate), "--tls-key", str(own.key))
        for name, options, complaint in (
            ("w0", (), "asks for a certificate of this end: give --tls-cert and --tls-key"),
            ("w1", shown, "showed a certificate for w0"),
        ):
            done = take_part(name, *options)
            assert done.returncode == 4, done.stderr
            assert complaint in done.stderr
        done = take_part("w0", *shown)
        assert done.returncode == 0, done.stderr
        _, err = server.communicate(timeout=LIMIT)
        assert server.returncode == 0, err


def test_a_local_run_is_for_its_own_workers_only(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ("run", *SPEC, "--workers=2", "--rounds=2", "--report", str(report))
    done = run("", *arguments, **{SECRET_VARIABLE: "not for this"})
    assert done.returncode == 0, done.stderr
    kinds = [entry["kind"] for entry in json.loads(report.read_text())["ledger"]]
    assert kinds.count("challenge") == kinds.count("proof") == 2


@pytest.mark.parametrize(
    ("module", "arguments", "complaint"),
    [
        ("server", ["--listen=0.0.0.0:0"], "--listen must be a loopback address unless --insecure"),
        ("server", ["--listen=0.0.0.0:0", "--secret-file=secret"], "must be a loopback address unless"),
        ("server", ["--secret-file=absent"], "--secret-file must be readable"),
        ("server", ["--secret-file=open"], "--secret-file must be readable by its owner only, or"),
        ("server", ["--secret-file=short"], "at least 16 bytes"),
        ("server", ["--tls-cert=secret"], "--tls-key must be given"),
        ("server", ["--tls-client-ca=secret"], "--tls-client-ca needs --tls-cert and --tls-key"),
        ("worker", ["--connect=10.0.0.1:1"], "--connect must be a loopback address unless --tls-ca"),
        (
            "worker",
            ["--connect=127.0.0.1:1,10.0.0.1:1"],
            "unless --tls-ca or --insecure is given, got '10.0.0.1'",
        ),
        ("worker", ["--secret-file=open"], "chmod 600"),
        ("worker", ["--tls-ca=secret"], "--tls-ca must be certificates in PEM"),
        ("worker", ["--tls-cert=secret", "--tls-key=secret"], "--tls-cert needs --tls-ca"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_options(tmp_path: Path, module: str, arguments: list[str], complaint: str) -> None:
    private(tmp_path / "secret", SECRETS["w0"])
    private(tmp_path / "open", SECRETS["w0"]).chmod(0o644)
    private(tmp_path / "short", "0123456789")
    inside = [re.sub("=(secret|open|short|absent)$", rf"={tmp_path}/\1", argument) for argument in arguments]
    named = ["--name=w0"] if module == "worker" else []
    done = CliRunner().invoke(main.main, [module, *SPEC, *named, *inside])
    assert isinstance(done.exception, UsageError)
    assert complaint in str(done.exception)
    assert SECRETS["w0"] not in f"{done.exception} {done.output}"


def test_there_is_no_option_for_a_secret_itself() -> None:
    for module in ("server", "worker"):
        done = CliRunner().invoke(main.main, [module, "--secret=x"])
        assert done.exit_code == 2
        assert "No such option" in done.output
