"""What a server tells its operator while it runs: one immutable value for each kind of event.

The commands print events as JSON lines, which `as_json` makes: the event's name under the key "event", then
its attributes under their own names. One more event is the `RoundRecord` of each round (`records`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class ServerEvent:
    """Something that happened in a run. `name` is the word for its kind in JSON."""

    name: ClassVar[str]

    def as_json(self) -> dict[str, Any]:
        """The event in plain JSON types."""
        return {"event": self.name, **vars(self)}


# Is called with each event, in the thread of the server's event loop.
OnEvent = Callable[[ServerEvent], None]


@dataclass(frozen=True)
class Listening(ServerEvent):
    """The server listens at this address: workers may connect."""

    name = "listening"
    run: str
    host: str
    port: int


@dataclass(frozen=True)
class HealthListening(ServerEvent):
    """Health and metrics can be had over HTTP at this address."""

    name = "health"
    host: str
    port: int


@dataclass(frozen=True)
class Joined(ServerEvent):
    """A worker joined with so many partitions; `again` if it had been a member before."""

    name = "joined"
    worker: str
    partitions: int
    again: bool = False


@dataclass(frozen=True)
class Refused(ServerEvent):
    """A connection was refused; `worker` is "?" if no name was known by then."""

    name = "refused"
    worker: str
    reason: str


@dataclass(frozen=True)
class Left(ServerEvent):
    """A worker that had joined left before it could take part in a round."""

    name = "left"
    worker: str
    reason: str


@dataclass(frozen=True)
class LockedOut(ServerEvent):
    """Many proofs failed: one from the address (`kind`) `locked_out` is answered some seconds late."""

    name = "lockout"
    kind: str
    locked_out: str
    seconds: float


@dataclass(frozen=True)
class Resumed(ServerEvent):
    """The run goes on from a checkpoint, at the beginning of this round."""

    name = "resumed"
    run: str
    round: int


@dataclass(frozen=True)
class Planned(ServerEvent):
    """A plan was made.

    Attributes
    ----------
    number : int
        Counts the plans of a run.
    round : int
        The round from which on the plan is followed.
    workers : tuple of str
    strategy : str
    uplink_load, downlink_load : str
        Vectors, as fractions.
    subpackets : int
        Packets that each vector is cut into.
    listeners : tuple of str
        The workers that are sent their rows by a multicast group.
    network : str
        Why these workers are served by the group; empty if no worker hears one.
    """

    name = "planned"
    number: int
    round: int
    workers: tuple[str, ...]
    strategy: str
    uplink_load: str
    downlink_load: str
    subpackets: int
    listeners: tuple[str, ...]
    network: str


@dataclass(frozen=True)
class Waiting(ServerEvent):
    """The server waits up to so many seconds for holders of partitions, or for the state of the training."""

    name = "waiting"
    round: int
    partitions: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Checkpointed(ServerEvent):
    """A checkpoint of so many bytes was written in so many seconds, at the beginning of this round."""

    name = "checkpointed"
    round: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class IncidentNoted(ServerEvent):
    """Something went wrong and was made good.

    Attributes
    ----------
    round : int
    worker : str
        Empty if no worker in particular was at fault.
    kind : str
        The name of the error's class, or a word for what is no error.
    reason : str
    """

    name = "incident"
    round: int
    worker: str
    kind: str
    reason: str
