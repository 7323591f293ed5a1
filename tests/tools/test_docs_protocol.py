"""The page on the protocol shows the messages and states of the code."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import docs_benchmarks
import docs_protocol
import pytest
from support.messages import EXAMPLES

from asyncdmtl.protocol.messages.base import Message
from asyncdmtl.protocol.state_table import STATELESS_KINDS, TRANSITIONS, State


def test_the_page_is_what_the_code_says() -> None:
    page = docs_protocol.PAGE.read_text(encoding="utf-8")
    assert docs_benchmarks.fill(page, docs_protocol.tables()) == page


@pytest.mark.parametrize("message", EXAMPLES.values(), ids=EXAMPLES)
def test_the_fields_of_a_message_are_listed_in_their_order_on_the_wire(message: Message) -> None:
    names = [name for name in docs_protocol.field_names(type(message)) if name not in docs_protocol.LEFT_OUT]
    values = message.fields()
    # The last fields do not travel where they have their defaults.
    defaults = {field.name: field.default for field in dataclasses.fields(message)}
    assert all(getattr(message, name) == defaults[name] for name in names[len(values) :])
    assert len(names) >= len(values)
    for name, value in zip(names, values, strict=False):
        plain = (bool, int, float, str, bytes)
        if isinstance(own := getattr(message, name), plain):
            assert own == value


def test_every_kind_has_a_row_with_its_number_and_meaning() -> None:
    rows = docs_protocol.message_table().rows
    assert [row[0] for row in rows] == [str(number) for number in range(1, len(EXAMPLES) + 1)]
    assert {row[1] for row in rows} == set(EXAMPLES)
    assert all(row[5].endswith(".") for row in rows)


def test_every_transition_is_in_the_table_of_states() -> None:
    rows = {row[0]: row for row in docs_protocol.state_table().rows}
    assert len(rows) == len(State)
    for (before, event), after in TRANSITIONS.items():
        if event == "heartbeat":
            assert rows[docs_protocol.words(before.name)][3] == "yes"
        elif event not in (*STATELESS_KINDS, "failure"):
            assert f"{event} → {docs_protocol.words(after.name)}" in rows[docs_protocol.words(before.name)][2]


def test_a_page_that_is_not_up_to_date_is_noticed_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "protocol.md"
    page.write_text(
        "".join(f"<!-- table {name} -->\nSTALE\n<!-- end -->\n" for name in docs_protocol.tables())
    )
    monkeypatch.setattr(docs_protocol, "PAGE", page)
    outcomes = []
    for words in (["--check"], [], ["--check"]):
        monkeypatch.setattr(sys, "argv", ["docs_protocol.py", *words])
        outcomes.append(docs_protocol.main())
    assert outcomes == [1, 0, 0]
    assert "STALE" not in page.read_text()
