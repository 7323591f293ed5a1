from __future__ import annotations

import itertools
import logging
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_partitions import encoding_of, encoding_of_columns, raw_partition

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.pooling import pool
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.errors import DataError, UsageError

RNG = np.random.default_rng(0)


@settings(deadline=None)
@given(
    rows=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    seed=st.integers(0, 2**32),
    standardise=st.booleans(),
)
def test_pooling_is_as_if_all_rows_were_in_one_place(rows: list[int], seed: int, standardise: bool) -> None:
    rng = np.random.default_rng(seed)
    n = sum(rows)
    numbers = rng.lognormal(0.0, 1.0, (n, 3)) * [1.0, 1e-6, 1e6]
    numbers[rng.random((n, 3)) < 0.2] = np.nan
    colours = rng.choice(np.array(["red", "green", "blue", None], dtype=object), n)
    columns = {"a": numbers[:, 0], "b": numbers[:, 1], "c": numbers[:, 2], "k": colours, "i": np.arange(n)}
    y = rng.standard_normal(n)
    edges = np.cumsum([0, *rows])
    parts = [
        raw_partition(f"p{i}", {name: values[a:b] for name, values in columns.items()}, y[a:b])
        for i, (a, b) in enumerate(itertools.pairwise(edges))
    ]
    if n == 1:
        with pytest.raises(DataError, match="constant"):
            encoding_of(*parts)
        return
    encoding = encoding_of(*parts, standardise=standardise)
    X = np.concatenate([p.encoded(encoding).X for p in parts])
    for name in "abc":
        present = columns[name][~np.isnan(columns[name])]
        if len(set(present)) < 2:
            assert name in encoding.dropped
            continue
        expected = np.where(np.isnan(columns[name]), present.mean(), columns[name])
        if standardise:
            expected = (expected - present.mean()) / present.std()
        found = X[:, encoding.features.index(name)]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
    levels = sorted({colour for colour in colours if colour})
    shown = [f"k={level}" for level in levels] + ["k missing"] * (None in colours)
    shown = [] if len(shown) == 1 else shown[1:] if len(shown) == 2 else shown
    assert [name for name in encoding.features if name.startswith("k")] == shown
    for name in shown:
        level = name.removeprefix("k=") if "=" in name else None
        np.testing.assert_array_equal(X[:, encoding.features.index(name)], colours == level)


def test_the_encoding_does_not_depend_on_who_comes_first() -> None:
    surveys = {
        f"p{n}": raw_partition(
            f"p{n}", {"a": RNG.standard_normal(5), "b": RNG.choice(["x", "y"], 5)}, np.ones(5)
        ).survey()
        for n in range(12)
    }
    forwards = pool(surveys, "squared", standardise=True)
    backwards = pool(dict(reversed(surveys.items())), "squared", standardise=True)
    assert forwards.as_dict() == backwards.as_dict()
    assert list(forwards.as_dict()) == list(backwards.as_dict())


def test_columns_keep_the_order_of_the_first_partition() -> None:
    a = raw_partition("p2", {"z": [1, 2], "a": [3, 5]}, [0, 1])
    b = raw_partition("p10", {"a": [3, 4], "z": [1, 7]}, [0, 1])
    assert encoding_of(b, a).features == ("z", "a")


def test_without_standardisation_numbers_stay() -> None:
    encoding = encoding_of_columns({"a": [1.0, None, 3.0]}, standardise=False)
    assert encoding.encode_rows({"a": np.array([5.0, np.nan])}).tolist() == [[5.0], [2.0]]


def test_what_does_not_vary_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    columns = {
        "bias": [1, 1, 1],
        "nearly": [2.5, None, 2.5],
        "nothing": [None, None, None],
        "town": ["Oslo", "Oslo", "Oslo"],
        "x": [1, 2, 3],
    }
    with caplog.at_level(logging.WARNING):
        encoding = encoding_of_columns(columns)
    assert encoding.features == encoding.sources == ("x",)
    assert encoding.dropped == {
        "bias": "it is constant: 1 in every row",
        "nearly": "it is constant: 2.5 in every row",
        "nothing": "it never has a value",
        "town": "it is constant: 'Oslo' in every row",
    }
    assert all(f"column {name!r} is left out" in caplog.text for name in encoding.dropped)
    with pytest.raises(
        DataError, match=r"must not all be constant.*'bias': 'it is constant: 1 in every row'"
    ):
        encoding_of_columns({"bias": [1, 1], "town": ["Oslo", "Oslo"]})


