"""Measure rounds whose downlink goes to a group, in network namespaces: seconds, bytes, and the cost of loss.

    sudo .venv/bin/python tools/measure_multicast.py --workers 4 --rate 100mbit --loss 0 --loss 2

Each worker has a namespace and a link of its own, all on one bridge. The same training is run over TCP and
over the group, once for each loss (nftables drop this percentage of the datagrams, independently at each
worker); the models must agree bit for bit before a line is printed. Bytes are those that the server's
interface sends in a round, with all headers: the kernel hands on packets of up to 64 KiB between namespaces,
each with its headers once, as with network cards that split packets themselves; with --packets, they are
those of the wire.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import click
from launch import SERVER, Trained, processes, saved_models, train
from namespaces import Host, network
from results import Table, results_option, write_results

from asyncdmtl.plan.placement import Placement

LIMIT = 300.0

# Rules of nftables for incoming datagrams of a group.
RULES = """
table inet loss {{
  chain input {{
    type filter hook input priority 0;
    meta l4proto udp numgen random mod 10000 < {share} drop
  }}
}}
"""


def lose(hosts: Sequence[Host], percent: float) -> None:
    """Make hosts lose a percentage of their incoming datagrams."""
    if shutil.which("nft") is None:
        raise click.ClickException("losing datagrams needs nft (nftables)")
    for host in hosts:
        subprocess.run(
            host.command("nft", "-f", "-"),
            input=RULES.format(share=round(100 * percent)),
            text=True,
            check=True,
        )


def single_packets(hosts: Sequence[Host]) -> None:
    """Make the kernel cut everything into packets of the wire before it leaves a host."""
    for host in hosts:
        words = ("link", "set", "eth0", "gso_max_segs", "1", "gso_max_size", "2000")
        subprocess.run(["ip", "-n", host.namespace, *words], check=True)


def measure(
    placement: Placement, spec: str, options: Sequence[str], rate: str | None, loss: float, packets: bool
) -> tuple[Trained, float, Mapping[str, bytes]]:
    """One run: its report, the bytes that the server's interface sent in a round, and the models."""
    with (
        tempfile.TemporaryDirectory() as folder,
        network([SERVER, *placement.workers], rate) as hosts,
        processes({}, LIMIT) as started,
    ):
        if loss:
            lose([hosts[name] for name in placement.workers], loss)
        if packets:
            single_packets(list(hosts.values()))
        saved = Path(folder) / "models.npz"
        trained = train(started, hosts, placement, spec, options, saved)
        sent = hosts[SERVER].counters().sent_bytes / len(trained.report["rounds"])
        return trained, sent, saved_models(saved)


def show(name: str, trained: Trained, sent: float, bound: float) -> tuple[str, ...]:
    """Print the line of a run; returns its cells for the page."""
    seconds = statistics.median(b - a for a, b in pairwise(trained.times))
    cells = (name, f"{seconds:.3f} s", f"{sent / 1e6:.3f} MB", f"{sent / bound - 1:+.2%}")
    told = trained.report["multicast"]
    more = ""
    if told is not None:
        rows = told["workers"].values()
        copies, lost, given = (sum(row[key] for row in rows) for key in ("sent", "lost", "ranges"))
        share = told["repair_bytes"] / max(1, told["datagram_bytes"])
        more = f"   lost {lost / max(1, copies):.2%}, repair {share:.2%}, {given} ranges over TCP"
    print(f"{cells[0]:24}{cells[1]:>10}{cells[2]:>13}{cells[3]:>9}{more}", flush=True)
    return cells


@click.command(context_settings={"show_default": True})
@click.option("--workers", default=4)
@click.option("--copies", default=2)
@click.option("--features", default=1_000_000, help="Numbers in a vector, float32.")
@click.option("--rounds", default=6)
@click.option("--rate", help="Limit each link, each way: 100mbit.")
@click.option("--loss", "losses", type=float, multiple=True, default=[0.0], help="Percent; may be repeated.")
@click.option("--multicast-rate", default="90", help="As for the server.")
@click.option("--packets", is_flag=True, help="Cut everything into packets of the wire.")
@click.option("--uncoded", is_flag=True, help="Also without coding, over TCP.")
@results_option
def main(
    workers: int,
    copies: int,
    features: int,
    rounds: int,
    rate: str | None,
    losses: Sequence[float],
    multicast_rate: str,
    packets: bool,
    uncoded: bool,
    results_file: Path | None,
) -> None:
    """Compare the multicast group with TCP."""
    spec = f"synthetic:tasks={workers},rows=4,parts=1,features={features},test_rows=0"
    placement = Placement.cyclic(workers, workers, copies)
    common = ["--dtype", "float32", "--coupling", "l21", "--rounds", str(rounds)]
    bound = float(Fraction(workers - min(map(len, placement.stored))) * features * 4)
    print(f"{workers} workers, {copies} copies, {features} float32, links {rate or 'open'}")
    print(f"bound of the downlink: {bound / 1e6:g} MB a round")
    print(f"{'':24}{'a round':>10}{'server sends':>13}{'over bound':>9}")
    rows = []
    if uncoded:
        trained, sent, _ = measure(placement, spec, [*common, "--strategy", "uncoded"], rate, 0.0, packets)
        rows.append(show("TCP, uncoded", trained, sent, bound))
    trained, sent, expected = measure(placement, spec, common, rate, 0.0, packets)
    rows.append(show("TCP, coded", trained, sent, bound))
    group = [*common, "--downlink", "multicast", "--multicast-rate", multicast_rate]
    for loss in losses:
        trained, sent, models = measure(placement, spec, group, rate, loss, packets)
        if models != expected:
            raise click.ClickException(f"at {loss} % loss the models are not those of TCP")
        rows.append(show(f"multicast, {loss:g} % loss", trained, sent, bound))
    if results_file is not None:
        head = ("", "a round", "the server's interface sends", "over the bound of the downlink")
        write_results(results_file, [Table(results_file.stem, head, tuple(rows))])


if __name__ == "__main__":
    main()
