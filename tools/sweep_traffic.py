"""Measure many runs: over workers, partitions, copies, vector length, strategy, dtype and rate of the links.

    sudo .venv/bin/python tools/sweep_traffic.py --copies 1,2,3,4,5 --report sweep.json --plot sweep.png

Each combination is a run as `measure_traffic.py` makes it: in network namespaces, or without root on the
loopback. The report has loads beside the bound and uncoded exchange, bytes and seconds per round, and the
cost until the objective was near the minimum of all runs: `--accuracy` is the permitted rest, as a share of
the distance from the first objective to that minimum. Pictures show the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import click
from launch import SERVER
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from namespaces import obstacle
from traffic import Counted, measure

from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.plan.placement import Placement
from asyncdmtl.report.pictures import make_room_for_legends

OPEN = "open"

# Settings in which runs may differ. The axis of a picture shows the first setting in which its runs differ.
AXES = {
    "numbers": "numbers per vector",
    "copies": "copies of each partition",
    "workers": "workers",
    "partitions": "partitions",
}


@dataclass(frozen=True)
class Setting:
    """The settings of a run; `rate` is that of all links, or "open"."""

    workers: int
    partitions: int
    copies: int
    numbers: int
    strategy: str
    dtype: str
    rate: str

    @property
    def label(self) -> str:
        """The settings in which the lines of a picture differ."""
        return " ".join([self.strategy, self.dtype, *([self.rate] if self.rate != OPEN else [])])


@dataclass(frozen=True)
class Point:
    """The results of a run.

    Loads are vectors per round, bytes those of messages per round at the server, payload and framing;
    `interface_bytes` those of its interface, in both directions, headers included, over the whole run per
    round; None without namespaces. `to_accuracy` has the rounds, seconds and bytes until the accuracy was
    reached; None if it was not.
    """

    setting: Setting
    loads: dict[str, dict[str, float]]
    bytes: int
    interface_bytes: int | None
    seconds: float
    objectives: list[float]
    round_seconds: list[float]
    to_accuracy: dict[str, float] | None = None


def measured(setting: Setting, rounds: int) -> Point:
    """Make the run of a setting."""
    placement = Placement.cyclic(setting.workers, setting.partitions, setting.copies)
    spec = (
        f"synthetic:tasks={setting.partitions},rows=8,parts=1,features={setting.numbers},rank=2,test_rows=0"
    )
    options = [
        "--strategy", setting.strategy, "--dtype", setting.dtype, "--rounds", str(rounds),
        "--coupling", "l21", "--strength", "0.01",
    ]  # fmt: skip
    return point(setting, measure(placement, spec, options, None if setting.rate == OPEN else setting.rate))


def point(setting: Setting, counted: Counted) -> Point:
    """The figures of a run that plots show."""
    report = counted.report
    rounds = report["rounds"]
    interface = None
    if counted.hosts is not None:
        server = counted.hosts[SERVER]
        interface = (server.received_bytes + server.sent_bytes) // len(rounds)
    loads = {
        part: {
            "measured": float(Fraction(report[part]["measured_load"])),
            "bound": float(Fraction(report[part].get("bound", report[part]["load"]))),
            "uncoded": float(report[part]["uncoded_load"]),
        }
        for part in ("uplink", "downlink_broadcast", "downlink_wire")
    }
    return Point(
        setting=setting,
        loads=loads,
        bytes=sum(entry["up_bytes"] + entry["down_bytes"] for entry in rounds) // len(rounds),
        interface_bytes=interface,
        seconds=counted.round_seconds,
        objectives=[entry["objective"] for entry in rounds],
        round_seconds=[entry["seconds"] for entry in rounds],
    )


def with_accuracy(points: Sequence[Point], accuracy: float) -> Iterator[Point]:
    """The points, with their cost of coming near the smallest objective of all runs of the same problem."""
    least: dict[tuple[int, int], float] = {}
    for found in points:
        problem = found.setting.partitions, found.setting.numbers
        least[problem] = min(least.get(problem, float("inf")), *found.objectives)
    for found in points:
        best = least[found.setting.partitions, found.setting.numbers]
        goal = best + accuracy * (found.objectives[0] - best)
        # A round's objective is that at its beginning, after the rounds before it.
        rounds = next((r for r, value in enumerate(found.objectives) if value <= goal), None)
        reached = None
        if rounds is not None:
            seconds = sum(found.round_seconds[:rounds])
            reached = {"rounds": float(rounds), "seconds": seconds, "bytes": float(rounds * found.bytes)}
        yield Point(**{**vars(found), "to_accuracy": reached})


def line(found: Point) -> str:
    """The line of the output for a run."""
    setting, up, down = found.setting, found.loads["uplink"], found.loads["downlink_broadcast"]
    reached = found.to_accuracy
    return (
        f"{setting.workers:3} × {setting.partitions:<3} {setting.copies:2} copies {setting.numbers:>9} "
        f"{setting.label:24} up {up['measured']:7.3f} ({up['bound']:.3f}, {up['uncoded']:.0f}) "
        f"down {down['measured']:7.3f} ({down['bound']:.3f}, {down['uncoded']:.0f})  "
        f"{found.bytes / 1e6:9.3f} MB {found.seconds:8.4f} s  "
        + ("–" if reached is None else f"{reached['seconds']:.3f} s {reached['bytes'] / 1e6:.2f} MB")
    )


def draw(points: Sequence[Point], accuracy: float, path: Path) -> None:
    """Draw loads against copies, and costs of a round and to the accuracy against the first axis."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    (loads, sizes), (times, goal) = figure.subplots(2, 2)
    draw_loads(loads, points)
    along = next((name for name in AXES if len({getattr(p.setting, name) for p in points}) > 1), "numbers")
    for axes, name, scale in ((sizes, "bytes", 1e-6), (times, "seconds", 1.0)):
        for label, chosen in grouped(points, along):
            ends = sorted((getattr(p.setting, along), scale * getattr(p, name)) for p in chosen)
            axes.plot(*zip(*ends, strict=True), ".-", label=label)
        axes.set(xlabel=AXES[along])
        if along == "numbers":
            axes.set(xscale="log", yscale="log")
        else:
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    sizes.set_ylabel("MB a round, both ways, on the wire")
    times.set_ylabel("seconds a round")
    # One column: two of the long labels are wider than the panel.
    times.legend(fontsize="x-small", loc="upper center")
    for label, chosen in grouped(points, along):
        reached = [p.to_accuracy for p in chosen if p.to_accuracy is not None]
        if reached:
            goal.loglog(
                [r["bytes"] / 1e6 for r in reached], [r["seconds"] for r in reached], "o", label=label
            )
    title = f"until {accuracy:.3g} of the way to the least objective is left"
    goal.set(xlabel="MB on the wire", ylabel="seconds", title=title)
    make_room_for_legends(figure)
    figure.savefig(path)


