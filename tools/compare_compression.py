"""Compare accuracy and bytes of trainings with compressed updates.

python tools/compare_compression.py [--data digits] [--rounds 500] [--plot FILE]

Every run is trained by its one-process twin, whose models are those of the distributed run bit for bit; bytes
are those of the plan for `relay`, framing not counted, as `run` reports them. For each compression, the table
has the bytes of a round, the excess of the last objective over the minimum (of a long uncompressed training),
the test metric, and the bytes until the objective was within 1 % and within 0.01 % of the minimum.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from results import Table, results_option, write_results

from asyncdmtl.data import loading
from asyncdmtl.exchange.strategies import codable_units
from asyncdmtl.learning.compression import COMPRESSIONS
from asyncdmtl.learning.metrics import metrics_for, score
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan


@click.command()
@click.option("--data", "recipe", default="digits", show_default=True)
@click.option("--rounds", default=500, show_default=True)
@click.option("--workers", default=5, show_default=True)
@click.option("--copies", default=3, show_default=True)
@click.option("--accelerated/--plain", default=True, show_default=True)
@click.option("--plot", type=click.Path(path_type=Path))
@results_option
def main(
    recipe: str,
    rounds: int,
    workers: int,
    copies: int,
    accelerated: bool,
    plot: Path | None,
    results_file: Path | None,
) -> None:
    """Print a line for each compression."""
    loaded = loading.load({"data": recipe, "seed": 0})
    curves: dict[str, tuple[NDArray[np.float64], float, float]] = {}
    for name in COMPRESSIONS:
        given = {k: v for k, v in loaded.defaults.items() if k in Settings.__dataclass_fields__}
        settings = Settings(
            **{**given, "rounds": rounds, "tolerance": 0.0, "accelerated": accelerated, "compression": name}
        )
        prepared = loaded.prepared(settings)
        infos = [part.info(settings) for part in prepared.partitions]
        problem = Problem(settings, infos)
        placement = Placement.cyclic(workers, len(infos), copies)
        plan = make_plan(placement, "relay", tasks=problem.task_of, units=codable_units(settings))
        vector = plan.vector_format(problem.wire.length, problem.wire.dtype).padded_bytes
        trained = train(prepared.partitions, settings)
        metric = metrics_for(settings.loss)[0]
        value = score(trained.models, prepared.test, metric).all_rows
        load = float(plan.uplink_load + plan.wire_downlink_load)
        curves[name] = trained.objectives, vector * load, value
    longest = {"rounds": 20_000, "tolerance": 1e-9, "accelerated": True, "compression": "none"}
    longest_settings = Settings(**{**vars(settings), **longest, "dtype": "float64"})
    least = float(train(prepared.partitions, longest_settings).objectives.min())
    print(f"{recipe}: {rounds} rounds, {workers} workers, {copies} copies, {metric} of all test rows")
    heads = (("compression", 12), ("bytes a round", 15), ("last excess", 13), (metric, 10))
    print("".join(f"{text:<{n}}" if n == 12 else f"{text:>{n}}" for text, n in heads), end="")
    print(f"{'to 1 %':>12}{'to 0.01 %':>12}")
    shown: list[tuple[str, ...]] = []
    for name, (objectives, size, value) in curves.items():
        excess = objectives / least - 1
        needed = [_bytes_until(excess, limit, size) for limit in (1e-2, 1e-4)]
        print(f"{name:12}{size:15,.0f}{excess[-1]:13.1e}{value:10.4f}{needed[0]:>12}{needed[1]:>12}")
        shown.append((name, f"{size:,.0f}", f"{excess[-1]:.1e}", f"{value:.4f}", ", ".join(needed)))
    if results_file is not None:
        columns = ("", "bytes a round", "objective above the least", metric, "bytes to within 1 %, 0.01 %")
        write_results(results_file, [Table("compression", columns, tuple(shown))])
    if plot is not None:
        _draw(curves, least, plot)


def _bytes_until(excess: NDArray[np.float64], limit: float, size: float) -> str:
    """Bytes of the rounds, in MB, until the objective stays within `limit` of the minimum."""
    outside = np.flatnonzero(excess > limit)
    last = -1 if not len(outside) else int(outside[-1])
    return "–" if last + 1 == len(excess) else f"{(last + 2) * size / 1e6:.2f} MB"


def _draw(curves: dict[str, tuple[NDArray[np.float64], float, float]], least: float, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name, (objectives, size, _) in curves.items():
        axes.plot(
            np.arange(1, len(objectives) + 1) * size / 1e6,
            np.maximum(objectives / least - 1, 1e-9),
            label=name,
        )
    axes.set(xlabel="MB sent, up and down", ylabel="objective above the least, relative", yscale="log")
    axes.set_xscale("log")
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
