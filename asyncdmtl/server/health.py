"""What a supervisor asks a server over HTTP: is it alive, is it ready, and Prometheus metrics.

::

    GET /healthz     200 while the event loop answers
    GET /readyz      200 while workers may connect, else 503; JSON says where the run stands
    GET /metrics     text exposition format 0.0.4

All that is told comes from the events of the run and from the ledger. There is no encryption and nobody is
asked who they are, so this is not for addresses that strangers can reach.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from asyncdmtl.errors import DisagreementError, LinkError
from asyncdmtl.net.addresses import format_address
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.events import (
    Checkpointed,
    IncidentNoted,
    Joined,
    Left,
    Listening,
    LockedOut,
    Planned,
    Refused,
    Resumed,
    ServerEvent,
    Waiting,
)
from asyncdmtl.server.records import RoundRecord

log = logging.getLogger(__name__)

# What one who asks may take: bytes of a request, seconds, connections at a time.
MOST_HEADER = 8 << 10
LONGEST_REQUEST = 5.0
MOST_CONNECTIONS = 32

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

PLAIN = "text/plain; charset=utf-8"
JSON = "application/json"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What the events of a run add up to.

    Parameters
    ----------
    rounds : int
        The most that the run makes.
    ledger : Ledger
        The server's; read when somebody asks.

    Attributes
    ----------
    registry : CollectorRegistry
    run : str or None
    phase : "starting", "joining", "training", or "waiting" for workers that are missing
    round : int
        Rounds done.
    workers : set of str
        Names of those present.
    """

    def __init__(self, rounds: int, ledger: Ledger) -> None:
        self.registry = registry = CollectorRegistry()
        self.run: str | None = None
        self.phase = "starting"
        self.round = 0
        self.workers: set[str] = set()

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"asyncdmtl_{name}", help, labels, registry=registry)

        def gauge(name: str, help: str) -> Gauge:
            return Gauge(f"asyncdmtl_{name}", help, registry=registry)

        gauge("ready", "1 while workers may connect.").set_function(lambda: float(self.ready))
        gauge("rounds_done", "Rounds done in this run.").set_function(lambda: self.round)
        gauge("rounds_limit", "The most rounds that this run makes.").set(rounds)
        gauge("workers", "Workers present.").set_function(lambda: len(self.workers))
        self._objective = gauge("objective", "The objective at the beginning of the last round.")
        self._residual = gauge("residual", "How far the last step moved, as the run's tolerance measures it.")
        self._seconds = Histogram(
            "asyncdmtl_round_seconds", "Duration of rounds.", buckets=SECONDS, registry=registry
        )
        self._plans = counter("plans", "Plans made, the first included.")
        self._joined = counter("joined", "Workers that joined or came back.")
        self._reconnects = counter("reconnects", "Workers that came back.")
        self._refused = counter("refused", "Connections that were refused.")
        self._lockouts = counter("lockouts", "Names and addresses that were locked out.")
        self._checkpoints = counter("checkpoints", "Checkpoints written.")
        self._checkpointed = gauge("checkpoint_round", "Rounds done at the last checkpoint.")
        self._incidents = counter("incidents", "What went wrong and was made good, by kind.", "kind")
        registry.register(_Traffic(ledger))
        ProcessCollector(registry=registry)
        self._handlers: dict[type[ServerEvent], Callable[[Any], None]] = {
            Listening: self._on_listening,
            Joined: self._on_joined,
            Left: self._on_left,
            Resumed: self._on_resumed,
            Planned: self._on_planned,
            Waiting: self._on_waiting,
            Checkpointed: self._on_checkpointed,
            RoundRecord: self._on_round,
            IncidentNoted: self._on_incident,
            Refused: lambda event: self._refused.inc(),
            LockedOut: lambda event: self._lockouts.inc(),
        }

    @property
    def ready(self) -> bool:
        """Whether workers may connect."""
        return self.phase != "starting"

    def note(self, event: ServerEvent) -> None:
        """Take in an event of the run. Kinds of events that no metric depends on are ignored."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _on_listening(self, event: Listening) -> None:
        self.run = event.run
        self.phase = "joining"

    def _on_joined(self, event: Joined) -> None:
        self.workers.add(event.worker)
        self._joined.inc()
        if event.again:
            self._reconnects.inc()

    def _on_left(self, event: Left) -> None:
        self.workers.discard(event.worker)

    def _on_resumed(self, event: Resumed) -> None:
        self.round = event.round

    def _on_waiting(self, event: Waiting) -> None:
        self.phase = "waiting"

    def _on_checkpointed(self, event: Checkpointed) -> None:
        self._checkpoints.inc()
        self._checkpointed.set(event.round)

    def _on_planned(self, event: Planned) -> None:
        self.phase = "training"
        self.round = event.round
        self.workers = set(event.workers)
        self._plans.inc()

    def _on_round(self, event: RoundRecord) -> None:
        self.round = event.round + 1
        self._objective.set(event.objective)
        self._residual.set(event.residual)
        self._seconds.observe(event.seconds)

    def _on_incident(self, event: IncidentNoted) -> None:
        self._incidents.labels(event.kind).inc()
        # A worker that disagrees stays; if it has done so too often, the next plan is without it.
        if event.kind != DisagreementError.__name__:
            self.workers.discard(event.worker)


class _Traffic(Collector):
    """The ledger's bytes by direction, kind of message, and part of the message."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "asyncdmtl_bytes",
            "Bytes on the wire: payload is coded vectors, framing all the rest.",
            labels=["direction", "kind", "part"],
        )
        for (direction, kind), (_, payload, framing) in self._ledger.kinds().items():
            family.add_metric((direction, kind, "payload"), payload)
            family.add_metric((direction, kind, "framing"), framing)
        yield family


