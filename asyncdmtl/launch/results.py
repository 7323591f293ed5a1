"""The models that the worker processes of a run on this machine have written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import CodingError
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.plan.placement import natural_key


def agreed_models(files: Sequence[Path], exact: bool) -> tuple[TaskModels, float]:
    """The models of all tasks, from the files of the workers, and how far the models of any two differ.

    The distance is the largest difference relative to the largest coefficient. CodingError if it is not 0
    where the strategy is `exact`.
    """
    found: dict[str, TaskModels] = {}
    spread = 0.0
    for file in files:
        saved = SavedModel.load(file).models
        for row, task in enumerate(saved.tasks):
            model = saved.of([row])
            known = found.setdefault(task, model)
            ours, theirs = (np.append(m.coef_, m.intercept_).astype(np.float64) for m in (known, model))
            spread = max(spread, float(np.abs(ours - theirs).max() / (np.abs(ours).max() or 1.0)))
    if exact and spread > 0:
        rule = "workers of this machine ended with models that differ, by"
        raise CodingError(f"{rule} {spread:.3g}: its memory or processor fails, or asyncdmtl does")
    tasks = tuple(sorted(found, key=natural_key))
    coef, intercept = (
        np.concatenate([getattr(found[task], name) for task in tasks]) for name in ("coef_", "intercept_")
    )
    return TaskModels(tasks, coef, intercept, found[tasks[0]].loss), spread
