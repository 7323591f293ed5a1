"""The events of a running server, for its operator: one immutable class for each kind.

The commands print events as JSON lines, which `as_json` makes: the event's name under the key "event", then
its attributes under their own names. One more event is the `RoundRecord` of each round (`records`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from asyncdmtl.net.addresses import format_address


@dataclass(frozen=True)
class ServerEvent:
    """Base of all events of a run. `name` is the name of the kind in JSON."""

    name: ClassVar[str]

    def as_json(self) -> dict[str, Any]:
        """The event in plain JSON types."""
        return {"event": self.name, **vars(self)}


@dataclass(frozen=True)
class JobEvent(ServerEvent):
    """An event of one job of a stream; in JSON it is that event with the job's name."""

    name = "job"
    job: str
    event: ServerEvent

    def as_json(self) -> dict[str, Any]:
        """The event in plain JSON types, with the job's name."""
        return {**self.event.as_json(), "job": self.job}


# A function that is called with each event, in the thread of the server's event loop.
OnEvent = Callable[[ServerEvent], None]


@dataclass(frozen=True)
class Listening(ServerEvent):
    """The server listens at this address, so that workers may connect."""

    name = "listening"
    run: str
    host: str
    port: int


@dataclass(frozen=True)
class HealthListening(ServerEvent):
    """Health and metrics are served over HTTP at this address."""

    name = "health"
    host: str
    port: int


@dataclass(frozen=True)
class DashboardListening(ServerEvent):
    """The dashboard is served over HTTP at this address, or over HTTPS."""

    name = "dashboard"
    host: str
    port: int
    tls: bool

    @property
    def url(self) -> str:
        """The address of the page for a browser."""
        return f"{'https' if self.tls else 'http'}://{format_address(self.host, self.port)}/"


@dataclass(frozen=True)
class Joined(ServerEvent):
    """A worker joined with this number of partitions; `again` if it had been a member before."""

    name = "joined"
    worker: str
    partitions: int
    again: bool = False


@dataclass(frozen=True)
class Refused(ServerEvent):
    """A connection was refused; `worker` is "?" if its name was not known.

    `final` says that the worker's data or options are the reason, so that it does not come back by itself.
    """

    name = "refused"
    worker: str
    reason: str
    final: bool = False


@dataclass(frozen=True)
class Left(ServerEvent):
    """A worker that had joined left before it could take part in a round; `final` as for `Refused`."""

    name = "left"
    worker: str
    reason: str
    final: bool = False


@dataclass(frozen=True)
class LockedOut(ServerEvent):
    """After many failed proofs from the address `locked_out`, the answer is delayed by some seconds."""

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
        The plan's number in the run.
    round : int
        The first round under the plan.
    workers : tuple of str
    strategy : str
    uplink_load, downlink_load : str
        The loads in vectors, as fractions.
    uplink_bound, downlink_bound : str
        The smallest possible loads.
    uncoded_uplink_load, uncoded_downlink_load : str
        The loads of a broadcast without coding.
    subpackets : int
        The number of packets of a vector.
    listeners : tuple of str
        The workers that receive their rows from a multicast group.
    network : str
        The reason for this choice of listeners; empty if no worker receives a group.
    """

    name = "planned"
    number: int
    round: int
    workers: tuple[str, ...]
    strategy: str
    uplink_load: str
    downlink_load: str
    uplink_bound: str
    downlink_bound: str
    uncoded_uplink_load: str
    uncoded_downlink_load: str
    subpackets: int
    listeners: tuple[str, ...]
    network: str


@dataclass(frozen=True)
class Waiting(ServerEvent):
    """The server waits, up to `seconds`, for holders of partitions or for the state of the training."""

    name = "waiting"
    round: int
    partitions: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Checkpointed(ServerEvent):
    """A checkpoint was written at the beginning of this round; its bytes, and the seconds that it took."""

    name = "checkpointed"
    round: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class IncidentNoted(ServerEvent):
    """An incident: something went wrong, and the server recovered.

    Attributes
    ----------
    round : int
    worker : str
        The worker at fault; empty if there is none.
    kind : str
        The name of the error's class, or a word if it is no error.
    reason : str
    """

    name = "incident"
    round: int
    worker: str
    kind: str
    reason: str


@dataclass(frozen=True)
class MeasuredSpeed:
    """The speed of a worker and of its link.

    Attributes
    ----------
    computing : float
        Seconds in a round that it computes, from the last rows of the round before to the first ones up.
    up, down : float
        Mbit/s of payload that its link carries to the server and from it; 0 where too little came to tell.
    """

    computing: float
    up: float
    down: float


@dataclass(frozen=True)
class SpeedsMeasured(ServerEvent):
    """The speeds of workers and links by the last rounds, with `--speeds auto`.

    Attributes
    ----------
    round : int
    workers : mapping of worker to MeasuredSpeed
    """

    name = "speeds"
    round: int
    workers: Mapping[str, MeasuredSpeed]

    def as_json(self) -> dict[str, Any]:
        """The event in plain JSON types."""
        return {"event": self.name, "round": self.round, "workers": speeds_as_json(self.workers)}


def speeds_as_json(speeds: Mapping[str, MeasuredSpeed]) -> dict[str, Any]:
    """Speeds of workers in plain JSON types."""
    return {worker: asdict(speed) for worker, speed in speeds.items()}


@dataclass(frozen=True)
class Started(ServerEvent):
    """A run begins. Callbacks get it first.

    Attributes
    ----------
    parameters : mapping of name to value
        The settings of the run, its strategy and the number of its workers; plain JSON types.
    """

    name = "started"
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Finished(ServerEvent):
    """A run has ended well. Callbacks get it last.

    Attributes
    ----------
    report : mapping
        The report of the run (`report_run`); plain JSON types.
    files : tuple of Path
        The report and, where they are known, the models, as files that exist until the callback returns.
    """

    name = "finished"
    report: Mapping[str, Any]
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Failed(ServerEvent):
    """A run has ended with an error, or was stopped. Callbacks get it last."""

    name = "failed"
    reason: str
