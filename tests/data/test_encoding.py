from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncdmtl.data.encoding import Encoding, RawPartition, Survey, pool
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.tasks import Partition

RNG = np.random.default_rng(0)


def raw(name: str, columns: Mapping[str, Any], y: Any, task: str = "t", **more: Any) -> RawPartition:
    return RawPartition(name, task, columns, y, target_name="y", **more)


def pooled(*partitions: RawPartition, loss: str = "squared", standardise: bool = True) -> Encoding:
    surveys = {p.id: Survey.from_dict(p.declaration().survey) for p in partitions}
    return pool(surveys, loss, standardise=standardise)


def one(columns: Mapping[str, Any], y: Any = None, **options: Any) -> Encoding:
    """The encoding of one partition."""
    rows = len(next(iter(columns.values())))
    return pooled(raw("p0", columns, np.arange(rows) if y is None else y), **options)


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
        raw(f"p{i}", {name: values[a:b] for name, values in columns.items()}, y[a:b])
        for i, (a, b) in enumerate(itertools.pairwise(edges))
    ]
    if n == 1:
        with pytest.raises(DataError, match="constant"):
            pooled(*parts)
        return
    encoding = pooled(*parts, standardise=standardise)
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
        f"p{n}": raw(
            f"p{n}", {"a": RNG.standard_normal(5), "b": RNG.choice(["x", "y"], 5)}, np.ones(5)
        ).survey()
        for n in range(12)
    }
    forwards = pool(surveys, "squared", standardise=True)
    backwards = pool(dict(reversed(surveys.items())), "squared", standardise=True)
    assert forwards.as_dict() == backwards.as_dict()
    assert list(forwards.as_dict()) == list(backwards.as_dict())


def test_columns_keep_the_order_of_the_first_partition() -> None:
    a = raw("p2", {"z": [1, 2], "a": [3, 5]}, [0, 1])
    b = raw("p10", {"a": [3, 4], "z": [1, 7]}, [0, 1])
    assert pooled(b, a).features == ("z", "a")


def test_without_standardisation_numbers_stay() -> None:
    encoding = one({"a": [1.0, None, 3.0]}, standardise=False)
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
        encoding = one(columns)
    assert encoding.features == encoding.sources == ("x",)
    assert encoding.dropped == {
        "bias": "it is always 1",
        "nearly": "it is always 2.5",
        "nothing": "it never has a value",
        "town": "it is always 'Oslo'",
    }
    assert all(f"column {name!r} is left out" in caplog.text for name in encoding.dropped)
    with pytest.raises(DataError, match=r"features must not all be constant.*'bias': 'it is always 1'"):
        one({"bias": [1, 1], "town": ["Oslo", "Oslo"]})


def test_columns_that_are_left_out_for_one_reason_share_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    one({"p0": [0, 0], "p1": [0, 0], "x": [1, 2]})
    assert "columns ['p0', 'p1'] are left out: each is always 0" in caplog.text
    assert len(caplog.records) == 1


def test_a_column_without_values_somewhere_is_of_the_kind_it_has_elsewhere() -> None:
    here = raw("p0", {"n": [None, None], "c": [None, None]}, [0.0, 1.0])
    there = raw("p1", {"n": [1.0, 3.0], "c": ["u", "v"]}, [0.0, 1.0])
    encoding = pooled(here, there)
    assert encoding.features == ("n", "c=u", "c=v", "c missing")
    assert here.encoded(encoding).X.tolist() == [[0.0, 0.0, 0.0, 1.0]] * 2
    assert encoding.categories == ("c",)


def test_columns_on_which_partitions_disagree_are_named() -> None:
    plain = raw("p0", {"a": [1, 2], "b": [1, 2]}, [0, 1])
    with pytest.raises(DataError, match="column 'b' must be in every partition; in 'p1'"):
        pooled(plain, raw("p1", {"a": [1, 2]}, [0, 1]))
    with pytest.raises(DataError, match="column 'c' must be in every partition; in 'p0'"):
        pooled(plain, raw("p1", {"a": [1, 2], "b": [1, 2], "c": [1, 2]}, [0, 1]))
    with pytest.raises(
        DataError, match=r"column 'b' .* numbers in partition 'p0', and text in 'p1', got 'V45'"
    ):
        pooled(plain, raw("p1", {"a": [1, 2], "b": ["V45", "250"]}, [0, 1]))


def test_too_many_categories_are_refused_with_the_way_out() -> None:
    names = [f"patient {i}" for i in range(2000)]
    with pytest.raises(DataError, match=r"column 'who' of partition 'p0' has 2000 different texts.*--omit"):
        raw("p0", {"who": names}, np.arange(2000)).declaration()
    halves = [raw(f"p{i}", {"who": names[i::4]}, np.arange(500)) for i in range(4)]
    with pytest.raises(DataError, match="column 'who' has 2000 different"):
        pooled(*halves)
    with pytest.raises(DataError, match="column 'who' has 30 different"):
        one({"who": names[:30]})
    assert len(one({"town": names[:30] * 2}).features) == 30


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
        raw(f"p{i}", {"a": RNG.standard_normal(len(values))}, values) for i, values in enumerate(targets)
    ]
    encoding = pooled(*parts, loss="logistic")
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
    parts = [raw(f"p{i}", {"a": np.arange(len(t)) + i}, t) for i, t in enumerate(targets)]
    with pytest.raises(DataError, match=message):
        pooled(*parts, loss=loss)


