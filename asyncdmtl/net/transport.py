"""Listening and connecting over TCP, and the limits of waits."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import aiohappyeyeballs

from asyncdmtl.errors import LinkError, PeerError, UsageError, WaitError
from asyncdmtl.net.addresses import format_address
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.open_files import limit_reached

log = logging.getLogger(__name__)

# Seconds between the first attempt to connect and the second; each further pause is twice as long.
FIRST_RETRY_PAUSE = 0.05

# Seconds of the longest pause between attempts to connect: a restarted server is found within it.
LONGEST_RETRY_PAUSE = 2.0

# Seconds without a connection after which a line in the log says so, since an address may be wrong.
TELL_AFTER = 3.0

# Seconds after which, beside an attempt to connect to one address of a name, the next address is tried: a
# dead address does not delay a working one. The value is that of RFC 8305, section 8.
NEXT_ADDRESS_DELAY = 0.25

# Seconds that an attempt to connect may take where there are other addresses: a host that answers nothing
# delays these no longer. Three lost packets are sent again within this time.
LONGEST_ATTEMPT = 5.0

# The largest limit of a wait, in seconds, some 30 years: event loops cannot handle arbitrarily long times.
LONGEST_WAIT = 1e9

# Connections that the kernel queues until the server accepts them: a hundred workers may connect at one
# moment. asyncio accepts as many in one turn of its loop; with more, a flood of connections would block all
# other work.
BACKLOG = 128


def check_positive(**seconds: float) -> None:
    """Check that every limit is more than 0 seconds; UsageError names the option of one that is not."""
    for name, value in seconds.items():
        if not 0 < value <= LONGEST_WAIT:
            option = "--" + name.replace("_", "-")
            raise UsageError(option, f"must be more than 0 and at most {LONGEST_WAIT:g} seconds", value)


async def listen(host: str, port: int, make: Callable[[], Connection]) -> asyncio.Server:
    """Accept connections on an address; port 0 takes a free port.

    Parameters
    ----------
    host : str
    port : int
    make : callable
        Makes the Connection of each peer that connects.

    Raises
    ------
    UsageError
        `host` is no name of a host.
    LinkError
        The address cannot be listened on.
    """
    try:
        return await asyncio.get_running_loop().create_server(
            lambda: make().link, host, port, backlog=BACKLOG
        )
    except UnicodeError as error:
        raise UsageError("--listen", "must name a host", host) from error
    except OSError as error:
        address = format_address(host, port)
        raise LinkError(f"cannot listen on {address}: {_reason(error)}", peer=address) from error


class Way(NamedTuple):
    """An address to connect to.

    Attributes
    ----------
    host : str
    port : int
    make : callable
        Makes the Connection of each attempt.
    """

    host: str
    port: int
    make: Callable[[], Connection]


async def connect(host: str, port: int, make: Callable[[], Connection], max_wait: float) -> Connection:
    """Connect to a server at one address; parameters and errors are those of `Way` and `connect_first`."""
    _, connection = await connect_first([Way(host, port, make)], max_wait)
    return connection


async def connect_first(ways: Sequence[Way], max_wait: float) -> tuple[int, Connection]:
    """Connect to the first address that can be reached: try all in turn, again and with growing pauses.

    A server may not be up yet, so that every address is tried until `max_wait` has passed.

    Parameters
    ----------
    ways : sequence of Way
    max_wait : float
        Seconds, which the option --max-wait sets.

    Returns
    -------
    index : int
        Of the way that led to the connection.
    connection : Connection

    Raises
    ------
    UsageError
        A host is no name of a host.
    AuthenticationError
        One end does not accept the other's certificate, or the server does not speak TLS.
    LinkError
        No attempt led to a connection within `max_wait`.
    """
    loop = asyncio.get_running_loop()
    begin, told = loop.time(), False
    end = begin + max_wait
    pause = FIRST_RETRY_PAUSE
    while True:
        failed: list[tuple[str, OSError | LinkError | WaitError]] = []
        for i, way in enumerate(ways):
            last = end + FIRST_RETRY_PAUSE
            attempt_end = last if len(ways) == 1 else min(last, loop.time() + LONGEST_ATTEMPT)
            try:
                return i, await _opened(way.host, way.port, way.make(), attempt_end)
            except UnicodeError as error:
                raise UsageError("--connect", "must name a host", way.host) from error
            except (OSError, LinkError, WaitError) as error:
                failed.append((format_address(way.host, way.port), error))
        if loop.time() + pause > end:
            reasons = "; at ".join(f"{address}: {_reason(error)}" for address, error in failed)
            raise LinkError(
                f"cannot reach a server at {reasons} (gave up after {max_wait:g} s, the limit set by "
                "--max-wait)",
                peer=", ".join(address for address, _ in failed),
            ) from failed[0][1]
        if not told and loop.time() - begin >= TELL_AFTER:
            told = True
            tried = "; at ".join(f"{address} yet ({_reason(error)})" for address, error in failed)
            log.warning("no server at %s; waiting for it up to %g s (--max-wait)", tried, max_wait)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_RETRY_PAUSE)


async def _opened(host: str, port: int, connection: Connection, end: float) -> Connection:
    """Open a connection before the time `end`, with TLS; after an error nothing is left open."""
    loop = asyncio.get_running_loop()
    try:
        addresses = await _addresses(host, port, end)
        async with asyncio.timeout_at(end):
            opened = await aiohappyeyeballs.start_connection(
                addresses, happy_eyeballs_delay=NEXT_ADDRESS_DELAY
            )
            try:
                await loop.create_connection(lambda: connection.link, sock=opened)
            except BaseException:
                opened.close()
                raise
    except BaseException:
        # uvloop does not report that the socket is closed, so that nothing may wait for that.
        connection.abort()
        raise
    try:
        await connection.secured()
    except PeerError:
        # The peer ended it at once. Whoever uses the connection is told the reason, and whether to come back.
        return connection
    except BaseException:
        await connection.close()
        raise
    return connection


async def _addresses(host: str, port: int, end: float) -> list[aiohappyeyeballs.AddrInfoType]:
    """The addresses of a name; LinkError if it has none, or if no answer comes before the time `end`."""
    try:
        async with asyncio.timeout_at(end):
            # Runs in a thread of its own: if the wait is given up, its late error is not reported.
            lookup: Callable[..., list[Any]] = socket.getaddrinfo
            return await asyncio.to_thread(lookup, host, port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise LinkError(f"no name server answered for {host!r}", peer=host) from error
    except socket.gaierror as error:
        reason = (error.strerror or str(error)).lower()
        raise LinkError(f"the name {host!r} has no address: {reason}", peer=host) from error


def _reason(error: OSError | LinkError | WaitError) -> str:
    """The kernel's message of an error, without the words that the event loop adds."""
    if isinstance(error, LinkError | WaitError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "no answer"
    if reason := limit_reached(error):
        return reason
    return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
