"""What crossed each link of a tree with relays, beside the plan."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from asyncdmtl.plan.hierarchy.levels import compare_hierarchies
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.report.console import FittedTable
from asyncdmtl.report.units import counted, decimal, human_bytes
from asyncdmtl.server.records import RunRecord

# The kinds under which messages with rows are counted.
ROWS = ("uplink", "downlink")


def level_totals(ledger: Ledger) -> dict[str, int]:
    """All bytes of a ledger, and those of rows, in both directions."""
    return _summed(link_totals(ledger))


def link_totals(ledger: Ledger) -> dict[str, dict[str, int]]:
    """The same for each worker or relay at the lower end of a link."""
    found: dict[str, dict[str, int]] = {}
    for entry in ledger.entries():
        own = found.setdefault(entry.worker, _summed({}))
        own[f"{entry.direction}_bytes"] += entry.wire
        if entry.kind in ROWS:
            own[f"{entry.direction}_payload_bytes"] += entry.payload
    return found


def report_tree(
    topology: Topology, record: RunRecord, below: Mapping[str, Mapping[str, Mapping[str, int]]]
) -> list[dict[str, Any]]:
    """The links of a tree, from the server downwards, in plain JSON types.

    Parameters
    ----------
    topology : Topology
    record : RunRecord
        The server's record, with the bytes of the links that lead to it.
    below : mapping of relay to a mapping of node to bytes
        What each relay counted on the links below it, as from `link_totals`.

    Returns
    -------
    list of dict
        `node`, `parent` (None for the server), bytes, and the vectors of a round up and down, as fractions:
        measured and planned. A plan is that of all nodes; if some were lost, less may have been measured.
    """
    task_of = {info.id: info.task for info in record.problem.infos}
    tasks = [task_of[name] for name in topology.placement.partitions]
    numbers = [list(dict.fromkeys(tasks)).index(task) for task in tasks]
    known = {each.server.strategy: each for each in compare_hierarchies(topology, numbers)}
    rounds, strategy = len(record.rounds) or 1, getattr(record.plan, "strategy", "linear")
    here = link_totals(record.ledger)
    links = []
    for link in known[strategy].links("unicast"):
        links_of = here if link.parent is None else below.get(link.parent, {})
        told = links_of.get(link.node, _summed({}))
        found: dict[str, Any] = {"node": link.node, "parent": link.parent, **told}
        for direction, load, size in (
            ("up", link.up, record.vector_bytes),
            ("down", link.down, record.down_vector_bytes),
        ):
            measured = Fraction(told[f"{direction}_payload_bytes"], rounds * size)
            found |= {f"{direction}_load": str(load), f"measured_{direction}_load": str(measured)}
        links.append(found)
    return links


def member_words(report: Mapping[str, Any]) -> str:
    """The workers of a run, and the relays if there are any: "5 workers and 2 relays"."""
    if "tree" not in report:
        return counted(report["workers"], "worker")
    relays = {link["parent"] for link in report["tree"]} - {None}
    return f"{counted(len(report['tree']) - len(relays), 'worker')} and {counted(len(relays), 'relay')}"


def copy_words(report: Mapping[str, Any]) -> str:
    """The copies of partitions, which the server knows of its own members only."""
    where = " behind different links of the server" if "tree" in report else ""
    return counted(decimal(report["copies"]), "copy") + where


def link_table(links: list[dict[str, Any]]) -> FittedTable:
    """The table of a tree's links."""
    table = FittedTable(title="Links of the tree: vectors per round")
    table.add_column("link")
    for name in ("up", "planned", "down", "planned", "bytes up", "bytes down"):
        table.add_column(name, justify="right")
    for link in links:
        loads = [
            link[f"{measured}{direction}_load"]
            for direction in ("up", "down")
            for measured in ("measured_", "")
        ]
        sizes = [human_bytes(link[f"{direction}_bytes"]) for direction in ("up", "down")]
        table.add_row(f"{link['node']} to {link['parent'] or 'server'}", *map(decimal, loads), *sizes)
    return table


def _summed(links: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    names = ("up_bytes", "up_payload_bytes", "down_bytes", "down_payload_bytes")
    return {name: sum(link[name] for link in links.values()) for name in names}