def test_targets_of_one_name_only() -> None:
    other = RawPartition("p1", "t", {"a": np.arange(2.0)}, np.arange(2.0), target_name="z")
    with pytest.raises(DataError, match="target 'y' must be the target of all partitions; that of 'p1'"):
        pooled(raw("p0", {"a": [1, 2]}, [1, 2]), other)


def test_numbers_that_are_prepared_need_no_encoding() -> None:
    prepared = Partition("p1", "t", [[1.0], [2.0]], [1.0, 2.0])  # type: ignore[arg-type]
    survey = Survey.from_dict(prepared.declaration().survey)
    encoding = pool({"p1": survey, "p2": survey}, "squared", standardise=True)
    assert encoding.is_empty
    assert encoding == Encoding.empty() == Encoding.from_dict({})
    assert encoding.as_dict() == {}
    assert prepared.encoded(encoding) is prepared
    from_file = raw("p0", {"a": [1, 2]}, [1, 2])
    with pytest.raises(DataError, match=r"must come from files, as 'p0', or all be of numbers.*'p1'"):
        pool({"p0": from_file.survey(), "p1": survey}, "squared", standardise=True)
    with pytest.raises(DataError, match="partition 'p0'"):
        from_file.encoded(encoding)
    with pytest.raises(DataError, match="partition 'p1'"):
        prepared.encoded(pooled(from_file))


def test_weights_and_names_come_through() -> None:
    part = raw("p0", {"a": [1, 2]}, [1, 2], weights=[0.5, 2.0])
    done = part.encoded(pooled(part))
    assert (done.id, done.task, done.weight, done.y.tolist()) == ("p0", "t", 2.5, [1.0, 2.0])
    assert part.declaration().rows == part.rows == 2
    with pytest.raises(DataError, match="weights of partition 'p0'"):
        raw("p0", {"a": [1, 2]}, [1, 2], weights=[1.0, -1.0]).encoded(pooled(part))


def test_digests_depend_on_all_that_a_partition_is() -> None:
    columns = {"a": [1, 2], "b": ["x", None]}
    part = raw("p0", columns, [1, 2])
    assert part.declaration().digest == raw("p0", columns, [1, 2]).digest()
    assert len(part.digest()) == 16
    others = [
        raw("p1", columns, [1, 2]),
        raw("p0", columns, [1, 2], task="u"),
        raw("p0", columns, [1, 3]),
        raw("p0", columns, ["1", "2"]),
        raw("p0", columns, [1, 2], weights=[1, 2]),
        raw("p0", {"b": columns["b"], "a": columns["a"]}, [1, 2]),
        raw("p0", {"a": [1, 2], "c": ["x", None]}, [1, 2]),
        raw("p0", {"a": [1, 2], "b": ["x", ""]}, [1, 2]),
        RawPartition("p0", "t", columns, np.array([1.0, 2.0]), target_name="z"),  # type: ignore[arg-type]
    ]
    assert len({p.digest() for p in [part, *others]}) == 1 + len(others)


