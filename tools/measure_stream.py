"""Measure the throughput of a stream of jobs: `python tools/measure_stream.py --rate 100mbit`.

Makes the same jobs one after the other and as a stream, with a server and workers in network namespaces (root
and iproute2), and compares their models bit for bit, and their bytes. Each worker's link to the server has a
limited rate each way; the server's own link is not limited, unless `--server-rate` says so.
"""

from __future__ import annotations

import os
import resource
import statistics
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from launch import SERVER, processes
from namespaces import HERE, Host, network
from results import Table, results_option, write_results
from stream_cluster import Ended, StreamPlan, models_of, run_stream

# The most seconds of one stream.
LIMIT = 600.0

# Workloads: recipe of the data, and options of every job. In the first two, processors (two of them, for all
# workers and the server) are busy for longer than links; in the last one, links are, by default.
WORKLOADS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "short vectors, many rounds": (
        "synthetic:tasks=10,rows=40,features=64,parts=1,rank=2,test_rows=0",
        {"rounds": 150, "tolerance": 0.0, "update": "gradient", "coupling": "l21", "strength": 0.05},
    ),
    "long vectors, few rounds": (
        "synthetic:tasks=10,rows=60,features=4000,parts=1,rank=2,test_rows=0",
        {"rounds": 25, "tolerance": 0.0, "update": "gradient", "coupling": "l21", "strength": 0.05},
    ),
    "long vectors, few rows": (
        "synthetic:tasks=10,rows=8,features=8000,parts=1,rank=2,test_rows=0",
        {
            "rounds": 60,
            "tolerance": 0.0,
            "update": "gradient",
            "coupling": "l21",
            "strength": 0.05,
            "dtype": "float64",
        },
    ),
}


def jobs_of(options: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """So many jobs that differ in coupling, λ and seed."""
    return [
        {
            "name": f"job{i}",
            **options,
            "strength": options["strength"] * (1 + i),
            "coupling": ("l21", "ridge")[i % 2],
            "seed": i,
        }
        for i in range(count)
    ]


def measure(hosts: Mapping[str, Host], plan: StreamPlan) -> tuple[Ended, list[set[str]], float]:
    """Make a stream; its end, the digests of the models of each job, and processor time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as name, processes({}, LIMIT) as started:
        plan = replace(plan, folder=Path(name))
        ended = run_stream(started, hosts, plan)
        if ended.code:
            raise click.ClickException(f"the stream ended with {ended.code}: {ended.errors}")
        for process in started.processes:
            process.wait()
        models = [models_of(plan.folder, str(job["name"]), range(plan.workers)) for job in plan.jobs]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime - ended.started_up
    return ended, models, used


def wire_bytes(ended: Ended) -> list[tuple[int, int]]:
    """Bytes up and down of the rounds of each job."""
    rounds = [ended.reports[job]["rounds"] for job in sorted(ended.reports)]
    return [(sum(r["up_bytes"] for r in each), sum(r["down_bytes"] for r in each)) for each in rounds]


def wire_seconds(ended: Ended, rate: str) -> float:
    """The least time of the busiest of the workers' links, of this rate, for all messages of all jobs."""
    sent: Counter[tuple[str, str]] = Counter()
    for report in ended.reports.values():
        for entry in report["ledger"]:
            sent[entry["worker"], entry["direction"]] += entry["payload_bytes"] + entry["framing_bytes"]
    return _seconds(max(sent.values()), rate)


def server_seconds(ended: Ended, rate: str) -> float:
    """The same of the server's link, for the rounds of all jobs."""
    return _seconds(max(map(sum, zip(*wire_bytes(ended), strict=True))), rate)


def _seconds(size: int, rate: str) -> float:
    return 8 * size / (float(rate.removesuffix("mbit")) * 1e6)


@click.command(context_settings={"show_default": True})
@click.option("--workers", type=int, default=4, help="With more, this machine may be busier than links.")
@click.option("--copies", type=int, default=2)
@click.option("--jobs", type=int, default=8)
@click.option("--in-flight", type=int, default=8)
@click.option(
    "--rate",
    default="100mbit",
    help="Of each worker's link each way, as 100mbit; none: on the loopback.",
)
@click.option("--server-rate", help="The same of the server's link.  [default: not limited]")
@click.option("--repeat", type=int, default=3)
@click.option("--only", type=click.Choice(tuple(WORKLOADS)), help="One workload only.")
@results_option
def main(
    workers: int,
    copies: int,
    jobs: int,
    in_flight: int,
    rate: str,
    server_rate: str | None,
    repeat: int,
    only: str | None,
    results_file: Path | None,
) -> None:
    """Print seconds of both orders, side by side, and their ratio."""
    names = [SERVER, *(f"w{k}" for k in range(workers))]
    limits = dict.fromkeys(names[1:], rate) | ({} if server_rate is None else {SERVER: server_rate})
    rows, processors = [], len(os.sched_getaffinity(0))
    for workload, (data, options) in WORKLOADS.items():
        if only not in (None, workload):
            continue
        plan = StreamPlan(data, workers, copies, jobs_of(options, jobs), 1, Path())
        found: dict[int, list[tuple[Ended, list[set[str]], float]]] = {1: [], in_flight: []}
        for _ in range(repeat):
            for together in found:
                if rate == "none":
                    made = measure(dict.fromkeys(names, HERE), replace(plan, in_flight=together))
                else:
                    with network(names, limits) as hosts:
                        made = measure(hosts, replace(plan, in_flight=together))
                found[together].append(made)
        every = [made for each in found.values() for made in each]
        if any(models != every[0][1] or any(len(one) != 1 for one in models) for _, models, _ in every):
            raise click.ClickException(f"{workload}: models differ")
        if len({tuple(wire_bytes(ended)) for ended, *_ in every}) != 1:
            raise click.ClickException(f"{workload}: bytes of rounds differ")
        alone, stream = (
            statistics.median(ended.seconds for ended, *_ in found[together]) for together in (1, in_flight)
        )
        ratios = [a.seconds / s.seconds for (a, *_), (s, *_) in zip(found[1], found[in_flight], strict=True)]
        used = [statistics.median(used for *_, used in found[together]) for together in (1, in_flight)]
        ended, busiest = every[0][0], 0.0
        if rate != "none":
            busiest = max(
                wire_seconds(ended, rate), server_seconds(ended, server_rate) if server_rate else 0.0
            )
        rows.append(
            (workload, f"{alone:.2f}", f"{stream:.2f}", f"{statistics.median(ratios):.2f}",
             f"{min(ratios):.2f} to {max(ratios):.2f}", *(f"{each / processors:.2f}" for each in used),
             f"{busiest:.2f}" if busiest else "-")
        )  # fmt: skip
        click.echo(" | ".join(rows[-1]))
    head = (
        "jobs", "one after the other (s)", f"{in_flight} at a time (s)", "throughput", "of all pairs",
        f"time of {processors} processors, one after the other (s)",
        f"of {processors} processors, {in_flight} at a time (s)", "of the busiest link (s)",
    )  # fmt: skip
    table = Table("stream", head, tuple(rows))
    click.echo(table.markdown())
    if results_file is not None:
        write_results(results_file, [table])


if __name__ == "__main__":
    main()
