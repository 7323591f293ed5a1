"""Fixtures for every test, which restore global state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from asyncdmtl.cli.logs import PACKAGE_LOG

# How long an example takes says nothing on a busy machine.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _logs_are_restored() -> Iterator[None]:
    """Restore the package's logs, which commands set up when they run in the tests' process."""
    handlers, level = PACKAGE_LOG.handlers[:], PACKAGE_LOG.level
    yield
    for handler in set(PACKAGE_LOG.handlers) - set(handlers):
        handler.close()
    PACKAGE_LOG.handlers = handlers
    PACKAGE_LOG.setLevel(level)
