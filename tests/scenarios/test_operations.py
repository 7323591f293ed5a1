"""The operator's view of a server: logs, health and metrics of real processes."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

LIMIT = 90
SPEC = "synthetic:tasks=3,rows=12,features=40,parts=2,test_rows=20"
SERVER = ("--listen=127.0.0.1:0", "--data", SPEC, "--rounds=5", "--json", "--log-level=info")


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"asyncdmtl.{module}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def event(process: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """The next event of a kind on the standard output of a process."""
    assert process.stdout is not None
    for line in process.stdout:
        found: dict[str, Any] = json.loads(line)
        if found["event"] == kind:
            return found
    raise AssertionError(f"no event {kind}")


def get(health: dict[str, Any], page: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{health['port']}/{page}", timeout=LIMIT) as response:
        text: str = response.read().decode()
    return text


def test_a_server_can_be_watched(processes: list[subprocess.Popen[str]]) -> None:
    server = start("server", *SERVER, "--workers=2", "--health=127.0.0.1:0")
    processes.append(server)
    health, listening = event(server, "health"), event(server, "listening")
    assert get(health, "healthz") == "ok\n"
    worker = ["--connect", f"127.0.0.1:{listening['port']}", "--data", SPEC]
    processes.append(start("worker", *worker, "--name=w0"))
    event(server, "joined")
    ready = json.loads(get(health, "readyz"))
    assert (ready["run"], ready["phase"], ready["workers"]) == (listening["run"], "joining", ["w0"])
    metrics = get(health, "metrics")
    assert "asyncdmtl_workers 1.0" in metrics
    assert 'asyncdmtl_bytes_total{direction="up",kind="declare",part="framing"}' in metrics
    processes.append(start("worker", *worker, "--name=w1"))
    event(server, "finished")
    for process in processes:
        process.communicate(timeout=LIMIT)
        assert process.returncode == 0


def test_health_is_not_for_strangers() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "asyncdmtl.server", *SERVER, "--health=0.0.0.0:0"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert refused.returncode == 2
    assert "--health must be a loopback address unless --insecure" in refused.stdout


def test_logs_as_json(processes: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = start("server", *SERVER, "--workers=1", "--log-format=json", "--log-file", str(log))
    processes.append(server)
    listening = event(server, "listening")
    worker = start(
        "worker", "--connect", f"127.0.0.1:{listening['port']}", "--data", SPEC, "--name=w0",
        "--log-level=debug", "--log-format=json",
    )  # fmt: skip
    processes.append(worker)
    outputs = [process.communicate(timeout=LIMIT)[1] for process in (server, worker)]
    assert log.read_text() == outputs[0]
    ours, theirs = [[json.loads(line) for line in text.splitlines()] for text in outputs]
    for line in (*ours, *theirs):
        assert {"time", "level", "logger", "message"} <= set(line)
        age = datetime.now(UTC) - datetime.fromisoformat(line["time"])
        assert timedelta(0) <= age < timedelta(seconds=2 * LIMIT)
    assert all(line["run"] == listening["run"] for line in ours)
    assert [line["worker"] for line in ours if "joined" in line["message"]] == ["w0"]
    rounds = [line for line in ours if "objective" in line]
    assert [line["round"] for line in rounds] == list(range(5))
    assert all(line["up_bytes"] > 0 and line["level"] == "info" for line in rounds)
    assert {line["round"] for line in theirs if "round" in line} >= set(range(1, 5))
    assert all(line["worker"] == "w0" for line in theirs)


def test_a_failure_is_a_line_of_the_log(tmp_path: Path) -> None:
    def fail(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "asyncdmtl.worker", "--connect=127.0.0.1:1", "--name=w0"]
        return subprocess.run(
            [*command, "--max-wait=0", "--data", SPEC, *options],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    plain = fail("--log-file", str(tmp_path / "log"))
    assert plain.returncode == 3
    assert plain.stderr.startswith("error: cannot reach a server")
    assert plain.stderr.count("\n") == 1
    assert " ERROR cannot reach a server" in (tmp_path / "log").read_text()
    structured = fail("--log-format=json", "--log-level=debug")
    *before, last = map(json.loads, structured.stderr.splitlines())
    assert (last["level"], last["exit_code"]) == ("error", 3)
    assert last["message"].startswith("cannot reach a server")
    assert any("Traceback" in line.get("traceback", "") for line in before)


def test_a_log_file_that_cannot_be_written_is_named_in_the_log() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "asyncdmtl.worker", "--name=w", "--log-file=/", "--log-format=json"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 2
    assert "--log-file must be writable (Is a directory)" in json.loads(done.stderr)["message"]


# Prints a long line on demand, and reports a signal that interrupts a write.
_LONG_LINE = """
import os, signal, sys, click
from asyncdmtl.cli.failure import execute

def alarm(*_):
    os.write(2, b"interrupted\\n")

@click.command()
def main():
    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    print("x" * 300_000)
    signal.setitimer(signal.ITIMER_REAL, 0)

execute(main)
"""


def test_a_line_is_written_whole_without_buffering_though_signals_come() -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", _LONG_LINE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "interrupted\n"  # the pipe is full by now, if it ever will be
        assert len(process.communicate(timeout=LIMIT)[0]) == 300_001
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_a_run_can_be_seen_in_a_browser(processes: list[subprocess.Popen[str]]) -> None:
    server = start("server", *SERVER, "--workers=2", "--dashboard=127.0.0.1:0")
    processes.append(server)
    dashboard, listening = event(server, "dashboard"), event(server, "listening")
    assert dashboard["tls"] is False
    assert "<title>asyncdmtl</title>" in get(dashboard, "")
    url = f"http://127.0.0.1:{dashboard['port']}/events"
    with urllib.request.urlopen(url, timeout=LIMIT) as states:
        for name in ("w0", "w1"):
            address = f"127.0.0.1:{listening['port']}"
            processes.append(start("worker", "--connect", address, "--data", SPEC, "--name", name))
        lines = [json.loads(line.removeprefix(b"data: ")) for line in states if line.strip()]
    assert lines[0]["phase"] == "joining"
    assert (lines[-1]["phase"], lines[-1]["round"]) == ("finished", 5)
    assert [worker["name"] for worker in lines[-1]["workers"]] == ["w0", "w1"]
    assert all(worker["up"] > 0 for worker in lines[-1]["workers"])
    assert event(server, "finished")["report"]["workers"] == 2
