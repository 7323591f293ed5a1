"""The interface of the commands for users and scripts: options, help, JSON keys, events and exit codes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import click
from click.testing import CliRunner

from asyncdmtl.cli.failure import execute
from asyncdmtl.cli.main import COMMANDS, main

Frozen = dict[str, Any]

# The most seconds that a process may take.
LIMIT = 60

DATA = "synthetic:tasks=3,rows=12,features=40,parts=2,test_rows=20"
PLACEMENT = """
[workers]
a = ["p0", "p1", "p2"]
b = ["p1", "p2", "p3"]
c = ["p3", "p4", "p5"]
d = ["p0", "p4", "p5"]

[tasks]
s = ["p0", "p1", "p2"]
t = ["p3", "p4", "p5"]

[prices]
a = 1
b = 2
c = 3
d = 4

[speeds]
a = 4
b = 3
c = 2
d = 1
"""
MODULES = ("asyncdmtl.server", "asyncdmtl.worker")

# Command lines that are refused before anything listens.
MISUSES = (
    "run --rounds=0",
    "run --strength=-1",
    "run --strategy=magic",
    "run --no-such-option",
    "run --data=nonsense",
    "run --copies=9",
    "run --report=/no/such/folder/report.json",
    "run --config=/no/such/file.toml",
    "plan",
    "plan /no/such/file.toml",
    "place --partitions=0 --workers=2",
    "place --partitions=9 --capacities=a=1",
    "predict /no/such/model.npz /no/such/rows.csv",
    "export /no/such/model.npz --output=/no/such/model.onnx",
    "worker --connect=127.0.0.1 --name=a --data=synthetic",
    "worker --connect=127.0.0.1:1 --data=synthetic",
    "worker --name=a --data=synthetic --partitions=p99",
    "server --listen=0.0.0.0:0 --data=synthetic",
    "server --listen=nowhere --data=synthetic",
    "nonsense",
)
# Command lines that fail later. Each runs in a process of its own, because it opens sockets.
FAILURES = (
    f"worker --connect=127.0.0.1:1 --name=a --max-wait=0 --data={DATA}",
    f"server --listen=127.0.0.1:0 --join-timeout=0.1 --data={DATA}",
)


def frozen_options() -> Frozen:
    """All options of command lines and configuration files, by command."""
    commands: dict[str, click.Command] = {"asyncdmtl": main}
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        commands[name] = command
    return {name: _options(command) for name, command in commands.items()}


def _options(command: click.Command) -> Frozen:
    found = {}
    # Click keeps the help option that it makes here: it must be made as in a run of the command.
    above = None if command is main else click.Context(main, **main.context_settings)
    context = click.Context(command, above, **command.context_settings)
    kept = ("param_type_name", "opts", "secondary_opts", "required", "nargs", "multiple", "is_flag", "hidden")
    for parameter in command.to_info_dict(context)["params"]:
        content = {name: parameter[name] for name in kept if name in parameter}
        kind = parameter["type"]
        content["type"] = kind.get("choices") or kind["name"]
        content["default"] = _plain(parameter.get("default"))
        found[parameter["name"]] = content
    return found


def _plain(value: Any) -> Any:
    """A default as JSON; click's "unset" becomes null."""
    return value if isinstance(value, bool | int | float | str) else None


def frozen_help() -> Frozen:
    """The help of every command as words, since line ends depend on click and the terminal."""
    texts = {}
    for name in ("asyncdmtl", *COMMANDS):
        arguments = [] if name == "asyncdmtl" else [name]
        shown = CliRunner().invoke(main, [*arguments, "--help"], prog_name="asyncdmtl", terminal_width=100)
        assert shown.exit_code == 0, shown.output
        texts[name] = _lines(shown.stdout)
    with ThreadPoolExecutor(len(MODULES)) as pool:
        for module, done in zip(MODULES, pool.map(lambda m: _process(m, "--help"), MODULES), strict=True):
            texts[f"python -m {module}"] = _lines(done.stdout)
    return texts


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def frozen_exit_codes() -> Frozen:
    """The exit codes of commands that are misused or fail."""
    codes = {words: _exit_code(words.split()) for words in MISUSES}
    with ThreadPoolExecutor(len(FAILURES)) as pool:
        done = pool.map(lambda words: _process("asyncdmtl", *words.split()), FAILURES)
        return codes | {words: process.returncode for words, process in zip(FAILURES, done, strict=True)}


