from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.clusters import run_cluster
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.cli import server, streams
from asyncdmtl.errors import PlacementError, UsageError, WaitError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.events import Joined, Left, Listening
from asyncdmtl.server.jobs import Job, JobOutcome

PLACEMENT = Placement.cyclic(3, 6, 2)
SPEC = "synthetic:tasks=2,rows=4,features=3,parts=2"


class Double:
    """A server that emits a few events and ends with the record of a small run."""

    made: Double

    def __init__(self, options: Any, on_event: Any, security: Any) -> None:
        self.options, self.on_event, self.security = options, on_event, security
        self.ledger = None
        Double.made = self

    async def run(self, host: str, port: int) -> Any:
        self.address = host, port
        for event in (Listening("run7", "::1", 4000), Joined("w0", 2), Left("w1", "reset")):
            self.on_event(event)
        options = run_options(settings=make_settings(rounds=2), workers=3)
        record, _ = await run_cluster(options, PLACEMENT, make_partitions(6, "squared"))
        return record


@pytest.fixture(autouse=True)
def _without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "Server", Double)


class JobsDouble:
    """A stream that fails each job that is called so, and has no record of others."""

    submissions = None

    def __init__(self, options: Any, on_event: Any, on_outcome: Any, security: Any, read_job: Any) -> None:
        assert read_job is None
        self.options, self.on_outcome = options, on_outcome

    async def make_all(self, jobs: Sequence[Job], host: str, port: int) -> None:
        for job in jobs:
            self.on_outcome(JobOutcome(job, None, WaitError("late", seconds=1.0, option="--join-timeout")))


def run(*words: str) -> Result:
    return CliRunner().invoke(server.main, ["--data", SPEC, *words])


def test_options_reach_the_server(tmp_path: Path) -> None:
    done = run(
        "--listen", "127.0.0.1:0", "--workers=3", "--join-timeout=1", "--round-timeout=2",
        "--silence-timeout=3", "--rejoin-timeout=4", "--checkpoint", str(tmp_path), "--checkpoint-every=5",
        "--resume", "--strategy=central", "--rounds=7", "--strength=0.5",
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    options = Double.made.options
    assert (options.workers, options.cover, options.strategy) == (3, None, "central")
    assert (options.join_timeout, options.round_timeout) == (1.0, 2.0)
    assert (options.silence_timeout, options.rejoin_timeout) == (3.0, 4.0)
    assert (options.checkpoint, options.checkpoint_every, options.resume) == (tmp_path, 5, True)
    assert (options.settings.rounds, options.settings.strength) == (7, 0.5)
    assert Double.made.address == ("127.0.0.1", 0)


def test_rows_for_tests_are_asked_for_and_results_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "run.svg"
    assert run("--test-fraction=0.25", "--plot", str(picture)).exit_code == 0
    assert Double.made.options.settings.test_fraction == 0.25
    assert "Traffic of the run" in picture.read_text()
    with pytest.raises(UsageError, match="test_fraction must be at least 0 and below 1"):
        CliRunner().invoke(server.main, ["--data", SPEC, "--test-fraction=1"], catch_exceptions=False)
    with pytest.raises(UsageError, match="--plot"):
        CliRunner().invoke(server.main, ["--data", SPEC, "--plot=run.csv"], catch_exceptions=False)


def test_without_numbers_the_partitions_of_the_data_must_be_covered(tmp_path: Path) -> None:
    assert run().exit_code == 0
    assert Double.made.options.cover == ("p0", "p1", "p2", "p3")
    file = tmp_path / "placement.toml"
    file.write_text('[workers]\na = ["x", "y"]\n')
    assert run("--cover", str(file)).exit_code == 0
    assert Double.made.options.cover == ("x", "y")


def test_a_placement_to_cover_must_have_more_copies_than_silent_workers(tmp_path: Path) -> None:
    file = tmp_path / "placement.toml"
    file.write_text('[workers]\na = ["x", "y"]\nb = ["x"]\n')
    refused = run("--cover", str(file), "--silent", "1").exception
    assert isinstance(refused, PlacementError)
    assert refused.exit_code == 2
    rule = "silent must be smaller than the number of workers that store each partition"
    assert str(refused) == f"{rule} (y would be lost), got 1"


def test_data_in_files_need_a_loss_instead_of_a_recipe() -> None:
    words = ["--loss=logistic", "--strength=0.1", "--workers=2"]
    done = CliRunner().invoke(server.main, words)
    assert done.exit_code == 0, done.exception
    assert (Double.made.options.settings.loss, Double.made.options.cover) == ("logistic", None)


def test_json_has_a_line_for_each_event_and_for_the_report(tmp_path: Path) -> None:
    done = run("--json", "--report", str(tmp_path / "report.json"))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["listening", "joined", "left", "finished"]
    assert lines[1] == {"event": "joined", "worker": "w0", "partitions": 2, "again": False}
    assert len(lines[-1]["report"]["rounds"]) == 2
    assert json.loads((tmp_path / "report.json").read_text()) == lines[-1]["report"]
    assert done.stderr == ""


def test_a_person_is_told_where_to_connect_and_who_joined() -> None:
    done = run()
    assert done.stderr == "run run7: listening on [::1]:4000\nworker w0 joined with 2 partitions\n"
    assert "2 rounds in" in " ".join(done.stdout.split())


def test_a_log_of_json_is_not_mixed_with_words() -> None:
    assert run("--log-format=json").stderr == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--listen", "nowhere"], "--listen must be HOST:PORT"),
        (["--listen", "0.0.0.0:0"], "insecure"),
        (["--health", "nowhere"], "--health must be HOST:PORT"),
        (["--health", "0.0.0.0:0"], "--health must be a loopback address unless --insecure is given"),
        (["--workers=0"], "--workers must be at least 1, got 0"),
        (["--resume"], "--resume needs --checkpoint"),
        (["--report", "no/such/folder/r.json"], "--report must be in a directory that exists"),
    ],
)
def test_bad_input_is_named(words: list[str], message: str) -> None:
    done = run(*words)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_jobs_of_a_file_are_made_as_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "JobServer", JobsDouble)
    file, report = tmp_path / "jobs.toml", tmp_path / "report.json"
    file.write_text('[[jobs]]\nname = "a"\nrounds = 7\n[[jobs]]\nstrategy = "central"\n')
    done = run("--workers=3", "--jobs", str(file), "--report", str(report), "--json")
    assert "2 of 2 jobs failed (a, job2); the first: " in str(done.exception)
    assert getattr(done.exception, "exit_code", None) == 5
    assert [json.loads(line)["job"] for line in done.stdout.splitlines()] == ["a", "job2"]
    assert [job["exit_code"] for job in json.loads(report.read_text())["jobs"]] == [5, 5]


@pytest.mark.parametrize(
    "words", [["--plot", "a.png"], ["--health", "127.0.0.1:0"], ["--checkpoint", "."], ["--mlflow", "a"]]
)
def test_what_is_for_one_run_is_not_for_a_stream(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text('[[jobs]]\nname = "a"\n')
    with pytest.raises(UsageError, match=f"{words[0]} is for a run of its own"):
        raise run("--workers=3", "--jobs", str(tmp_path / "jobs.toml"), *words).exception or AssertionError
