"""Registries of couplings, aggregates and matrices without what tests and examples register."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asyncdmtl.extensions import Registry
from asyncdmtl.learning.aggregation import AGGREGATES
from asyncdmtl.learning.couplings.registry import COUPLINGS
from asyncdmtl.plan.codes.matrices import ENTRIES


@contextmanager
def nothing_registered() -> Iterator[None]:
    """What the block registers is forgotten after it, and what was registered before is not seen in it."""
    registries: tuple[Registry[Any], ...] = (COUPLINGS, AGGREGATES, ENTRIES)
    before = [dict(registry._registered) for registry in registries]
    for registry in registries:
        registry._registered.clear()
    try:
        yield
    finally:
        for registry, known in zip(registries, before, strict=True):
            registry._registered.clear()
            registry._registered.update(known)
