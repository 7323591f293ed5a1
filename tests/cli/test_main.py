"""The commands as users run them: real processes, real TCP."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from asyncdmtl._version import __version__
from asyncdmtl.cli import main
from asyncdmtl.data import recipes
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.training import train
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan

LIMIT = 90
SPEC = "synthetic:tasks=3,rows=12,features=40,parts=2,test_rows=20"
HETEROGENEOUS = """
[workers]
big = ["p0", "p1", "p2", "p3", "p4"]
mid = ["p0", "p3", "p5"]
small = ["p5"]
"""


def asyncdmtl(
    *arguments: str, module: str = "asyncdmtl", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**os.environ, **environment},
        check=False,
    )


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def own_processes() -> Iterator[tuple[int, list[str]]]:
    """Process id and command line of the asyncdmtl processes that this test session has started."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode().split("\0")
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if "-m asyncdmtl" in " ".join(command) and f"PYTEST_RUN={os.getpid()}".encode() in environment:
            yield int(entry.name), command


def leftovers() -> list[str]:
    """Command lines of `own_processes`."""
    return [" ".join(command) for _, command in own_processes()]


@pytest.fixture(autouse=True)
def _nothing_is_left_running(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTEST_RUN", str(os.getpid()))
    yield
    assert leftovers() == []


def settings_of(report: dict[str, Any]) -> Settings:
    return Settings.from_dict(report["settings"])


@pytest.mark.parametrize(
    ("strategy", "heterogeneous"), [*((strategy, True) for strategy in STRATEGIES), ("relay", False)]
)
def test_a_run_equals_its_twin_and_its_plan(tmp_path: Path, strategy: Any, heterogeneous: bool) -> None:
    (tmp_path / "placement.toml").write_text(HETEROGENEOUS)
    placed = (
        ["--placement", str(tmp_path / "placement.toml")] if heterogeneous else ["--workers=3", "--copies=2"]
    )
    placement = Placement.read(tmp_path / "placement.toml") if heterogeneous else Placement.cyclic(3, 6, 2)
    done = asyncdmtl(
        "run", "--data", SPEC, *placed, "--strategy", strategy, "--rounds=5", "--dtype=float64", "--seed=3",
        "--save", str(tmp_path / "models.npz"), "--format=json",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)["report"]
    twin = train(recipes.load(SPEC, seed=3).partitions, settings_of(report))
    models = SavedModel.load(tmp_path / "models.npz").models
    assert models.coef_.tobytes() == twin.models.coef_.tobytes()
    assert models.tasks == twin.models.tasks
    plan = make_plan(placement, strategy, tasks=[0, 0, 1, 1, 2, 2])
    assert Fraction(report["uplink"]["measured_load"]) == plan.uplink_load
    assert Fraction(report["downlink_broadcast"]["measured_load"]) == plan.downlink_load
    assert Fraction(report["downlink_wire"]["measured_load"]) == plan.wire_downlink_load
    assert report["uplink"]["bound"] == str(plan.uplink_bound)
    assert report["kernel_ledger_difference"] == {"up": 0, "down": 0}


def test_any_worker_name_will_do(tmp_path: Path) -> None:
    names = ["server", "1\N{SUPERSCRIPT TWO}", "1", "01", "--help"]
    stored = "".join(f'"{name}" = ["p0", "p1", "p2", "p3", "p4", "p5"]\n' for name in names)
    (tmp_path / "p.toml").write_text(f"[workers]\n{stored}")
    done = asyncdmtl("run", "--data", SPEC, "--placement", str(tmp_path / "p.toml"), "--rounds=2", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["report"]["workers"] == 5


def test_short_vectors_are_compared_with_what_uncoded_really_sends() -> None:
    done = asyncdmtl(
        "run", "--data=synthetic:tasks=6,parts=1,features=1,rank=1", "--workers=6", "--copies=3",
        "--rounds=2", "--update=gradient",
    )  # fmt: skip
    assert "48 B" in done.stdout
    assert "Uplink costs 200% more than uncoded" in " ".join(done.stdout.split())


def test_what_a_person_sees(tmp_path: Path) -> None:
    report, plot = tmp_path / "report.json", tmp_path / "plot.png"
    done = asyncdmtl(
        "run",
        "--data",
        SPEC,
        "--workers=3",
        "--copies=2",
        "--rounds=3",
        "--update=gradient",
        "--report",
        str(report),
        "--plot",
        str(plot),
    )
    assert (done.returncode, done.stderr) == (0, "")
    for word in (
        "task 0",
        "mean",
        "single-task",
        "uplink",
        "lower",
        "bound",
        "uncoded",
        "3 rounds in",
        "RMSE",
    ):
        assert word in done.stdout
    content = json.loads(report.read_text())
    assert content["metrics"]["mean"].keys() == {"coupled", "single_task", "pooled"}
    assert content["learning_curve"][-1]["rounds"] == 3
    assert len(content["rounds"]) == 3
    assert plot.read_bytes().startswith(b"\x89PNG")


def listening_server(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    server = start("asyncdmtl.server", "--listen=127.0.0.1:0", "--format=json", *arguments)
    assert server.stdout is not None
    event = json.loads(server.stdout.readline())
    assert event["event"] == "listening"
    return server, f"{event['host']}:{event['port']}"


def test_server_and_workers_by_hand(tmp_path: Path) -> None:
    placement = tmp_path / "placement.toml"
    placement.write_text(HETEROGENEOUS)
    server, address = listening_server(
        "--data", SPEC, "--rounds=2", "--update=gradient", "--cover", str(placement), "--workers=3"
    )
    workers = [
        start(
            "asyncdmtl.worker", "--connect", address, "--name", name, "--data", SPEC,
            "--placement", str(placement), "--save", str(tmp_path / f"{name}.npz"),
        )
        for name in ("big", "mid", "small")
    ]  # fmt: skip
    for worker in workers:
        out, err = worker.communicate(timeout=LIMIT)
        assert (worker.returncode, err) == (0, "")
        assert "done, models of 3 tasks" in out
    out, err = server.communicate(timeout=LIMIT)
    assert (server.returncode, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == [*["joined"] * 3, "planned", "round", "round", "finished"]
    saved = {(tmp_path / f"{name}.npz").read_bytes() for name in ("big", "mid", "small")}
    assert len(saved) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_all_processes(number: int, code: int) -> None:
    run = start(
        "asyncdmtl",
        "run",
        "--data",
        SPEC,
        "--update=gradient",
        "--workers=3",
        "--copies=2",
        "--rounds=1000000",
        "--log-level=info",
    )
    assert run.stderr is not None
    for line in run.stderr:
        if "round 5:" in line:
            break
    assert len(leftovers()) == 4
    run.send_signal(number)
    out, _ = run.communicate(timeout=LIMIT)
    assert run.returncode == code
    assert "Traceback" not in out


def kill_in_round_five(run: subprocess.Popen[str], name: str) -> None:
    assert run.stderr is not None
    for line in run.stderr:
        if "round 5:" in line:
            break
    for pid, command in own_processes():
        if "asyncdmtl.worker" in command and name in command:
            os.kill(pid, signal.SIGKILL)


def test_a_run_goes_on_without_a_killed_worker(tmp_path: Path) -> None:
    run = start(
        "asyncdmtl", "run", "--data", SPEC, "--workers=3", "--copies=2", "--rounds=300", "--update=gradient",
        "--coupling=ridge", "--strength=0.1", "--tolerance=0", "--log-level=info",
        "--report", str(tmp_path / "report.json"), "--save", str(tmp_path / "models.npz"),
    )  # fmt: skip
    kill_in_round_five(run, "w1")
    out, err = run.communicate(timeout=LIMIT)
    assert run.returncode == 0, err
    assert "worker w1: the connection to worker 'w1'" in " ".join(out.split())
    report = json.loads((tmp_path / "report.json").read_text())
    assert [incident["worker"] for incident in report["incidents"]] == ["w1"]
    twin = train(recipes.load(SPEC, seed=0).partitions, settings_of(report))
    assert SavedModel.load(tmp_path / "models.npz").models.coef_.tobytes() == twin.models.coef_.tobytes()


def test_a_run_goes_on_without_a_frozen_worker() -> None:
    server, address = listening_server(
        "--data", SPEC, "--rounds=1000000", "--update=gradient", "--workers=2", "--silence-timeout=1"
    )
    workers = [
        start("asyncdmtl.worker", "--connect", address, "--name", name, "--data", SPEC) for name in "ab"
    ]
    try:
        assert server.stdout is not None
        events = (json.loads(line) for line in server.stdout)
        assert any(event["event"] == "round" and event["round"] == 5 for event in events)
        workers[1].send_signal(signal.SIGSTOP)
        incident = next(event for event in events if event["event"] == "incident")
        assert incident["worker"] == "b"
        assert "nothing was heard from worker 'b'" in incident["reason"]
        assert any(event["event"] == "round" and event["round"] > incident["round"] for event in events)
    finally:
        workers[1].kill()
        server.terminate()
        for process in (server, *workers):
            process.communicate(timeout=LIMIT)


def test_a_killed_worker_whose_partitions_nobody_else_holds_ends_a_run() -> None:
    run = start(
        "asyncdmtl",
        "run",
        "--data",
        SPEC,
        "--update=gradient",
        "--workers=3",
        "--copies=1",
        "--rounds=1000000",
        "--log-level=info",
    )
    kill_in_round_five(run, "w1")
    _, err = run.communicate(timeout=LIMIT)
    assert run.returncode == 3
    assert re.search(r"error: nobody is left who holds the partitions \['p1', 'p4'\]: worker 'w1' held", err)
    assert "Traceback" not in err


def test_processes_end_with_the_one_that_started_them() -> None:
    run = start(
        "asyncdmtl",
        "run",
        "--data",
        SPEC,
        "--update=gradient",
        "--workers=3",
        "--copies=2",
        "--rounds=1000000",
        "--log-level=info",
    )
    assert run.stderr is not None
    for line in run.stderr:
        if "round 5:" in line:
            break
    run.kill()
    # The pipes close when the last of the children has ended.
    run.communicate(timeout=LIMIT)


def one_line_error(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The message of a failed command, which must be one line, without traceback or output on stdout."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith(("error: ", "Error: "))]
    assert len(lines) == 1, done.stderr
    return lines[0]


BROKEN = {
    "unparsable.toml": "[workers",
    "missing.toml": '[workers]\na = ["p0"]\n',
    "config.toml": "[run]\nround = 3\n",
    "list.toml": "[run]\nrounds = [1, 2]\n",
    "half.toml": "[run]\nrounds = 2.5\n",
    "table.toml": "[runn]\nrounds = 2\n",
}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--data", "nonsense"], "data must be one of"),
        (["--data", "synthetic:tasks=none"], "tasks must be a whole number"),
        (["--placement", "missing.toml"], "must store the partitions"),
        (["--placement", "unparsable.toml"], "must be TOML or JSON"),
        (["--placement", "absent.toml"], "must be readable"),
        (["--placement", "missing.toml", "--workers=3"], "cannot be given with --workers"),
        (["--copies=9"], "copies must lie between 1 and the number of workers (5), got 9"),
        (["--workers=0"], "workers"),
        (["--rounds=0"], "rounds must be a whole number, at least 1, got 0"),
        (["--strength=-1"], "strength must be"),
        (["--strategy=magic"], "--strategy"),
        (["--report", "no/such/folder/report.json"], "--report must be in a directory that exists"),
        (["--plot", "picture.nonsense"], "--plot must end in one of"),
        (["--report", "/tmp"], "--report must be a writable file"),
        (["--seed", "18446744073709551616"], "seed must be at most 2**53"),
        (["--config", "config.toml"], "may set only"),
        (["--config", "list.toml"], "[run] rounds must be text or a number, got [1, 2]"),
        (["--config", "half.toml"], "2.5"),
        (["--config", "table.toml"], "unknown, got ['runn']"),
        (["--config", "absent.toml"], "--config must be readable"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_to_run(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    for name, text in BROKEN.items():
        (tmp_path / name).write_text(text)
    inside = [str(tmp_path / word) if word.endswith(".toml") else word for word in arguments]
    assert complaint in one_line_error(asyncdmtl("run", *inside), 2)


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--connect=127.0.0.1", "--name=a"], 2, "--connect must be HOST:PORT"),
        (["--connect=127.0.0.1:1", "--name=a", "--max-wait=0"], 3, "cannot reach a server at 127.0.0.1:1"),
        (["--name=a", "--partitions=p99"], 2, "unknown"),
        (["--connect=127.0.0.1:1"], 2, "--name"),
    ],
)
def test_bad_input_to_a_worker(arguments: list[str], code: int, complaint: str) -> None:
    assert complaint in one_line_error(asyncdmtl(*arguments, "--data", SPEC, module="asyncdmtl.worker"), code)


def test_bad_input_to_a_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = asyncdmtl("--listen", address, "--data", SPEC, module="asyncdmtl.server")
    assert f"cannot listen on {address}: address already in use" in one_line_error(done, 3)
    done = asyncdmtl("--listen=0.0.0.0:0", "--data", SPEC, module="asyncdmtl.server")
    assert "unless --insecure" in one_line_error(done, 2)
    done = asyncdmtl("--listen=127.0.0.1:0", "--join-timeout=0.1", "--data", SPEC, module="asyncdmtl.server")
    assert done.returncode == 5
    assert "--join-timeout" in done.stderr


def test_a_worker_with_other_data_is_refused() -> None:
    server, address = listening_server("--data", SPEC, "--rounds=2", "--workers=2")
    first = start("asyncdmtl.worker", "--connect", address, "--name=a", "--data", SPEC)
    assert server.stdout is not None
    assert json.loads(server.stdout.readline())["event"] == "joined"
    done = asyncdmtl("--connect", address, "--name=b", "--data", SPEC, "--seed=1", module="asyncdmtl.worker")
    assert "must be the same data as at a" in one_line_error(done, 2)
    # Two workers were asked for, and nobody can tell which of two holds the right rows.
    ended = [process.communicate(timeout=LIMIT)[1] for process in (first, server)]
    assert [process.returncode for process in (first, server)] == [2, 2]
    assert "must be the same data as at a" in ended[0]


def test_command_line_over_file_over_environment_over_default(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(f'[run]\ndata = "{SPEC}"\nworkers = 2\ncopies = 1\nrounds = 2\ndtype = "float64"\n')
    done = asyncdmtl(
        "run", "--config", str(config), "--rounds=3", "--format=json",
        ASYNCDMTL_DTYPE="float32", ASYNCDMTL_AGGREGATE="median",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    settings = json.loads(done.stdout)["report"]["settings"]
    assert (settings["rounds"], settings["dtype"], settings["aggregate"]) == (3, "float64", "median")


def test_a_command_tells_what_all_settings_come_to(tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text("[run]\nrounds = 7\nstrength = 0.5\n")
    shown = CliRunner().invoke(
        main.main,
        ["run", "--config", str(config), "--strength=0.25", "--show-config"],
        env={"ASYNCDMTL_SEED": "3"},
    )
    assert shown.exit_code == 0
    content = json.loads(shown.stdout)
    assert (content["rounds"], content["strength"], content["seed"], content["strategy"]) == (
        7,
        0.25,
        3,
        None,
    )


@pytest.mark.parametrize("command", [[], ["run"], ["plan"], ["place"], ["server"], ["worker"]], ids=" ".join)
def test_help_and_version(command: list[str]) -> None:
    for option in ("-h", "--help"):
        shown = CliRunner().invoke(main.main, [*command, option])
        assert shown.exit_code == 0
        assert "Usage:" in shown.stdout
    for option in ("-V", "--version"):
        shown = CliRunner().invoke(main.main, [*command, option])
        assert shown.stdout.split() == ["asyncdmtl,", "version", __version__]


def test_the_help_of_the_group_shows_the_first_words_of_every_command() -> None:
    context = click.Context(main.main)
    for name, text in main.COMMANDS.items():
        command = main.main.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(1000) == click.Command(name, help=text).get_short_help_str(1000)
    assert main.main.get_command(context, "nonsense") is None


def test_sites_write_the_placement_that_is_there(tmp_path: Path) -> None:
    there = tmp_path / "there.toml"
    for site, wards in {"north": "ab", "south": "bc"}.items():
        rows = [f"{ward},{n},{n * 2}" for n in range(4) for ward in wards]
        (tmp_path / f"{site}.csv").write_text("\n".join(["ward,age,score", *rows]))
        words = [
            "worker",
            "--name",
            site,
            "--data",
            str(tmp_path / f"{site}.csv"),
            "--task=ward",
            "--target=score",
        ]
        done = CliRunner().invoke(main.main, [*words, "--declare", str(there)])
        assert (done.exit_code, done.exception) == (0, None), done.output
    placement = Placement.read(there).as_dict()
    assert list(placement) == ["north", "south"]
    assert [len(stored) for stored in placement.values()] == [2, 2]
    assert CliRunner().invoke(main.main, ["plan", str(there)]).exit_code == 0
