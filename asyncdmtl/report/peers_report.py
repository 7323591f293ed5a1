"""The part of a run's report about rows that went from worker to worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from asyncdmtl.report.units import human_bytes
from asyncdmtl.server.records import RunRecord


def report_peers(record: RunRecord) -> dict[str, Any] | None:
    """The rows between workers, in plain JSON types; None if the server sent all rows."""
    told = record.peers
    if told is None:
        return None
    return {
        "exchanging": list(told.exchanging),
        "through_server": told.carried,
        "served_by_server": dict(told.served_by_server),
        "without_port": dict(told.without_port),
        "links": [
            {"from": giver, "to": taker, "payload_bytes": payload, "framing_bytes": framing}
            for (giver, taker), (payload, framing) in sorted(told.links.items())
        ],
    }


def peers_words(told: Mapping[str, Any]) -> str:
    """Sentences about the workers that took rows from each other, and those that did not."""
    given: Counter[str] = Counter()
    for link in told["links"]:
        given[link["from"]] += link["payload_bytes"]
    through = "some" if told["through_server"] else "none"
    words = [
        f"{len(told['exchanging'])} workers take rows from others over {len(told['links'])} links; "
        f"{through} go through the server."
    ]
    if given:
        (most, size), (least, small) = given.most_common(1)[0], given.most_common()[-1]
        words.append(f"{most} gave most, {human_bytes(size)}, and {least} least, {human_bytes(small)}.")
    words += [f"{name} was served by the server: {why}." for name, why in told["served_by_server"].items()]
    words += [f"{name} {why}." for name, why in told["without_port"].items()]
    return " ".join(words)
