from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client
from support.dask_clusters import dask_client

from asyncdmtl.dask import train
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.settings import AUTO_COUPLINGS

COLUMNS: dict[str, Any] = {"task": "shop", "target": "price", "loss": "squared"}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with dask_client(3) as made:
        yield made


def table(rows: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    made = pd.DataFrame({"size": rng.normal(size=rows), "colour": rng.choice(["red", "blue"], rows)})
    made["shop"] = [f"shop {n % 4}" for n in range(rows)]
    made["price"] = 2.0 * made["size"] + (made["colour"] == "red") + 0.01 * rng.normal(size=rows)
    return made


def test_a_dask_dataframe_is_trained_on_where_it_lies(client: Client) -> None:
    import dask.dataframe as dd

    frame = dd.from_pandas(table(), npartitions=6)  # type: ignore[no-untyped-call]
    run = train(client, frame, copies=2, coupling="l21", strength=0.01, **COLUMNS)
    assert run.model.models.tasks == ("shop 0", "shop 1", "shop 2", "shop 3")
    assert run.model.features == ("size", "colour=red")
    assert run.report["copies"] == "2"
    assert run.report["partitions"] == 24
    assert set(run.report["placement"]) == set(client.nthreads())
    assert run.record.outcome is not None
    assert run.record.outcome.gap < 1e-9


def test_futures_of_tables_give_the_same_model_wherever_they_lie(client: Client) -> None:
    pieces = [table().iloc[:50], pa.Table.from_pandas(table().iloc[50:]), table().iloc[:0]]
    models = []
    for copies in (1, 3):
        run = train(
            client,
            client.scatter(pieces, hash=False),
            copies=copies,
            coupling="nuclear",
            strength=1.0,
            **COLUMNS,
        )
        assert run.report["partitions"] == 8
        models.append(run.model.models.coef_.tobytes())
    assert models[0] == models[1]


def test_strength_and_coupling_are_chosen_if_they_are_not_given(client: Client) -> None:
    run = train(client, client.scatter([table(), table(60)], hash=False), **{**COLUMNS, "folds": 3})
    assert run.report["settings"]["strength"] is not None
    assert run.report["settings"]["coupling"] in AUTO_COUPLINGS


def test_trainings_at_the_same_time_wait_for_each_other(client: Client) -> None:
    pieces = client.scatter([table().iloc[:60], table().iloc[60:]], hash=False)

    def go(_: int) -> bytes:
        return train(
            client, pieces, copies=3, coupling="l21", strength=0.1, **COLUMNS
        ).model.models.coef_.tobytes()

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(go, range(3)))) == 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": 3}, UsageError, "data must be a Dask DataFrame, or futures of tables, got 'int'"),
        ({"data": [3]}, UsageError, "data must be a Dask DataFrame, or futures of tables, got 3"),
        ({"data": []}, UsageError, "data must have at least one row"),
        ({"copies": 4}, UsageError, "copies must be a whole number from 1 to 3, got 4"),
        ({"speed": 4}, UsageError, "speed is no setting of a run, got 4"),
        ({"task": "price"}, UsageError, "task, target and weight must be different columns"),
        ({"task": "store"}, DataError, "must have a column 'store'"),
    ],
)
def test_bad_arguments_are_named(
    client: Client, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {"data": client.scatter([table()], hash=False), **COLUMNS, **change}
    with pytest.raises(Exception, match=message) as caught:
        train(client, **given)
    assert isinstance(caught.value, error) or caught.type.__name__ == "PeerError"
