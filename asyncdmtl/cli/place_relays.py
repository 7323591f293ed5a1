"""The option --relays of `asyncdmtl place`."""

from __future__ import annotations

from collections.abc import Sequence

from asyncdmtl.errors import UsageError
from asyncdmtl.launch.relays import spread_workers
from asyncdmtl.plan.placement import Placement


def relays_of(text: str, workers: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The nodes behind each relay, from a number of relays or a list of relays with their nodes.

    Raises
    ------
    UsageError
        It is neither, or a relay is named twice. `Topology` checks the names.
    """
    if text.strip().isdecimal():
        everywhere = Placement({worker: ["p"] for worker in workers})
        return dict(spread_workers(everywhere, int(text)).relays)
    entries = [entry.partition("=") for entry in text.split(",")]
    found = {name.strip(): tuple(node.strip() for node in nodes.split("+")) for name, _, nodes in entries}
    if not all(equals and nodes.strip() for _, equals, nodes in entries) or len(found) < len(entries):
        rule = "must be a number of relays, or RELAY=NODE+NODE for each relay once, separated by commas"
        raise UsageError("--relays", rule, text)
    return found
