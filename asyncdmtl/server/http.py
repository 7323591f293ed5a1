"""A small HTTP/1.1 server for the few pages of a training server: health, metrics and the dashboard.

This module implements HTTP itself. The server of prometheus_client runs in threads without any limit on
connections or time, and answers even if the event loop hangs; a web framework for asyncio would be larger
than this whole package.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from asyncdmtl.errors import LinkError
from asyncdmtl.net.addresses import format_address

log = logging.getLogger(__name__)

# The most bytes of a request: browsers, probes and scrapers send at most a few thousand.
MOST_REQUEST_BYTES = 8 << 10

# Seconds within which a request must arrive, and a part of an answer must be received.
REQUEST_SECONDS = 5.0

# The most connections at a time. For a further one, the oldest that has not sent a request is closed; if all
# have, the new one is, without an answer, so that it costs the run nothing.
MOST_HTTP_CONNECTIONS = 32

# The most answers at a time that are streams, which may last as long as the run.
MOST_STREAMS = 8

# Content types of answers.
PLAIN_TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
HTML = "text/html; charset=utf-8"
EVENT_STREAM = "text/event-stream"

# The content type of metrics: Prometheus' text exposition format.
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"

# The name of the cookie that keeps a browser's token.
COOKIE = "asyncdmtl"


@dataclass(frozen=True)
class Answer:
    """An answer to a request; `headers` has further lines, each with its line end."""

    status: HTTPStatus
    body: bytes = b""
    content: str = PLAIN_TEXT
    headers: str = ""

    def encoded(self, *, empty: bool = False) -> bytes:
        """The bytes of the answer; without its body if `empty`, which is for HEAD."""
        body = self.body or f"{self.status.phrase}\n".encode()
        head = f"{_head(self.status, self.content)}Content-Length: {len(body)}\r\n{self.headers}\r\n"
        return head.encode() + (b"" if empty else body)


# A function that makes the answer of a page: whole, or as a stream of the parts of its body.
Page = Callable[[], Answer | AsyncIterator[bytes]]


@dataclass(frozen=True)
class _Request:
    """The parts of a request that matter here."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]


def alive() -> Answer:
    """The answer to a probe that asks whether the event loop still answers."""
    return Answer(HTTPStatus.OK, b"ok\n")


