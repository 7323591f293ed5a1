from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from asyncdmtl.cli import run as command
from asyncdmtl.cli import run_jobs
from asyncdmtl.data import loading
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.stored import Stored
from asyncdmtl.errors import UsageError
from asyncdmtl.launch.threads import TakePart
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.net.authentication import WorkerSecurity
from asyncdmtl.net.credentials import find_group_secret
from asyncdmtl.plan.placement import Placement
from asyncdmtl.worker.jobs import JobPlace, StreamOver
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.stream_worker import stream_worker
from asyncdmtl.worker.worker import Worker

SPEC = "synthetic:tasks=2,rows=6,features=3,parts=2"
JOBS = '[[jobs]]\nname = "a"\nrounds = 3\n[[jobs]]\nname = "b"\nstrategy = "central"\nrounds = 2\n'


def worker_here(name: str, words: Sequence[str], models: Path, wants: str, *, stream: bool) -> TakePart:
    """A worker in this process instead of one in its own."""
    assert stream
    names = Placement.read(Path(words[words.index("--placement") + 1])).as_dict()[name]
    blind = "--group-secret-file" in words
    secret_file = Path(words[words.index("--group-secret-file") + 1]) if blind else None
    group_secret = find_group_secret(secret_file)

    def load(target: str) -> Sequence[Stored]:
        return loading.load_stored({"data": SPEC, "seed": 0}, names)

    def save(place: JobPlace, worker: Worker, made: TaskModels) -> None:
        file = models.with_name(f"{models.stem}-{place.job}.npz")
        encoding, settings = worker.trained_with
        # The server of a blind run does not know what was chosen.
        SavedModel(made, encoding, worker.state.settings if blind else settings, "task").save(file)

    async def take_part(host: str, port: int, secret: bytes) -> None:
        options = WorkerOptions(name, group_secret=group_secret)
        worker = stream_worker(options, load, WorkerSecurity(secret), [(host, port)], save)
        with pytest.raises(StreamOver):
            await worker.run(host, port)

    return take_part


@pytest.fixture(autouse=True)
def _without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_jobs, "worker_process", worker_here)


def run(folder: Path, jobs: str, *words: str) -> Result:
    (folder / "jobs.toml").write_text(jobs)
    options = ["--data", SPEC, "--workers=2", "--copies=2", "--jobs", str(folder / "jobs.toml")]
    return CliRunner().invoke(command.main, [*options, *words])


def test_each_job_has_its_report_and_its_models(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = run(tmp_path, JOBS, "--save", str(tmp_path / "m.npz"), "--report", str(report), "--json")
    assert done.exit_code == 0, done.exception
    events: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(event["job"], len(event["report"]["rounds"])) for event in events] == [("a", 3), ("b", 2)]
    assert [event["report"]["models_spread"] for event in events] == [0.0, 0.0]
    assert [job["job"] for job in json.loads(report.read_text())["jobs"]] == ["a", "b"]
    assert SavedModel.load(tmp_path / "m-b.npz").models.tasks == ("task 0", "task 1")


def test_the_server_of_each_job_may_be_blind(tmp_path: Path) -> None:
    jobs = JOBS.replace("central", "uncoded")
    done = run(tmp_path, jobs, "--blind", "--save", str(tmp_path / "m.npz"), "--json")
    assert done.exit_code == 0, done.exception
    reports = [json.loads(line)["report"] for line in done.stdout.splitlines()]
    # The server has not read any loss.
    assert [[entry["objective"] for entry in report["rounds"]] for report in reports] == [
        [None] * 3,
        [None] * 2,
    ]
    assert [report["strategy"] for report in reports] == ["relay", "uncoded"]
    seen = run(tmp_path, JOBS, "--save", str(tmp_path / "s.npz"))
    assert seen.exit_code == 0, seen.exception
    models = [SavedModel.load(tmp_path / f"{kind}-a.npz").models.coef_.tobytes() for kind in "ms"]
    assert models[0] == models[1]
    with pytest.raises(UsageError, match=r"job 'b': --blind is for strategies whose server decodes nothing"):
        raise run(tmp_path, JOBS, "--blind").exception or AssertionError


def test_a_blind_job_may_choose_its_strength(tmp_path: Path) -> None:
    jobs = '[[jobs]]\nname = "a"\nupdate = "statistics"\ncoupling = "ridge"\nstrength = "auto"\n'
    done = run(tmp_path, jobs, "--blind", "--save", str(tmp_path / "m.npz"))
    assert done.exit_code == 0, done.exception
    settings = SavedModel.load(tmp_path / "m-a.npz").settings
    assert settings is not None
    assert settings.strength is not None


def test_what_is_wrong_with_a_job_is_told_before_work_begins(tmp_path: Path) -> None:
    bad = run(tmp_path, JOBS + '[[jobs]]\nname = "c"\nrounds = 0\n')
    assert isinstance(bad.exception, UsageError)
    assert "job 'c'" in str(bad.exception)
    with pytest.raises(UsageError, match="--downlink is for a run of its own"):
        raise run(tmp_path, JOBS, "--downlink=multicast").exception or AssertionError
