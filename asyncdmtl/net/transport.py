"""Listening and connecting over TCP, and how long one waits for anything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from asyncdmtl.errors import LinkError, UsageError, WaitError
from asyncdmtl.net.addresses import format_address
from asyncdmtl.net.connection import Connection

# Seconds: between attempts to connect, and at the most for any wait.
FIRST_RETRY_PAUSE, LONGEST_RETRY_PAUSE = 0.05, 2.0
LONGEST_WAIT = 1e9


def check_positive(**seconds: float) -> None:
    """UsageError, naming the option, unless every limit is more than 0 seconds."""
    for name, value in seconds.items():
        if not 0 < value <= LONGEST_WAIT:
            option = "--" + name.replace("_", "-")
            raise UsageError(option, f"must be more than 0 and at most {LONGEST_WAIT:g} seconds", value)


async def listen(host: str, port: int, make: Callable[[], Connection]) -> asyncio.Server:
    """Accept connections on an address; port 0 takes a free one. LinkError if that cannot be."""
    try:
        return await asyncio.get_running_loop().create_server(make, host, port, backlog=1024)
    except UnicodeError as error:
        raise UsageError("--listen", "must name a host", host) from error
    except OSError as error:
        address = format_address(host, port)
        raise LinkError(f"cannot listen on {address}: {_reason(error)}", peer=address) from error


async def connect(host: str, port: int, make: Callable[[], Connection], max_wait: float) -> Connection:
    """Connect to a server, which may not be up yet.

    Tries again with growing pauses for `max_wait` seconds, which the option --max-wait sets; then LinkError.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + max_wait
    pause = FIRST_RETRY_PAUSE
    while True:
        try:
            return await _opened(host, port, make(), end + FIRST_RETRY_PAUSE)
        except UnicodeError as error:
            raise UsageError("--connect", "must name a host", host) from error
        except (OSError, LinkError, WaitError) as error:
            if loop.time() + pause > end:
                address = format_address(host, port)
                raise LinkError(
                    f"cannot reach a server at {address}: {_reason(error)} "
                    f"(gave up after {max_wait:g} s, the limit set by --max-wait)",
                    peer=address,
                ) from error
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_RETRY_PAUSE)


async def _opened(host: str, port: int, connection: Connection, end: float) -> Connection:
    """Open a connection until `end`, TLS included; whatever comes between, nothing is left open."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(end):
            await loop.create_connection(lambda: connection, host, port)
    except BaseException:
        # The event loop closes the socket; uvloop never tells the connection, which must not wait for that.
        connection.abort()
        raise
    try:
        await connection.secured()
    except BaseException:
        await connection.close()
        raise
    return connection


def _reason(error: OSError | LinkError | WaitError) -> str:
    """The kernel's words for an error, without those that the event loop wraps around them."""
    if isinstance(error, LinkError | WaitError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "no answer"
    return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
