"""Make the tables of the protocol page from the code: `python tools/docs_protocol.py`.

The page has a place for each table, between `<!-- table NAME -->` and `<!-- end -->`. With `--check` nothing
is changed, and the exit code is 1 if the page differs from the code.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterable

from docs_benchmarks import DOCS, fill
from results import Table

from asyncdmtl.protocol.messages.base import Message
from asyncdmtl.protocol.messages.registry import KINDS
from asyncdmtl.protocol.state_table import (
    ROW_TRANSITIONS,
    STATELESS_KINDS,
    TOLERANT_TRANSITIONS,
    TRANSITIONS,
    RowEvent,
    RowState,
    State,
)

PAGE = DOCS / "protocol.md"

# The attributes of a message that hold its body, and are no fields of its head.
OF_BODY = ("parts", "body")

# The last fields of some messages, which are left out where they are empty.
LEFT_OUT = ("absent", "timing")

# Fields that are left out in some messages only.
LEFT_OUT_IN = {("uplink", "rest")}


def words(name: str) -> str:
    """The name of a member of an enumeration in words."""
    return name.lower().replace("_", " ")


def field_names(cls: type[Message]) -> list[str]:
    """The fields of a message, in the order in which they follow its number."""
    return [field.name for field in dataclasses.fields(cls) if field.name not in OF_BODY]


def message_table() -> Table:
    """Every kind of message: its number, its sender, its fields, and whether it has a body."""
    rows = []
    for number, cls in sorted(KINDS.items()):
        summary = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        names = (
            f"`{name}`{' (if any)' if name in LEFT_OUT or (cls.kind, name) in LEFT_OUT_IN else ''}"
            for name in field_names(cls)
        )
        fields = ", ".join(names) or "none"
        rows.append((str(number), cls.kind, cls.sender, fields, "yes" if cls.has_body else "no", summary))
    return Table("messages", ("number", "kind", "sender", "fields", "body", "meaning"), tuple(rows))


def state_table() -> Table:
    """Every state with its meaning, and the state after each message."""
    rows = []
    tolerated = {(before, f"{event} (\\*)"): after for (before, event), after in TOLERANT_TRANSITIONS.items()}
    for state in State:
        following = [
            (event, after)
            for (before, event), after in (*TRANSITIONS.items(), *tolerated.items())
            if before is state and event not in (*STATELESS_KINDS, "failure")
        ]
        moves = "; ".join(f"{event} → {words(after.name)}" for event, after in following) or "none"
        stays = "yes" if (state, "heartbeat") in TRANSITIONS else "no"
        rows.append((words(state.name), state.value, moves, stays))
    head = ("state", "meaning", "messages and the states that they lead to", "heartbeats, multicast messages")
    return Table("states", head, tuple(rows))


def row_table() -> Table:
    """The events that are allowed in each state of a sender's rows, and the state after each."""
    rows = [
        (words(event.name), event.value, *(_row_state(state, event) for state in RowState))
        for event in RowEvent
    ]
    head = ("event", "meaning", *(f"{words(state.name)}: {state.value}" for state in RowState))
    return Table("rows", head, tuple(rows))


def _row_state(state: RowState, event: RowEvent) -> str:
    after = ROW_TRANSITIONS.get((state, event))
    return "an error" if after is None else words(after.name)


def tables() -> dict[str, str]:
    """The Markdown of each table, by its name."""
    made: Iterable[Table] = (message_table(), state_table(), row_table())
    return {table.name: table.markdown() for table in made}


def main() -> int:
    """Fill the page, or compare it with the code."""
    page = PAGE.read_text(encoding="utf-8")
    filled = fill(page, tables())
    if "--check" in sys.argv[1:]:
        print("the page is up to date" if filled == page else "the page is not what the code says")
        return int(filled != page)
    PAGE.write_text(filled, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
