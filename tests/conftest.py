"""Fixtures for every test, which restore global state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asyncdmtl.cli.logs import PACKAGE_LOG


@pytest.fixture(autouse=True)
def _logs_are_restored() -> Iterator[None]:
    """Restore the package's logs, which commands set up when they run in the tests' process."""
    handlers, level = PACKAGE_LOG.handlers[:], PACKAGE_LOG.level
    yield
    for handler in set(PACKAGE_LOG.handlers) - set(handlers):
        handler.close()
    PACKAGE_LOG.handlers = handlers
    PACKAGE_LOG.setLevel(level)
