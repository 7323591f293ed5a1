from __future__ import annotations

from asyncdmtl.html_table import MOST_ROWS, html_table


def test_texts_are_escaped() -> None:
    made = html_table("<b>", ["a & b"], [["<script>", 1]])
    assert "<b>" not in made
    assert "<script>" not in made
    assert "<td>&lt;script&gt;</td><td>1</td>" in made
    assert "a &amp; b" in made


def test_long_tables_are_cut() -> None:
    made = html_table("", ["n", "m"], [(n, n) for n in range(MOST_ROWS + 3)])
    assert made.count("<tr>") == 1 + MOST_ROWS + 1
    assert "… and 3 more" in made
