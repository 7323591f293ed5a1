"""The order of messages: one table of transitions, which both ends of a connection follow.

Each end advances on what it sends and on what it receives. A pair that is missing is an error of whoever
sent the message. Heartbeats and failures may come at any time and are not in the table; nor is what goes on
within a state: more rows, and what is said of rows that come from a group.

A new plan (`assign`) may cross what a worker sends for the old one; the session drops that by its plan
number before it gets here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto


class State(Enum):
    """Where a connection stands."""

    OPENED = auto()
    GREETED = auto()
    CHALLENGED = auto()
    PROVEN = auto()
    WELCOMED = auto()
    DECLARED = auto()
    PREPARING = auto()
    READY = auto()
    JOINING_GROUP = auto()
    GROUP_CHECKED = auto()
    GIVING_STATE = auto()
    TAKING_STATE = auto()
    AWAITING_STATE = auto()
    COMPUTING = auto()
    UPLINK_SENT = auto()
    ENDING = auto()
    DONE = auto()
    FINISHED = auto()
    FAILED = auto()


# A worker that is ready gets a plan, and at any time before the end another one.
_MAY_BE_ASSIGNED = (
    *(State.READY, State.GROUP_CHECKED, State.GIVING_STATE, State.TAKING_STATE, State.AWAITING_STATE),
    *(State.COMPUTING, State.UPLINK_SENT, State.ENDING, State.DONE),
)

TRANSITIONS: Mapping[tuple[State, str], State] = {
    (State.OPENED, "hello"): State.GREETED,
    (State.GREETED, "welcome"): State.WELCOMED,
    (State.GREETED, "challenge"): State.CHALLENGED,
    (State.CHALLENGED, "proof"): State.PROVEN,
    (State.PROVEN, "welcome"): State.WELCOMED,
    (State.WELCOMED, "declare"): State.DECLARED,
    (State.DECLARED, "prepare"): State.PREPARING,
    (State.PREPARING, "ready"): State.READY,
    (State.READY, "join-group"): State.JOINING_GROUP,
    (State.JOINING_GROUP, "joined-group"): State.GROUP_CHECKED,
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
}
