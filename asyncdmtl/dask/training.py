"""`train`: a run on the rows that a Dask cluster holds."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, Future, futures_of

from asyncdmtl.dask.cluster import addresses, run_on_workers
from asyncdmtl.data.loading import TABLE_DEFAULTS
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.data.table import TableSpec
from asyncdmtl.data.tables import load_partitions
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.settings import AUTO, WITHOUT_STRENGTH, Settings
from asyncdmtl.plan.validation import whole_number
from asyncdmtl.report.run_report import Report, report_run
from asyncdmtl.server.records import RunOptions, RunRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """The result of `train`.

    Attributes
    ----------
    model : SavedModel
        The models of all tasks, with their encoding. `model.save(FILE)` writes the file that
        `asyncdmtl predict` reads.
    report : dict
        The report of the run, with loads, bounds and bytes, as `python -m asyncdmtl.server --report` writes
        it.
    record : RunRecord
    """

    model: SavedModel
    report: Report
    record: RunRecord = field(repr=False)


def train(
    client: Client,
    data: Any,
    *,
    task: str,
    target: str,
    loss: str,
    features: Sequence[str] | None = None,
    omit: Sequence[str] = (),
    weight: str | None = None,
    copies: int = 1,
    strategy: str = AUTO,
    host: str | None = None,
    port: int = 0,
    **settings: Any,
) -> TrainedRun:
    """Train on tables that a Dask cluster holds: a run with a worker on each Dask worker that holds rows.

    The server runs in this process. The rows of a task in one piece of the data are a partition, `3/school 7`
    for the third piece from 0. Each Dask worker stores the partitions of the pieces that it holds; no rows
    leave it, except that Dask makes `copies`.

    Parameters
    ----------
    client : distributed.Client
        A synchronous client. Every Dask worker must be able to import asyncdmtl and to reach this process.
    data : Dask DataFrame, or sequence of Future
        A Dask DataFrame is persisted first. The results of futures are DataFrames of pandas or tables of
        pyarrow.
    task, target : str
        The column that names the task of each row, and the column to predict.
    loss : str
        "squared" for a target of numbers, "logistic" for one of two classes; others are in
        `asyncdmtl.learning.losses`.
    features, omit, weight
        As for `asyncdmtl.data.table.TableSpec`.
    copies : int
        The least number of Dask workers that shall hold each piece. Where fewer hold it, Dask copies it to
        those with the fewest pieces. Coding saves traffic only if pieces are held more than once; the report
        compares loads with those of uncoded rows.
    strategy : str
        As the option --strategy of the server; by default the cheapest exact strategy.
    host, port
        Where the server listens. By default, it is the address by which this process reaches the scheduler,
        and a free port. Connections beyond this machine are encrypted.
    **settings
        Fields of `asyncdmtl.learning.settings.Settings`. By default, cross-validation across the workers
        chooses the coupling and λ. If a coupling is given without `strength`, it chooses λ.

    Raises
    ------
    UsageError
        Names the argument that breaks a rule. It is a DataError if a column cannot be read or trained on.
    AsyncDMTLError
        The run failed.
    """
    # The names of columns are checked before anything is computed.
    spec = TableSpec(
        ("data",), task, target, None if features is None else tuple(features), tuple(omit), weight
    )
    chosen = _settings(loss, strategy, settings)
    held = _held(client, _pieces(client, data), copies)
    options = RunOptions(chosen, strategy, len(held))
    record, models = run_on_workers(client, options, held, _Reader(spec), host=host, port=port)
    report = report_run(record)
    return TrainedRun(SavedModel(models, record.encoding, record.settings, task, report), report, record)


def _settings(loss: str, strategy: str, given: Mapping[str, Any]) -> Settings:
    """The settings of a run on tables, with those that are given."""
    if unknown := sorted(set(given) - set(Settings.__dataclass_fields__)):
        raise UsageError(unknown[0], "is no setting of a run", given[unknown[0]])
    chosen = {
        **TABLE_DEFAULTS,
        "loss": loss,
        "update": AUTO,
        "strength": None,
        "accelerated": strategy != "linear",
    }
    if "coupling" not in given and given.get("strength") is None:
        chosen["coupling"] = AUTO
    if given.get("coupling") in WITHOUT_STRENGTH:
        chosen["strength"] = 0.0
    return Settings(**{**chosen, **given})


def _pieces(client: Client, data: Any) -> list[tuple[int, Future]]:
    """The futures of all pieces that have rows, with their numbers, once their results are there."""
    if isinstance(data, list | tuple):
        if wrong := [piece for piece in data if not isinstance(piece, Future)]:
            raise UsageError("data", "must be a Dask DataFrame, or futures of tables", wrong[0])
        pieces = list(data)
    elif hasattr(data, "dask"):
        pieces = futures_of(client.persist(data))
    else:
        raise UsageError("data", "must be a Dask DataFrame, or futures of tables", type(data).__name__)
    rows = client.gather(client.map(_rows, range(len(pieces)), pieces, pure=False))
    if not any(rows):
        raise UsageError("data", "must have at least one row", 0)
    return [(n, piece) for n, piece in enumerate(pieces) if rows[n]]


def _rows(n: int, table: Any) -> int:
    """The number of rows of a piece; UsageError if it is no table."""
    if not isinstance(table, pa.Table) and not (hasattr(table, "columns") and hasattr(table, "iloc")):
        rule = "must be a DataFrame of pandas or a table of pyarrow"
        raise UsageError(f"piece {n} of the data", rule, type(table).__name__)
    return len(table)


def _held(
    client: Client, pieces: Sequence[tuple[int, Future]], copies: int
) -> dict[str, list[tuple[int, Future]]]:
    """The pieces, with their numbers, that each Dask worker is to hold: those there, and copies."""
    workers = addresses(client)
    whole_number("copies", copies, 1, len(workers))
    there = client.who_has([piece for _, piece in pieces])
    held: dict[str, list[tuple[int, Future]]] = {address: [] for address in workers}
    counts = Counter(dict.fromkeys(workers, 0))
    for _, piece in pieces:
        counts.update(address for address in there[piece.key] if address in held)
    for n, piece in pieces:
        holders = [address for address in workers if address in there[piece.key]]
        while len(holders) < copies:
            least = min((address for address in workers if address not in holders), key=counts.__getitem__)
            holders.append(least)
            counts[least] += 1
        for address in holders:
            held[address].append((n, piece))
    return {address: own for address, own in held.items() if own}


@dataclass(frozen=True)
class _Reader:
    """Reads partitions from tables in memory, by the rules for Parquet files."""

    spec: TableSpec

    def __call__(self, data: Sequence[tuple[int, Any]]) -> tuple[RawPartition, ...]:
        """The partitions of numbered tables."""
        with tempfile.TemporaryDirectory(prefix="asyncdmtl-") as folder:
            files = []
            for n, table in data:
                files.append(str(Path(folder) / f"{n}.parquet"))
                is_arrow = isinstance(table, pa.Table)
                arrow = table if is_arrow else pa.Table.from_pandas(table, preserve_index=False)
                pq.write_table(arrow, files[-1])
            return load_partitions(replace(self.spec, files=tuple(files)))
