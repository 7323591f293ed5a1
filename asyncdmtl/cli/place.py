"""`asyncdmtl place`: find a placement with a small load."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import click

from asyncdmtl.cli.command import command
from asyncdmtl.cli.data_options import column_options, reading_options
from asyncdmtl.cli.outputs import check_outputs
from asyncdmtl.cli.place_relays import relays_of
from asyncdmtl.cli.place_tables import names_tables, placement_of_tables
from asyncdmtl.errors import UsageError
from asyncdmtl.plan.design.additions import RoundLoads, best_additions
from asyncdmtl.plan.design.hierarchy import HierarchyDesign, HierarchyLoads, design_hierarchy
from asyncdmtl.plan.design.search import design_placement, trade_off
from asyncdmtl.plan.placement_file import PlanRequest, read_request, tables_of, weights_of, write_placement
from asyncdmtl.plan.validation import whole_number
from asyncdmtl.report.design_report import report_additions, report_design, report_hierarchy_design
from asyncdmtl.report.design_tables import show_additions, show_design, show_hierarchy_design
from asyncdmtl.report.pictures import check_picture
from asyncdmtl.report.plan_pictures import plot_design

Number = TypeVar("Number", int, Fraction)

# The most rows of the table of copies and loads: as many as fit on a screen.
MOST_ROWS_OF_TRADE_OFF = 20


@command("place")
@click.option("--partitions", type=int, help="Partitions to store.")
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
    "--relays",
    metavar="NUMBER | LIST",
    help="Lower the loads between relays and server: so many relays over which workers are spread in their "
    "order, or the nodes behind each, north=w0+w1,south=w2+w3.",
)
@click.option(
    "--speeds",
    metavar="LIST",
    help="Speeds of the workers' links, in vectors per unit of time, as for --capacities: "
    "minimise the time of uplink and downlink instead of their loads.",
)
@click.option(
    "--from",
    "start",
    multiple=True,
    metavar="FILE | WORKER=FILES",
    help="Instead of --partitions: start from the placement in this file, and name the next copies worth "
    "making. Or start from tables, WORKER=FILES for each worker: each file's rows of a task are a partition.",
)
@click.option("--add", type=int, show_default="1; for tables 0", help="Copies to name, for --from.")
@click.option(
    "--minimise",
    type=click.Choice(("load", "cost", "makespan")),
    default="load",
    help="For --from: the quantity that copies are to lower; cost takes the table prices of FILE, makespan "
    "the table speeds.",
)
@click.option("--seed", type=int, default=0, help="Decides among equal choices.")
@column_options
@reading_options
@click.option(
    "--output", type=click.Path(path_type=Path), help="Write the placement here: JSON if it ends so, or TOML."
)
@click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path), help="Draw placement and trade-off here."
)
def main(
    partitions: int | None,
    capacities: str | None,
    workers: int | None,
    capacity: int | None,
    copies: int | None,
    relays: str | None,
    speeds: str | None,
    start: tuple[str, ...],
    add: int | None,
    minimise: str,
    seed: int,
    output: Path | None,
    plot_file: Path | None,
    format: str,
    **given: Any,
) -> None:
    """Find a placement of least total load for given storage, with the bound over all placements beside it.

    Shows the partitions of each worker, the loads of relay, and what more or fewer copies would cost and
    save.
    """
    check_outputs({"--output": output, "--plot": plot_file})
    check_picture(plot_file)
    if start:
        others: dict[str, object] = {
            "--partitions": partitions,
            "--capacities": capacities,
            "--workers": workers,
            "--copies": copies,
            "--relays": relays,
            "--speeds": speeds,
            "--plot": plot_file,
        }
        if too_many := [name for name, value in others.items() if value is not None]:
            raise UsageError("--from", "cannot be given with another option of the design", too_many)
        tables = names_tables(start)
        request = placement_of_tables(start, given) if tables else read_request(start[0])
        _add_copies(request, int(not tables) if add is None else add, minimise, output, format)
        return
    if minimise != "load":
        raise UsageError("--minimise", "is for --from; give --speeds for the time of a design", minimise)
    if partitions is None:
        raise UsageError("--partitions", "must be given, or --from", None)
    room = _capacities(partitions, capacities, workers, capacity, copies)
    if relays is not None:
        for option, value in {"--speeds": speeds, "--plot": plot_file}.items():
            if value is not None:
                raise UsageError(option, "cannot be given with --relays", value)
        made = design_hierarchy(relays_of(relays, list(room)), room, partitions, copies=copies, seed=seed)
        _show_hierarchy(made, room, output, format)
        return
    b = None if speeds is None else _in_order("--speeds", _listed("--speeds", speeds, Fraction), list(room))
    design = design_placement(room, partitions, copies=copies, speeds=b, seed=seed)
    report = report_design(design, room, b, trade_off(len(room), partitions, _some(len(room)), seed=seed))
    if output is not None:
        write_placement(design.placement, output, report["speeds"] and {"speeds": report["speeds"]})
    if plot_file is not None:
        plot_design(report, plot_file)
    if format == "json":
        print(json.dumps(report))
    else:
        show_design(report)


def _show_hierarchy(
    design: HierarchyDesign, room: Mapping[str, int], output: Path | None, format: str
) -> None:
    """Print a design for a topology, and write it if asked to."""
    report = report_hierarchy_design(design, room)
    if output is not None:
        write_placement(design.topology.placement, output, {"relays": report["relays"]})
    if format == "json":
        print(json.dumps(report))
    else:
        show_hierarchy_design(report)


def _add_copies(request: PlanRequest, count: int, minimise: str, output: Path | None, format: str) -> None:
    """Print a placement with the copies that are worth most, and write it if asked to."""
    loads = _loads(request, minimise)
    if whole_number("--add", count):
        more, added = best_additions(request.placement, count, loads)
    else:
        more, added = request.placement, ()
    report = report_additions(request.placement, more, added, loads, minimise)
    if output is not None:
        write_placement(more, output, tables_of(request, more))
    if format == "json":
        print(json.dumps(report))
    else:
        show_additions(report)


def _loads(request: PlanRequest, minimise: str) -> RoundLoads:
    """What copies are to lower; with relays, the loads between relays and server."""
    if request.topology is None:
        weights = weights_of(request, minimise)
        return RoundLoads(request.placement, request.tasks, wants=request.wants, **weights)
    if minimise != "load":
        raise UsageError("--minimise", "must be load for a placement with relays", minimise)
    return HierarchyLoads(request.topology, request.tasks, wants=request.wants)


def _capacities(
    partitions: int, listed: str | None, workers: int | None, capacity: int | None, copies: int | None
) -> dict[str, int]:
    """The capacity of each worker, from --capacities or from --workers, --capacity and --copies."""
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
    """Parse numbers separated by commas: either each has NAME= before it, or none has."""
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
    """Numbers of copies from 1 to all workers, at most `MOST_ROWS_OF_TRADE_OFF` of them, evenly spread."""
    rows = min(workers, MOST_ROWS_OF_TRADE_OFF)
    return [1 + (workers - 1) * i // max(1, rows - 1) for i in range(rows)]
