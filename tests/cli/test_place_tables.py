from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from asyncdmtl.cli.place import main as place
from asyncdmtl.cli.place_tables import names_tables
from asyncdmtl.cli.worker import main as worker
from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.plan.placement_file import read_request

COLUMNS = ("--task=t", "--target=y")


def invoke(command: Any, *arguments: str) -> str:
    done = CliRunner().invoke(command, arguments)
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    """Two sites with a file of their own each, and a copy of the first at the second."""
    for site, name, rows in (
        ("h0", "a", "p,1,2\np,3,4\nq,0,1\n"),
        ("h1", "a", "p,1,2\np,3,4\nq,0,1\n"),
        ("h1", "b", "q,5,6\n"),
    ):
        (tmp_path / site).mkdir(exist_ok=True)
        (tmp_path / site / f"{name}.csv").write_text(f"t,y,x\n{rows}", encoding="utf-8")
    return tmp_path


def test_the_placement_of_tables_is_what_their_workers_declare(sites: Path) -> None:
    there, declared = sites / "there.toml", sites / "declared.toml"
    files = [f"h0={sites}/h0/*.csv", f"h1={sites}/h1/a.csv", f"h1={sites}/h1/b.csv"]
    froms = [word for value in files for word in ("--from", value)]
    shown = json.loads(invoke(place, *froms, *COLUMNS, "--output", str(there), "--json"))
    for name in ("h0", "h1"):
        invoke(
            worker, "--name", name, "--data", f"{sites}/{name}/*.csv", *COLUMNS, "--declare", str(declared)
        )
    assert read_request(there) == read_request(declared)
    assert shown["placement"] == {"h0": ["a/p", "a/q"], "h1": ["a/p", "a/q", "b/q"]}
    assert shown["additions"] == []
    text = invoke(place, *froms, *COLUMNS)
    assert "2 workers, 3 partitions, 1.667 copies of each" in text
    assert "The loads of relay" in text
    assert "there is no copy to add" not in text
    assert "The next copies worth making" in invoke(place, *froms, *COLUMNS, "--add=1")


def test_files_of_one_name_must_be_copies(sites: Path) -> None:
    (sites / "h1/a.csv").write_text("t,y,x\np,9,9\n", encoding="utf-8")
    with pytest.raises(
        PlacementError, match=r"partition 'a/p' must have the same rows at h0 as at h1.*--site"
    ):
        invoke(place, f"--from=h0={sites}/h0/a.csv", f"--from=h1={sites}/h1/a.csv", *COLUMNS)


def test_a_start_is_a_file_or_tables_of_workers() -> None:
    assert not names_tables(["there.toml"])
    assert names_tables(["a=x.csv"])
    for start in (["a.toml", "b.toml"], ["a="], ["=x.csv"], ["a=x.csv", "b"]):
        with pytest.raises(UsageError, match="--from must be one placement file, or WORKER=FILES for each"):
            names_tables(start)
    with pytest.raises(UsageError, match="--task must name a column"):
        invoke(place, "--from=a=x.csv")
