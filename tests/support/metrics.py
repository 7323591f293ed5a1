"""Reads what a server exposes to Prometheus."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from asyncdmtl.server.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    return {
        (sample.name.removeprefix("asyncdmtl_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }
