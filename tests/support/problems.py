"""Small learning problems that tests share."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.server.records import RunOptions


def make_partitions(count: int, loss: str, features: int = 9, seed: int = 0) -> list[Partition]:
    """Partitions `p0`, `p1`, … of unequal sizes, two to a task."""
    rng = np.random.default_rng(seed)
    partitions = []
    for n in range(count):
        X = rng.standard_normal((4 + n % 3, features))
        y = X @ rng.standard_normal(features)
        partitions.append(
            Partition(f"p{n}", f"t{n // 2}", X, (y > 0).astype(float) if loss == "logistic" else y)
        )
    return partitions


def make_settings(**changes: Any) -> Settings:
    """Settings for `make_partitions`, with some of them changed."""
    settings: dict[str, Any] = {
        "loss": "squared",
        "aggregate": "mean",
        "coupling": "nuclear",
        "strength": 0.05,
        "rounds": 3,
        "dtype": "float32",
        "intercept": "free",
        "seed": 0,
    }
    return Settings(**settings | changes)


def make_quick_settings(**changed: Any) -> Settings:
    """The same with LAPACK, which takes a tenth of the time for thousands of rounds of spectral couplings."""
    return make_settings(arithmetic="fast", **changed)


def run_options(**changes: Any) -> RunOptions:
    """Options of a run of six workers under `make_settings`, with some of them changed."""
    options: dict[str, Any] = {"settings": make_settings(), "strategy": "relay", "workers": 6}
    return RunOptions(**options | changes)