class Health:
    """A small HTTP server for `Metrics`, as an asynchronous context.

    Whoever sends more than a short GET or HEAD, or does so slowly, is cut off; connections beyond
    `MOST_CONNECTIONS` are not answered at all.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._asking: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Answer at an address from now on; the address, with the port found if 0 was asked for.

        Raises
        ------
        LinkError
            The address cannot be had.
        """
        try:
            self._server = await asyncio.start_server(self._opened, host, port, limit=MOST_HEADER)
        except (OSError, UnicodeError) as error:
            address = format_address(host, port)
            number = getattr(error, "errno", None)
            reason = os.strerror(number).lower() if number and number > 0 else str(error)
            raise LinkError(f"cannot answer --health at {address}: {reason}", peer=address) from error
        host, port = self._server.sockets[0].getsockname()[:2]
        log.info("health and metrics at http://%s", format_address(host, port))
        return host, port

    async def close(self) -> None:
        """End the server and all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def _opened(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._asking) >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._asking[task] = writer
        # Here and not in the task, which may be cancelled before it has begun.
        task.add_done_callback(lambda task: self._asking.pop(task).transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(LONGEST_REQUEST):
                try:
                    request = await reader.readuntil(b"\r\n\r\n")
                except asyncio.LimitOverrunError:
                    writer.write(_response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
                else:
                    writer.write(self._answer(request))
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError) as error:
            log.debug("a request for health or metrics failed: %r", error)

    def _answer(self, request: bytes) -> bytes:
        line = request.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(line) != 3 or not line[2].startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        method, target, _ = line
        if method not in ("GET", "HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, more="Allow: GET, HEAD\r\n")
        page = {"/healthz": self._alive, "/readyz": self._readiness, "/metrics": self._exposed}.get(
            target.partition("?")[0]
        )
        return page(method == "HEAD") if page is not None else _response(HTTPStatus.NOT_FOUND)

    def _alive(self, empty: bool) -> bytes:
        return _response(HTTPStatus.OK, b"ok\n", empty=empty)

    def _readiness(self, empty: bool) -> bytes:
        metrics = self._metrics
        stand = {
            "ready": metrics.ready,
            "run": metrics.run,
            "phase": metrics.phase,
            "round": metrics.round,
            "workers": sorted(metrics.workers),
        }
        status = HTTPStatus.OK if metrics.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _response(status, json.dumps(stand).encode() + b"\n", JSON, empty=empty)

    def _exposed(self, empty: bool) -> bytes:
        return _response(HTTPStatus.OK, self._metrics.exposition(), EXPOSITION, empty=empty)


def _response(
    status: HTTPStatus,
    body: bytes | None = None,
    content: str = PLAIN,
    *,
    empty: bool = False,
    more: str = "",
) -> bytes:
    """A whole response; without its body for HEAD, that is if `empty`."""
    if body is None:
        body = f"{status.phrase}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n{more}\r\n"
    )
    return head.encode() + (b"" if empty else body)
