from __future__ import annotations

import pytest
from support.messages import EXAMPLES

from asyncdmtl.protocol.messages.rounds import AfterRound, StateTransfer
from asyncdmtl.protocol.state_table import (
    ROW_TRANSITIONS,
    TOLERANT_TRANSITIONS,
    TRANSITIONS,
    RowEvent,
    RowState,
    State,
)

EVERY = {**TRANSITIONS, **TOLERANT_TRANSITIONS}


def reachable(start: State) -> set[State]:
    reached = {start}
    for _ in EVERY:
        reached |= {after for (before, _), after in EVERY.items() if before in reached}
    return reached


def test_every_state_is_reached_by_messages_but_the_one_that_an_error_leads_to() -> None:
    assert reachable(State.OPENED) == set(State) - {State.FAILED}


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_the_run_can_come_to_its_end_from_every_state_before_it(state: State) -> None:
    if state in (State.FAILED, State.CLOSED):
        assert State.FINISHED not in reachable(state)
    else:
        assert State.FINISHED in reachable(state)


def test_events_are_those_of_messages() -> None:
    orders = {"standby, submit"}
    orders |= {f"assign, {order}" for order in StateTransfer} | {f"downlink, {order}" for order in AfterRound}
    assert {event for _, event in TRANSITIONS} == (set(EXAMPLES) - {"assign", "downlink"}) | orders
    assert {message.event for message in EXAMPLES.values()} <= {event for _, event in TRANSITIONS}


def test_one_end_at_most_may_change_a_state_besides_a_new_plan_or_a_failure() -> None:
    """Otherwise two messages that cross could lead the two ends to different states."""
    senders = {message.kind: message.sender for message in EXAMPLES.values()}
    for state in State:
        changing = {
            senders[event.split(",")[0]]
            for (before, event), after in TRANSITIONS.items()
            if before is state
            and not event.startswith("assign")
            and event != "failure"
            and after is not state
        }
        assert len(changing) <= 1, state


def test_a_failure_may_be_told_once_from_everywhere() -> None:
    for state in State:
        assert ((state, "failure") in TRANSITIONS) == (state is not State.CLOSED)
    assert all(before is not State.CLOSED for before, _ in TRANSITIONS)


def test_rows_that_were_announced_come_before_anything_that_needs_them() -> None:
    assert {event for state, event in ROW_TRANSITIONS if state is RowState.PARTIAL} == {
        RowEvent.MORE,
        RowEvent.LAST,
        RowEvent.BESIDE,
    }
    assert {event for state, event in ROW_TRANSITIONS if state is RowState.COMPLETE} == {
        RowEvent.ALL,
        RowEvent.FIRST,
        RowEvent.BESIDE,
        RowEvent.OTHER,
    }
