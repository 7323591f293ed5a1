"""The bytes of every link of a run with relays: by the plan, the ledgers and the kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import click
from launch import SERVER, processes
from launch_relays import train_tree
from namespaces import HERE, Counters, network, obstacle
from traffic import LIMIT

from asyncdmtl.plan.hierarchy.levels import compare_hierarchies
from asyncdmtl.plan.hierarchy.topology import Topology

WAYS = ("up", "down")


@dataclass(frozen=True)
class Link:
    """The bytes of a link in one direction, over a whole run.

    Attributes
    ----------
    node : str
        The worker or relay at the lower end.
    parent : str
        The relay at the upper end, or "server".
    way : "up" or "down"
    plan : int
        Load × size of a vector × rounds.
    payload, ledger : int
        Coded vectors, and all bytes, in the ledger at the upper end.
    lower : int or None
        All bytes in the ledger at the lower end, if that is a relay.
    kernel : int or None
        Payload of TCP without retransmissions, counted by the kernel at the upper end; None if it does not.
    """

    node: str
    parent: str
    way: str
    plan: int
    payload: int
    ledger: int
    lower: int | None
    kernel: int | None


@dataclass(frozen=True)
class CountedTree:
    """A run's report, the bytes of its links, and the kernel's counters of each namespace."""

    report: dict[str, Any]
    links: tuple[Link, ...]
    hosts: dict[str, Counters] | None

    def as_dict(self) -> dict[str, Any]:
        """The content in plain JSON types."""
        hosts = None if self.hosts is None else {name: asdict(count) for name, count in self.hosts.items()}
        return {**self.report, "links": [asdict(link) for link in self.links], "hosts": hosts}


def measure_tree(topology: Topology, spec: str, options: Sequence[str], rate: str | None) -> CountedTree:
    """Make a run with each process in a namespace of its own; without root, all are in this one.

    Parameters
    ----------
    topology : Topology
    spec, options, rate
        As for `measure`.
    """
    apart = obstacle(rate) is None
    if not apart and rate is not None:
        raise click.ClickException(f"--rate needs namespaces: {obstacle(rate)}")
    names = [SERVER, *topology.relays, *topology.placement.workers]
    everyone = network(names, rate) if apart else nullcontext(dict.fromkeys(names, HERE))
    with everyone as hosts, processes({}, LIMIT) as started:
        before = {name: host.counters() for name, host in hosts.items()}
        inside = {relay: hosts[relay].address for relay in topology.relays}
        report, told = train_tree(started, hosts, inside, topology, spec, options)
        after = {name: host.counters() for name, host in hosts.items()}
    counted = {name: after[name] - before[name] for name in hosts} if apart else None
    return CountedTree(report, links_of(topology, report, told), counted)


def links_of(
    topology: Topology, report: Mapping[str, Any], told: Mapping[str, Mapping[str, Any]]
) -> tuple[Link, ...]:
    """The links from the server downwards, in both directions.

    Parameters
    ----------
    topology : Topology
    report : mapping
        The server's report.
    told : mapping of relay to mapping
        What each relay counted.
    """
    hierarchies = {each.server.strategy: each for each in compare_hierarchies(topology)}
    whole = len(report["rounds"]) * report["vector"]["bytes"]
    found = []
    for link in hierarchies[report["strategy"]].links("unicast"):
        above = report if link.parent is None else told[link.parent]
        sums = _at_server(report, link.node) if link.parent is None else above["links"][link.node]
        kernel = above["kernel"].get(link.node)
        for way, load in zip(WAYS, (link.up, link.down), strict=True):
            seen = None
            if kernel is not None and way == "up":
                seen = kernel["received_bytes"]
            elif kernel is not None:
                seen = kernel["sent_bytes"] - kernel["retransmitted_bytes"]
            lower = told[link.node]["above"][f"{way}_bytes"] if link.node in told else None
            found.append(
                Link(
                    link.node, link.parent or SERVER, way, int(load * whole),
                    sums[f"{way}_payload_bytes"], sums[f"{way}_bytes"], lower, seen,
                )
            )  # fmt: skip
    return tuple(found)


def _at_server(report: Mapping[str, Any], node: str) -> dict[str, int]:
    """The server's sums of a link that leads to it."""
    sums = dict.fromkeys((f"{way}_{part}" for way in WAYS for part in ("bytes", "payload_bytes")), 0)
    for entry in report["ledger"]:
        if entry["worker"] == node:
            way = entry["direction"]
            sums[f"{way}_bytes"] += entry["payload_bytes"] + entry["framing_bytes"]
            if entry["kind"] in ("uplink", "downlink"):
                sums[f"{way}_payload_bytes"] += entry["payload_bytes"]
    return sums


def show_tree(counted: CountedTree) -> None:
    """Print the bytes of every link, level by level, and those of each relay's interface."""
    report = counted.report
    print(f"{report['strategy']}: {len(report['rounds'])} rounds, bytes of the whole run by link")
    print(f"{'link':24}{'':5}" + "".join(f"{name:>13}" for name in HEADS) + "  over the plan")
    level = None
    for link in counted.links:
        if link.parent != level:
            level = link.parent
            print(f"below {level}:")
        cells = "".join(f"{_cell(value):>13}" for value in _values(link))
        over = f"{link.ledger / link.plan - 1:+.3%}" if link.plan else ""
        print(f"  {link.node:22}{link.way:5}{cells}  {over}")
    if counted.hosts is None:
        print(f"on the loopback, with what TCP_INFO tells: {obstacle()}")
        return
    print("all bytes of the interfaces of relays, with headers, beside the kernel's payload of their links")
    for relay in sorted({link.parent for link in counted.links} - {SERVER}):
        own = [link for link in counted.links if relay in (link.node, link.parent)]
        payload = sum(link.kernel or 0 for link in own)
        host = counted.hosts[relay]
        crossed = host.received_bytes + host.sent_bytes
        print(f"  {relay:22}{crossed:>18}{payload:>13}  {crossed / max(payload, 1) - 1:+.3%}")


HEADS = ("plan", "payload", "ledger", "lower end", "kernel")


def _values(link: Link) -> tuple[int | None, ...]:
    return link.plan, link.payload, link.ledger, link.lower, link.kernel


def _cell(value: int | None) -> str:
    return "–" if value is None else str(value)
