"""Placement files: a placement, and optional tables of tasks, wants, relays, prices, speeds and server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.links import server_speed
from asyncdmtl.plan.placement import Placement, natural_key, read_tables
from asyncdmtl.plan.validation import rational, wants_of

# The tables that stay as they are when a worker declares itself.
_KEPT = ("prices", "speeds", "down_speeds", "server", "wants", "relays")


@dataclass(frozen=True)
class PlanRequest:
    """The content of a placement file.

    Attributes
    ----------
    placement : Placement
    task_names : tuple of str
    tasks : tuple of int, length N
        The task of each partition; without a table `tasks` each partition is a task of its own.
    prices, speeds : tuple of K Fractions, or None
        The price of a vector on each worker's link, and the link's speed in vectors per unit of time, from
        the tables of these names.
    wants : tuple of K words, or None
        From the table `wants`: "none" for a worker that only helps, "own" for one that wants the models of
        its own tasks, else "all".
    topology : Topology, or None
        The relays, and the workers and relays behind each, from the table `relays`.
    relay_prices, relay_speeds : mapping of relay to Fraction, or None
        The same of the relays' links; the tables have them if there are relays.
    down_speeds : tuple of K Fractions, or None
        The speeds of the links towards the workers, from the table of this name; without it, those of
        `speeds` hold both ways.
    server_speed : Fraction or None
        The speed of the server's link, from the number `speed` in the table `server`.
    """

    placement: Placement
    task_names: tuple[str, ...]
    tasks: tuple[int, ...]
    prices: tuple[Fraction, ...] | None
    speeds: tuple[Fraction, ...] | None
    wants: tuple[str, ...] | None = None
    topology: Topology | None = None
    relay_prices: Mapping[str, Fraction] | None = None
    relay_speeds: Mapping[str, Fraction] | None = None
    down_speeds: tuple[Fraction, ...] | None = None
    server_speed: Fraction | None = None

    @property
    def directions(self) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]] | None:
        """The speeds of the workers' links up, and down; None if the file has no speeds."""
        return None if self.speeds is None else (self.speeds, self.down_speeds or self.speeds)


def read_request(path: str | Path) -> PlanRequest:
    """Read a placement file with all its tables.

    Raises
    ------
    PlacementError
        The file cannot be read, or a table breaks a rule; the error names it.
    """
    return request_of(read_tables(path), Placement.read(path), path)


def request_of(content: Mapping[str, Any], placement: Placement, path: str | Path) -> PlanRequest:
    """A placement with the other tables of a file, as `read_request`; errors name the file as `path`."""
    known = {"workers", "partitions", "tasks", *_KEPT}
    if unknown := sorted(set(content) - known):
        raise PlacementError(
            f"placement file {path}", f"may have {', '.join(sorted(known))}; unknown", unknown
        )
    task_names, tasks = _tasks(content.get("tasks"), placement, path)
    topology = _topology(content.get("relays"), placement, path)
    nodes = (*placement.workers, *(topology.relays if topology else ()))
    kind = "workers and relays" if topology else "workers"
    prices, speeds, down = (
        _numbers(content.get(key), nodes, kind, f"{key} in {path}")
        for key in ("prices", "speeds", "down_speeds")
    )
    for key, values in (("speeds", speeds), ("down_speeds", down)):
        if values is not None and 0 in values:
            raise PlacementError(f"{key} in {path}", "must be more than 0", [str(speed) for speed in values])
    if down is not None and (speeds is None or topology is not None):
        rule = "needs a table speeds, for the way up, and cannot be given with relays"
        raise PlacementError(f"down_speeds in {path}", rule, [str(speed) for speed in down])
    wants = _wants(content.get("wants"), placement, f"wants in {path}")
    K = len(placement.workers)
    relay_prices, relay_speeds = (
        dict(zip(nodes[K:], table[K:], strict=True)) if table else None for table in (prices, speeds)
    )
    return PlanRequest(
        placement,
        task_names,
        tasks,
        prices and prices[:K],
        speeds and speeds[:K],
        wants,
        topology,
        relay_prices,
        relay_speeds,
        down,
        server_speed(content, path),
    )


def weights_of(request: PlanRequest, minimise: str) -> dict[str, Any]:
    """The planner's argument (prices or speeds) for the quantity to minimise; empty for the load.

    Raises
    ------
    UsageError
        The file has no such table.
    """
    if minimise == "load":
        return {}
    key, values = ("prices", request.prices) if minimise == "cost" else ("speeds", request.speeds)
    if values is None:
        raise UsageError(f"--minimise {minimise}", f"needs a table {key} in FILE", None)
    return {key: values}


def tables_of(request: PlanRequest, placement: Placement) -> dict[str, dict[str, Any]]:
    """The optional tables of a request, for writing a file with a `placement` of the same names."""
    tables: dict[str, dict[str, Any]] = {}
    if request.topology is not None:
        tables["relays"] = {relay: list(nodes) for relay, nodes in request.topology.relays.items()}
    if request.task_names != placement.partitions:
        tables["tasks"] = {name: [] for name in request.task_names}
        for partition, task in zip(placement.partitions, request.tasks, strict=True):
            tables["tasks"][request.task_names[task]].append(partition)
    for name in ("prices", "speeds", "down_speeds", "wants"):
        values = getattr(request, name)
        if values is not None:
            tables[name] = dict(zip(placement.workers, map(str, values), strict=True))
    if request.server_speed is not None:
        tables["server"] = {"speed": str(request.server_speed)}
    for name, others in (("prices", request.relay_prices), ("speeds", request.relay_speeds)):
        if others:
            tables[name] |= {relay: str(value) for relay, value in others.items()}
    return tables