def draw_loads(axes: Axes, points: Sequence[Point]) -> None:
    """Draw measured loads of coded runs with their bounds, and of uncoded exchange, against copies."""
    coded = [p for p in points if p.setting.strategy == "relay"]
    # Loads are the same for all vectors.
    alike = {(p.setting.workers, p.setting.partitions, p.setting.copies): p for p in coded}
    for number, size in enumerate(sorted({key[:2] for key in alike})):
        chosen = [alike[key] for key in sorted(alike) if key[:2] == size]
        copies = [p.setting.copies for p in chosen]
        for part, style, marker in (("uplink", "-", "o"), ("downlink_broadcast", "--", "s")):
            of = [p.loads[part] for p in chosen]
            name = f"{part.replace('_', ', ')}, {size[0]} workers × {size[1]}"
            colour = f"C{number}"
            axes.plot(copies, [load["bound"] for load in of], style, color=colour, label=f"{name}: bound")
            measured_loads = [load["measured"] for load in of]
            axes.plot(copies, measured_loads, marker, color=colour, fillstyle="none", label="measured")
        axes.plot(copies, [p.loads["uplink"]["uncoded"] for p in chosen], ":", color=colour, label="uncoded")
    axes.set(xlabel="copies of each partition", ylabel="load, vectors per round", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize="x-small", loc="upper center", ncols=2)


def grouped(points: Iterable[Point], along: str) -> Iterator[tuple[str, list[Point]]]:
    """Points that differ along one axis only, by the settings that they share."""
    groups: dict[str, list[Point]] = {}
    for found in points:
        setting = found.setting
        words = {
            "workers": f"{setting.workers} workers", "partitions": f"{setting.partitions} partitions",
            "copies": f"{setting.copies} copies", "numbers": f"{setting.numbers:,} numbers",
        }  # fmt: skip
        common = [word for name, word in words.items() if name != along]
        groups.setdefault(", ".join([setting.label, *common]), []).append(found)
    yield from groups.items()


def settings(given: dict[str, str]) -> Iterator[Setting]:
    """All possible combinations."""
    counts = [
        [int(word) for word in given[name].split(",")]
        for name in ("workers", "partitions", "copies", "numbers")
    ]
    words = [given[name].split(",") for name in ("strategies", "dtypes", "rates")]
    if unknown := set(words[0]) - set(STRATEGIES):
        raise click.UsageError(f"no such strategy: {', '.join(sorted(unknown))}")
    for (workers, partitions, copies, numbers), (strategy, dtype, rate) in product(
        product(*counts), product(*words)
    ):
        if copies <= workers:
            yield Setting(workers, partitions, copies, numbers, strategy, dtype, rate)


@click.command(context_settings={"show_default": True})
@click.option("--workers", default="5")
@click.option("--partitions", default="20")
@click.option("--copies", default="1,2,3,4")
@click.option("--numbers", default="1000,10000,100000", help="Per vector.")
@click.option("--strategies", default="relay,uncoded")
@click.option("--dtypes", default="float32")
@click.option("--rates", default=OPEN, help="Of all links, such as 100mbit.")
@click.option("--rounds", default=20)
@click.option("--accuracy", default=0.001, help="Share of the way to the least objective that is left.")
@click.option("--report", "report_file", type=click.Path(path_type=Path), help="Write all points as JSON.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw them here.")
def main(rounds: int, accuracy: float, report_file: Path | None, plot: Path | None, **given: Any) -> None:
    """Measure all combinations."""
    if (reason := obstacle()) is not None:
        print(f"on the loopback: {reason}")
    print("workers × partitions; loads: measured (bound, uncoded); a round; until the accuracy is reached")
    points = []
    for setting in settings(given):
        points.append(measured(setting, rounds))
        print(line(points[-1]), flush=True)
    points = list(with_accuracy(points, accuracy))
    print(f"until {accuracy:g} of the way to the least objective was left:")
    for found in points:
        print(line(found))
    if report_file is not None:
        content = {"accuracy": accuracy, "points": [asdict(found) for found in points]}
        report_file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if plot is not None:
        draw(points, accuracy, plot)


if __name__ == "__main__":
    main()
