"""Make the tables of the benchmark page from the benchmarks' results: `python tools/docs_benchmarks.py`.

The page has a place for each table, between `<!-- table NAME -->` and `<!-- end -->`. The results are the
JSON files in `asyncdmtl/docs/results/`, written with a benchmark's `--results`. With `--check` nothing is
changed, and the exit code is 1 if the page differs from the results.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from results import Table

DOCS = Path(__file__).resolve().parents[1] / "asyncdmtl" / "docs"
PAGE = DOCS / "benchmarks.md"
RESULTS = DOCS / "results"
PLACE = re.compile(r"(<!-- table (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


def read_tables(folder: Path) -> dict[str, str]:
    """Each table's name with its Markdown, below a line that says how, when and where it was measured."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        for table in content["tables"]:
            if table["name"] in found:
                raise ValueError(f"{path.name}: the table {table['name']!r} is in another file, too")
            made = Table(table["name"], tuple(table["head"]), tuple(map(tuple, table["rows"])))
            found[made.name] = f"{_origin(content)}\n\n{made.markdown()}"
    return found


def fill(page: str, tables: dict[str, str]) -> str:
    """The page with all its tables; ValueError if a place has no table, or a table has no place."""
    names = [place["name"] for place in PLACE.finditer(page)]
    if sorted(names) != sorted(tables):
        raise ValueError(f"places {sorted(set(names) ^ set(tables))} and tables must be the same")
    return PLACE.sub(lambda place: f"{place[1]}{tables[place['name']]}\n{place[3]}", page)


def _origin(content: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    return f"`{content['command']}`, {content['day']}, {content['machine']}, {versions}:"


def main() -> int:
    """Fill the page, or compare it with the results."""
    page = PAGE.read_text(encoding="utf-8")
    filled = fill(page, read_tables(RESULTS))
    if "--check" in sys.argv[1:]:
        print("the page is up to date" if filled == page else "the page is not what the results say")
        return int(filled != page)
    PAGE.write_text(filled, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