def _exit_code(words: list[str]) -> int:
    silent = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["asyncdmtl", *words]),
        contextlib.redirect_stdout(silent),
        contextlib.redirect_stderr(silent),
    ):
        try:
            execute(main)
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def frozen_keys() -> Frozen:
    """The keys of all JSON that the commands print or write, as sorted paths."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "placement.toml").write_text(PLACEMENT)
        file = str(folder / "placement.toml")
        places = ["place", "--partitions=9", "--capacities=a=9,b=7,c=2"]
        with ThreadPoolExecutor(3) as pool:
            running = [
                pool.submit(keys, folder) for keys in (_keys_of_stopped, _keys_of_run, _keys_of_finished)
            ]
            frozen = {
                "plan": _keys_printed("plan", file),
                "plan, central": _keys_printed("plan", file, "--strategy=central", "--silent=1"),
                "plan, cost": _keys_printed("plan", file, "--minimise=cost"),
                "place": _keys_printed(*places),
                "place, speeds": _keys_printed(*places, "--speeds=1,2,3"),
            }
            for future in running:
                frozen |= future.result()
            return {name: frozen[name] for name in sorted(frozen)}


def _keys_printed(*arguments: str) -> list[str]:
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return _paths(json.loads(done.stdout))


def _keys_of_run(folder: Path) -> Frozen:
    """The keys of `run`, of `predict` with its models, and of the model file."""
    rows = ["site,ill,age,ward"]
    rows += [f"{'ns'[i % 2]},{(i * 7) % 5},{20 + (i * 13) % 50},{'xyz'[i % 3]}" for i in range(40)]
    (folder / "rows.csv").write_text("\n".join(rows))
    report, model = folder / "report.json", folder / "model.npz"
    given = ["--data", str(folder / "rows.csv"), "--task=site", "--target=ill", "--workers=2", "--copies=1"]
    kept = ["--report", str(report), "--save", str(model)]
    done = _process("asyncdmtl", "run", *given, *kept, "--rounds=3", "--strength=0.1", "--json")
    assert done.returncode == 0, done.stderr
    scored = ["--score", "--output", str(folder / "predicted.csv")]
    predicted = _keys_printed("predict", str(model), str(folder / "rows.csv"), *scored)
    with zipfile.ZipFile(model) as archive:
        members = sorted(archive.namelist())
        told = [_paths(json.loads(archive.read(name))) for name in members if name.endswith(".json")]
    return {
        "run": _paths(json.loads(done.stdout)),
        "run, report": _paths(json.loads(report.read_text())),
        "predict": predicted,
        "export": _keys_printed("export", str(model), "--output", str(folder / "model.onnx")),
        "model file": [*members, *told[0]],
    }


def _keys_of_stopped(folder: Path) -> Frozen:
    """The keys of events of a server that loses workers, is stopped and resumed; and its HTTP answers."""
    checkpoint = ["--checkpoint", str(folder / "checkpoints"), "--checkpoint-every=1"]
    options = ["--data", DATA, "--rounds=1000000", "--workers=2", "--tolerance=0", *checkpoint]
    seen: Frozen = {}
    with contextlib.ExitStack() as stack:
        watched = ["--listen=127.0.0.1:0", "--health=127.0.0.1:0", *options]
        server = stack.enter_context(_started("server", *watched))
        health = _follow(server, seen, "server", "health")
        address = _follow(server, seen, "server", "listening")
        joined = ["--connect", f"{address['host']}:{address['port']}", "--data", DATA, "--max-wait=60"]
        workers = [stack.enter_context(_started("worker", "--name", name, *joined)) for name in "ab"]
        _follow(server, seen, "server", "checkpointed")
        workers[0].kill()
        _follow(server, seen, "server", "incident")
        _follow(server, seen, "server", "planned")
        seen |= _answers(f"http://{health['host']}:{health['port']}")
        with socket.create_connection((address["host"], address["port"]), LIMIT) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            _follow(server, seen, "server", "refused")
        server.terminate()
        _drain(server, seen, "server")
        again = ["--listen", f"{address['host']}:{address['port']}", *options, "--resume"]
        server = stack.enter_context(_started("server", *again))
        _follow(server, seen, "server", "round")
        workers[1].kill()
        _follow(server, seen, "server", "waiting")
        server.terminate()
        _drain(server, seen, "server")
    return seen


def _answers(url: str) -> Frozen:
    """The HTTP answers of a server: names and types of its metrics, keys of its readiness, and refusals."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=LIMIT) as answer:
        metrics = [line for line in answer.read().decode().splitlines() if line.startswith("# TYPE")]
        kind = answer.headers["Content-Type"]
    with urllib.request.urlopen(f"{url}/readyz", timeout=LIMIT) as answer:
        stand = _paths(json.loads(answer.read()))
    found = {"metrics": [kind, *sorted(metrics)], "readyz": stand}
    for path in ("healthz", "nonsense"):
        try:
            with urllib.request.urlopen(f"{url}/{path}", timeout=LIMIT) as answer:
                found[f"/{path}"] = [str(answer.status), answer.read().decode()]
        except urllib.error.HTTPError as error:
            found[f"/{path}"] = [str(error.code)]
            error.close()
    return found