def test_a_column_whose_numbers_differ_by_too_little_is_refused() -> None:
    with pytest.raises(DataError, match=r"column 'x' has numbers that differ by too little.*other units"):
        encoding_of_columns({"x": [1.77e-202, 2e-202, 1e-202], "y": [1, 2, 3]})
    assert encoding_of_columns({"x": [1.77e-202, 2e-202, 1.0], "y": [1, 2, 3]}).features == ("x", "y")


def test_columns_that_are_left_out_for_one_reason_share_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    encoding_of_columns({"p0": [0, 0], "p1": [0, 0], "x": [1, 2]})
    assert "columns ['p0', 'p1'] are left out: each is constant: 0 in every row" in caplog.text
    assert len(caplog.records) == 1


def test_a_column_without_values_somewhere_is_of_the_kind_it_has_elsewhere() -> None:
    here = raw_partition("p0", {"n": [None, None], "c": [None, None]}, [0.0, 1.0])
    there = raw_partition("p1", {"n": [1.0, 3.0], "c": ["u", "v"]}, [0.0, 1.0])
    encoding = encoding_of(here, there)
    assert encoding.features == ("n", "c=u", "c=v", "c missing")
    assert here.encoded(encoding).X.tolist() == [[0.0, 0.0, 0.0, 1.0]] * 2
    assert encoding.categories == ("c",)


def test_columns_on_which_partitions_disagree_are_named() -> None:
    plain = raw_partition("p0", {"a": [1, 2], "b": [1, 2]}, [0, 1])
    with pytest.raises(DataError, match="column 'b' must be in every partition; in 'p1'"):
        encoding_of(plain, raw_partition("p1", {"a": [1, 2]}, [0, 1]))
    with pytest.raises(DataError, match="column 'c' must be in every partition; in 'p0'"):
        encoding_of(plain, raw_partition("p1", {"a": [1, 2], "b": [1, 2], "c": [1, 2]}, [0, 1]))
    with pytest.raises(
        DataError, match=r"column 'b' .* numbers in partition 'p0', and text in 'p1', got 'p1'"
    ):
        encoding_of(plain, raw_partition("p1", {"a": [1, 2], "b": ["V45", "250"]}, [0, 1]))


def test_too_many_categories_are_refused_with_the_way_out() -> None:
    names = [f"patient {i}" for i in range(2000)]
    with pytest.raises(DataError, match=r"column 'who' of partition 'p0' has 2000 different texts.*--omit"):
        raw_partition("p0", {"who": names}, np.arange(2000)).declaration()
    halves = [raw_partition(f"p{i}", {"who": names[i::4]}, np.arange(500)) for i in range(4)]
    with pytest.raises(DataError, match="column 'who' has 2000 different"):
        encoding_of(*halves)
    with pytest.raises(DataError, match="column 'who' has 30 different"):
        encoding_of_columns({"who": names[:30]})
    assert len(encoding_of_columns({"town": names[:30] * 2}).features) == 30


@pytest.mark.parametrize(
    ("targets", "classes"),
    [
        ([["no", "yes"], ["yes", "yes"]], ("no", "yes")),
        ([["class 10"], ["class 2", "class 10"]], ("class 2", "class 10")),
        ([[0, 1], [1, 1]], ("0", "1")),
        ([[1.0, -1.0], [1.0]], ("-1", "1")),
        ([[2.5], [0.5]], ("0.5", "2.5")),
        ([[True, False], [False]], ("False", "True")),
    ],
)
def test_two_classes_become_labels(targets: list[list[Any]], classes: tuple[str, str]) -> None:
    parts = [
        raw_partition(f"p{i}", {"a": RNG.standard_normal(len(values))}, values)
        for i, values in enumerate(targets)
    ]
    encoding = encoding_of(*parts, loss="logistic")
    assert encoding.classes == classes
    kind = type(targets[0][0])
    high = {"True": True}.get(classes[1], classes[1]) if kind is bool else kind(classes[1])
    for part, values in zip(parts, targets, strict=True):
        assert part.encoded(encoding).y.tolist() == [float(value == high) for value in values]


@pytest.mark.parametrize(
    ("targets", "loss", "message"),
    [
        ([["a", "b"], ["c"]], "logistic", r"target 'y' must have two classes.*\['a', 'b', 'c'\]"),
        ([["a"], ["a"]], "logistic", r"must have two classes.*\['a'\]"),
        ([[0, 1, 2], [0]], "squared_hinge", r"must have two classes.*\[0.0, 1.0, 2.0\]"),
        ([[0, 1], [0, 1, 2, 3]], "logistic", "two classes for logistic loss; it has more in partition 'p1'"),
        ([[1, 2], ["a"]], "logistic", r"one kind: it is not text in partition 'p0', but in 'p1'.*\['a'\]"),
        ([["a"], [3]], "logistic", r"not numbers in partition 'p0', but in 'p1'"),
        ([["low", "high"], ["low"]], "squared", "target 'y' must be numbers for squared loss.*'high'"),
    ],
)
def test_targets_that_do_not_suit_the_loss_are_refused(
    targets: list[list[Any]], loss: str, message: str
) -> None:
    parts = [raw_partition(f"p{i}", {"a": np.arange(len(t)) + i}, t) for i, t in enumerate(targets)]
    with pytest.raises(DataError, match=message):
        encoding_of(*parts, loss=loss)