class HttpServer:
    """An HTTP server for GET and HEAD of fixed pages.

    It closes the connection of a client that is slow or sends more than a short request.

    Parameters
    ----------
    option : str
        The option that turned it on, for errors.
    pages : mapping of path to Page
    token : str, optional
        Clients must show this token: in the query as `?token=`, which is then kept in a cookie, or as
        `Authorization: Bearer`. Without it, a request must name the server by an address, or as localhost,
        because any web page could otherwise ask through its visitor's browser under a name of its own.
    guarded : collection of str
        The paths for which the token, or else such a name, is needed. Probes show neither.
    """

    def __init__(
        self,
        option: str,
        pages: Mapping[str, Page],
        token: str | None = None,
        *,
        guarded: Collection[str] = (),
    ) -> None:
        self._option = option
        self._pages = pages
        self._token = token
        self._guarded = guarded
        # Tasks in the order of their connections; True once a whole request has arrived.
        self._clients: dict[asyncio.Task[None], bool] = {}
        self._streams = 0
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Begin to answer at an address; return it, with the port that was chosen if `port` is 0.

        Raises
        ------
        LinkError
            The server cannot listen at the address.
        """
        try:
            self._server = await asyncio.start_server(
                self._opened, host, port, limit=MOST_REQUEST_BYTES, ssl=tls
            )
        except (OSError, UnicodeError) as error:
            address = format_address(host, port)
            number = getattr(error, "errno", None)
            reason = os.strerror(number).lower() if number and number > 0 else str(error)
            raise LinkError(f"cannot answer {self._option} at {address}: {reason}", peer=address) from error
        host, port = self._server.sockets[0].getsockname()[:2]
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
            idle = next((task for task, asked in self._clients.items() if not asked), None)
            if idle is None:
                writer.transport.abort()
                return
            idle.cancel()
            del self._clients[idle]
        task = asyncio.create_task(self._serve(reader, writer))
        self._clients[task] = False
        # A callback, because the task may be cancelled before it has begun.
        task.add_done_callback(lambda task: self._ended(task, writer))

    def _ended(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        self._clients.pop(task, None)
        writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                try:
                    text = await reader.readuntil(b"\r\n\r\n")
                except asyncio.LimitOverrunError:
                    answer: Answer | AsyncIterator[bytes] = Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                    empty = False
                else:
                    answer, empty = self._answer(text)
            task = asyncio.current_task()
            assert task is not None
            self._clients[task] = True
            if isinstance(answer, Answer):
                writer.write(answer.encoded(empty=empty))
            else:
                await self._stream(answer, writer, empty=empty)
            writer.close()
            async with asyncio.timeout(REQUEST_SECONDS):
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError) as error:
            log.debug("a request to %s failed: %r", self._option, error)

    def _answer(self, text: bytes) -> tuple[Answer | AsyncIterator[bytes], bool]:
        """The answer to a request, and whether it goes without its body."""
        request = _parse(text)
        if request is None:
            return Answer(HTTPStatus.BAD_REQUEST), False
        if request.method not in ("GET", "HEAD"):
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, headers="Allow: GET, HEAD\r\n"), False
        empty = request.method == "HEAD"
        page = self._pages.get(request.path)
        if page is None:
            return Answer(HTTPStatus.NOT_FOUND), empty
        refused = self._refusal(request) if request.path in self._guarded else None
        return (page() if refused is None else refused), empty

    def _refusal(self, request: _Request) -> Answer | None:
        """The answer to a client that may not see the pages; None if it may."""
        if self._token is None:
            if _is_address(request.headers.get("host", "")):
                return None
            return Answer(HTTPStatus.FORBIDDEN, b"name the server by its address or as localhost\n")
        asked = request.query.get("token", [""])[0]
        if _same(asked, self._token):
            cookie = f"{COOKIE}={asked}; HttpOnly; SameSite=Strict; Path=/"
            moved = f"Location: {request.path}\r\nSet-Cookie: {cookie}\r\n"
            return Answer(HTTPStatus.SEE_OTHER, headers=moved)
        shown = [_cookie(request.headers.get("cookie", ""))]
        shown.append(request.headers.get("authorization", "").removeprefix("Bearer "))
        if any(_same(token, self._token) for token in shown):
            return None
        return Answer(HTTPStatus.UNAUTHORIZED, b"open this page with ?token= and the token\n")

    async def _stream(
        self, parts: AsyncIterator[bytes], writer: asyncio.StreamWriter, *, empty: bool
    ) -> None:
        if self._streams >= MOST_STREAMS:
            writer.write(Answer(HTTPStatus.SERVICE_UNAVAILABLE).encoded(empty=empty))
            return
        self._streams += 1
        try:
            writer.write(f"{_head(HTTPStatus.OK, EVENT_STREAM)}\r\n".encode())
            async for part in parts:
                if empty:
                    return
                writer.write(part)
                async with asyncio.timeout(REQUEST_SECONDS):
                    await writer.drain()
        finally:
            self._streams -= 1


def _head(status: HTTPStatus, content: str) -> str:
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content}\r\nCache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n"
    )


def _parse(text: bytes) -> _Request | None:
    """A request from its bytes; None if it is none."""
    first, *rest = text.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    line = first.split(" ")
    if len(line) != 3 or not line[2].startswith("HTTP/1."):
        return None
    try:
        target = urlsplit(line[1])
        query = parse_qs(target.query)
    except ValueError:
        return None
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (each.partition(":") for each in rest)
    }
    return _Request(line[0], target.path, query, headers)


def _same(shown: str, token: str) -> bool:
    return hmac.compare_digest(shown.encode(), token.encode())


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _is_address(host: str) -> bool:
    """Whether the Host of a request is an address, or localhost, with or without a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
