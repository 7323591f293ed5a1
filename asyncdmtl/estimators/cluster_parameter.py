"""Pickles and clones of estimators with parameters that cannot be copied: a Dask client, and a callback."""

from __future__ import annotations

import copy
from typing import Any, Self

from sklearn.base import BaseEstimator


class ClusterParameter(BaseEstimator):  # type: ignore[misc]
    """The part of an estimator that has the parameters `cluster` and `on_event`."""

    cluster: Any
    on_event: Any

    def __getstate__(self) -> dict[str, Any]:
        """The state for pickles and copies, with "threads" in place of a Dask client, without a callback."""
        state: dict[str, Any] = {**super().__getstate__(), "on_event": None}
        return state if isinstance(self.cluster, str) else {**state, "cluster": "threads"}

    def __sklearn_clone__(self) -> Self:
        """An estimator with the same parameters, the same Dask client and the same callback."""
        twin: Self = BaseEstimator.__sklearn_clone__(copy.copy(self))
        twin.cluster, twin.on_event = self.cluster, self.on_event
        return twin

    def __sklearn_tags__(self) -> Any:
        """The properties of the estimator, for scikit-learn."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
