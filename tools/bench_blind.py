"""Measure what a blind server costs: the same rounds with and without `--blind`, side by side.

    python tools/bench_blind.py [--workers 8] [--copies 4] [--numbers 100,1000000] [--results FILE]

Every run is `asyncdmtl run`, on open links of this machine. Blind runs and others alternate, and each figure
is the median over the rounds of all of them, without the first of each run. Before a figure counts, the
models must be equal bit for bit, and the bytes of the rows must be equal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from results import Table, results_option, write_results

from asyncdmtl.data.model_file import SavedModel

# Rounds at the beginning of a run that are not counted, as buffers are touched for the first time.
WARM_UP = 2


@click.command()
@click.option("--workers", default=8, help="Workers, each with as many tasks.")
@click.option("--copies", default=4, help="Workers that store each partition.")
@click.option("--numbers", default="100,1000000", help="Numbers of a vector.")
@click.option("--rounds", default=12, help="Rounds of a run.")
@click.option("--runs", default=3, help="Runs of each kind.")
@results_option
def main(workers: int, copies: int, numbers: str, rounds: int, runs: int, results_file: Path | None) -> None:
    """Print a line for each size; exit code 1 if models or bytes differ."""
    rows, wrong = [], 0
    for size in map(int, numbers.split(",")):
        seconds: dict[bool, list[float]] = {False: [], True: []}
        found: dict[bool, tuple[bytes, list[int], list[int]]] = {}
        for index in range(2 * runs):
            # Blind, open, open, blind, and so on, so that drifts of the machine count for both.
            blind = index % 4 in (0, 3)
            report, models = one_run(workers, copies, size, rounds, blind=blind)
            seconds[blind] += [entry["seconds"] for entry in report["rounds"][WARM_UP:]]
            directions = report["uplink"], report["downlink_wire"]
            payload, heads = (
                [each[key] for each in directions] for key in ("payload_bytes", "framing_bytes")
            )
            found[blind] = models, payload, [count // rounds for count in heads]
        wrong += found[True][:2] != found[False][:2]
        plain, masked = (median(seconds[blind]) for blind in (False, True))
        heads = [b - a for a, b in zip(found[False][2], found[True][2], strict=True)]
        row = (
            f"{workers} × {size:,} float32, {copies} copies",
            f"{1e3 * plain:.1f} ms", f"{1e3 * masked:.1f} ms",
            f"{1e3 * (masked - plain):+.2f} ms", f"{masked / plain - 1:+.1%}",
            f"{sum(heads):+,} B",
        )  # fmt: skip
        rows.append(row)
        print("  ".join(row), flush=True)
    head = ("vectors", "open to the server", "blind", "difference", "share", "heads a round, all workers")
    if results_file is not None:
        write_results(results_file, [Table("blind", head, tuple(rows))])
    sys.exit(1 if wrong else 0)


def one_run(
    workers: int, copies: int, size: int, rounds: int, *, blind: bool
) -> tuple[dict[str, Any], bytes]:
    """A run; its report, and the bytes of its models."""
    with tempfile.TemporaryDirectory() as name:
        report, models = Path(name) / "report.json", Path(name) / "models.npz"
        words = [
            sys.executable, "-m", "asyncdmtl", "run",
            "--data", f"synthetic:tasks={workers},rows=2,features={size - 1},parts=1,test_rows=0",
            "--workers", str(workers), "--copies", str(copies), "--strategy", "relay",
            "--rounds", str(rounds), "--tolerance", "0", "--strength", "0.01", "--coupling", "l21",
            "--dtype", "float32", "--update", "gradient", "--report", str(report), "--save", str(models),
            *["--blind"] * blind,
        ]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, env=os.environ, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        saved = SavedModel.load(models).models
        return json.loads(report.read_text()), np.append(saved.coef_, saved.intercept_).tobytes()


if __name__ == "__main__":
    main()
