from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.checkpoints import CHECKPOINT
from support.problems import make_partitions, make_settings

from asyncdmtl.digests import Digest
from asyncdmtl.errors import UsageError
from asyncdmtl.exchange.states import ExactStates
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.server.events import IncidentNoted, ServerEvent
from asyncdmtl.server.records import Incident, RoundRecord
from asyncdmtl.server.training_progress import TrainingProgress
from asyncdmtl.server.training_state import TrainingState

digest = Digest("run")

SETTINGS = make_settings(rounds=10)
PROBLEM = Problem(SETTINGS, [part.info(SETTINGS) for part in make_partitions(2, "squared")])
RECORDS = [RoundRecord(r, 1.0 / (r + 1), 0.5, 10, 20, 0.1) for r in range(5)]


def made(strategy: str = "relay") -> tuple[TrainingProgress, list[ServerEvent]]:
    events: list[ServerEvent] = []
    return TrainingProgress("run", PROBLEM, strategy, events.append), events


def test_records_and_incidents_are_kept_and_told() -> None:
    progress, events = made()
    progress.record(RECORDS[0])
    progress.round = 1
    progress.note("w0", "LinkError", "reset")
    assert list(progress.records) == [RECORDS[0]]
    assert progress.incidents == [Incident(1, "w0", "reset")]
    assert events == [RECORDS[0], IncidentNoted(1, "w0", "LinkError", "reset")]


def test_a_training_that_ends_early_has_converged() -> None:
    progress, _ = made()
    found = []
    for round_, over in ((4, False), (4, True), (SETTINGS.rounds, True)):
        progress.round, progress.over = round_, over
        found.append(progress.converged)
    assert found == [False, True, False]


def test_going_back_to_an_earlier_round_is_noted_and_forgets_later_records() -> None:
    progress, events = made()
    for record in RECORDS:
        progress.record(record)
    progress.round = 5
    progress.go_on_from(TrainingState(5, False))
    assert len(progress.records) == 5
    progress.go_on_from(TrainingState(2, False))
    assert (progress.round, [record.round for record in progress.records]) == (2, [0, 1])
    assert isinstance(events[-1], IncidentNoted)
    assert events[-1].kind == "Rewound"


@pytest.mark.parametrize("strategy", ["relay", "personal"])
def test_a_resumed_training_stands_where_the_checkpoint_says(strategy: str) -> None:
    state = Trainer(PROBLEM, {}).state()
    progress, _ = made(strategy)
    progress.resume(replace(CHECKPOINT, state=state, round=4))
    assert (progress.round, progress.plans) == (4, CHECKPOINT.plans)
    assert progress.distrusted == {("w1", "p0")}
    assert (progress.electorate, progress.resumed) == (CHECKPOINT.workers, True)
    assert progress.saved is not None
    assert (progress.saved.round, progress.saved.check) == (4, ExactStates(PROBLEM, digest).check(state))
    assert (progress.trainer is not None) == (strategy == "personal")


def test_a_checkpoint_of_another_training_is_refused() -> None:
    progress, _ = made()
    with pytest.raises(UsageError):
        progress.resume(replace(CHECKPOINT, state=np.zeros(3, np.uint8)))
