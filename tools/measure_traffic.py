"""Measure a run from outside, with the server and every worker in a network namespace of its own.

    sudo .venv/bin/python tools/measure_traffic.py --workers 5 --copies 3 --capture --plot traffic.png

Builds one namespace per process and a bridge between them (veth pairs, addresses 10.77.0.0/16 that exist in
these namespaces only), runs `python -m asyncdmtl.server` and the workers in them, reads the kernel's counters
of all interfaces, and compares them with the program's own ledger and with the plan. With --capture, each
packet at the server is read as well, so that every byte of every round is accounted for. With --rate, all
links are limited, and the time of a round is compared with the time that the bytes of the bound take at this
rate. Without root, everything runs on the loopback interface, and TCP_INFO is the only information from the
kernel. With --relays, or relays in the file of --placement, it compares plan, ledgers and kernel on every
link of the tree instead.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from namespaces import obstacle
from traffic import Counted, Row, by_round, layers, measure, network_of, rate_bytes
from traffic_relays import measure_tree, show_tree

from asyncdmtl.data import recipes
from asyncdmtl.launch.relays import spread_workers
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.placement_file import read_request

WAYS = ("up", "down")


def show(counted: Counted, rate: str | None) -> None:
    """Print plan, ledger and kernel side by side."""
    report = counted.report
    vector = report["vector"]
    print(
        f"{report['strategy']}: {len(report['rounds'])} rounds of vectors of {vector['numbers']} "
        f"{vector['dtype']}, {report['workers']} workers, {report['partitions']} partitions, "
        f"{report['copies']} copies"
    )
    if counted.hosts is None:
        print(f"on the loopback, with what TCP_INFO tells: {obstacle()}")
    print(f"{'bytes at the server, whole run':40}{'up':>14}{'down':>14}")
    rows = layers(counted)
    for row in rows:
        print(f"{row.name:40}{cell(row.up):>14}{cell(row.down):>14}")
    for way in WAYS:
        print(f"{way}: over the plan's bytes: {over(rows, way)}")
    up, down = report["uplink"], report["downlink_wire"]
    shares = [
        sum(part["framing_bytes"] for part in parts) / max(sum(part["payload_bytes"] for part in parts), 1)
        for parts in ((up,), (down,), (up, down))
    ]
    print("framing of rounds, of payload: up {:.3%}, down {:.3%}, both {:.3%}".format(*shares))
    if counted.hosts is not None:
        again = network_of(counted.hosts).retransmitted_segments
        print(f"TCP segments sent again, by all hosts: {again}")
    show_rounds(counted)
    show_seconds(counted, rate)


def cell(value: int | None) -> str:
    """A number, or a dash."""
    return "–" if value is None else str(value)


def over(rows: Sequence[Row], way: str) -> str:
    """The excess of the ledger and of the interface over the plan, in words."""
    counts = {row.name: getattr(row, way) for row in rows}
    plan = counts["plan: load × vector size"]
    told = {"ledger": counts["ledger: sum"], "interface": counts.get("kernel, interface: all")}
    return ", ".join(
        f"{name} {count / plan - 1:+.3%}" for name, count in told.items() if count is not None and plan
    )


def show_rounds(counted: Counted) -> None:
    """Print the bytes of each round, with equal rounds in one line."""
    if not counted.report["rounds"]:
        return
    names = list(next(iter(by_round(counted).values()))["up"])
    if counted.captured is not None:
        # Headers and retransmissions vary a little from round to round; the other figures do not.
        names = [name for name in names if name not in ("headers", "retransmitted")]
    print(
        "bytes by round"
        + ("; payload and framing without a name are those of captured packets" * ("payload" in names))
    )
    print(f"{'rounds':>11} {'':5}" + "".join(f"{name.replace('_', ' '):>16}" for name in names))
    for way in WAYS:
        lines = [(r, [sums[way].get(name, 0) for name in names]) for r, sums in by_round(counted).items()]
        for counts, alike in groupby(lines, key=lambda line: line[1]):
            rounds = [round_ for round_, _ in alike]
            span = f"{rounds[0]}–{rounds[-1]}" if len(rounds) > 1 else str(rounds[0])
            print(f"{span:>11} {way:5}" + "".join(f"{count:>16}" for count in counts))
    if counted.captured is not None:
        for way in WAYS:
            there = [sums[way] for sums in by_round(counted).values()]
            headers, again = ([sums.get(name, 0) for sums in there] for name in ("headers", "retransmitted"))
            print(
                f"{way}: headers of Ethernet, IP and TCP {min(headers)} to {max(headers)} a round, "
                f"retransmitted {min(again)} to {max(again)}"
            )


def show_seconds(counted: Counted, rate: str | None) -> None:
    """Print the time of a round, and the time that its bytes take at the rate of the links."""
    told = f"{counted.round_seconds:.4f} s a round (median of {max(len(counted.seconds), 1)})"
    if rate is not None:
        up, down = least_seconds(counted.report, rate)
        told += (
            f"; at {rate} the server's link takes {up:.4f} s for the uplink and {down:.4f} s for the "
            f"downlink: {counted.round_seconds / max(up, down):.2f} times the longer, "
            f"{counted.round_seconds / (up + down):.2f} times both"
        )
    print(told)


def least_seconds(report: dict[str, Any], rate: str) -> tuple[float, float]:
    """Seconds of the server's link for the payload of a round: the uplink bound, and TCP's downlink."""
    vector = report["vector"]["bytes"] / rate_bytes(rate)
    return (
        float(Fraction(report["uplink"]["bound"])) * vector,
        float(Fraction(report["downlink_wire"]["load"])) * vector,
    )


def draw(counted: Counted, rate: str | None, path: Path) -> None:
    """Draw the bytes of a round by kind, and the seconds of the rounds."""
    report, rounds = counted.report, len(counted.report["rounds"])
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = {row.name: row for row in layers(counted)}
    parts = {"payload": "ledger: payload", "framing": "ledger: framing of rounds"}
    if counted.hosts is not None:
        parts |= {"headers of Ethernet, IP, TCP": "kernel, interface: headers"}
        parts |= {"retransmitted": "kernel, TCP: retransmitted"}
    bottom = [0.0, 0.0]
    for label, name in parts.items():
        heights = [(getattr(rows[name], way) or 0) / rounds / 1e6 for way in WAYS]
        left.bar(WAYS, heights, bottom=bottom, label=label, width=0.5)
        bottom = [b + h for b, h in zip(bottom, heights, strict=True)]
    vector = report["vector"]["bytes"] / 1e6
    bound = float(Fraction(report["uplink"]["bound"])) * vector
    uncoded = [float(Fraction(report[part]["uncoded_load"])) * vector for part in ("uplink", "downlink_wire")]
    left.hlines(bound, -0.3, 0.3, colors="black", label="lower bound (up)")
    left.hlines(uncoded, [-0.3, 0.7], [0.3, 1.3], colors="black", linestyles="dotted", label="uncoded")
    left.set_ylabel("MB a round at the server")
    left.margins(y=0.1)
    left.legend()
    right.plot(range(1, len(counted.seconds) + 1), counted.seconds, ".", label="measured")
    if rate is not None:
        up, down = least_seconds(report, rate)
        right.axhline(up + down, color="black", linestyle="dotted", label=f"up and down in turn at {rate}")
        right.axhline(max(up, down), color="black", label=f"the longer of both at {rate}")
    right.set(xlabel="round", ylabel="seconds", ylim=(0, 1.2 * right.get_ylim()[1]))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend()
    figure.suptitle(
        f"{report['strategy']}, {report['workers']} workers, {report['partitions']} partitions, "
        f"{report['copies']} copies, {report['vector']['numbers']:,} {report['vector']['dtype']}"
    )
    figure.savefig(path)


@click.command(context_settings={"show_default": True})
@click.option("--data", "spec", default="synthetic:tasks=10,rows=8,parts=2,features=100000,test_rows=0")
@click.option("--workers", default=5)
@click.option("--copies", default=3)
@click.option("--placement", type=click.Path(path_type=Path), help="Instead of --workers and --copies.")
@click.option("--relays", type=int, help="Spread the workers over so many relays, and compare every link.")
@click.option("--strategy", type=click.Choice(STRATEGIES), default="relay")
@click.option("--dtype", default="float32")
@click.option("--rounds", default=10)
@click.option("--rate", help="Limit every link, both ways: 100mbit.")
@click.option("--capture", is_flag=True, help="Read every packet at the server.")
@click.option(
    "--report", "report_file", type=click.Path(path_type=Path), help="Write everything here as JSON."
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw bytes and seconds of a round here.")
def main(
    spec: str,
    workers: int,
    copies: int,
    placement: Path | None,
    relays: int | None,
    strategy: str,
    dtype: str,
    rounds: int,
    rate: str | None,
    capture: bool,
    report_file: Path | None,
    plot: Path | None,
) -> None:
    """Measure a run in network namespaces and compare kernel, ledger and plan."""
    ids = recipes.load(spec, seed=0, only=(), test=False).ids
    placed = (
        Placement.read(placement) if placement is not None else Placement.cyclic(workers, len(ids), copies)
    )
    if rate is not None:
        rate_bytes(rate)
    options = ["--strategy", strategy, "--dtype", dtype, "--rounds", str(rounds)]
    topology = read_request(placement).topology if placement is not None else None
    if relays is not None:
        topology = spread_workers(placed, relays)
    if topology is not None:
        if capture or plot is not None:
            raise click.UsageError("--capture and --plot are for a run without relays")
        tree = measure_tree(topology, spec, options, rate)
        show_tree(tree)
        if report_file is not None:
            report_file.write_text(json.dumps(tree.as_dict(), indent=2) + "\n", encoding="utf-8")
        return
    counted = measure(placed, spec, options, rate, capture)
    show(counted, rate)
    if report_file is not None:
        content = {**counted.as_dict(), "by_round": by_round(counted)}
        report_file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if plot is not None:
        draw(counted, rate, plot)


if __name__ == "__main__":
    main()
