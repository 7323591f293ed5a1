"""What every test leaves as it found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asyncdmtl.cli.logs import PACKAGE_LOG


@pytest.fixture(autouse=True)
def _logs_are_restored() -> Iterator[None]:
    """Commands that run inside the process of the tests set the package's logs up."""
    handlers, level = PACKAGE_LOG.handlers[:], PACKAGE_LOG.level
    yield
    for handler in set(PACKAGE_LOG.handlers) - set(handlers):
        handler.close()
    PACKAGE_LOG.handlers = handlers
    PACKAGE_LOG.setLevel(level)
