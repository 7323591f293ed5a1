"""Each line of the threat model names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import asyncdmtl

ROOT = Path(__file__).resolve().parents[2]
PAGE = Path(asyncdmtl.__file__).parent / "docs" / "threats.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_each_line_names_tests_that_exist() -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    claims = [line for line in lines if "| test |" not in line and "| --- |" not in line]
    assert len(claims) > 20
    for line in claims:
        named = NAMED.findall(line)
        assert named, line
        for file, test in named:
            source = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^(async )?def {test}\(", source, re.MULTILINE), f"{file} has no {test}"
