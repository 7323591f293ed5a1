from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from asyncdmtl.cli import launch, server, worker
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import PlacementError, UsageError

SPEC = "synthetic:tasks=2,rows=8,features=3,parts=2"
RANKS = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "4", "OMPI_MCA_ess_base_jobid": "5"}
SECURE = ("--secret-file=s", "--tls-cert=c.pem", "--tls-key=c.key", "--tls-ca=ca.pem")


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The values with which the commands of the two roles are called instead of working."""
    calls: list[dict[str, Any]] = []
    for module in (server, worker):
        monkeypatch.setattr(module.main, "callback", lambda **values: calls.append(values))
    return calls


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM", "OMPI_", "PMI")):
            monkeypatch.delenv(name)


def rank(number: int, *words: str, **more: str) -> Result:
    environment = {**RANKS, "OMPI_COMM_WORLD_RANK": str(number), **more}
    return CliRunner(env=environment).invoke(launch.main, list(words))


def test_rank_0_is_the_server_and_the_others_are_workers(called: list[dict[str, Any]]) -> None:
    words = (
        "--data", SPEC, "--copies=2", "--rounds=7", "--plain", "--insecure", "--max-wait=5", "--save=m.npz",
        "--test-fraction=0.5", "--log-file={name}.log",
    )  # fmt: skip
    for number in range(3):
        assert rank(number, *words).exit_code == 0
    told, first, second = called
    assert (told["recipe"], told["workers"], told["rounds"], told["accelerated"]) == (SPEC, 3, 7, False)
    assert (told["insecure"], told["test_fraction"], str(told["log_file"])) == (True, 0.5, "server.log")
    assert told["listen"] == first["connect"] == second["connect"]
    assert told["listen"].startswith("127.0.0.1:")
    assert (first["name"], first["share"], first["max_wait"]) == ("w0", "0/3/2", 5.0)
    assert (second["name"], second["share"], str(second["log_file"])) == ("w1", "1/3/2", "w1.log")
    assert (str(first["save"]), second["save"], first["test_fraction"]) == ("m.npz", None, None)


def test_ranks_on_several_hosts(called: list[dict[str, Any]]) -> None:
    here = {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "ASYNCDMTL_ADDRESS": "n1:7000"}
    for number in range(2):
        assert rank(number, "--data", SPEC, *SECURE, **here).exit_code == 0
    assert called[0]["listen"] == "0.0.0.0:7000"
    assert called[1]["connect"] == "n1:7000"
    # The certificate of --tls-cert is the server's, unless workers must show one.
    assert str(called[0]["tls_cert"]) == "c.pem"
    assert called[1]["tls_cert"] is called[1]["tls_key"] is None
    more = ("--tls-client-ca=ca.pem", "--tls-cert={name}.pem", "--address=[fd00::1]")
    for number in range(2):
        assert rank(number, "--data", SPEC, *SECURE, *more, **here).exit_code == 0
    assert called[2]["listen"].startswith("[::]:")
    assert called[3]["connect"].startswith("[fd00::1]:")
    assert [str(values["tls_cert"]) for values in called[2:]] == ["server.pem", "w0.pem"]


def test_files_are_cut_as_run_cuts_them_or_are_each_workers_own(
    tmp_path: Path, called: list[dict[str, Any]]
) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("t,x,y\n" + "".join(f"{n % 2},{n},{n % 3 / 2}\n" for n in range(12)))
    words = ("--data", str(table), "--task=t", "--target=y")
    for number in range(2):
        assert rank(number, *words).exit_code == 0
    assert (called[0]["loss"], called[0]["strength"], called[0]["coupling"]) == ("squared", "auto", "auto")
    assert called[0]["recipe"] is None
    assert (called[1]["parts"], called[1]["share"]) == (2, "0/3/3")
    own = ("--data=rows-{name}.csv", "--task=t", "--target=y", "--loss=huber", "--strength=0.5")
    for number in range(2):
        assert rank(number, *own).exit_code == 0
    assert (called[2]["loss"], called[2]["strength"], called[2]["coupling"]) == ("huber", 0.5, None)
    assert (called[3]["data"], called[3]["share"], called[3]["parts"]) == ("rows-w0.csv", None, None)
    for number in range(2):
        assert rank(number, *own, "--site={name}", "--data=rows.csv").exit_code == 0
    assert (called[5]["site"], called[5]["data"]) == ("w0", ("rows-w0.csv", "rows.csv"))


def test_a_file_of_options_has_a_table_for_this_command(tmp_path: Path, called: list[dict[str, Any]]) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f'[launch]\ndata = "{SPEC}"\ncopies = 1\nrounds = 3\nsilence-timeout = 2.5\n')
    for number in range(2):
        assert rank(number, "--config", str(file)).exit_code == 0
    assert (called[0]["rounds"], called[0]["silence_timeout"]) == (3, 2.5)
    assert (called[1]["share"], called[1]["silence_timeout"]) == ("0/3/1", 2.5)


@pytest.mark.parametrize(
    ("words", "more", "message"),
    [
        (
            ["--address=n1"],
            {},
            "--address is beyond this host, so that --insecure must be given, or TLS",
        ),
        ([], {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, "--address must be given, or ASYNCDMTL_ADDRESS be set"),
        (["--address=n1:x"], {}, "--address must be HOST:PORT"),
        (["--data={name}.csv", "--copies=2"], {}, "--copies is for data that every rank sees"),
        (["--data={name}.csv"], {}, "--loss must be given: the server sees no row"),
        (["--strategy=personal", "--save=m.npz"], {}, "--save must contain {name} with --strategy personal"),
        (["--launcher=slurm"], {}, "--launcher needs SLURM_PROCID"),
    ],
)
def test_what_is_wrong_is_named(
    words: list[str], more: dict[str, str], message: str, called: list[dict[str, Any]]
) -> None:
    done = rank(0, *words, **more)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
    assert not called


def test_too_many_copies_are_refused_by_workers() -> None:
    done = rank(1, "--data", SPEC, "--copies=4")
    assert isinstance(done.exception, PlacementError)
    assert "copies must lie between 1 and the number of workers (3), got 4" in str(done.exception)


def test_it_has_every_option_of_both_roles() -> None:
    here = {name for option in launch.main.params for name in option.opts}
    for command in (server.main, worker.main):
        options = [o for o in command.params if isinstance(o, click.Option) and not o.hidden]
        theirs = {name for option in options for name in option.opts}
        assert theirs - here <= {"--listen", "--connect", "--name", "--partitions", "--declare", "--wants"}


def test_ranks_are_processes_that_train(tmp_path: Path) -> None:
    """As srun starts them: processes that know their number from the environment alone."""
    slurm = {
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "n1",
    }  # fmt: skip
    command = [sys.executable, "-m", "asyncdmtl", "launch", "--data", SPEC, "--copies=1", "--rounds=3"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMI"))}
    ranks = [
        subprocess.Popen(
            [*command, "--save", str(tmp_path / "{name}.npz")],
            env={**kept, **slurm, "SLURM_PROCID": str(number)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    told = [process.communicate(timeout=90)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], told
    assert "1 worker, 2 tasks in 4 partitions" in told[0]
    assert SavedModel.load(tmp_path / "w0.npz").models.tasks == ("task 0", "task 1")
