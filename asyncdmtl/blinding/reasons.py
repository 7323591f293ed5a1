"""Errors of a worker as a server that is blind may read them."""

from __future__ import annotations

from asyncdmtl.errors import AsyncDMTLError


def without_details(error: AsyncDMTLError) -> AsyncDMTLError:
    """An error with the same exit code, whose message has the kind of the error only.

    Messages of errors name values of rows, columns or models.
    """
    told = AsyncDMTLError(f"{type(error).__name__}; the worker's own log has the reason")
    told.exit_code = error.exit_code
    return told
