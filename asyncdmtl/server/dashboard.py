"""The dashboard: a page that shows a run while it lasts, over HTTP.

::

    GET /          the page
    GET /events    the state of the run as server-sent events, at each change but at most twice a second
    GET /state     the same once, as JSON
    GET /metrics   Prometheus' text exposition format, if its client library is installed
    GET /healthz   200 while the event loop answers
    GET /readyz    200 while workers may connect, else 503

The last two are for probes, tell no more than that, and ask for no token.
The page asks no other host for anything. `page` also makes it of a given state, as a file to keep.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from importlib.resources import files
from statistics import median_low
from typing import Any

from asyncdmtl.errors import DisagreementError
from asyncdmtl.net.addresses import format_address
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.events import (
    Checkpointed,
    IncidentNoted,
    Joined,
    Left,
    Listening,
    Planned,
    Refused,
    Resumed,
    ServerEvent,
    Waiting,
)
from asyncdmtl.server.http import EXPOSITION, HTML, JSON, Answer, HttpServer, Page, alive
from asyncdmtl.server.records import RoundRecord

log = logging.getLogger(__name__)

# The most points of the curve of rounds. When there are more, every second one is dropped, and from then on
# fewer rounds are kept.
MOST_POINTS = 400

# The most incidents, refusals and checkpoints that the page lists; the latest are kept.
MOST_NOTES = 50

# Seconds between two states that are sent at least, and at most: a state without news tells that the
# connection still stands.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 15.0

# A worker is slow if its uplinks come later than this multiple of the median of all, and by at least so many
# seconds more: below that, chance decides.
SLOW, LEAST_LATE = 2.0, 0.01

# The mark in the page where a state may stand, and the headers by which the page may load nothing.
_MARK = "null/*state*/"
_POLICY = (
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'\r\n"
)


def page(state: dict[str, Any] | None = None) -> str:
    """The page as HTML: with a state it shows just this, without one it asks its server."""
    text = files("asyncdmtl.server").joinpath("dashboard.html").read_text(encoding="utf-8")
    # "</script>" in a name must not end the script.
    content = json.dumps(state, allow_nan=False).replace("<", "\\u003c")
    return text.replace(_MARK, content)


class Dashboard:
    """The state of a run for the page, which the run's events update, and its HTTP server.

    Parameters
    ----------
    rounds : int
        The most rounds of the run.
    ledger : Ledger
        The server's ledger, from which bytes by worker are read.
    token : str, optional
        Visitors must show it.
    exposition : callable, optional
        Returns the metrics of the run.
    delays : callable, optional
        Returns the seconds from the beginning of a round until each worker's uplink begins.
    """

    def __init__(
        self,
        rounds: int,
        ledger: Ledger,
        token: str | None = None,
        exposition: Callable[[], bytes] | None = None,
        delays: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._ledger = ledger
        self._delays = delays
        self._changed = asyncio.Event()
        self._curve: list[tuple[int, float, float]] = []
        self._step = 1
        self._workers: dict[str, dict[str, Any]] = {}
        self._notes: deque[dict[str, Any]] = deque(maxlen=MOST_NOTES)
        self._began = time.time()
        self._facts: dict[str, Any] = {
            "run": None, "phase": "starting", "rounds": rounds, "round": 0, "objective": None,
            "residual": None, "round_seconds": None, "plan": None,
        }  # fmt: skip
        self._handlers: dict[type[ServerEvent], Callable[[Any], None]] = {
            Listening: self._on_listening,
            Joined: self._on_joined,
            Left: self._on_left,
            Resumed: self._on_resumed,
            Planned: self._on_planned,
            Waiting: self._on_waiting,
            RoundRecord: self._on_round,
            IncidentNoted: self._on_incident,
            Refused: self._on_refused,
            Checkpointed: lambda event: None,
        }
        guarded: dict[str, Page] = {"/": _page, "/events": self._states, "/state": self._once}
        if exposition is not None:
            guarded["/metrics"] = lambda: Answer(HTTPStatus.OK, exposition(), EXPOSITION)
        pages = {**guarded, "/healthz": alive, "/readyz": self._readiness}
        self._http = HttpServer("--dashboard", pages, token, guarded=guarded)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Begin to answer at an address; return it, with the port that was chosen if `port` is 0.

        Raises
        ------
        LinkError
            The server cannot listen at the address.
        """
        address = await self._http.listen(host, port, tls)
        log.info("dashboard at %s://%s", "http" if tls is None else "https", format_address(*address))
        return address

    async def close(self, ended: str) -> None:
        """Show the page how the run ended, "finished" or "failed", and end the server."""
        self._facts["phase"] = ended
        self._changed.set()
        await asyncio.sleep(SHORTEST_PAUSE)  # the time within which open pages are sent their last state
        await self._http.close()

    def note(self, event: ServerEvent) -> None:
        """Update the state by an event of the run."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
            self._changed.set()

    def state(self) -> dict[str, Any]:
        """The state of the run in plain JSON types."""
        sums, delays = self._ledger.workers(), self._delays()
        present = {name for name, facts in self._workers.items() if facts["state"] == "present"}
        slow = slow_workers({name: delay for name, delay in delays.items() if name in present})
        workers = [
            {
                "name": name,
                **facts,
                **dict(zip(("up", "down"), sums.get(name, (0, 0)), strict=True)),
                "uplink_seconds": delays.get(name),
                **({"state": "slow"} if name in slow else {}),
            }
            for name, facts in sorted(self._workers.items(), key=lambda item: natural_key(item[0]))
        ]
        return {
            **self._facts,
            "seconds": round(time.time() - self._began, 1),
            "curve": self._curve,
            "workers": workers,
            "notes": list(self._notes),
        }

    async def _states(self) -> AsyncIterator[bytes]:
        while True:
            self._changed.clear()
            yield f"data: {json.dumps(self.state(), allow_nan=False)}\n\n".encode()
            if self._facts["phase"] in ("finished", "failed"):
                return
            await asyncio.sleep(SHORTEST_PAUSE)
            try:
                async with asyncio.timeout(LONGEST_PAUSE):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _readiness(self) -> Answer:
        ready = self._facts["phase"] != "starting"
        return Answer(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)

    def _once(self) -> Answer:
        return Answer(HTTPStatus.OK, json.dumps(self.state(), allow_nan=False).encode(), JSON)

    def _on_listening(self, event: Listening) -> None:
        self._facts |= {"run": event.run, "phase": "joining"}

    def _on_joined(self, event: Joined) -> None:
        self._workers[event.worker] = {"partitions": event.partitions, "state": "present"}

    def _on_left(self, event: Left) -> None:
        self._note(None, event.worker, f"left: {event.reason}")
        self._workers.get(event.worker, {})["state"] = "left"

    def _on_resumed(self, event: Resumed) -> None:
        self._facts["round"] = event.round

    def _on_planned(self, event: Planned) -> None:
        self._facts |= {"phase": "training", "round": event.round, "plan": event.as_json()}
        for name, facts in self._workers.items():
            if facts["state"] == "present" and name not in event.workers:
                facts["state"] = "lost"

    def _on_waiting(self, event: Waiting) -> None:
        self._facts["phase"] = "waiting"
        what = (
            f"holders of {', '.join(event.partitions)}" if event.partitions else "the state of the training"
        )
        self._note(event.round, "", f"waiting up to {event.seconds:g} s for {what}")

    def _on_round(self, event: RoundRecord) -> None:
        self._facts |= {
            "round": event.round + 1,
            "objective": _finite(event.objective),
            "residual": _finite(event.residual),
            "round_seconds": event.seconds,
        }
        if event.round % self._step == 0 and math.isfinite(event.objective):
            self._curve.append((event.round, event.objective, event.seconds))
        if len(self._curve) > MOST_POINTS:
            self._step *= 2
            self._curve = [point for point in self._curve if point[0] % self._step == 0]

    def _on_incident(self, event: IncidentNoted) -> None:
        self._note(event.round, event.worker, event.reason)
        if event.worker in self._workers:
            disagrees = event.kind == DisagreementError.__name__
            self._workers[event.worker]["state"] = "at fault" if disagrees else "lost"

    def _on_refused(self, event: Refused) -> None:
        self._note(None, event.worker, f"refused: {event.reason}")

    def _note(self, round_: int | None, worker: str, text: str) -> None:
        self._notes.append({"round": round_, "worker": worker, "text": text})


def slow_workers(delays: Mapping[str, float]) -> set[str]:
    """The workers for whose uplinks the others wait: late by `SLOW` times the median, and not just by chance.

    Parameters
    ----------
    delays : mapping of worker to float
        Seconds from the beginning of a round until the worker's uplink begins.
    """
    if len(delays) < 2:
        return set()
    usual = median_low(delays.values())
    return {name for name, delay in delays.items() if delay > SLOW * usual and delay - usual > LEAST_LATE}


def _page() -> Answer:
    return Answer(HTTPStatus.OK, page().encode(), HTML, _POLICY)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