@pytest.mark.parametrize(
    ("columns", "y", "message"),
    [
        ({}, [1.0], "columns of partition 'p0'"),
        ({"a": []}, [], "columns of partition 'p0'"),
        ({"a": [1, 2]}, [1.0], "columns of partition 'p0'"),
        ({"a": [1], "b": [1, 2]}, [1.0], "columns of partition 'p0'"),
        ({"a": [1, "x"]}, [1.0, 2.0], "column 'a' of partition 'p0'"),
        ({"a": [1, 2]}, [1.0, None], "target 'y' of partition 'p0'"),
        ({"a": [1, 2]}, [1.0, math.inf], "target 'y' of partition 'p0'"),
        ({"a": [1, 2]}, ["x", None], "target 'y' of partition 'p0'"),
    ],
)
def test_rows_that_make_no_sense_are_refused(columns: Any, y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        raw("p0", columns, y)


def test_rows_to_predict_need_their_columns() -> None:
    encoding = one({"a": [1, 2, 4], "c": ["x", "y", "z"]})
    rows = {"other": ["?"], "c": ["y"], "a": [2.0]}
    X = encoding.encode_rows(rows)  # type: ignore[arg-type]
    assert X.shape == (1, 4)
    assert X[0, 1:].tolist() == [0.0, 1.0, 0.0]
    assert X.flags.c_contiguous
    with pytest.raises(DataError, match="column 'a' must be among the columns"):
        encoding.encode_rows({"c": np.array(["x"])})
    with pytest.raises(DataError, match="columns must be some, of equal length"):
        encoding.encode_rows({"c": np.array(["x"]), "a": np.ones(2)})


def test_targets_to_test_on_must_be_known() -> None:
    encoding = one({"a": [1, 2]}, ["no", "yes"], loss="logistic")
    assert encoding.encode_target(np.array(["yes", "no", "yes"])).tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(DataError, match="target 'y' must be 'no' or 'yes', got 'maybe'"):
        encoding.encode_target(np.array(["yes", "maybe"]))
    with pytest.raises(DataError, match="target 'y' must have a value in every row"):
        encoding.encode_target(np.array(["yes", None], dtype=object))
    numbers = one({"a": [1, 2]})
    with pytest.raises(DataError, match="target 'y' must be finite"):
        numbers.encode_target(np.array([1.0, np.inf]))
    with pytest.raises(DataError, match="target 'y' must be numbers, got 'x'"):
        numbers.encode_target(np.array(["1", "x"]))


def make_encoding() -> Encoding:
    columns = {"a": [1.5, None, 4.0], "c": ["x", "y", None], "k": [1, 1, 1]}
    return one(columns, ["no", "yes", "no"], loss="logistic")


def test_an_encoding_survives_the_wire_and_gives_the_same_bits() -> None:
    encoding = make_encoding()
    part = raw("p0", {"a": RNG.standard_normal(9), "c": ["x", "y", "x"] * 3}, ["no"] * 9)
    for copy in (
        Encoding.from_dict(msgpack.unpackb(msgpack.packb(encoding.as_dict()))),
        Encoding.from_dict(json.loads(json.dumps(encoding.as_dict()))),
    ):
        assert copy == encoding
        assert part.encoded(copy).digest() == part.encoded(encoding).digest()
    regression = one({"a": [1, 2]})
    assert Encoding.from_dict(regression.as_dict()) == regression


@pytest.mark.parametrize(
    "change",
    [
        {"columns": []},
        {"columns": None},
        {"columns": [["a"]]},
        {"columns": [["a", {"impute": 0.0, "shift": 0.0, "scale": math.nan}]]},
        {"columns": [["a", {"impute": 0.0, "shift": 0.0, "scale": 1.0}]] * 2},
        {  # a feature that is called as another
            "columns": [
                ["a=x", {"impute": 0.0, "shift": 0.0, "scale": 1.0}],
                ["a", {"values": ["u", "x"], "missing": False}],
            ]
        },
        {"dropped": {}},
        {"dropped": [["k"]]},
        {"dropped": [["k", 1]]},
        {"target": None},
        {"classes": ["no"]},
        {"classes": ["no", "no"]},
        {"classes": ["no", 1]},
        {"classes": "ab"},
        {"more": 1},
    ],
)
def test_an_encoding_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    good = make_encoding().as_dict()
    Encoding.from_dict(good)
    with pytest.raises(UsageError):
        Encoding.from_dict(good | change)


@pytest.mark.parametrize("content", [None, [], "x", {"columns": [["a", {}]]}, {1: 2}])
def test_what_is_no_encoding_at_all_is_refused(content: Any) -> None:
    with pytest.raises(UsageError):
        Encoding.from_dict(content)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(UsageError, match="loss must be one of"):
        pool({}, "hinge", standardise=True)


def test_a_target_of_numbers_is_centred_by_its_mean_over_all_sites() -> None:
    parts = [raw("p0", {"a": [1, 2]}, [10, 12]), raw("p1", {"a": [3]}, [2]), raw("p2", {"a": [4, 6]}, [5, 6])]
    surveys = {part.id: part.survey() for part in parts}
    encoding = pool(surveys, "squared", standardise=True, centre=True)
    assert encoding.offset == 7.0
    assert parts[0].encoded(encoding).y.tolist() == [3.0, 5.0]
    assert Encoding.from_dict(msgpack.unpackb(msgpack.packb(encoding.as_dict()))) == encoding
    assert pool(surveys, "squared", standardise=True).offset == 0.0
    # Labels are no numbers, whatever they look like.
    labels = {"p0": raw("p0", {"a": [1, 2]}, [5, 6]).survey()}
    assert pool(labels, "logistic", standardise=True, centre=True).offset == 0.0


def test_what_is_told_of_a_target_makes_sense() -> None:
    survey = raw("p0", {"a": [1, 2]}, [10, 12]).survey().as_dict()
    for moments in (
        {"count": 0, "mean": 0.0, "M2": 0.0},
        {"count": 3, "mean": 1.0, "M2": 0.0},
        {"count": 2, "mean": float("inf"), "M2": 0.0},
    ):
        with pytest.raises(UsageError, match="survey of the target"):
            Survey.from_dict({**survey, "target": {**survey["target"], "moments": moments}})
    with pytest.raises(DataError, match=r"target 'y' of partition 'p0'.*too large to be squared"):
        raw("p0", {"a": [1, 2]}, [1e200, -1e200]).survey()
