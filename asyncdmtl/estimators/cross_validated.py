"""The part of estimators that choose λ, and maybe the kind of intercept, by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.estimators.base import CodedMultiTask, plain
from asyncdmtl.estimators.frames import Target, TaskFrames
from asyncdmtl.estimators.running import is_remote
from asyncdmtl.learning.selection import select_strength
from asyncdmtl.learning.settings import AUTO, Settings
from asyncdmtl.learning.statistics_selection import Selection
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.server.records import RunRecord


@dataclass(eq=False, repr=False, kw_only=True)
class CrossValidated(CodedMultiTask):
    """Chooses λ from a path of values, by held-out loss.

    Regressors and classifiers that choose it have this as their last base, so that the defaults of the others
    hold.
    """

    strengths: Sequence[float] | None = None
    cv: int = 5

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self._is_away and self.strengths is not None:
            raise UsageError(
                "strengths", "must be None with a server elsewhere, which has a path", self.strengths
            )

    @property
    def _is_away(self) -> bool:
        """Whether the run is that of a server elsewhere."""
        return is_remote(self.cluster)

    @property
    def _strength_is_open(self) -> bool:
        return self._is_away

    @property
    def _intercept(self) -> str:
        if self.fit_intercept != AUTO:
            return super()._intercept
        if self._is_away:
            rule = "must not be auto with a server elsewhere, which knows the kind of intercept"
            raise UsageError("fit_intercept", rule, AUTO)
        return "free"

    def _choose(
        self, frames: TaskFrames, targets: Sequence[Target]
    ) -> tuple[TaskFrames, Sequence[Partition], Settings]:
        counts = [len(rows) for rows in frames.rows]
        if max(counts) < 2:
            rule = f"with n_samples = {sum(counts)} must include a task of two rows, to hold one out; rows"
            raise DataError("tasks", rule, counts)
        if self._is_away:
            # The run chooses, from the rows of all sites.
            partitions, settings = self._prepared(frames, targets)
            self.fit_intercept_ = self.fit_intercept
            return frames, partitions, replace(settings, strength=None, folds=plain(self.cv))
        auto = self.fit_intercept == AUTO
        tried = [frames, frames.with_intercept("penalised")] if auto else [frames]
        found = []
        for own in tried:
            partitions, settings = self._prepared(own, targets)
            selection = select_strength(partitions, settings, strengths=self.strengths, folds=plain(self.cv))
            found.append((selection, partitions, settings))
        at = min(range(len(found)), key=lambda i: found[i][0].loss)
        selection, partitions, settings = found[at]
        self.fit_intercept_ = (True, "penalised")[at] if auto else self.fit_intercept
        self.strength_ = selection.strength
        self.cv_results_ = _results(selection)
        return tried[at], partitions, replace(settings, strength=selection.strength)

    def _settings_of_job(self, settings: Settings, partitions: Sequence[Partition]) -> Settings:
        """The settings for a job of a server's stream; the job chooses λ."""
        return settings

    def _run(self, settings: Settings, partitions: Sequence[Partition]) -> tuple[RunRecord, TaskModels]:
        record, models = super()._run(settings, partitions)
        if not self._is_away:
            return record, models
        found = record.outcome.selections if record.outcome is not None else {}
        if not found:
            rule = "must choose λ, with --strength auto, for estimators that choose it; it has the λ"
            raise UsageError("server", rule, record.settings.strength)
        self.cv_results_ = _results(found[record.settings.coupling])
        return record, models


def _results(selection: Selection) -> dict[str, NDArray[Any]]:
    """The held-out losses of all values of λ, in the form of `GridSearchCV.cv_results_`."""
    mean = selection.means
    folds = {f"split{i}_test_loss": column for i, column in enumerate(selection.losses.T)}
    return {
        "param_strength": selection.strengths,
        **folds,
        "mean_test_loss": mean,
        "std_test_loss": np.nanstd(selection.losses, axis=1),
        "rank_test_loss": rankdata(mean, method="min").astype(int),
    }
