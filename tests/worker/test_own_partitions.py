from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.held_back import hold_back
from asyncdmtl.errors import DataError
from asyncdmtl.learning.tasks import Declaration, FeatureNames, Partition, TaskModels
from asyncdmtl.worker.own_partitions import OwnPartitions

SETTINGS = make_settings()


class Counted(Partition):
    """A partition that counts how often it is declared and encoded."""

    declared = encoded_times = 0

    def declaration(self) -> Declaration:
        Counted.declared += 1
        return super().declaration()

    def encoded(self, encoding: FeatureNames) -> Partition:
        Counted.encoded_times += 1
        return super().encoded(encoding)


def test_declarations_and_rows_are_made_once() -> None:
    (part,) = make_partitions(1, "squared")
    own = OwnPartitions([Counted(part.id, part.task, part.X, part.y)])
    assert own.encoded == {}
    assert own.declare() is own.declare()
    infos = own.encode(Encoding.empty(), SETTINGS)
    assert own.encode(Encoding.empty(), SETTINGS) is infos
    assert (Counted.declared, Counted.encoded_times) == (1, 1)
    assert list(own.encoded) == [part.id] == [info.id for info in infos]
    assert own.encoded_with == (Encoding.empty(), SETTINGS)


def test_rows_are_encoded_again_for_other_settings() -> None:
    own = OwnPartitions(make_partitions(2, "squared"))
    own.encode(Encoding.empty(), SETTINGS)
    other = replace(SETTINGS, rounds=SETTINGS.rounds + 1)
    own.encode(Encoding.empty(), other)
    assert own.encoded_with == (Encoding.empty(), other)


def test_rows_that_do_not_suit_the_loss_are_refused() -> None:
    own = OwnPartitions(make_partitions(1, "squared"))
    with pytest.raises(DataError, match="must be 0 or 1 for logistic loss"):
        own.encode(Encoding.empty(), make_settings(loss="logistic"))


def test_rows_for_tests_are_set_aside_before_anything_is_declared() -> None:
    parts = make_partitions(6, "squared")
    own = OwnPartitions(parts)
    settings = make_settings(test_fraction=0.4)
    own.check(settings)
    declared = own.declare()
    infos = own.encode(Encoding.empty(), settings)
    assert [d.rows + d.held for d in declared] == [p.rows for p in parts]
    assert [(i.rows, i.held) for i in infos] == [(d.rows, d.held) for d in declared]
    assert sum(d.held for d in declared) > 6
    models = TaskModels(("t0", "t1", "t2"), np.zeros((3, 9)), np.zeros(3), "squared")
    told = own.tested(models, {"pooled": models})
    assert {name: sums[0] for name, sums in told.items()} == {d.id: d.held for d in declared if d.held}
    assert all(set(sums[3]) == {"coupled", "pooled"} for sums in told.values())
    assert own.tested(models.of([1]), {}).keys() == {"p2", "p3"}


def test_the_share_of_the_worker_goes_before_that_of_the_run() -> None:
    own = OwnPartitions(make_partitions(6, "squared"), test_fraction=0.0)
    own.check(make_settings(test_fraction=0.4))
    assert not any(part.held for part in own.declare())


def test_copies_are_told_apart_by_rows_for_tests_too() -> None:
    part = Partition("p0", "t", np.arange(20.0)[:, None], np.arange(20.0))
    held = hold_back(part, 0.4, 0)[1]
    assert held is not None
    y = part.y.copy()
    y[int(held.targets[0])] += 1.0
    declared: list[Declaration] = []
    for each in (part, Partition("p0", "t", part.X, y)):
        own = OwnPartitions([each])
        own.check(make_settings(test_fraction=0.4))
        declared += own.declare()
    assert declared[0].digest != declared[1].digest


@pytest.mark.parametrize(
    ("changes", "least", "told"),
    [
        ({}, 5, "partition 'p0' has fewer rows to train on than this worker's --least-rows 5, got 4"),
        ({"strength": None, "update": "auto", "folds": 2}, 3, r"in each of 2 folds .* --least-rows 3, got 2"),
        ({"test_fraction": 0.5}, 3, "partition 'p0' has fewer rows"),
    ],
)
def test_a_worker_insists_on_its_least_rows(changes: dict[str, Any], least: int, told: str) -> None:
    own = OwnPartitions(make_partitions(1, "squared"), least_rows=least)
    with pytest.raises(DataError, match=told):
        own.check(make_settings(**changes))
    OwnPartitions(make_partitions(1, "squared"), least_rows=4).check(make_settings())
