from __future__ import annotations

from dataclasses import replace

import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import DataError
from asyncdmtl.learning.tasks import Declaration, FeatureNames, Partition
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
