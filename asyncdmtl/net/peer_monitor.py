"""Heartbeats to a peer, and the time since the peer was heard or took what it was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

# Seconds between heartbeats, unless a limit of silence asks for more: one that gets lost in a short outage
# does not cost the connection with the default limit of 10 s.
HEARTBEAT_SECONDS = 2.0

# Heartbeats in the silence that a peer permits: three may be late or lost.
HEARTBEATS_PER_SILENCE = 4

# The fewest seconds between heartbeats, however short a silence the peer permits: a peer cannot make this
# side busy.
FEWEST_SECONDS = 0.02


class Monitored(Protocol):
    """The connection to a peer, as its monitor sees it."""

    def beat(self) -> None:
        """Send a heartbeat, if the state of the connection allows one."""

    def peer_is_silent(self, *, heard: bool) -> None:
        """Give the peer up: it said nothing for too long, or it was `heard` but took nothing."""


class PeerMonitor:
    """Sends heartbeats, and gives up a peer that is silent.

    A peer is silent if for `silence` seconds no message and no good piece of one came from it, or if it took
    nothing of what waits for it.

    Parameters
    ----------
    connection : Monitored
    unsent_bytes : callable
        Bytes that were written and that the peer's end has not taken.
    silence : float
        Seconds.
    """

    def __init__(self, connection: Monitored, unsent_bytes: Callable[[], int], silence: float) -> None:
        self._connection = connection
        self._unsent_bytes = unsent_bytes
        self._silence = silence
        self._interval = min(HEARTBEAT_SECONDS, silence / HEARTBEATS_PER_SILENCE)
        self._loop = asyncio.get_running_loop()
        self._heard = self._taken = self._loop.time()
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
        """The peer was heard; with `progress` only if that is more than before."""
        if progress is None or progress > self._progress:
            self._heard = self._loop.time()
            self._progress = self._progress if progress is None else progress

    def beat_within(self, silence: float) -> None:
        """Send heartbeats often enough for a peer that permits so many seconds of silence."""
        self._interval = max(FEWEST_SECONDS, min(self._interval, silence / HEARTBEATS_PER_SILENCE))
        self.stop()
        self._timer = self._loop.call_later(self._interval, self._check)

    def _check(self) -> None:
        """Give the peer up if it is silent; else send a heartbeat if one is due, and check again later."""
        now, unsent = self._loop.time(), self._unsent_bytes()
        if not unsent or unsent < self._unsent:
            self._taken = now
        self._unsent = unsent
        left = self._silence - (now - min(self._heard, self._taken))
        if left <= 0:
            self._connection.peer_is_silent(heard=now - self._heard < self._silence)
            return
        # Bytes that wait are a sign of life, too, once the peer takes them.
        if not unsent:
            self._connection.beat()
        self._timer = self._loop.call_later(min(self._interval, left), self._check)
