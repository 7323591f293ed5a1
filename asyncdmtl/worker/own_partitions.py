"""The partitions that a worker stores, with their declarations, encoded rows and test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.prepared_rows import PreparedRows
from asyncdmtl.data.stored import Stored
from asyncdmtl.digests import CHALLENGE_BYTES, answer
from asyncdmtl.errors import DataError
from asyncdmtl.learning.losses import check_targets
from asyncdmtl.learning.metric_sums import sums_of
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Declaration, Partition, PartitionInfo, TaskModels


class OwnPartitions:
    """The partitions that a worker stores. None of their rows ever leaves the worker.

    Declarations and encoded rows are made once: a worker that comes back to a run sends the same again.

    Parameters
    ----------
    stored : sequence of Stored, or PreparedRows
        Rows that were prepared serve several runs.
    test_fraction : float, optional
        The share of test rows of each partition; default: that of the run's settings.
    least_rows : int
        The fewest training rows of each partition, and of each fold if the run chooses λ.
    """

    def __init__(
        self,
        stored: Sequence[Stored] | PreparedRows,
        test_fraction: float | None = None,
        least_rows: int = 1,
    ) -> None:
        self._rows = stored if isinstance(stored, PreparedRows) else PreparedRows(stored)
        self._test_fraction = test_fraction
        self._least_rows = least_rows
        self._divided = self._rows.divided(0.0, 0)
        self._encoded_with: tuple[Encoding, Settings] | None = None
        self._infos: tuple[PartitionInfo, ...] = ()
        self._encoded: Mapping[str, Partition] = {}
        self._tests: Mapping[str, Partition] = {}

    def check(self, settings: Settings) -> None:
        """Hold out test rows, and check that enough rows are left, before anything is sent.

        Raises
        ------
        DataError
            Names a partition that is smaller than this worker permits.
        """
        share = settings.test_fraction if self._test_fraction is None else self._test_fraction
        self._divided = self._rows.divided(share, settings.seed)
        if self._least_rows == 1:
            return
        for train, _ in self._divided.pairs:
            rows = train.rows // settings.folds if settings.chooses else train.rows
            if rows < self._least_rows:
                whose = f" in each of {settings.folds} folds" if settings.chooses else ""
                rule = f"has fewer rows to train on{whose} than this worker's --least-rows {self._least_rows}"
                raise DataError(f"partition {train.id!r}", rule, rows)

    def declare(self) -> tuple[Declaration, ...]:
        """What the server may know of the partitions before their rows are encoded."""
        return self._divided.declared

    def encode(self, encoding: Encoding, settings: Settings) -> tuple[PartitionInfo, ...]:
        """Encode the rows, and return the facts about the encoded partitions that the server gets.

        Raises
        ------
        DataError
            The rows cannot be encoded, or do not suit the loss.
        """
        if self._encoded_with != (encoding, settings):
            rows = self._divided.encoded(encoding)
            for test in rows.tests:
                check_targets(settings.loss, test.y, f"test rows of partition {test.id!r}")
            self._encoded = {partition.id: partition for partition in rows.train}
            self._tests = {partition.id: partition for partition in rows.tests}
            held = {partition.id: partition.rows for partition in rows.tests}
            self._infos = tuple(
                replace(partition.info(settings), held=held.get(partition.id, 0)) for partition in rows.train
            )
            self._encoded_with = encoding, settings
        return self._infos

    def answers(self, challenges: Sequence[bytes]) -> tuple[bytes, ...]:
        """The answers to the challenges of each partition, which show that its encoded rows are here."""
        return tuple(
            b"".join(
                answer(several[start : start + CHALLENGE_BYTES], partition.content())
                for start in range(0, len(several), CHALLENGE_BYTES)
            )
            for several, partition in zip(challenges, self._encoded.values(), strict=False)
        )

    @property
    def encoded(self) -> Mapping[str, Partition]:
        """The encoded partitions by name, without test rows; none before `encode`."""
        return self._encoded

    @property
    def infos(self) -> tuple[PartitionInfo, ...]:
        """The facts about the encoded partitions; none before `encode`."""
        return self._infos

    @property
    def encoded_with(self) -> tuple[Encoding, Settings]:
        """The encoding and the settings with which rows were encoded; known after `encode`."""
        assert self._encoded_with is not None
        return self._encoded_with

    def tested(self, models: TaskModels, others: Mapping[str, TaskModels]) -> dict[str, list[Any]]:
        """Sums over the test rows of each partition that has some, in plain types.

        Parameters
        ----------
        models : TaskModels
            The models of the run.
        others : mapping of kind to TaskModels
            The baseline models.
        """
        kinds = {"coupled": models, **others}
        known = set(models.tasks)
        return {
            name: sums_of(models.loss, rows, kinds).as_list()
            for name, rows in self._tests.items()
            if rows.task in known
        }
