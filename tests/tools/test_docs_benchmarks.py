"""The page on benchmarks shows the results of the benchmarks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import docs_benchmarks
import pytest
from results import Table, write_results


def test_the_page_is_what_the_results_say() -> None:
    page = docs_benchmarks.PAGE.read_text(encoding="utf-8")
    assert docs_benchmarks.fill(page, docs_benchmarks.read_tables(docs_benchmarks.RESULTS)) == page


def test_results_become_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/bench.py", "--quick", "--results", "out.json", "--size", "3"])
    write_results(tmp_path / "bench.json", [Table("speed", ("rows", "GB/s"), (("4", "1.5"), ("8", "2")))])
    assert (
        json.loads((tmp_path / "bench.json").read_text())["command"]
        == "python tools/bench.py --quick --size 3"
    )
    tables = docs_benchmarks.read_tables(tmp_path)
    page = docs_benchmarks.fill("before\n<!-- table speed -->\nold\n<!-- end -->\nafter", tables)
    assert "old" not in page
    assert page.startswith("before\n<!-- table speed -->\n`python tools/bench.py --quick --size 3`, 20")
    assert page.endswith("\n\n| rows | GB/s |\n| --- | --- |\n| 4 | 1.5 |\n| 8 | 2 |\n<!-- end -->\nafter")


@pytest.mark.parametrize("page", ["no place", "<!-- table other -->\n<!-- end -->"])
def test_a_table_without_a_place_is_an_error(page: str) -> None:
    with pytest.raises(ValueError, match="must be the same"):
        docs_benchmarks.fill(page, {"speed": "| 1 |"})
