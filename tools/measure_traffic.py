"""Measure a run from outside: every worker and the server in a network namespace of their own.

    sudo .venv/bin/python tools/measure_traffic.py --workers 5 --copies 3

Builds one namespace per process and a bridge between them (veth pairs, addresses 10.77.0.0/24 that exist in
these namespaces only), runs `python -m asyncdmtl.server` and the workers in them, reads the kernel's counters
of the server's interface, and compares them with the program's own ledger and with the plan. Needs root.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from asyncdmtl import data
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import STRATEGIES

HUB = "dmtl-hub"
SERVER = "dmtl-server"
COUNTERS = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")


def ip(*words: str) -> None:
    """Run the `ip` command."""
    subprocess.run(["ip", *words], check=True)


@contextmanager
def network(hosts: list[str], rate: str | None) -> Iterator[dict[str, str]]:
    """A namespace for each host, all on one bridge; yields their addresses and removes everything."""
    names = [HUB, *hosts]
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)
    try:
        for name in names:
            ip("netns", "add", name)
        ip("-n", HUB, "link", "add", "br0", "type", "bridge")
        ip("-n", HUB, "link", "set", "br0", "up")
        addresses = {}
        for number, host in enumerate(hosts):
            addresses[host] = f"10.77.{number // 250}.{number % 250 + 1}"
            port = f"port{number}"
            ip("-n", HUB, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("-n", HUB, "link", "set", port, "master", "br0", "up")
            ip("-n", host, "address", "add", f"{addresses[host]}/16", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", host, "link", "set", "lo", "up")
            if rate is not None:
                shape = ["root", "tbf", "rate", rate, "burst", "64kb", "latency", "200ms"]
                for namespace, device in ((HUB, port), (host, "eth0")):
                    subprocess.run(["tc", "-n", namespace, "qdisc", "add", "dev", device, *shape], check=True)
        yield addresses
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def counters(host: str) -> dict[str, int]:
    """The kernel's counters of a host's interface."""
    paths = [f"/sys/class/net/eth0/statistics/{name}" for name in COUNTERS]
    shown = subprocess.run(
        ["ip", "netns", "exec", host, "cat", *paths], check=True, capture_output=True, text=True
    )
    return dict(zip(COUNTERS, map(int, shown.stdout.split()), strict=True))


def start(host: str, module: str, *options: str) -> subprocess.Popen[str]:
    """Start a process of the program in a host's namespace."""
    return subprocess.Popen(
        ["ip", "netns", "exec", host, sys.executable, "-m", f"asyncdmtl.{module}", *options],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def event(process: subprocess.Popen[str], *kinds: str) -> dict[str, Any]:
    """The next event of one of these kinds that the server reports."""
    assert process.stdout is not None
    for line in process.stdout:
        found: dict[str, Any] = json.loads(line)
        if found["event"] in kinds:
            return found
        if found["event"] == "failed":
            raise click.ClickException(found["error"])
    raise click.ClickException("the server ended early")


def measure(placement: Placement, spec: str, options: list[str], rate: str | None) -> dict[str, Any]:
    """One run in namespaces: the program's report, with the kernel's counters of the whole run beside it."""
    hosts = [SERVER, *(f"dmtl-{k}" for k in range(len(placement.workers)))]
    with network(hosts, rate) as addresses:
        before = counters(SERVER)
        listen = f"{addresses[SERVER]}:7700"
        workers = ["--workers", str(len(placement.workers))]
        server = start(
            SERVER, "server", "--listen", listen, "--insecure", "--log-level", "error", "--format", "json",
            "--data", spec, *workers, *options,
        )  # fmt: skip
        processes = [server]
        try:
            event(server, "listening")
            for host, (name, stored) in zip(hosts[1:], placement.as_dict().items(), strict=True):
                held = ",".join(stored)
                processes.append(
                    start(
                        host,
                        "worker",
                        "--connect",
                        listen,
                        "--insecure",
                        "--name",
                        name,
                        "--data",
                        spec,
                        "--partitions",
                        held,
                    )
                )
            report: dict[str, Any] = event(server, "finished")["report"]
            for process in processes:
                if process.wait(60):
                    raise click.ClickException(f"a process ended with exit code {process.returncode}")
        finally:
            for process in processes:
                process.kill()
        after = counters(SERVER)
    report["interface"] = {name: after[name] - before[name] for name in COUNTERS}
    return report


def show(report: dict[str, Any]) -> None:
    """Print kernel, ledger and plan side by side."""
    rounds, vector = len(report["rounds"]), report["vector"]
    print(f"{report['strategy']}: {rounds} rounds of vectors of {vector['numbers']} {vector['dtype']}")
    rows = compare(report)
    print(f"{'bytes at the server':36}{'up':>14}{'down':>14}")
    for name, row in rows.items():
        print(f"{name:36}{row[0]:>14}{row[1]:>14}")
    plan, ledger, interface = rows[PLAN], rows[LEDGER], rows[INTERFACE]
    for way, name in enumerate(("up", "down")):
        over = [f"{part[way] / plan[way] - 1:+.3%}" for part in (ledger, interface)]
        print(f"{name}: over the plan's bytes: ledger {over[0]}, interface {over[1]}")
    print(f"{report['seconds'] / rounds:.3f} s a round")


PLAN = "plan: load × vector size"
LEDGER = "ledger: payload and framing"
INTERFACE = "kernel: interface, with headers"


def compare(report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Bytes up and down, as planned, as the program counted them, and as the kernel did."""
    vectors = len(report["rounds"]) * report["vector"]["bytes"]
    up, down = report["uplink"], report["downlink_wire"]
    interface, kernel = report["interface"], report["kernel"].values()
    counted = {"up": 0, "down": 0}
    for entry in report["ledger"]:
        counted[entry["direction"]] += entry["payload_bytes"] + entry["framing_bytes"]
    again = sum(count["retransmitted_bytes"] for count in kernel)
    return {
        PLAN: (int(Fraction(up["load"]) * vectors), int(Fraction(down["load"]) * vectors)),
        "ledger: payload": (up["payload_bytes"], down["payload_bytes"]),
        LEDGER: (counted["up"], counted["down"]),
        "kernel: TCP payload": (
            sum(count["received_bytes"] for count in kernel),
            sum(count["sent_bytes"] for count in kernel) - again,
        ),
        "kernel: retransmitted by the server": (0, again),
        INTERFACE: (interface["rx_bytes"], interface["tx_bytes"]),
        "kernel: interface, packets": (interface["rx_packets"], interface["tx_packets"]),
    }


@click.command(context_settings={"show_default": True})
@click.option("--data", "spec", default="synthetic:tasks=10,rows=8,parts=2,features=100000,test_rows=0")
@click.option("--workers", default=5)
@click.option("--copies", default=3)
@click.option("--placement", type=click.Path(path_type=Path), help="Instead of --workers and --copies.")
@click.option("--strategy", type=click.Choice(STRATEGIES), default="relay")
@click.option("--dtype", default="float32")
@click.option("--rounds", default=10)
@click.option("--rate", help="Limit every link, both ways: 100mbit.")
@click.option(
    "--report", "report_file", type=click.Path(path_type=Path), help="Write everything here as JSON."
)
def main(
    spec: str,
    workers: int,
    copies: int,
    placement: Path | None,
    strategy: str,
    dtype: str,
    rounds: int,
    rate: str | None,
    report_file: Path | None,
) -> None:
    """Measure a run in network namespaces and compare kernel, ledger and plan."""
    if os.geteuid() != 0:
        raise click.ClickException("network namespaces need root; without, `asyncdmtl run` reports TCP_INFO")
    ids = data.load(spec, seed=0, only=(), test=False).ids
    placed = (
        Placement.read(placement) if placement is not None else Placement.cyclic(workers, len(ids), copies)
    )
    options = ["--strategy", strategy, "--dtype", dtype, "--rounds", str(rounds)]
    report = measure(placed, spec, options, rate)
    show(report)
    if report_file is not None:
        report_file.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
