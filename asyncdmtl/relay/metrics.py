"""Prometheus metrics of a relay: the bytes of the link above it and of each link below, and its nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from asyncdmtl.relay.relay import Relay
from asyncdmtl.server.events import Joined, Listening, Refused, ServerEvent


class RelayMetrics:
    """The metrics of a relay, which its events update.

    Parameters
    ----------
    relay : Relay
        Its ledgers are read at each request for the metrics.

    Attributes
    ----------
    registry : CollectorRegistry
    known : set of str
        The names of all nodes that have been members.
    """

    def __init__(self, relay: Relay) -> None:
        self.registry = CollectorRegistry()
        self.known: set[str] = set()
        self._relay = relay
        self._run: str | None = None
        self._joined, self._reconnects, self._refused = (
            CounterMetric(f"asyncdmtl_{name}", help, registry=self.registry)
            for name, help in (
                ("joined", "Workers and relays that joined here or came back."),
                ("reconnects", "Workers and relays that came back."),
                ("refused", "Connections that were refused."),
            )
        )
        self.registry.register(_Links(self, relay))
        ProcessCollector(registry=self.registry)

    @property
    def ready(self) -> bool:
        """Whether workers may connect."""
        return self._run is not None

    def note(self, event: ServerEvent) -> None:
        """Update the metrics by an event of the relay."""
        if isinstance(event, Listening):
            self._run = event.run
        elif isinstance(event, Joined):
            self.known.add(event.worker)
            self._joined.inc()
            self._reconnects.inc(event.again)
        elif isinstance(event, Refused):
            self._refused.inc()

    def progress(self) -> dict[str, Any]:
        """The run and the nodes that are here, in plain JSON types."""
        return {"run": self._run, "relay": self._relay.name, "workers": self._relay.nodes()}

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Links(Collector):
    """Bytes by link, and which nodes are here."""

    def __init__(self, metrics: RelayMetrics, relay: Relay) -> None:
        self._metrics, self._relay = metrics, relay

    def collect(self) -> Iterator[Metric]:
        relay = self._relay
        ready = GaugeMetricFamily("asyncdmtl_ready", "1 while workers may connect.")
        ready.add_metric((), float(self._metrics.ready))
        yield ready
        links = CounterMetricFamily(
            "asyncdmtl_link_bytes",
            "Bytes on the wire of each link: payload is coded vectors, framing all the rest.",
            labels=["level", "node", "direction", "part"],
        )
        for level, ledger in (("above", relay.up), ("below", relay.below)):
            sums: Counter[tuple[str, str, str]] = Counter()
            for entry in ledger.entries():
                for part, size in (("payload", entry.payload), ("framing", entry.framing)):
                    sums[entry.worker, entry.direction, part] += size
            for key, size in sums.items():
                links.add_metric((level, *key), size)
        yield links
        here = GaugeMetricFamily("asyncdmtl_worker_up", "1 while a node is present.", labels=["worker"])
        present = set(relay.nodes())
        for node in sorted(present | self._metrics.known):
            here.add_metric((node,), float(node in present))
        yield here