def write_placement(
    placement: Placement, path: Path, tables: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write a file that `Placement.read` reads: JSON if `path` ends in .json, else TOML.

    `tables` of tasks, prices, speeds, wants or relays are written beside it; `read_request` reads them.

    Raises
    ------
    UsageError
        The file cannot be written.
    """
    content: dict[str, Any] = {"partitions": list(placement.partitions), "workers": placement.as_dict()}
    content |= {name: dict(table) for name, table in (tables or {}).items()}
    _write(path, content, "--output")


def declare_worker(path: Path, worker: str, tasks: Mapping[str, str]) -> Placement:
    """Add a worker with its partitions to a placement file, beside the workers that are in the file.

    Sites pass the file on, and each adds its worker, so that the file finally describes all sites.

    Parameters
    ----------
    path : Path
        The file, which is created if it does not exist. Its other tables stay as they are.
    worker : str
        An entry of this name is replaced.
    tasks : mapping of partition to task
        The partitions that the worker stores.

    Returns
    -------
    Placement
        The placement of all workers in the file.

    Raises
    ------
    PlacementError
        The content of the file is invalid, or assigns a partition to another task.
    UsageError
        The file cannot be written.
    """
    content = read_tables(path) if path.exists() else {}
    if not isinstance(content.get("workers", {}), Mapping) or not isinstance(
        content.get("tasks", {}), Mapping
    ):
        raise PlacementError(f"placement file {path}", "must have tables of workers and tasks", list(content))
    placement = Placement({**content.get("workers", {}), worker: list(tasks)})
    owners = {partition: task for task, parts in content.get("tasks", {}).items() for partition in parts}
    for partition, task in tasks.items():
        if owners.setdefault(partition, task) != task:
            rule = f"must be of task {owners[partition]!r}, as another worker declares it"
            raise PlacementError(f"partition {partition!r}", rule, task)
    of_tasks: dict[str, list[str]] = {}
    for partition in placement.partitions:
        if partition in owners:
            of_tasks.setdefault(owners[partition], []).append(partition)
    kept = {name: table for name, table in content.items() if name in _KEPT}
    ordered = {"partitions": list(placement.partitions), "workers": placement.as_dict(), "tasks": of_tasks}
    _write(path, {**ordered, **kept}, "--declare")
    return placement


def _write(path: Path, content: Mapping[str, Any], option: str) -> None:
    text = json.dumps(content) + "\n" if path.suffix == ".json" else _toml(content)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(option, f"must be writable ({error.strerror})", str(path)) from error


def _toml(content: Mapping[str, Any]) -> str:
    """TOML of lists and tables of lists. A list of text is the same in JSON and in TOML; keys are quoted."""
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


def _tasks(table: Any, placement: Placement, path: str | Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    if table is None:
        return placement.partitions, tuple(range(len(placement.partitions)))
    what = f"tasks in {path}"
    if not isinstance(table, Mapping) or not all(isinstance(parts, list) for parts in table.values()):
        raise PlacementError(what, "must be a table of lists of partitions", table)
    owners: dict[str, str] = {}
    for task, parts in table.items():
        for part in parts:
            if part not in placement.partitions:
                raise PlacementError(f"{what}: {task}", "may own known partitions only; unknown", part)
            if part in owners:
                raise PlacementError(f"{what}: {task}", f"may not own what {owners[part]} owns", part)
            owners[part] = task
    if missing := [part for part in placement.partitions if part not in owners]:
        raise PlacementError(what, "must own every partition; without task", missing)
    names = tuple(sorted(set(owners.values()), key=natural_key))
    return names, tuple(names.index(owners[part]) for part in placement.partitions)


def _wants(table: Any, placement: Placement, what: str) -> tuple[str, ...] | None:
    if table is None:
        return None
    if not isinstance(table, Mapping):
        raise PlacementError(what, "must be a table of workers", table)
    try:
        return wants_of(placement, table)
    except UsageError as error:
        raise PlacementError(what, error.rule, error.value) from error


def _topology(table: Any, placement: Placement, path: str | Path) -> Topology | None:
    if table is None:
        return None
    try:
        return Topology(placement, table)
    except PlacementError as error:
        raise PlacementError(f"placement file {path}: {error.argument}", error.rule, error.value) from error


def _numbers(table: Any, nodes: Sequence[str], kind: str, what: str) -> tuple[Fraction, ...] | None:
    """One number for each of the nodes, which are of this `kind`."""
    if table is None:
        return None
    if not isinstance(table, Mapping) or set(table) != set(nodes):
        raise PlacementError(what, f"must be a table of the {kind} {', '.join(nodes)}", table)
    values = []
    for worker in nodes:
        try:
            values.append(rational(f"{what}: {worker}", table[worker]))
        except UsageError as error:
            raise PlacementError(error.argument, error.rule, error.value) from error
    return tuple(values)
