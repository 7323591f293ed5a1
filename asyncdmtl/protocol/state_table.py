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
    TUNING = auto()
    TUNED = auto()
    GIVING = auto()
    TAKING = auto()
    AWAITING = auto()
    COMPUTING = auto()
    SENT = auto()
    CLOSING = auto()
    DONE = auto()
    FINISHED = auto()
    FAILED = auto()


# A worker that is ready gets a plan, and at any time before the end another one.
_MAY_BE_ASSIGNED = (
    *(State.READY, State.TUNED, State.GIVING, State.TAKING, State.AWAITING),
    *(State.COMPUTING, State.SENT, State.CLOSING, State.DONE),
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
    (State.READY, "tune"): State.TUNING,
    (State.TUNING, "tuned"): State.TUNED,
    **{(state, "assign, keep"): State.COMPUTING for state in _MAY_BE_ASSIGNED},
    **{(state, "assign, give"): State.GIVING for state in _MAY_BE_ASSIGNED},
    **{(state, "assign, take"): State.TAKING for state in _MAY_BE_ASSIGNED},
    (State.GIVING, "snapshot"): State.COMPUTING,
    (State.TAKING, "behind"): State.AWAITING,
    (State.AWAITING, "restore"): State.COMPUTING,
    (State.COMPUTING, "uplink"): State.SENT,
    (State.SENT, "downlink, go on"): State.COMPUTING,
    (State.SENT, "downlink, give"): State.GIVING,
    (State.SENT, "downlink, end"): State.CLOSING,
    (State.CLOSING, "done"): State.DONE,
    (State.COMPUTING, "done"): State.DONE,
    (State.DONE, "finish"): State.FINISHED,
}
