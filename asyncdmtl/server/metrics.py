"""Prometheus metrics of a server, made from the events of its run and from the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from asyncdmtl.errors import DisagreementError
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
    SpeedsMeasured,
    Waiting,
)
from asyncdmtl.server.records import RoundRecord

# Upper limits, in seconds, of the histogram buckets for round durations: rounds last from a millisecond to a
# quarter of an hour, with two buckets for each factor of ten.
ROUND_SECONDS_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


class Metrics:
    """The metrics of a run, which its events update.

    Parameters
    ----------
    rounds : int
        The most rounds of the run.
    ledger : Ledger
        The server's ledger, which is read at each request for the metrics.

    Attributes
    ----------
    registry : CollectorRegistry
    run : str or None
    phase : str
        "starting", "joining", "training", or "waiting" for workers that are missing.
    round : int
        Rounds done.
    workers : set of str
        The names of the workers that are present.
    known : set of str
        The names of all workers that have been members.
    """

    def __init__(self, rounds: int, ledger: Ledger) -> None:
        self.registry = registry = CollectorRegistry()
        self.run: str | None = None
        self.phase = "starting"
        self.round = 0
        self.workers: set[str] = set()
        self.known: set[str] = set()

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
            "asyncdmtl_round_seconds", "Duration of rounds.", buckets=ROUND_SECONDS_BUCKETS, registry=registry
        )
        self._plans = counter("plans", "Plans made, the first included.")
        self._joined = counter("joined", "Workers that joined or came back.")
        self._reconnects = counter("reconnects", "Workers that came back.")
        self._refused = counter("refused", "Connections that were refused.")
        self._lockouts = counter("lockouts", "Failed proofs of identity whose answer was delayed.")
        self._checkpoints = counter("checkpoints", "Checkpoints written.")
        self._checkpointed = gauge("checkpoint_round", "Rounds done at the last checkpoint.")
        self._incidents = counter("incidents", "What went wrong and was made good, by kind.", "kind")
        self._by_worker = counter("worker_incidents", "Incidents of which a worker was at fault.", "worker")
        self._computing = Gauge(
            "asyncdmtl_worker_computing_seconds", "Seconds that a worker computes in a round.", ["worker"],
            registry=registry,
        )  # fmt: skip
        self._links = Gauge(
            "asyncdmtl_link_mbits_per_second", "Payload that a worker's link carries.",
            ["worker", "direction"], registry=registry,
        )  # fmt: skip
        registry.register(_Traffic(ledger))
        registry.register(_Presence(self))
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
            SpeedsMeasured: self._on_speeds,
            IncidentNoted: self._on_incident,
            Refused: lambda event: self._refused.inc(),
            LockedOut: lambda event: self._lockouts.inc(),
        }

    @property
    def ready(self) -> bool:
        """Whether workers may connect."""
        return self.phase != "starting"

    def note(self, event: ServerEvent) -> None:
        """Update the metrics by an event of the run. Kinds of events without a metric are ignored."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def progress(self) -> dict[str, Any]:
        """The progress of the run, in plain JSON types."""
        workers = sorted(self.workers)
        return {"run": self.run, "phase": self.phase, "round": self.round, "workers": workers}

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _on_listening(self, event: Listening) -> None:
        self.run = event.run
        self.phase = "joining"

    def _on_joined(self, event: Joined) -> None:
        self.workers.add(event.worker)
        self.known.add(event.worker)
        self._joined.inc()
        if event.again:
            self._reconnects.inc()

    def _on_left(self, event: Left) -> None:
        self.workers.discard(event.worker)

    def _on_resumed(self, event: Resumed) -> None:
        self.round = event.round

    def _on_speeds(self, event: SpeedsMeasured) -> None:
        for worker, speed in event.workers.items():
            self._computing.labels(worker).set(speed.computing)
            self._links.labels(worker, "up").set(speed.up)
            self._links.labels(worker, "down").set(speed.down)

    def _on_waiting(self, event: Waiting) -> None:
        self.phase = "waiting"

    def _on_checkpointed(self, event: Checkpointed) -> None:
        self._checkpoints.inc()
        self._checkpointed.set(event.round)

    def _on_planned(self, event: Planned) -> None:
        self.phase = "training"
        self.round = event.round
        self.workers = set(event.workers)
        self.known |= self.workers
        self._plans.inc()

    def _on_round(self, event: RoundRecord) -> None:
        self.round = event.round + 1
        self._objective.set(event.objective)
        self._residual.set(event.residual)
        self._seconds.observe(event.seconds)

    def _on_incident(self, event: IncidentNoted) -> None:
        self._incidents.labels(event.kind).inc()
        if event.worker:
            self._by_worker.labels(event.worker).inc()
        # A worker that disagrees stays. If it has done so too often, the next plan excludes it.
        if event.kind != DisagreementError.__name__:
            self.workers.discard(event.worker)


class _Traffic(Collector):
    """The ledger's bytes: by direction, kind and part of messages, and by worker."""

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
        by_worker = CounterMetricFamily(
            "asyncdmtl_worker_bytes", "Bytes on the wire of each worker.", labels=["worker", "direction"]
        )
        for worker, sums in self._ledger.workers().items():
            by_worker.add_metric((worker, "up"), sums[0])
            by_worker.add_metric((worker, "down"), sums[1])
        yield by_worker


class _Presence(Collector):
    """Whether each worker that has been a member is present."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("asyncdmtl_worker_up", "1 while a worker is present.", labels=["worker"])
        for worker in sorted(self._metrics.known):
            family.add_metric((worker,), float(worker in self._metrics.workers))
        yield family
