from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from asyncdmtl.data.columns import Column, as_column
from asyncdmtl.data.fingerprints import MAX_EACH, Fingerprints, rows_fingerprint
from asyncdmtl.errors import UsageError


def columns(**values: list[Any]) -> dict[str, Column]:
    return {name: as_column(cells, name) for name, cells in values.items()}


TABLE = columns(age=[30, None, 41, 30], town=["a", "b", None, "c"], y=[1.5, 2, 3, 4])


def taken(order: list[int]) -> dict[str, Column]:
    return {name: column[order] for name, column in TABLE.items()}


def test_rows_have_one_fingerprint_in_any_order_of_rows_and_columns() -> None:
    whole = rows_fingerprint(TABLE)
    assert rows_fingerprint(dict(reversed(taken([2, 0, 3, 1]).items()))) == whole
    others = [
        taken([0, 1, 2]),
        taken([0, 1, 2, 2]),
        {**TABLE, "y": TABLE["y"][[1, 0, 2, 3]]},
        {"age": TABLE["y"], "town": TABLE["town"], "y": TABLE["age"]},
        {name: column for name, column in TABLE.items() if name != "town"},
        columns(age=[30, None, 41, 30], town=["a", "b", "None", "c"], y=[1.5, 2, 3, 4]),
    ]
    assert len({rows_fingerprint(other) for other in others} | {whole}) == len(others) + 1
    assert rows_fingerprint(columns(x=[0.0])) == rows_fingerprint(columns(x=[-0.0]))


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (taken([2, 0, 3, 1]), "it has the same rows in another order"),
        (
            {**TABLE, "y": np.array([1.5, 2.0, 3.0, 4.5])},
            "it differs in the column 'y' in 1 of 4 rows",
        ),
        (
            {**TABLE, "y": np.array([1.5, 2.0, 3.0, 4.000000001])},
            "it differs in the column 'y' in 1 of 4 rows, after the fifth digit: copy the file, or write all"
            " digits",
        ),
        (
            {**TABLE, "y": np.array([2.0, 1.5, 3.0, 4.0]), "age": np.array([1.0, 2.0, 41.0, 30.0])},
            "it differs in the columns 'age', 'y' in 2 of 4 rows",
        ),
        ({**TABLE, "z": TABLE["y"]}, "only one of them has the column 'z'"),
        (
            {**TABLE, **{f"c{i}": TABLE["y"] for i in range(10, 30)}},
            "only one of them has the columns 'c10', 'c11', 'c12', 'c13', 'c14', 'c15', 'c16', 'c17'"
            " and 12 more",
        ),
        (columns(age=[1], town=["a"], y=[0]), ""),
    ],
)
def test_what_differs_is_told_by_names_of_columns(other: dict[str, Column], difference: str) -> None:
    assert Fingerprints.of(TABLE).difference(Fingerprints.of(other)) == difference


def test_copies_with_fewer_digits_are_copies_that_differ_by_little() -> None:
    rng = np.random.default_rng(0)
    table = {name: rng.normal(size=40) for name in "xyz"}
    own = Fingerprints.of(table)
    for digits in (15, 8):
        printed = {
            name: np.array([float(f"{v:.{digits}g}") for v in column]) for name, column in table.items()
        }
        assert "after the fifth digit" in own.difference(Fingerprints.of(printed))
    single = {name: column.astype(np.float32).astype(np.float64) for name, column in table.items()}
    assert "after the fifth digit" in own.difference(Fingerprints.of(single))
    assert own.difference(Fingerprints.of({name: rng.normal(size=40) for name in "xyz"})) == ""


def test_fingerprints_survive_the_wire() -> None:
    prints = Fingerprints.of(TABLE)
    assert Fingerprints.from_dict(json.loads(json.dumps(prints.as_dict()))) == prints
    for change in (
        {"rows": "x"},
        {"columns": [["a", "b"]]},
        {"each": "abc"},
        {"rounded": ""},
        {"rounded": "z" * 16},
    ):
        with pytest.raises(UsageError, match="fingerprints"):
            Fingerprints.from_dict(prints.as_dict() | change)
    with pytest.raises(UsageError, match="at most"):
        Fingerprints.from_dict(prints.as_dict() | {"each": "0" * 20_000, "rounded": "0" * 20_000})
    for content in (dict[str, Any](), None):
        with pytest.raises(UsageError, match="fingerprints"):
            Fingerprints.from_dict(content)


def test_many_rows_have_no_fingerprints_of_their_own() -> None:
    many = {"x": np.arange(float(MAX_EACH + 1)), "y": np.ones(MAX_EACH + 1)}
    prints, other = Fingerprints.of(many), Fingerprints.of({**many, "y": np.zeros(MAX_EACH + 1)})
    assert prints.each == ""
    assert prints.difference(other) == "it differs in the column 'y'"
    fewer = {name: column[:4] for name, column in many.items()}
    changed = Fingerprints.of({**fewer, "y": np.zeros(4)})
    assert Fingerprints.of(fewer).difference(changed).endswith("in 4 of 4 rows")
