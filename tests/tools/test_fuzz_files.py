"""Readers refuse damaged input with the errors that they may raise, and a planted bug is found."""

from __future__ import annotations

import argparse
import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(autouse=True)
def _tools_are_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(TOOLS)
    yield
    logging.disable(logging.NOTSET)


def given(inputs: int) -> argparse.Namespace:
    return argparse.Namespace(inputs=inputs, seconds=30.0, seed=1)


def test_each_reader_reads_its_seeds_and_refuses_some_damage() -> None:
    files: Any = importlib.import_module("fuzz_files")
    readers: Any = importlib.import_module("fuzz_readers")
    assert set(files.NAMES) == set(readers.READERS) == set(readers.PERMITTED)
    for reader in files.NAMES:
        kept = sorted((files.CORPUS / reader).iterdir())
        assert [file.read_bytes() for file in kept] == readers.seeds(reader)
        valid = [not readers.refused(reader, file.read_bytes()) for file in kept]
        # Facts of a checkpoint that are an empty map are the one seed that is not valid.
        assert valid.count(False) == (reader == "checkpoint")
        assert files.by_chance(reader, readers, given(50)) == 50


def test_a_planted_bug_is_found_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files: Any = importlib.import_module("fuzz_files")
    readers: Any = importlib.import_module("fuzz_readers")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken(data: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(readers, "READERS", {**readers.READERS, "placement": broken})
    with pytest.raises(ZeroDivisionError):
        files.by_chance("placement", readers, given(10))
    (kept,) = tmp_path.iterdir()
    assert f"BUG: fuzz_files.py placement --replay {kept}" in capsys.readouterr().out


def test_without_atheris_inputs_change_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    files: Any = importlib.import_module("fuzz_files")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert files._engine("auto") == "chance"
    with pytest.raises(SystemExit, match="atheris is not installed"):
        files._engine("atheris")
