"""`asyncdmtl place`: who should store what, so that little need be sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from asyncdmtl.cli.command import command
from asyncdmtl.errors import UsageError
from asyncdmtl.plan.design.search import Design, TradeOff, design_placement, trade_off
from asyncdmtl.plan.placement import Placement
from asyncdmtl.report.pictures import plot_design
from asyncdmtl.report.run_report import make_console

Description = dict[str, Any]
Number = TypeVar("Number", int, Fraction)

# What fits on a screen: rows of the trade-off, and cells of the picture of a store.
ROWS = 20
CELLS = 48


@command("place")
@click.option("--partitions", type=int, required=True, help="Partitions to store.")
@click.option(
    "--capacities",
    metavar="LIST",
    help="Partitions that each worker may store: 12,12,4 or north=12,south=12,small=4.",
)
@click.option("--workers", type=int, help="So many workers of equal --capacity; instead of --capacities.")
@click.option(
    "--capacity",
    type=int,
    show_default="as little as --copies need",
    help="Partitions that each of --workers may store.",
)
@click.option(
    "--copies",
    type=int,
    show_default="as many as fit",
    help="Workers that store each partition, exactly.",
)
@click.option(
    "--speeds",
    metavar="LIST",
    help="Speeds of the workers' links, in vectors per unit of time, as for --capacities: "
    "minimise the time of uplink and downlink instead of their loads.",
)
@click.option("--seed", type=int, default=0, help="Of the choices among equals.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Write the placement here: JSON if it ends so, or TOML."
)
@click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path), help="Draw placement and trade-off here."
)
def main(
    partitions: int,
    capacities: str | None,
    workers: int | None,
    capacity: int | None,
    copies: int | None,
    speeds: str | None,
    seed: int,
    output: Path | None,
    plot_file: Path | None,
    format: str,
    **_: object,
) -> None:
    """Find a placement of least total load for given storage, with the bound over all placements beside it.

    Shows who stores what, the loads of relay, and what more or fewer copies would cost and save.
    """
    room = _capacities(partitions, capacities, workers, capacity, copies)
    b = None if speeds is None else _in_order("--speeds", _listed("--speeds", speeds, Fraction), list(room))
    design = design_placement(room, partitions, copies=copies, speeds=b, seed=seed)
    description = describe(design, room, b, trade_off(len(room), partitions, _some(len(room)), seed=seed))
    if output is not None:
        write_placement(design.placement, output, description["speeds"])
    if plot_file is not None:
        plot_design(description, plot_file)
    if format == "json":
        print(json.dumps(description))
    else:
        show(description)


def describe(
    design: Design,
    capacities: Mapping[str, int],
    speeds: Sequence[Fraction] | None,
    rows: Sequence[TradeOff],
) -> Description:
    """A design and the trade-off in plain JSON types, fractions as strings."""
    placement = design.placement
    N = len(placement.partitions)
    lacked = sum(len(holders) < len(placement.workers) for holders in placement.holders)
    return {
        "placement": placement.as_dict(),
        "partitions": list(placement.partitions),
        "capacities": dict(capacities),
        "copies": str(Fraction(sum(map(len, placement.stored)), N)),
        "uplink_loads": dict(zip(placement.workers, map(str, design.uplink_rates), strict=True)),
        "uplink_load": str(design.uplink_load),
        "uplink_bound": str(design.uplink_bound),
        "downlink_load": str(design.downlink_load),
        "downlink_bound": str(design.downlink_bound),
        "uncoded_load": str(lacked),
        "speeds": None if speeds is None else dict(zip(placement.workers, map(str, speeds), strict=True)),
        "times": design.times and {key: str(value) for key, value in asdict(design.times).items()},
        "gap": str(design.gap),
        "optimal": design.optimal,
        "trade_off": [
            {key: str(value) if isinstance(value, Fraction) else value for key, value in asdict(row).items()}
            for row in rows
        ],
    }


def show(description: Description, console: Console | None = None) -> None:
    """Print a description as a person wants to see it."""
    console = console or make_console()
    console.print(_store_table(description))
    console.print(_load_table(description))
    console.print(_verdict(description))
    console.print(_trade_off_table(description))


def write_placement(placement: Placement, path: Path, speeds: Mapping[str, str] | None = None) -> None:
    """Write a file that `Placement.read` reads: JSON if `path` ends in .json, else TOML.

    `speeds` of the workers' links become a table of their own, for `asyncdmtl plan`.

    Raises
    ------
    UsageError
        The file cannot be written.
    """
    content: dict[str, Any] = {"partitions": list(placement.partitions), "workers": placement.as_dict()}
    if speeds is not None:
        content["speeds"] = dict(speeds)
    text = json.dumps(content) + "\n" if path.suffix == ".json" else _toml(content)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError("--output", f"must be writable ({error.strerror})", str(path)) from error


def _toml(content: Mapping[str, Any]) -> str:
    """TOML of lists and tables of lists: their JSON is TOML as well, names are quoted to be keys."""
    lines = []
    for key, value in content.items():
        if isinstance(value, dict):
            lines += ["", f"[{key}]"]
            lines += [f"{_quoted(name)} = {_quoted(entry)}" for name, entry in value.items()]
        else:
            lines.append(f"{key} = {_quoted(value)}")
    return "\n".join(lines) + "\n"


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _capacities(
    partitions: int, listed: str | None, workers: int | None, capacity: int | None, copies: int | None
) -> dict[str, int]:
    """Capacity per worker from the options, of which there are two ways to say it."""
    if listed is not None:
        if workers is not None or capacity is not None:
            raise UsageError("--capacities", "cannot be given with --workers or --capacity", listed)
        found = _listed("--capacities", listed, int)
        return found if isinstance(found, dict) else {f"w{k}": each for k, each in enumerate(found)}
    if workers is None:
        raise UsageError("--capacities", "must be given, or --workers", None)
    if workers < 1:
        raise UsageError("--workers", "must be at least 1", workers)
    if capacity is None:
        if copies is None:
            raise UsageError("--workers", "needs --capacity or --copies beside it", workers)
        capacity = -(-partitions * copies // workers)
    return {f"w{k}": capacity for k in range(workers)}


def _listed(option: str, text: str, number: Callable[[str], Number]) -> list[Number] | dict[str, Number]:
    """Numbers separated by commas, each with or each without a NAME= before it."""
    entries = [entry.rpartition("=") for entry in text.split(",")]
    try:
        values = [number(value.strip()) for _, _, value in entries]
    except (ValueError, ZeroDivisionError) as error:
        rule = "must be whole numbers" if number is int else "must be numbers"
        raise UsageError(option, f"{rule} separated by commas", text) from error
    names = [name.strip() for name, equals, _ in entries if equals]
    if not names:
        return values
    if len(set(names)) < len(entries):
        raise UsageError(option, "must name all workers, each once, or none", text)
    return dict(zip(names, values, strict=True))


def _in_order(option: str, listed: list[Number] | dict[str, Number], workers: Sequence[str]) -> list[Number]:
    if isinstance(listed, list):
        return listed
    if set(listed) != set(workers):
        raise UsageError(option, f"must name the workers {', '.join(workers)}", list(listed))
    return [listed[worker] for worker in workers]


def _some(workers: int) -> list[int]:
    """Numbers of copies from 1 to all workers, spread over as many rows as fit on a screen."""
    rows = min(workers, ROWS)
    return [1 + (workers - 1) * i // max(1, rows - 1) for i in range(rows)]


def _store_table(description: Description) -> Table:
    partitions = description["partitions"]
    N = len(partitions)
    per_cell = -(-N // CELLS)
    each = "a cell is a partition" if per_cell == 1 else f"a cell is {per_cell} partitions, darker if stored"
    table = Table(
        title=f"{N} partitions, {float(Fraction(description['copies'])):g} copies of each",
        caption=f"{partitions[0]} to {partitions[-1]}: {each}",
    )
    for heading, justify in (("worker", "left"), ("stores", "right"), ("uplink", "right")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("who stores what", no_wrap=True)
    for worker, stored in description["placement"].items():
        table.add_row(
            worker,
            f"{len(stored)} of {description['capacities'][worker]}",
            description["uplink_loads"][worker],
            _picture(set(stored), partitions, per_cell),
        )
    return table


def _picture(stored: set[str], partitions: Sequence[str], per_cell: int) -> str:
    cells = []
    for first in range(0, len(partitions), per_cell):
        cell = partitions[first : first + per_cell]
        held = sum(name in stored for name in cell)
        # Rounded up: what is stored must be seen.
        cells.append("·░▒▓█"[-(-4 * held // len(cell))])
    return "".join(cells)


def _load_table(description: Description) -> Table:
    table = Table(title="Load of relay: vectors per round")
    table.add_column("")
    for heading in ("this placement", "least of all placements", "uncoded"):
        table.add_column(heading, justify="right")
    uncoded = description["uncoded_load"]
    for name, key in (("uplink", "uplink"), ("downlink, broadcast", "downlink")):
        table.add_row(name, description[f"{key}_load"], f"≥ {description[f'{key}_bound']}", uncoded)
    if times := description["times"]:
        table.add_section()
        for key in ("uplink", "downlink"):
            table.add_row(f"time of the {key}", times[key], f"≥ {times[f'{key}_bound']}", "-")
    return table


def _verdict(description: Description) -> str:
    what = "load" if description["times"] is None else "time"
    if description["optimal"]:
        return f"Optimal: no placement with this storage has a smaller total {what}."
    gap = Fraction(description["gap"])
    return (
        f"The total {what} is {float(gap):.3g} above what is known to be needed; "
        "whether any placement with this storage does better is open."
    )


def _trade_off_table(description: Description) -> Table:
    table = Table(
        title=f"Storage and computation against traffic, on {len(description['placement'])} equal workers"
    )
    for heading in (
        "copies",
        "stored",
        "computed",
        "uplink",
        "bound",
        "downlink",
        "uncoded up, down",
        "unicast down",
    ):
        table.add_column(heading, justify="right")
    for row in description["trade_off"]:
        table.add_row(
            str(row["copies"]),
            str(row["storage"]),
            str(row["computation"]),
            row["uplink_load"],
            row["uplink_bound"],
            row["downlink_load"],
            f"{row['uncoded_uplink']}, {row['uncoded_downlink']}",
            str(row["unicast_downlink"]),
        )
    table.caption = "stored: partitions a worker; computed: updates a round by all; the rest: vectors a round"
    return table
