"""Health and metrics of a server over HTTP.

::

    GET /healthz     200 while the event loop answers
    GET /readyz      200 while workers may connect, else 503; JSON with the progress of the run
    GET /metrics     Prometheus' text exposition format 0.0.4

It is plaintext without authentication, and must not be reachable by strangers.

This module implements HTTP/1.1 itself. The server of prometheus_client runs in threads without any limit on
connections or time, and answers even if the event loop hangs; a web framework for asyncio would be larger
than this whole package.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from http import HTTPStatus

from asyncdmtl.errors import LinkError
from asyncdmtl.net.addresses import format_address
from asyncdmtl.server.metrics import Metrics

log = logging.getLogger(__name__)

# The most bytes of a request: probes and scrapers send a few hundred.
MOST_REQUEST_BYTES = 8 << 10

# Seconds within which a request must arrive and its answer must be received.
REQUEST_SECONDS = 5.0

# The most connections at a time. Further ones are closed without an answer, so that they cost the run
# nothing.
MOST_HTTP_CONNECTIONS = 32

# Content types of the answers.
PLAIN_TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class Health:
    """A small HTTP server for `Metrics`.

    It closes the connection of a client that is slow or sends more than a short GET or HEAD.

    Parameters
    ----------
    metrics : Metrics
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Begin to answer at an address; return it, with the port that was chosen if `port` is 0.

        Raises
        ------
        LinkError
            The server cannot listen at the address.
        """
        try:
            self._server = await asyncio.start_server(self._opened, host, port, limit=MOST_REQUEST_BYTES)
        except (OSError, UnicodeError) as error:
            address = format_address(host, port)
            number = getattr(error, "errno", None)
            reason = os.strerror(number).lower() if number and number > 0 else str(error)
            raise LinkError(f"cannot answer --health at {address}: {reason}", peer=address) from error
        host, port = self._server.sockets[0].getsockname()[:2]
        log.info("health and metrics at http://%s", format_address(host, port))
        return host, port

    async def close(self) -> None:
        """End the server and all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _opened(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MOST_HTTP_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._clients[task] = writer
        # A callback, because the task may be cancelled before it has begun.
        task.add_done_callback(lambda task: self._clients.pop(task).transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                try:
                    request = await reader.readuntil(b"\r\n\r\n")
                except asyncio.LimitOverrunError:
                    writer.write(_response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
                else:
                    writer.write(self._answer(request))
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError) as error:
            log.debug("a request for health or metrics failed: %r", error)

    def _answer(self, request: bytes) -> bytes:
        line = request.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(line) != 3 or not line[2].startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        method, target, _ = line
        if method not in ("GET", "HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, more="Allow: GET, HEAD\r\n")
        page = {"/healthz": self._alive, "/readyz": self._readiness, "/metrics": self._exposed}.get(
            target.partition("?")[0]
        )
        return page(method == "HEAD") if page is not None else _response(HTTPStatus.NOT_FOUND)

    def _alive(self, empty: bool) -> bytes:
        return _response(HTTPStatus.OK, b"ok\n", empty=empty)

    def _readiness(self, empty: bool) -> bytes:
        metrics = self._metrics
        stand = {
            "ready": metrics.ready,
            "run": metrics.run,
            "phase": metrics.phase,
            "round": metrics.round,
            "workers": sorted(metrics.workers),
        }
        status = HTTPStatus.OK if metrics.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _response(status, json.dumps(stand).encode() + b"\n", JSON, empty=empty)

    def _exposed(self, empty: bool) -> bytes:
        return _response(HTTPStatus.OK, self._metrics.exposition(), EXPOSITION, empty=empty)


def _response(
    status: HTTPStatus,
    body: bytes | None = None,
    content: str = PLAIN_TEXT,
    *,
    empty: bool = False,
    more: str = "",
) -> bytes:
    """A whole response; without its body if `empty`, which is for HEAD."""
    if body is None:
        body = f"{status.phrase}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n{more}\r\n"
    )
    return head.encode() + (b"" if empty else body)
