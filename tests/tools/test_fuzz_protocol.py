"""The fuzzer runs, finds no bug in the code, and finds planted bugs."""

from __future__ import annotations

import copy
import importlib
import logging
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from asyncdmtl.protocol import fields
from asyncdmtl.protocol.frame_reader import FrameReader
from asyncdmtl.protocol.session import Session
from asyncdmtl.protocol.state_table import State

pytestmark = pytest.mark.slow

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(autouse=True)
def _tools_are_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(TOOLS)
    yield
    logging.disable(logging.NOTSET)


def fuzzer() -> Any:
    return importlib.import_module("fuzz_protocol")


def test_no_input_does_what_it_must_not(capsys: pytest.CaptureFixture[str]) -> None:
    fuzz = fuzzer()
    books = fuzz.Fuzzer(seed=1)
    fuzz.by_chance(books, inputs=4000, seconds=60.0)
    assert books.count == 4000
    for target in fuzz.PERMITTED:
        for outcome in ("accepted", "refused"):
            # A bomb is never a valid message.
            if (target, outcome) != ("bomb", "accepted"):
                assert books.outcomes[target, outcome] > 0, f"no input of {target} was {outcome}"
    assert len(books.reasons) > 200
    assert "4000 inputs" in books.summary()


def _long_category(inputs: Any) -> tuple[str, Any]:
    survey = copy.deepcopy(inputs.DECLARATIONS[0].survey)
    survey["columns"][1][1]["values"].append("9" * 5000)
    return "survey", survey


FOUND: list[Callable[[Any], tuple[str, Any]]] = [
    lambda inputs: ("plan", inputs.LINEAR | {"bounds": ["1e999999999", "2"]}),
    lambda inputs: ("plan", inputs.LINEAR | {"downlink": [math.inf, inputs.LINEAR["downlink"][1]]}),
    _long_category,
]


@pytest.mark.parametrize("found", FOUND)
def test_what_was_found_once(found: Callable[[Any], tuple[str, Any]]) -> None:
    fuzz = fuzzer()
    name, value = found(fuzz.fuzz_inputs)
    data = b"v" + bytes([fuzz.fuzz_inputs.READERS.index(name)]) + msgpack.packb(value)
    assert fuzz.Fuzzer(0).run(data) == ("accepted" if name == "survey" else "refused")


class _PlantedError(Exception):
    """Found a planted bug."""


def hunt(monkeypatch: pytest.MonkeyPatch, inputs: int = 3000) -> str:
    """The message of the first bug that is found; the test fails if there is none."""
    fuzz = fuzzer()

    def found(books: Any, data: bytes, error: Exception) -> None:
        # The input that is printed for --replay reproduces the bug.
        with pytest.raises(fuzz.BugError):
            fuzz.Fuzzer(0).run(bytes.fromhex(data.hex()))
        raise _PlantedError(str(error))

    monkeypatch.setattr(fuzz.Fuzzer, "bug", found)
    with pytest.raises(_PlantedError) as caught:
        fuzz.by_chance(fuzz.Fuzzer(seed=0), inputs, seconds=60.0)
    return str(caught.value)


def test_a_field_that_is_not_checked_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "text", lambda value, field, limit=200: value)
    assert "Error" in hunt(monkeypatch)


def test_a_length_that_is_not_limited_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = FrameReader._checked_prefix

    def unlimited(reader: FrameReader) -> tuple[int, int, int] | None:
        reader.body_limit = 1 << 62
        return checked(reader)

    monkeypatch.setattr(FrameReader, "_checked_prefix", unlimited)
    assert "MemoryError" in hunt(monkeypatch)


def test_a_session_that_goes_on_after_an_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    received = Session._received

    def forgiving(session: Session, read: Any) -> Any:
        before = session.state
        try:
            return received(session, read)
        except Exception:
            if before is not State.OPENED:
                session._current.state = before
            raise

    monkeypatch.setattr(Session, "_received", forgiving)
    assert "a session that failed is" in hunt(monkeypatch)


def test_honest_workers_do_not_notice_bad_peers() -> None:
    done = subprocess.run(
        [sys.executable, TOOLS / "fuzz_protocol.py", "--live", "--inputs=26", "--seed=4"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 runs with 26 bad peers" in done.stdout
    assert "right models" in done.stdout


def test_one_input_can_be_run_again(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"\0\0\0\x03h\x91\x0eand what was there before")
    for given in ("68910e", str(tmp_path / "input")):
        done = subprocess.run(
            [sys.executable, TOOLS / "fuzz_protocol.py", "--replay", given],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout.split()[0]) == (0, "accepted")
