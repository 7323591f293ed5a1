"""A training, with all counters from outside its processes and from inside."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from launch import PORT, SERVER, Processes, processes, train
from namespaces import HERE, Counters, Host, network, obstacle

from asyncdmtl.plan.placement import Placement

# The most seconds of a run.
LIMIT = 3600.0

# Units of a rate in the format of `tc`, in bits per second.
UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}


@dataclass(frozen=True)
class Counted:
    """A run's report, the kernel's counters of each namespace, and each packet if they were captured.

    `seconds` are those from the end of one round to the end of the next.
    """

    report: dict[str, Any]
    seconds: tuple[float, ...]
    hosts: dict[str, Counters] | None
    captured: list[dict[str, Any]] | None

    @property
    def round_seconds(self) -> float:
        """The median seconds of a round; with a single round, the server's own figure."""
        return float(statistics.median(self.seconds or [self.report["rounds"][0]["seconds"]]))

    def as_dict(self) -> dict[str, Any]:
        """The content in plain JSON types."""
        hosts = None if self.hosts is None else {name: asdict(count) for name, count in self.hosts.items()}
        more = {"round_seconds": self.round_seconds, "hosts": hosts, "captured": self.captured}
        return {**self.report, **more}


def rate_bytes(rate: str) -> float:
    """Bytes a second of a rate such as 100mbit."""
    for unit, bits in UNITS.items():
        if rate.endswith(unit) and rate.removesuffix(unit).replace(".", "", 1).isdigit():
            return float(rate.removesuffix(unit)) * bits / 8
    raise click.UsageError(f"--rate must be like 100mbit ({', '.join(UNITS)}), not {rate!r}")


def measure(
    placement: Placement, spec: str, options: Sequence[str], rate: str | None, capture: bool = False
) -> Counted:
    """Make a run with each process in a namespace of its own; without root, all are in this one.

    Parameters
    ----------
    placement : Placement
    spec : str
        The value of `--data`.
    options : sequence of str
        Options of the server.
    rate : str, optional
        The limit of every host's link in each direction.
    capture : bool
        Whether each packet at the server is captured.
    """
    apart = obstacle(rate) is None
    if not apart and (rate is not None or capture):
        raise click.ClickException(f"--rate and --capture need namespaces: {obstacle(rate)}")
    names = [SERVER, *placement.workers]
    everyone = network(names, rate) if apart else nullcontext(dict.fromkeys(names, HERE))
    with everyone as hosts, processes({}, LIMIT) as started:
        with captured(started, hosts[SERVER], capture) as packets:
            before = {name: host.counters() for name, host in hosts.items()}
            trained = train(started, hosts, placement, spec, options)
        after = {name: host.counters() for name, host in hosts.items()}
    counted = {name: after[name] - before[name] for name in hosts} if apart else None
    seconds = tuple(later - earlier for earlier, later in pairwise(trained.times))
    return Counted(trained.report, seconds, counted, packets if capture else None)


@contextmanager
def captured(started: Processes, server: Host, wanted: bool) -> Iterator[list[dict[str, Any]]]:
    """A list of all packets at the server, which is filled when the block ends."""
    found: list[dict[str, Any]] = []
    if not wanted:
        yield found
        return
    program = (sys.executable, str(Path(__file__).parent / "capture.py"))
    watching = started.start(server, *program, server.address, str(PORT))
    started.line(watching)
    yield found
    assert watching.stdin is not None
    watching.stdin.close()
    told = json.loads(started.line(watching))
    if told["lost_packets"]:
        raise click.ClickException(f"{told['lost_packets']} packets went by too fast to be captured")
    found += told["rows"]


@dataclass(frozen=True)
class Row:
    """Bytes at the server in one direction, over all rounds or a part of them."""

    name: str
    up: int | None
    down: int | None


def layers(counted: Counted) -> list[Row]:
    """Bytes of a whole run by layer, from the plan to the interface, each with the bytes that it adds."""
    report = counted.report
    rounds, vector = len(report["rounds"]), report["vector"]["bytes"]
    up, down, kernel = report["uplink"], report["downlink_wire"], report["kernel"].values()
    plan = [int(Fraction(part["load"]) * rounds * vector) for part in (up, down)]
    control = dict.fromkeys(("up", "down"), 0)
    for entry in report["ledger"]:
        if entry["round"] is None:
            control[entry["direction"]] += entry["payload_bytes"] + entry["framing_bytes"]
    ledger = [part["payload_bytes"] + part["framing_bytes"] for part in (up, down)]
    again = sum(count["retransmitted_bytes"] for count in kernel)
    tcp = [sum(c["received_bytes"] for c in kernel), sum(c["sent_bytes"] for c in kernel) - again]
    rows = [
        Row("plan: load × vector size", *plan),
        Row("ledger: payload", up["payload_bytes"], down["payload_bytes"]),
        Row("ledger: framing of rounds", up["framing_bytes"], down["framing_bytes"]),
        Row("ledger: all else (joining, heartbeats)", control["up"], control["down"]),
        Row("ledger: sum", ledger[0] + control["up"], ledger[1] + control["down"]),
        Row("kernel, TCP: payload", *(tcp if kernel else (None, None))),
    ]
    if counted.hosts is not None:
        interface = counted.hosts[SERVER]
        whole = [interface.received_bytes, interface.sent_bytes]
        rows += [
            Row("kernel, TCP: retransmitted", None, again),
            Row("kernel, interface: all", *whole),
            Row("kernel, interface: headers", whole[0] - tcp[0], whole[1] - tcp[1] - again),
            Row("kernel, interface: packets", interface.received_packets, interface.sent_packets),
        ]
    return rows


def by_round(counted: Counted) -> Mapping[int, dict[str, dict[str, int]]]:
    """Bytes of each round by direction, from the plan, the ledger and the captured packets."""
    report = counted.report
    vector = report["vector"]["bytes"]
    loads = {"up": report["uplink"]["load"], "down": report["downlink_wire"]["load"]}
    found: dict[int, dict[str, dict[str, int]]] = {
        entry["round"]: {
            way: {"plan": int(Fraction(load) * vector), "ledger_payload": 0, "ledger_framing": 0}
            for way, load in loads.items()
        }
        for entry in report["rounds"]
    }
    for entry in report["ledger"]:
        if entry["round"] in found:
            sums = found[entry["round"]][entry["direction"]]
            sums["ledger_payload"] += entry["payload_bytes"]
            sums["ledger_framing"] += entry["framing_bytes"]
    for row in counted.captured or ():
        if row["round"] in found:
            sums = found[row["round"]][row["direction"]]
            sums |= {name: row[name] for name in ("payload", "framing", "headers", "retransmitted")}
    return found


def network_of(hosts: Mapping[str, Counters]) -> Counters:
    """The sum of the counters of all hosts."""
    total = Counters(0, 0, 0, 0, 0)
    for count in hosts.values():
        total += count
    return total
