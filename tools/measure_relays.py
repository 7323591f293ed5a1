"""Measure a run whose sites have relays, in network namespaces, beside a star over the same links.

    sudo .venv/bin/python tools/measure_relays.py --rate 100mbit
    sudo .venv/bin/python tools/measure_relays.py --topology pairs --rate 10mbit

Each site has one thin link to the server and open links to its workers. In a star, workers reach the server
over the link of their site. The tool compares the kernel's bytes on every link, in both directions and
without headers of packets, with the plan, and the seconds of a round with those of the coded star and of
relays without coding. The models must agree bit for bit before the figures of a run are printed.

Topologies: `sites` has 12 workers at 3 sites, and two copies of each partition at two sites. `pairs` has 6
users, each with one partition at two of 4 relays; a worker has one relay, so that a user is a worker at each
of both.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import click
from launch import SERVER, processes, saved_models
from launch_relays import train_tree
from namespaces import Counters
from results import Table, results_option, write_results
from site_networks import HEADERS, site_network

from asyncdmtl.plan.hierarchy.levels import compare_hierarchies
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.placement import Placement

# Seconds after which a run has failed.
LIMIT = 900.0


def three_sites() -> Topology:
    """12 workers at 3 sites; each partition is stored at two sites, by one worker of each."""
    sites = {site: [f"{site}{k}" for k in range(4)] for site in ("a", "b", "c")}
    stored: dict[str, list[str]] = {worker: [] for workers in sites.values() for worker in workers}
    for n, (one, two) in enumerate(list(combinations(sites, 2)) * 4):
        for site in (one, two):
            least = min(sites[site], key=lambda worker: len(stored[worker]))
            stored[least].append(f"p{n}")
    return Topology(Placement(stored), sites)


def all_pairs() -> Topology:
    """6 users, each at two of 4 relays with one partition."""
    sites: dict[str, list[str]] = {f"r{i}": [] for i in range(4)}
    stored = {}
    for n, pair in enumerate(combinations(sites, 2)):
        for site in pair:
            stored[f"u{n}{site}"] = [f"p{n}"]
            sites[site].append(f"u{n}{site}")
    return Topology(Placement(stored), sites)


TOPOLOGIES = {"sites": three_sites, "pairs": all_pairs}


@click.command(context_settings={"show_default": True})
@click.option("--topology", "shape", type=click.Choice(tuple(TOPOLOGIES)), default="sites")
@click.option("--rate", default="100mbit", help="Of the link between a site and the server, as for tc.")
@click.option("--features", default=100_000, help="Numbers in a vector, float32.")
@click.option("--rounds", default=6)
@results_option
def main(shape: str, rate: str, features: int, rounds: int, results_file: Path | None) -> None:
    """Compare what links carry with the plan, and the rounds of relays with those of a star."""
    topology = TOPOLOGIES[shape]()
    parts = len(topology.placement.partitions)
    spec = f"synthetic:tasks={parts},rows=4,parts=1,features={features},test_rows=0"
    common = ["--coupling", "l21", "--strength", "0.1", "--rounds", str(rounds), "--update", "gradient"]
    ways = {
        "relays, coded": (True, "relay"),
        "relays, uncoded": (True, "uncoded"),
        "star, coded": (False, "relay"),
    }
    print(f"{shape}: {len(topology.placement.workers)} workers, {parts} partitions, {rate} to each site")
    rows, seconds, expected = [], {}, None
    for way, (tree, strategy) in ways.items():
        options = [*common, "--strategy", strategy]
        report, models, counted = measure(topology, spec, options, rate, tree=tree)
        expected = expected or models
        if models != expected:
            raise click.ClickException(f"{way}: the models are not those of the first run")
        # The first round waits for connections whose windows grow.
        seconds[way] = statistics.median(entry["seconds"] for entry in report["rounds"][1:])
        print(f"{way}: {seconds[way]:.3f} s a round, {seconds[way] / seconds['relays, coded']:.2f} times")
        rows.append((way, "all", "", "", f"{seconds[way]:.3f} s"))
        if tree:
            hierarchy = next(h for h in compare_hierarchies(topology) if h.server.strategy == strategy)
            level = hierarchy.levels[0]
            print(f"  between relays and server: {level.uplink_load} up, {level.downlink_load} down")
            whole = rounds * report["vector"]["bytes"]
            for link in hierarchy.links("unicast"):
                cells = compared(counted[link.node], link.up * whole, link.down * whole)
                rows.append((way, f"{link.node} to {link.parent or 'server'}", *cells, ""))
                print(f"  {link.node:6} to {link.parent or 'server':8}{'   '.join(cells)}", flush=True)
    print(f"relays, coded: {seconds['relays, coded'] / seconds['star, coded']:.2f} of the coded star's time")
    if results_file is not None:
        head = ("", "link", "up", "down", "a round")
        write_results(results_file, [Table(results_file.stem, head, tuple(rows))])


def compared(counted: Counters, up: Any, down: Any) -> tuple[str, str]:
    """The kernel's bytes without headers, sent and received, each with its difference from the plan."""
    cells = []
    for size, packets, planned in (
        (counted.sent_bytes, counted.sent_packets, up),
        (counted.received_bytes, counted.received_packets, down),
    ):
        bare = size - HEADERS * packets
        told = f"{bare / float(planned) - 1:+.2%}" if planned else "none planned"
        cells.append(f"{bare / 1e6:7.2f} MB ({told})")
    return cells[0], cells[1]


def measure(
    topology: Topology, spec: str, options: Sequence[str], rate: str, *, tree: bool
) -> tuple[dict[str, Any], dict[str, bytes], dict[str, Counters]]:
    """Make a run; its report, the models of the first worker, and the counters of each site and worker."""
    with (
        tempfile.TemporaryDirectory() as folder,
        site_network(SERVER, topology.relays, rate) as (hosts, inside),
        processes({}, LIMIT) as started,
    ):
        saved = Path(folder) / "models.npz"
        before = {name: host.counters() for name, host in hosts.items()}
        report, _ = train_tree(started, hosts, inside if tree else {}, topology, spec, options, saved)
        # Last acknowledgements.
        time.sleep(0.5)
        return report, saved_models(saved), {name: hosts[name].counters() - before[name] for name in hosts}


if __name__ == "__main__":
    main()
