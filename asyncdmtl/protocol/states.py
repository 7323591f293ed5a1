"""The order of messages: one table of transitions, which both ends of a connection follow.

Each end advances on what it sends and on what it receives. A pair that is missing is an error of whoever
sent the message. Heartbeats and failures may come at any time and are not in the table.

A new plan (`assign`) may cross an `uplink` that was made for the old one; the session drops that
uplink by its plan number before it gets here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto


class State(Enum):
    """Where a connection stands."""

    OPENED = auto()
    GREETED = auto()
    WELCOMED = auto()
    DECLARED = auto()
    COMPUTING = auto()
    SENT = auto()
    CLOSING = auto()
    DONE = auto()
    FINISHED = auto()
    FAILED = auto()


TRANSITIONS: Mapping[tuple[State, str], State] = {
    (State.OPENED, "hello"): State.GREETED,
    (State.GREETED, "welcome"): State.WELCOMED,
    (State.WELCOMED, "declare"): State.DECLARED,
    (State.DECLARED, "assign"): State.COMPUTING,
    (State.COMPUTING, "assign"): State.COMPUTING,
    (State.COMPUTING, "uplink"): State.SENT,
    (State.SENT, "assign"): State.COMPUTING,
    (State.SENT, "downlink"): State.COMPUTING,
    (State.SENT, "downlink, the last"): State.CLOSING,
    (State.CLOSING, "done"): State.DONE,
    (State.DONE, "finish"): State.FINISHED,
}
