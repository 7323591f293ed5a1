"""Tables of HTML, which notebooks show for models, plans and designs."""

from __future__ import annotations

import html
from collections.abc import Sequence

MOST_ROWS = 30
"""The most rows that are shown, so that the output of a cell stays short."""


def html_table(caption: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with a caption, headings, and the first `MOST_ROWS` rows. All texts are escaped."""
    head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in headings)
    shown = [
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows[:MOST_ROWS]
    ]
    if (more := len(rows) - MOST_ROWS) > 0:
        shown.append(f'<tr><td colspan="{len(headings)}">… and {more} more</td></tr>')
    title = f'<caption style="text-align: left">{html.escape(caption)}</caption>'
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{''.join(shown)}</tbody></table>"
