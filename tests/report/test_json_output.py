from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.report.json_output import emit, finite, write_report

STRANGE = {"a": math.nan, "b": (1.5, [math.inf]), "c": {"d": -math.inf}, "e": "text"}
PLAIN = {"a": None, "b": [1.5, [None]], "c": {"d": None}, "e": "text"}


def test_numbers_that_json_cannot_express_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    assert finite(STRANGE) == PLAIN
    emit(STRANGE)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == PLAIN


def test_a_report_is_written_as_json(tmp_path: Path) -> None:
    write_report(STRANGE, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == PLAIN
    with pytest.raises(UsageError, match="--report must be writable"):
        write_report(STRANGE, tmp_path / "nowhere" / "report.json")
