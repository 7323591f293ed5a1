from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.learning.metric_sums import SquaredErrors
from asyncdmtl.learning.outcome import Outcome
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.tasks import Declaration
from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.messages.rounds import Done
from asyncdmtl.server.conclusion import conclude, note_missing_tests
from asyncdmtl.server.member import Member
from asyncdmtl.server.training_progress import TrainingProgress

SETTINGS = make_settings(update="statistics")
INFOS = [replace(part.info(SETTINGS), held=2) for part in make_partitions(2, "squared")]
HELD = tuple(Declaration(info.id, info.task, info.digest, info.rows, {}, 2) for info in INFOS)
TOLD = Outcome("nuclear", 0.05, 1.0, 0.0).as_dict()


def sums(error: float) -> list[Any]:
    return SquaredErrors.of(np.array([1.0, 3.0]), {"coupled": np.array([1.0, 3.0 + error])}).as_list()


def end(strategy: str = "relay", **told: tuple[dict[str, Any], dict[str, Any]]) -> TrainingProgress:
    """What the server believes, given the outcome and the sums that each worker told; all hold everything."""
    progress = TrainingProgress("run", Problem(SETTINGS, INFOS), strategy, lambda event: None)
    done: Any = {
        Member(name, cast(Connection, None), HELD): Done(0, bytes(8), outcome, tests)
        for name, (outcome, tests) in told.items()
    }
    conclude(progress, done)
    note_missing_tests(progress)
    return progress


def noted(progress: TrainingProgress) -> list[str]:
    return [incident.worker for incident in progress.incidents]


def test_what_most_say_is_believed_and_the_others_are_named() -> None:
    both = {"p0": sums(1.0), "p1": sums(2.0)}
    liar = TOLD | {"strength": 9.0}, {"p0": sums(0.0), "p1": sums(2.0)}
    progress = end(w0=liar, w1=(TOLD, both), w2=(TOLD, both))
    assert progress.outcome is not None
    assert progress.outcome.strength == 0.05
    assert progress.tests["p0"].as_list() == sums(1.0)
    assert noted(progress) == ["w0", "w0"]
    assert "'p0'" in progress.incidents[1].reason
    assert "'p1'" not in progress.incidents[1].reason


@pytest.mark.parametrize("nonsense", [None, [3, 2.0, 2.0, {"coupled": 1.0}], ["x"]])
def test_nonsense_is_noted_and_another_holder_believed(nonsense: Any) -> None:
    progress = end(w0=({}, {"p0": nonsense, "p1": sums(1.0)}), w1=({}, {"p0": sums(1.0), "p1": sums(1.0)}))
    assert set(progress.tests) == {"p0", "p1"}
    assert set(noted(progress)) == {"w0"}


@pytest.mark.parametrize(
    "lie",
    [{"coupling": "magic"}, {"strength": float("nan")}, {"strength": -1.0}, {"objective": float("inf")}],
)
def test_an_outcome_that_cannot_be_is_noted_and_another_worker_believed(lie: dict[str, Any]) -> None:
    progress = end(w0=(TOLD | lie, {}), w1=(TOLD, {}))
    assert progress.outcome is not None
    assert progress.outcome.as_dict() == TOLD
    # The last note is of test rows of which nobody told.
    assert noted(progress) == ["w0", ""]


def test_the_critical_strength_is_what_most_say() -> None:
    progress = TrainingProgress("run", Problem(SETTINGS, INFOS), "relay", lambda event: None)
    told = {"w0": 9.0, "w1": 1.5, "w2": 1.5, "w3": None}
    done: Any = {
        Member(name, cast(Connection, None), HELD): Done(0, bytes(8), {}, {}, critical)
        for name, critical in told.items()
    }
    conclude(progress, done)
    assert progress.critical_strength == 1.5


def test_test_rows_that_nobody_told_of_are_missed() -> None:
    progress = end(w0=(TOLD, {"p1": sums(1.0), "p7": sums(1.0)}))
    assert set(progress.tests) == {"p1"}
    assert noted(progress) == [""]
    assert "['p0']" in progress.incidents[0].reason


def test_holders_of_inexact_models_need_not_agree() -> None:
    both = {"p0": sums(1.0), "p1": sums(1.0)}
    progress = end("linear", w0=({}, both), w1=({}, {name: sums(1.0 + 1e-12) for name in both}))
    assert progress.tests["p0"].as_list() == sums(1.0)
    assert not progress.incidents


def test_the_outcome_of_a_server_that_trains_is_its_own() -> None:
    progress = TrainingProgress("run", Problem(SETTINGS, INFOS), "personal", lambda event: None)
    own = Outcome("nuclear", 0.05, 1.0, 0.0)
    progress.trainer = SimpleNamespace(outcome=own, critical_strength=0.5)  # type: ignore[assignment]
    conclude(progress, {})
    assert progress.outcome is own
