from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.problems import make_partitions, make_settings

from asyncdmtl.cli import worker
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.partition_file import write_partition
from asyncdmtl.errors import LinkError, PlacementError, UsageError
from asyncdmtl.learning.training import train
from asyncdmtl.worker import stream_worker
from asyncdmtl.worker.jobs import JobPlace, StreamOver

SETTINGS = make_settings()
PARTITIONS = make_partitions(4, "squared")
SPEC = "synthetic:tasks=2,rows=4,features=3,parts=2"


class Double:
    """A worker that trains at once, without a server."""

    made: Double
    settings = SETTINGS
    critical_strength: float | None = None

    def __init__(self, options: Any, stored: Any, security: Any, jobs: Any = None) -> None:
        self.options, self.security = options, security
        # A stream's jobs share the rows that others have prepared.
        self.stored = list(getattr(stored, "stored", stored))
        self.trained_with = Encoding.empty(), self.settings
        self.state = SimpleNamespace(critical_strength=self.critical_strength, settings=self.settings)
        Double.made = self

    async def run(self, host: str, port: int) -> Any:
        self.address = host, port
        return train(PARTITIONS, self.settings).models


@pytest.fixture(autouse=True)
def _without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_worker, "Worker", Double)


def run(*words: str) -> Result:
    return CliRunner().invoke(worker.main, ["--name", "w0", "--data", SPEC, *words])


def test_options_reach_the_worker() -> None:
    done = run(
        "--connect", "127.0.0.1:5000", "--max-wait=1", "--start-timeout=2", "--round-timeout=3",
        "--silence-timeout=4", "--interface", "lo",
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    options = Double.made.options
    assert (options.name, options.max_wait, options.start_timeout) == ("w0", 1.0, 2.0)
    assert (options.round_timeout, options.silence_timeout, options.interface) == (3.0, 4.0, "lo")
    assert Double.made.address == ("127.0.0.1", 5000)
    assert done.stdout == "worker w0: done, models of 2 tasks\n"
    assert (options.test_fraction, options.least_rows, options.wants) == (None, 1, "")


def test_coefficients_that_are_all_0_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Double, "settings", make_settings(coupling="l21", strength=1e6))
    monkeypatch.setattr(Double, "critical_strength", 2.5)
    assert "All coefficients are 0" in run().stdout
    assert "λ = 2.5" in run().stdout
    assert json.loads(run("--json").stdout)["critical_strength"] == 2.5


def test_models_of_jobs_have_the_names_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("t,x,y\na,1,2\na,2,4\nb,5,1\nb,6,2\n")
    failed: dict[str, Any] = {}
    loaded = []

    class Streaming(Double):
        async def run(self, host: str, port: int) -> Any:
            if self.options.place.run == "run1":
                loaded.append([part.id for part in self.stored])
                return await super().run(host, port)
            await self.jobs._take_part(JobPlace("run1", "first", "x"))
            raise StreamOver(1, failed)

        def __init__(self, options: Any, stored: Any, security: Any, jobs: Any = None) -> None:
            super().__init__(options, stored, security)
            self.jobs = jobs

    monkeypatch.setattr(stream_worker, "Worker", Streaming)
    words = ["--name=w0", f"--data={tmp_path / 'a.csv'}", "--task=t", "--target=y"]
    words += ["--save", str(tmp_path / "m.npz")]
    done = CliRunner().invoke(worker.main, words)
    assert done.exit_code == 0, done.exception
    assert done.stdout == "worker w0: done, 1 job\n"
    assert loaded == [["a/a", "a/b"]]
    assert SavedModel.load(tmp_path / "m-first.npz").models.tasks == ("t0", "t1")
    failed["second"] = LinkError("lost", peer="server")
    done = CliRunner().invoke(worker.main, [*words, "--json"])
    event = {"event": "finished", "worker": "w0", "jobs": 1, "failed": ["second"]}
    assert json.loads(done.stdout) == event
    assert done.exception is failed["second"]


