"""The order of messages: two tables of transitions, which both ends of a connection follow.

`TRANSITIONS` says which message may come in which state of a connection, and `ROW_TRANSITIONS` how the coded
rows of one sender may be cut into ranges. Each end advances on the messages that it sends and on those that
it receives. A pair that is missing from a table is an error of the end that sent the message.

Events of the first table are the kinds of messages. If the next state depends on the order that a message
carries, the event includes it ("assign, give").
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class _Key(Enum):
    """An enum whose members are keys of tables, with a faster hash than Enum's."""

    __hash__ = object.__hash__


class State(_Key):
    """The state of a connection; the value describes it."""

    OPENED = "The connection is open."
    GREETED = "The worker has sent its name."
    CHALLENGED = "The server has asked for a proof."
    PROVEN = "The worker has sent its proof."
    STANDING_BY = "The worker waits until it is called to a job."
    SUBMITTING = "The program submits jobs, and waits for their ends."
    WELCOMED = "The worker knows the run and its settings."
    ASKING_KEY = "The worker waits for the key of a blind run, which another worker gives."
    DECLARED = "The server knows the worker's partitions."
    PREPARING = "The worker encodes its rows."
    READY = "The worker has encoded its rows and waits for a plan."
    JOINING_GROUP = "The worker tests whether it receives the multicast group."
    GROUP_CHECKED = "The worker has reported whether it receives the group, and waits for a plan."
    LISTENING = "The worker opens a port on which other workers may take rows from it."
    GIVING_STATE = "The worker must send the state of the training."
    GIVING_BEFORE_END = "The worker must send the state, and then receives the last round."
    TAKING_STATE = "The worker allocates memory for the state of the training."
    AWAITING_STATE = "The server must send the state of the training."
    COMPUTING = "The worker computes its rows of the round."
    UPLINK_SENT = "The worker has sent rows of the round, and waits for the server's."
    ENDING = "The worker receives the last round."
    DONE = "The worker has the final models and waits for the other workers."
    FINISHED = "The run is over."
    FAILED = "This end has found an error, and may still report it to the other end."
    CLOSED = "One end has reported a failure to the other."


# A worker whose rows are encoded gets a plan, and may get another one at any time before the end.
_MAY_BE_ASSIGNED = (
    *(State.READY, State.GROUP_CHECKED, State.GIVING_STATE, State.GIVING_BEFORE_END),
    *(State.TAKING_STATE, State.AWAITING_STATE),
    *(State.COMPUTING, State.UPLINK_SENT, State.ENDING, State.DONE),
)

# States without heartbeats: the ends do not wait for each other yet, or no longer do.
_WITHOUT_HEARTBEATS = (
    *(State.OPENED, State.GREETED, State.CHALLENGED, State.PROVEN),
    *(State.FINISHED, State.FAILED, State.CLOSED),
)

# Messages that do not change the state, from the welcome to the end.
STATELESS_KINDS = (
    *("heartbeat", "more-rows", "loss-query", "loss-report", "fallback"),
    *("peer-report", "rows-lacking"),
    *("key-order", "keys-given", "renewed-keys"),
)