def _keys_of_finished(folder: Path) -> Frozen:
    """The keys of the events and of the logs of a server and a worker that finish a run."""
    seen: Frozen = {}
    logs = {name: folder / f"{name}.log" for name in ("server", "worker")}
    logged = {name: ["--log-format=json", "--log-level=info", "--log-file", str(logs[name])] for name in logs}
    linear = ["--strategy=linear", "--coupling=none", "--rounds=2", "--workers=1"]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            _started("server", "--listen=127.0.0.1:0", "--data", DATA, *linear, *logged["server"])
        )
        address = _follow(server, seen, "server", "listening")
        joined = ["--connect", f"{address['host']}:{address['port']}", "--data", DATA, "--name=a"]
        worker = stack.enter_context(_started("worker", *joined, *logged["worker"]))
        _drain(worker, seen, "worker")
        _drain(server, seen, "server")
    for name, log in logs.items():
        lines = [_paths(json.loads(line)) for line in log.read_text().splitlines()]
        seen[f"{name}, log"] = sorted({path for line in lines for path in line})
    return seen


@contextlib.contextmanager
def _started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "asyncdmtl", *arguments, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        # Ends the process if an event never comes.
        too_long = threading.Timer(LIMIT, process.kill)
        too_long.start()
        try:
            yield process
        finally:
            too_long.cancel()
            process.kill()


def _follow(process: subprocess.Popen[str], seen: Frozen, who: str, wanted: str | None) -> Frozen:
    """Read events, note their keys, and return the first that is `wanted`."""
    assert process.stdout is not None
    for line in process.stdout:
        event: Frozen = json.loads(line)
        name = f"{who}, {event['event']}"
        seen[name] = sorted({*seen.get(name, ()), *_paths(event)})
        if event["event"] == wanted:
            return event
    assert wanted is None, f"{who} ended without {wanted}"
    return {}


def _drain(process: subprocess.Popen[str], seen: Frozen, who: str) -> None:
    _follow(process, seen, who, None)
    process.wait(LIMIT)


def _process(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )


def _paths(value: Any, path: str = "") -> list[str]:
    """All paths of keys in a value of JSON, sorted; items of lists are `[]`."""
    if isinstance(value, dict):
        inner = [found for key, item in value.items() for found in _paths(item, f"{path}.{key}")]
        return sorted({path, *inner} - {""})
    if isinstance(value, list):
        return sorted({path, *(found for item in value for found in _paths(item, f"{path}[]"))})
    return [path]