def test_a_worker_that_wants_no_models_has_none_to_save(tmp_path: Path) -> None:
    done = run("--wants=none")
    assert Double.made.options.wants == "none"
    assert done.stdout == "worker w0: done, has helped\n"
    with pytest.raises(UsageError, match="--save cannot be given with --wants none"):
        raise run("--wants=none", "--save", str(tmp_path / "m.npz")).exception or AssertionError


def test_files_of_a_worker_keep_rows_for_tests_and_may_be_too_few(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t,x,y\na,1,2\na,2,4\nb,5,1\n")
    words = ["--task=t", "--target=y", "--test-fraction=0.25", "--least-rows=3"]
    done = CliRunner().invoke(worker.main, ["--name", "w0", "--data", str(tmp_path / "a.csv"), *words])
    assert done.exit_code == 0, done.exception
    options = Double.made.options
    assert (options.test_fraction, options.least_rows) == (0.25, 3)
    assert [part.rows for part in Double.made.stored] == [2, 1]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["p0", "p1", "p2", "p3"]),
        (["--partitions", "p1,p3,"], ["p1", "p3"]),
        (["--placement", "placement.toml"], ["p0", "p2"]),
    ],
)
def test_a_worker_stores_what_the_options_say(words: list[str], names: list[str], tmp_path: Path) -> None:
    (tmp_path / "placement.toml").write_text('[workers]\nw0 = ["p0", "p2"]\nw1 = ["p1", "p3"]\n')
    done = run(*(str(tmp_path / word) if word.endswith(".toml") else word for word in words))
    assert done.exit_code == 0, done.exception
    assert [part.id for part in Double.made.stored] == names


def test_partitions_come_from_files_that_a_run_wrote(tmp_path: Path) -> None:
    with (tmp_path / "p2.npz").open("wb") as file:
        write_partition(PARTITIONS[2], file)
    assert run("--partition-file", str(tmp_path / "p2.npz")).exit_code == 0
    (stored,) = Double.made.stored
    assert stored.id == "p2"
    assert (stored.X == PARTITIONS[2].X).all()


def test_models_are_saved_and_told(tmp_path: Path) -> None:
    file = tmp_path / "models.npz"
    done = run("--save", str(file), "--json")
    assert json.loads(done.stdout) == {"event": "finished", "worker": "w0", "models": str(file)}
    assert SavedModel.load(file).models.tasks == ("t0", "t1")
    assert run("--save", str(file)).stdout == f"worker w0: done, models of 2 tasks in {file}\n"
    assert json.loads(run("--json").stdout)["models"] is None


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--connect", "nowhere"], UsageError, "--connect must be HOST:PORT"),
        (["--connect", "10.1.2.3:7700"], UsageError, "insecure"),
        (
            ["--partitions=p0", "--placement=p.toml"],
            UsageError,
            "--partitions and --placement cannot",
        ),
        (["--placement", "absent.toml"], PlacementError, "must be readable"),
        (["--partitions=p9"], UsageError, "unknown"),
        (["--max-wait=-1"], UsageError, "--max-wait must lie between 0 and"),
        (["--save", "no/such/folder/m.npz"], UsageError, "--save must be in a directory that exists"),
    ],
)
def test_bad_input_is_named(words: list[str], error: type[Exception], message: str) -> None:
    done = run(*words)
    assert isinstance(done.exception, error)
    assert message in str(done.exception)


def test_a_placement_must_have_this_worker(tmp_path: Path) -> None:
    (tmp_path / "placement.toml").write_text('[workers]\na = ["p0"]\nb = ["p0"]\n')
    done = run("--placement", str(tmp_path / "placement.toml"))
    assert str(done.exception).startswith("--name must be a worker of ")
    assert str(done.exception).endswith("(a, b), got 'w0'")


def test_a_server_that_is_lost_is_the_commands_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lose(self: Double, host: str, port: int) -> Any:
        raise LinkError("the server is gone", peer="server")

    monkeypatch.setattr(Double, "run", lose)
    assert isinstance(run().exception, LinkError)
