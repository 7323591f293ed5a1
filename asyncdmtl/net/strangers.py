"""Connections that have not joined yet. Their number is bounded, and the least promising is closed first.

A new connection is always accepted: if it were refused, strangers could keep workers out by holding
connections. Connections of members are not counted here, and are never closed for this.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from asyncdmtl.errors import LinkError
from asyncdmtl.net.open_files import max_files
from asyncdmtl.net.sites import site_of

log = logging.getLogger(__name__)

# The most connections that have not joined yet. As many workers can join a run at one moment.
MAX_STRANGERS = 1024

# The most of them from one site: many workers may be behind one address.
MAX_FROM_ONE_SITE = 256

# The most of them that have proven the same name: one worker needs one, and its last one may be broken.
MAX_OF_ONE_NAME = 4

# The share of the process's limit of open files that strangers may use; the rest is for members.
FILES_SHARE = 0.5

# The most sites that are remembered because a worker proved its name there, or joined. This bounds memory.
MAX_KNOWN_SITES = 4096

# The fewest seconds between two lines in the log about connections that made room.
REPORT_SECONDS = 10.0


class MadeRoomError(LinkError):
    """A connection that had not joined was closed to make room for a new one."""


class Standing(IntEnum):
    """The progress of a connection towards joining. One of lower standing is closed first."""

    SILENT = 0
    GREETED = 1
    PROVEN = 2


Peer = TypeVar("Peer")


@dataclass(eq=False)
class _Stranger(Generic[Peer]):
    peer: Peer
    site: str
    standing: Standing = Standing.SILENT
    name: str = ""


def max_strangers() -> int:
    """The most connections that have not joined, given how many files the process may open."""
    files = max_files()
    return MAX_STRANGERS if files is None else max(1, min(MAX_STRANGERS, int(files * FILES_SHARE)))


class Strangers(Generic[Peer]):
    """The connections of a server that have not joined yet.

    If they are too many, one is closed to make room: one of the lowest standing; among these, one from a site
    where no worker is known; among these, one from the site with the most connections; and of these the
    oldest.

    Parameters
    ----------
    make_room : callable
        Called with a connection to close it.
    clock : callable
        A monotonic clock, in seconds.
    most, most_from_one : int, optional
        The most connections in all, and from one site. By default `max_strangers()` and `MAX_FROM_ONE_SITE`.
    """

    def __init__(
        self,
        make_room: Callable[[Peer], None],
        clock: Callable[[], float],
        *,
        most: int | None = None,
        most_from_one: int | None = None,
    ) -> None:
        self._close = make_room
        self._clock = clock
        self._most = max_strangers() if most is None else most
        self._most_from_one = MAX_FROM_ONE_SITE if most_from_one is None else most_from_one
        self._all: dict[Peer, _Stranger[Peer]] = {}
        self._counts: Counter[str] = Counter()
        # By standing and site, each in the order of arrival.
        self._queues: dict[tuple[Standing, str], OrderedDict[Peer, None]] = {}
        self._known: OrderedDict[str, None] = OrderedDict()
        # Those that have proven their names, by name.
        self._named: dict[str, list[Peer]] = {}
        self._made_room = 0
        self._reported = -REPORT_SECONDS

    def __len__(self) -> int:
        return len(self._all)

    def enter(self, peer: Peer, host: str) -> None:
        """Add a new connection from an address; another one may be closed for it."""
        site = site_of(host)
        if self._counts[site] >= self._most_from_one:
            self._make_room([site])
        elif len(self._all) >= self._most:
            self._make_room(self._counts)
        self._all[peer] = stranger = _Stranger(peer, site)
        self._counts[site] += 1
        self._queue(stranger)[peer] = None

    def rise(self, peer: Peer, standing: Standing, name: str = "") -> None:
        """Raise the standing of a connection, which has proven `name` if that is given.

        If too many have proven the same name, the oldest of them is closed: a worker must not be able to take
        all places.
        """
        if (stranger := self._all.get(peer)) is None:
            return
        self._unqueue(stranger)
        stranger.standing = standing
        self._queue(stranger)[peer] = None
        if standing is Standing.PROVEN:
            self._remember(stranger.site)
        if name and not stranger.name:
            stranger.name = name
            same = self._named.setdefault(name, [])
            same.append(peer)
            if len(same) > MAX_OF_ONE_NAME:
                self._close_for_room(same[0], stranger.site)

    def leave(self, peer: Peer, *, joined: bool = False) -> None:
        """Remove a connection, which has `joined` or is closed."""
        if (stranger := self._all.pop(peer, None)) is None:
            return
        if joined:
            self._remember(stranger.site)
        self._unqueue(stranger)
        if stranger.name:
            self._named[stranger.name].remove(peer)
            if not self._named[stranger.name]:
                del self._named[stranger.name]
        self._counts[stranger.site] -= 1
        if not self._counts[stranger.site]:
            del self._counts[stranger.site]

    def _remember(self, site: str) -> None:
        """Remember that a worker is at this site."""
        self._known[site] = None
        self._known.move_to_end(site)
        if len(self._known) > MAX_KNOWN_SITES:
            self._known.popitem(last=False)

    def _queue(self, stranger: _Stranger[Peer]) -> OrderedDict[Peer, None]:
        return self._queues.setdefault((stranger.standing, stranger.site), OrderedDict())

    def _unqueue(self, stranger: _Stranger[Peer]) -> None:
        key = stranger.standing, stranger.site
        del self._queues[key][stranger.peer]
        if not self._queues[key]:
            del self._queues[key]

    def _make_room(self, sites: list[str] | Counter[str]) -> None:
        """Close one connection from one of these sites."""
        standing, site = min(
            (key for key in self._queues if key[1] in sites),
            key=lambda key: (key[0], key[1] in self._known, -len(self._queues[key])),
        )
        self._close_for_room(next(iter(self._queues[standing, site])), site)

    def _close_for_room(self, peer: Peer, site: str) -> None:
        self.leave(peer)
        self._close(peer)
        self._made_room += 1
        if self._clock() - self._reported >= REPORT_SECONDS:
            log.warning(
                "%d connections that had not joined were closed to make room for new ones, the last from %s",
                self._made_room, site,
            )  # fmt: skip
            self._made_room, self._reported = 0, self._clock()
