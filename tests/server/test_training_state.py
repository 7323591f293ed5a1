from __future__ import annotations

import numpy as np

from asyncdmtl.server.training_state import TrainingState


def test_later_rounds_rank_higher_then_states_that_the_server_has() -> None:
    given = TrainingState(5, False, (), np.zeros(4, np.uint8))
    states = [given, TrainingState(5, True), TrainingState(4, False), TrainingState(5, False)]
    assert sorted(states, key=TrainingState.rank) == [states[k] for k in (2, 3, 0, 1)]
