"""Pickles and clones of estimators that have a Dask client as parameter, which cannot be copied."""

from __future__ import annotations

import copy
from typing import Any, Self

from sklearn.base import BaseEstimator


class ClusterParameter(BaseEstimator):  # type: ignore[misc]
    """The part of an estimator that has the parameter `cluster`."""

    cluster: Any

    def __getstate__(self) -> dict[str, Any]:
        """The state for pickles and copies. A Dask client can be in none, and "threads" takes its place."""
        state: dict[str, Any] = super().__getstate__()
        return state if isinstance(self.cluster, str) else {**state, "cluster": "threads"}

    def __sklearn_clone__(self) -> Self:
        """An estimator with the same parameters, and with the same Dask client."""
        twin: Self = BaseEstimator.__sklearn_clone__(copy.copy(self))
        twin.cluster = self.cluster
        return twin

    def __sklearn_tags__(self) -> Any:
        """The properties of the estimator, for scikit-learn."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
