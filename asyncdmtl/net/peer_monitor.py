"""Heartbeats to a peer, and the detection of a silent peer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

# The most seconds between heartbeats. If one is lost in a short outage, the default limit of silence, 10 s,
# is not reached.
HEARTBEAT_SECONDS = 2.0

# The number of heartbeats within the silence that a peer permits: three of them may be late or lost.
HEARTBEATS_PER_SILENCE = 4

# The fewest seconds between heartbeats, even if the peer permits less silence: a peer must not be able to
# keep this side busy.
FEWEST_SECONDS = 0.02

# Heartbeats that a peer may send beyond one in `FEWEST_SECONDS`, because clocks differ.
SPARE_HEARTBEATS = 1000


class Monitored(Protocol):
    """The part of a connection that its monitor uses."""

    def beat(self) -> None:
        """Send a heartbeat, if the state of the connection allows one."""

    def peer_is_silent(self, *, heard: bool) -> None:
        """Give the peer up: it sent nothing for too long, or it was `heard` but accepted nothing."""


class HeartbeatCount:
    """Counts the heartbeats of a peer since now, by a clock in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._count = 0

    def is_too_large(self) -> bool:
        """Note that a heartbeat came; whether more have come than the peer can have reason to send."""
        self._count += 1
        return self._count > SPARE_HEARTBEATS + (self._clock() - self._began) / FEWEST_SECONDS


class PeerMonitor:
    """Sends heartbeats, and gives up a peer that is silent.

    A peer is silent if for `silence` seconds it sent neither a message nor a valid piece of one, or if it
    accepted no bytes although some wait for it.

    Parameters
    ----------
    connection : Monitored
    unsent_bytes : callable
        A function that returns the number of written bytes that the peer has not accepted.
    silence : float
        Seconds.

    Attributes
    ----------
    patient : bool
        Whether a peer that is heard may accept nothing for longer.
    beats_heard : HeartbeatCount
        The heartbeats of the peer.
    """

    def __init__(self, connection: Monitored, unsent_bytes: Callable[[], int], silence: float) -> None:
        self.patient = False
        self._connection = connection
        self._unsent_bytes = unsent_bytes
        self._silence = silence
        self._interval = min(HEARTBEAT_SECONDS, silence / HEARTBEATS_PER_SILENCE)
        self._loop = asyncio.get_running_loop()
        self._heard = self._taken = self._loop.time()
        self.beats_heard = HeartbeatCount(self._loop.time)
        self._progress = 0
        self._unsent = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def recently_heard(self) -> bool:
        """True if the peer was heard within half of the permitted silence."""
        return self._loop.time() - self._heard < self._silence / 2

    def start(self) -> None:
        """Begin to send heartbeats, and to measure the peer's silence."""
        self._heard = self._taken = self._loop.time()
        self._check()

    def stop(self) -> None:
        """Send no more heartbeats, and do not give the peer up any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def heard(self, progress: int | None = None) -> None:
        """Note that the peer was heard; if `progress` is given, only if it has grown."""
        if progress is None or progress > self._progress:
            self._heard = self._loop.time()
            self._progress = self._progress if progress is None else progress

    def beat_within(self, silence: float) -> None:
        """Send heartbeats often enough for a peer that permits `silence` seconds of silence."""
        self._interval = max(FEWEST_SECONDS, min(self._interval, silence / HEARTBEATS_PER_SILENCE))
        self.stop()
        self._timer = self._loop.call_later(self._interval, self._check)

    def _check(self) -> None:
        """Give the peer up if it is silent; else send a heartbeat if one is due, and check again later."""
        now, unsent = self._loop.time(), self._unsent_bytes()
        if self.patient or not unsent or unsent < self._unsent:
            self._taken = now
        self._unsent = unsent
        left = self._silence - (now - min(self._heard, self._taken))
        if left <= 0:
            self._connection.peer_is_silent(heard=now - self._heard < self._silence)
            return
        # A peer that accepts waiting bytes is alive, too.
        if not unsent:
            self._connection.beat()
        self._timer = self._loop.call_later(min(self._interval, left), self._check)
