from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.problems import make_settings, run_options

from asyncdmtl.cli.job_options import read_jobs, submitted_job
from asyncdmtl.errors import UsageError
from asyncdmtl.server.jobs import Job

OPTIONS = run_options(settings=make_settings(), workers=1)


def read(folder: Path, text: str, name: str = "jobs.toml") -> dict[str, tuple[Mapping[str, Any], str]]:
    """What is made of each job of a file: the values of its options, and its target."""
    made: dict[str, tuple[Mapping[str, Any], str]] = {}

    def make(name: str, values: Mapping[str, Any], target: str) -> Job:
        made[name] = values, target
        return Job(name, OPTIONS, target)

    (folder / name).write_text(text)
    jobs = read_jobs(folder / name, {"rounds": 9, "strength": 0.5, "seed": 0}, make)
    assert [job.name for job in jobs] == list(made)
    return made


def test_a_job_replaces_options_of_the_command(tmp_path: Path) -> None:
    text = """
    [[jobs]]
    name = "a"
    rounds = 3
    strength = "auto"
    accelerated = true
    [[jobs]]
    target = "dose"
    coupling = "l21"
    """
    made = read(tmp_path, text)
    assert made["a"] == ({"rounds": 3, "strength": "auto", "seed": 0, "accelerated": True}, "")
    assert made["job2"] == ({"rounds": 9, "strength": 0.5, "seed": 0, "coupling": "l21"}, "dose")
    assert read(tmp_path, '{"jobs": [{"name": "a"}]}', "jobs.json")["a"][0]["rounds"] == 9


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("jobs = 3", "must hold just `jobs`, a list of tables"),
        ("jobs = []", "must hold just `jobs`"),
        ("x = 1", "must hold just `jobs`"),
        ("jobs =", "must be TOML or JSON"),
        ('[[jobs]]\nname = "a"\nworkers = 3', "job 'a' may set only name, target, accelerated"),
        ('[[jobs]]\nname = "a"\n[[jobs]]\nname = "a"', "must have a name of its own"),
        ('[[jobs]]\nname = "a/b"', "job 'a/b': name of a job must be"),
        ('[[jobs]]\nname = "a"\nrounds = "many"', "job 'a': rounds"),
        (
            '[[jobs]]\nname = "a"\ncoupling = "loose"',
            "job 'a': coupling must be as for --coupling .'loose' is .*[^.], got 'loose'",
        ),
        ('[[jobs]]\nname = "a"\nrounds = [1]', "must be text or a number"),
        ('[[jobs]]\nname = "a"\ntarget = 3', "job 'a': target must be text"),
    ],
)
def test_bad_files_are_named(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=complaint):
        read(tmp_path, text)


def test_a_file_must_be_readable(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--jobs must be readable"):
        read_jobs(tmp_path / "none.toml", {}, lambda *_: Job("a", OPTIONS))


def test_a_submitted_job_names_no_files_of_the_server() -> None:
    def make(name: str, values: Mapping[str, Any], target: str) -> Job:
        assert values == {"rounds": 3, "seed": 0}
        return Job(name, OPTIONS, target)

    given = {"rounds": 9, "seed": 0}
    assert submitted_job({"name": "a", "rounds": 3, "target": "dose"}, given, make).target == "dose"
    with pytest.raises(UsageError, match=r"job 'a' may set only name, target, .*, got \['graph'\]"):
        submitted_job({"name": "a", "graph": "edges.csv"}, given, make)