TRANSITIONS: Mapping[tuple[State, str], State] = {
    (State.OPENED, "hello"): State.GREETED,
    (State.GREETED, "welcome"): State.WELCOMED,
    (State.GREETED, "challenge"): State.CHALLENGED,
    (State.CHALLENGED, "proof"): State.PROVEN,
    (State.PROVEN, "welcome"): State.WELCOMED,
    (State.GREETED, "standby"): State.STANDING_BY,
    (State.PROVEN, "standby"): State.STANDING_BY,
    (State.GREETED, "standby, submit"): State.SUBMITTING,
    (State.PROVEN, "standby, submit"): State.SUBMITTING,
    (State.SUBMITTING, "submit"): State.SUBMITTING,
    (State.SUBMITTING, "job"): State.SUBMITTING,
    (State.SUBMITTING, "job-ended"): State.SUBMITTING,
    (State.SUBMITTING, "stream-end"): State.FINISHED,
    (State.STANDING_BY, "job"): State.STANDING_BY,
    (State.STANDING_BY, "stream-end"): State.FINISHED,
    (State.WELCOMED, "key-request"): State.ASKING_KEY,
    (State.ASKING_KEY, "group-keys"): State.WELCOMED,
    (State.WELCOMED, "declare-some"): State.WELCOMED,
    (State.WELCOMED, "declare"): State.DECLARED,
    (State.DECLARED, "prepare"): State.PREPARING,
    (State.PREPARING, "ready"): State.READY,
    (State.READY, "join-group"): State.JOINING_GROUP,
    (State.JOINING_GROUP, "joined-group"): State.GROUP_CHECKED,
    (State.READY, "listen"): State.LISTENING,
    (State.LISTENING, "listens"): State.READY,
    # Between two workers, of which the one that takes rows has greeted the other.
    (State.WELCOMED, "ask-rows"): State.WELCOMED,
    (State.WELCOMED, "give-rows"): State.WELCOMED,
    **{(state, "assign, keep"): State.COMPUTING for state in _MAY_BE_ASSIGNED},
    **{(state, "assign, give"): State.GIVING_STATE for state in _MAY_BE_ASSIGNED},
    **{(state, "assign, take"): State.TAKING_STATE for state in _MAY_BE_ASSIGNED},
    (State.GIVING_STATE, "snapshot"): State.COMPUTING,
    (State.TAKING_STATE, "await-restore"): State.AWAITING_STATE,
    (State.AWAITING_STATE, "restore"): State.COMPUTING,
    (State.COMPUTING, "uplink"): State.UPLINK_SENT,
    (State.UPLINK_SENT, "downlink, go on"): State.COMPUTING,
    (State.UPLINK_SENT, "downlink, give"): State.GIVING_STATE,
    (State.UPLINK_SENT, "downlink, end"): State.ENDING,
    (State.ENDING, "done"): State.DONE,
    (State.COMPUTING, "done"): State.DONE,
    (State.DONE, "finish"): State.FINISHED,
    **{(state, "failure"): State.CLOSED for state in State if state is not State.CLOSED},
    **{
        (state, kind): state
        for state in State
        if state not in _WITHOUT_HEARTBEATS
        for kind in STATELESS_KINDS
    },
}


# What may come beside the transitions above under a plan that tolerates silent workers. The server sends a
# worker the rows of a round that it went on with before the worker's own came, or before its state, and a
# worker that missed many rounds the state of the training. An uplink of an earlier round does not change the
# state.
TOLERANT_TRANSITIONS: Mapping[tuple[State, str], State] = {
    (State.COMPUTING, "downlink, go on"): State.COMPUTING,
    (State.COMPUTING, "downlink, end"): State.ENDING,
    (State.COMPUTING, "uplink, late"): State.COMPUTING,
    (State.ENDING, "uplink, late"): State.ENDING,
    (State.GIVING_STATE, "downlink, go on"): State.GIVING_STATE,
    (State.GIVING_STATE, "downlink, end"): State.GIVING_BEFORE_END,
    (State.GIVING_BEFORE_END, "snapshot"): State.ENDING,
    (State.UPLINK_SENT, "restore"): State.COMPUTING,
}


class RowState(_Key):
    """The state of the coded rows of one sender; the value describes it."""

    COMPLETE = "All announced rows have been sent."
    PARTIAL = "Announced rows are still to follow."


class RowEvent(_Key):
    """The event that a message is for the coded rows of its sender; the value describes it."""

    ALL = "An uplink or downlink with all its rows."
    FIRST = "An uplink or downlink that announces further rows."
    MORE = "Rows that were announced, but not the last of them."
    LAST = "The last rows that were announced."
    BESIDE = "A heartbeat, a failure, a new plan, or a message about multicast rows or keys."
    OTHER = "Any other message."


ROW_TRANSITIONS: Mapping[tuple[RowState, RowEvent], RowState] = {
    (RowState.COMPLETE, RowEvent.ALL): RowState.COMPLETE,
    (RowState.COMPLETE, RowEvent.FIRST): RowState.PARTIAL,
    (RowState.COMPLETE, RowEvent.BESIDE): RowState.COMPLETE,
    (RowState.COMPLETE, RowEvent.OTHER): RowState.COMPLETE,
    (RowState.PARTIAL, RowEvent.MORE): RowState.PARTIAL,
    (RowState.PARTIAL, RowEvent.LAST): RowState.COMPLETE,
    (RowState.PARTIAL, RowEvent.BESIDE): RowState.PARTIAL,
}