def test_targets_of_one_name_only() -> None:
    other = RawPartition("p1", "t", {"a": np.arange(2.0)}, np.arange(2.0), target_name="z")
    with pytest.raises(DataError, match="target 'y' must be the target of all partitions; that of 'p1'"):
        encoding_of(raw_partition("p0", {"a": [1, 2]}, [1, 2]), other)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(UsageError, match="loss must be one of"):
        pool({}, "hinge", standardise=True)


def test_a_target_of_numbers_is_centred_by_its_mean_over_all_sites() -> None:
    parts = [
        raw_partition("p0", {"a": [1, 2]}, [10, 12]),
        raw_partition("p1", {"a": [3]}, [2]),
        raw_partition("p2", {"a": [4, 6]}, [5, 6]),
    ]
    surveys = {part.id: part.survey() for part in parts}
    encoding = pool(surveys, "squared", standardise=True, centre=True)
    assert encoding.offset == 7.0
    assert parts[0].encoded(encoding).y.tolist() == [3.0, 5.0]
    assert Encoding.from_dict(msgpack.unpackb(msgpack.packb(encoding.as_dict()))) == encoding
    assert pool(surveys, "squared", standardise=True).offset == 0.0
    # Labels are treated as classes, even if they look like numbers.
    labels = {"p0": raw_partition("p0", {"a": [1, 2]}, [5, 6]).survey()}
    assert pool(labels, "logistic", standardise=True, centre=True).offset == 0.0


def test_weights_in_some_partitions_only_are_refused() -> None:
    with_weights = raw_partition("p0", {"a": [1, 2]}, [1, 2], weights=[1, 2])
    with pytest.raises(
        DataError, match=r"weights of rows must be in all partitions .*not in 'p1', but in, got 'p0'"
    ):
        encoding_of(with_weights, raw_partition("p1", {"a": [3, 4]}, [1, 2]))
    encoding_of(with_weights, raw_partition("p1", {"a": [3, 4]}, [1, 2], weights=[1, 1]))


def test_the_same_rows_under_two_names_are_told(caplog: pytest.LogCaptureFixture) -> None:
    encoding_of(raw_partition("a/t", {"a": [1, 2]}, [1, 2]), raw_partition("b/t", {"a": [2, 1]}, [2, 1]))
    assert "partitions 'a/t' and 'b/t' have the same rows, which count twice" in caplog.text


@pytest.mark.parametrize(
    ("factor", "standardise", "told"), [(1e4, False, 1), (1e4, True, 0), (10.0, False, 0)]
)
def test_raw_columns_of_very_different_sizes_are_warned_of(
    factor: float, standardise: bool, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    columns = {"a": RNG.standard_normal(9), "b": factor * RNG.standard_normal(9), "k": ["x", "y", "z"] * 3}
    parts = [raw_partition("p0", columns, RNG.standard_normal(9))]
    with caplog.at_level(logging.WARNING):
        encoding_of(*parts, standardise=standardise)
    assert caplog.text.count("columns 'a' and 'b' differ in size by a factor of") == told


@pytest.mark.parametrize(("unlike", "told"), [(1e12, True), (5e3, True), (20.0, False)])
def test_a_partition_that_decides_the_scale_of_all_is_named(
    unlike: float, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [
        raw_partition(f"p{n}", {"a": 5.0 + RNG.standard_normal(20)}, RNG.standard_normal(20))
        for n in range(4)
    ]
    parts.append(raw_partition("odd", {"a": [-unlike, unlike]}, [0.5, -unlike]))
    with caplog.at_level(logging.WARNING):
        encoding_of(*parts)
    for what in ("column 'a'", "target 'y'"):
        assert (f"{what}: in 'odd' the numbers spread" in caplog.text) == told


def test_of_two_partitions_neither_is_called_unlike_the_others(caplog: pytest.LogCaptureFixture) -> None:
    encoding_of(raw_partition("p0", {"a": [1, 2]}, [1, 2]), raw_partition("p1", {"a": [1, 1e12]}, [3, 4]))
    assert "spread" not in caplog.text
