from __future__ import annotations

import numpy as np
import pytest
from support.problems import make_settings

from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.settings import Settings
from asyncdmtl.worker.observer import WorkerObserver

UPLOAD = Upload((np.zeros((1, 4), np.uint8),), 4, (b"",), (0.5,), 0.0, 0.0)


def test_an_observer_overrides_what_interests_it_and_ignores_the_rest() -> None:
    class Rounds(WorkerObserver):
        def __init__(self) -> None:
            self.rounds: list[int] = []

        def before_compute(self, round_: int) -> None:
            self.rounds.append(round_)

    observer = Rounds()
    settings: Settings = make_settings()
    observer.on_settings(settings)
    for round_ in range(3):
        observer.before_compute(round_)
        observer.after_compute(round_, UPLOAD)
    assert observer.rounds == [0, 1, 2]


@pytest.mark.parametrize("method", ["on_settings", "before_compute", "after_compute"])
def test_what_may_be_observed_is_documented(method: str) -> None:
    assert getattr(WorkerObserver, method).__doc__.startswith("Called ")
