"""Measure the uplink of a relay whose workers have links of different speeds, in network namespaces.

    sudo .venv/bin/python tools/measure_links.py --speeds 10,20,50,100,100

Each worker has a namespace and a link of its own, with the same limit in each direction; the server's link is
not limited. The same training is made with equal rates of all workers, with `--speeds FILE`, and with
`--speeds auto` if it is asked for. The models must agree bit for bit before a line is printed. Seconds are
medians over the rounds, from the moment at which all workers have the round before; planned ones are those of
the report.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path

import click
from launch import train_on_links
from results import Table, results_option, write_results

from asyncdmtl.plan.placement import Placement

# Seconds after which a run has failed.
LIMIT = 900.0


@click.command(context_settings={"show_default": True})
@click.option("--speeds", default="10,20,50,100,100", help="Mbit/s of each worker's link, each way.")
@click.option("--features", default=200_000, help="Numbers in a vector, float64.")
@click.option("--parts", default=5, help="Partitions, each a task of its own.")
@click.option("--copies", default=3)
@click.option("--rounds", default=8)
@click.option("--auto", is_flag=True, help="Also with --speeds auto.")
@results_option
def main(
    speeds: str, features: int, parts: int, copies: int, rounds: int, auto: bool, results_file: Path | None
) -> None:
    """Compare equal rates with those that follow the speeds of the links."""
    numbers = [int(speed) for speed in speeds.split(",")]
    placement = Placement.cyclic(len(numbers), parts, copies)
    rates = {name: f"{speed}mbit" for name, speed in zip(placement.workers, numbers, strict=True)}
    spec = f"synthetic:tasks={parts},rows=4,parts=1,features={features},test_rows=0"
    common = ["--coupling", "l21", "--strength", "0.1", "--rounds", str(rounds), "--strategy", "relay"]
    print(f"{parts} partitions, {copies} copies, {features} float64, links of {speeds} Mbit/s")
    print(f"{'':20}{'planned':>10}{'measured':>10}{'a round':>10}")
    rows, expected = [], None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speeds.json"
        file.write_text(json.dumps({"speeds": dict(zip(placement.workers, numbers, strict=True))}))
        ways = {"equal rates": [], "--speeds FILE": ["--speeds", str(file)]}
        if auto:
            ways["--speeds auto"] = ["--speeds", "auto"]
        for name, options in ways.items():
            trained, models = train_on_links(placement, spec, [*common, *options], rates, LIMIT)
            expected = expected or models
            if models != expected:
                raise click.ClickException(f"{name}: the models are not those of equal rates")
            # The plan follows measured speeds after some rounds.
            each = trained.report["rounds"][len(trained.report["rounds"]) // 2 :]
            measured = statistics.median(entry["uplink_seconds"] for entry in each)
            whole = statistics.median(entry["seconds"] for entry in each)
            links = trained.report["links"]
            planned = "" if links is None else f"{links['planned']:.3f} s"
            cells = (name, planned, f"{measured:.3f} s", f"{whole:.3f} s")
            print(f"{cells[0]:20}{cells[1]:>10}{cells[2]:>10}{cells[3]:>10}", flush=True)
            rows.append(cells)
    if results_file is not None:
        head = ("", "uplink, planned", "measured", "a round")
        write_results(results_file, [Table(results_file.stem, head, tuple(rows))])


if __name__ == "__main__":
    main()
