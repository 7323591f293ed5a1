"""Measure the rounds of a relay whose workers have links of different speeds, in network namespaces.

    sudo .venv/bin/python tools/measure_links.py --speeds 10,20,50,100,100 --down-speeds 100,100,100,100,100

Each worker has a namespace and a link of its own; the server's link is not limited. The same training is made
with equal rates of all workers, with `--speeds FILE`, and with `--speeds auto` if it is asked for; and, with
`--placed`, with a placement of as many copies that `design_placement` chooses for the speeds. The models must
agree bit for bit before a line is printed. Measured seconds are medians over the second half of the rounds;
planned ones are those of the report, with the computing that workers measured.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from fractions import Fraction
from pathlib import Path

import click
from launch import train_on_links
from results import Table, results_option, write_results

from asyncdmtl.plan.design.search import design_placement
from asyncdmtl.plan.placement import Placement

# Seconds after which a run has failed.
LIMIT = 900.0


@click.command(context_settings={"show_default": True})
@click.option("--speeds", default="10,20,50,100,100", help="Mbit/s of each worker's link up.")
@click.option("--down-speeds", help="Mbit/s of each worker's link down.  [default: as up]")
@click.option("--features", default=200_000, help="Numbers in a vector.")
@click.option(
    "--dtype", default="float64", help="Of these numbers: the longer, the less computing for a byte."
)
@click.option("--parts", default=5, help="Partitions, each a task of its own.")
@click.option("--copies", default=3)
@click.option("--rounds", default=8)
@click.option("--auto", is_flag=True, help="Also with --speeds auto.")
@click.option("--placed", is_flag=True, help="Also with a placement for the speeds.")
@results_option
def main(
    speeds: str,
    down_speeds: str | None,
    features: int,
    dtype: str,
    parts: int,
    copies: int,
    rounds: int,
    auto: bool,
    placed: bool,
    results_file: Path | None,
) -> None:
    """Compare equal rates with those that follow the speeds of the links."""
    up, down = ([int(speed) for speed in each.split(",")] for each in (speeds, down_speeds or speeds))
    cyclic = Placement.cyclic(len(up), parts, copies)
    names = cyclic.workers
    rates = {name: (f"{u}mbit", f"{d}mbit") for name, u, d in zip(names, up, down, strict=True)}
    spec = f"synthetic:tasks={parts},rows=4,parts=1,features={features},test_rows=0"
    common = ["--coupling", "l21", "--strength", "0.1", "--strategy", "relay"]
    common += ["--rounds", str(rounds), "--dtype", dtype]
    print(f"{parts} partitions, {copies} copies, {features} {dtype}, links of {speeds} Mbit/s up", end="")
    print("" if down_speeds is None else f", {down_speeds} down")
    print(f"{'':28}{'up':>10}{'down':>10}{'computing':>10}{'planned':>10}{'measured':>10}")
    rows, expected = [], None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speeds.json"
        tables = {
            "speeds": dict(zip(names, up, strict=True)),
            "down_speeds": dict(zip(names, down, strict=True)),
        }
        file.write_text(json.dumps(tables))
        ways = {"equal rates": (cyclic, []), "--speeds FILE": (cyclic, ["--speeds", str(file)])}
        if auto:
            ways["--speeds auto"] = (cyclic, ["--speeds", "auto"])
        if placed:
            design = design_placement(
                [parts] * len(up), parts, copies=copies, speeds=list(map(Fraction, down))
            )
            ways["placed, --speeds FILE"] = (design.placement, ["--speeds", str(file)])
        for name, (placement, options) in ways.items():
            trained, models = train_on_links(placement, spec, [*common, *options], rates, LIMIT)
            expected = expected or models
            if models != expected:
                raise click.ClickException(f"{name}: the models are not those of equal rates")
            # The plan follows measured speeds after some rounds.
            each = trained.report["rounds"][len(trained.report["rounds"]) // 2 :]
            measured = statistics.median(entry["seconds"] for entry in each)
            links = trained.report["links"]
            cells = [name, "", "", "", "", f"{measured:.3f} s", ""]
            if links is not None:
                cells[1:5] = [f"{links[key]:.3f} s" for key in ("uplink", "downlink", "computing", "planned")]
                cells[6] = f"{measured / links['planned'] - 1:+.1%}"
            print(f"{cells[0]:28}{''.join(f'{cell:>10}' for cell in cells[1:])}", flush=True)
            rows.append(tuple(cells))
    if results_file is not None:
        head = ("", "up", "down", "computing", "a round, planned", "measured", "difference")
        write_results(results_file, [Table(results_file.stem, head, tuple(rows))])


if __name__ == "__main__":
    main()
