from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest
from support.requests import raw_answer

from asyncdmtl.errors import LinkError
from asyncdmtl.server import http
from asyncdmtl.server.http import (
    MOST_HTTP_CONNECTIONS,
    MOST_REQUEST_BYTES,
    MOST_STREAMS,
    Answer,
    HttpServer,
    Page,
)

TOKEN = "0123456789abcdefgh"


class Asked:
    """A listening server of three pages, and a client of it."""

    def __init__(self, token: str | None = None, *, guarded: bool = False) -> None:
        self.go_on = asyncio.Event()
        pages: dict[str, Page] = {
            "/": lambda: Answer(HTTPStatus.OK, b"hello\n"),
            "/stream": self._stream,
        }
        self.server = HttpServer("--pages", pages, token, guarded=pages if guarded else ())
        self.address = ("", 0)

    async def _stream(self) -> AsyncIterator[bytes]:
        yield b"first\n"
        await self.go_on.wait()
        yield b"second\n"

    async def raw(self, request: bytes) -> bytes:
        """The answer to these bytes, until the connection ends."""
        return await raw_answer(self.address, request)

    async def get(self, target: str, *headers: str) -> tuple[int, str]:
        """The status of an answer, and all of it."""
        lines = "".join(f"{line}\r\n" for line in headers or ("Host: 127.0.0.1:80",))
        text = (await self.raw(f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode())).decode()
        return int(text.split()[1]), text


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    asked = Asked()
    asked.address = await asked.server.listen("127.0.0.1", 0)
    yield asked
    await asked.server.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /none HTTP/1.1\r\n\r\n", 404),
        (b"GET /stream/.. HTTP/1.1\r\n\r\n", 404),
        (b"POST / HTTP/1.1\r\n\r\n", 405),
        (b"\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET //[ HTTP/1.1\r\n\r\n", 400),
        (b"\xff\x00 \xff \xff\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * MOST_REQUEST_BYTES + b"\r\n\r\n", 431),
        (b"x" * (3 * MOST_REQUEST_BYTES), 431),
    ],
)
async def test_other_requests_are_refused(asked: Asked, request_: bytes, status: int) -> None:
    response = await asked.raw(request_)
    assert response.startswith(f"HTTP/1.1 {status} ".encode())
    assert (await asked.get("/"))[0] == 200


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nX: "])
async def test_a_slow_client_is_cut_off(asked: Asked, start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.1)
    assert await asked.raw(start) == b""


async def test_idle_connections_make_room_and_all_end_with_the_server(asked: Asked) -> None:
    held = [await asyncio.open_connection(*asked.address) for _ in range(2 * MOST_HTTP_CONNECTIONS)]
    assert (await asked.get("/"))[0] == 200
    await asked.server.close()
    for reader, writer in held:
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.transport.abort()


async def test_a_stream_comes_part_by_part_and_few_are_open_at_a_time(asked: Asked) -> None:
    request = b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"
    streams = []
    for _ in range(MOST_STREAMS):
        reader, writer = await asyncio.open_connection(*asked.address)
        writer.write(request)
        assert b"text/event-stream" in await reader.readuntil(b"first\n")
        streams.append((reader, writer))
    assert (await asked.get("/stream"))[0] == 503
    asked.go_on.set()
    for reader, writer in streams:
        assert await reader.read() == b"second\n"
        writer.close()
    assert (await asked.get("/stream"))[1].endswith("first\nsecond\n")
    head = await asked.raw(b"HEAD / HTTP/1.1\r\n\r\n")
    assert head.endswith(b"Content-Length: 6\r\n\r\n")


async def test_without_a_token_the_server_is_named_by_its_address() -> None:
    asked = Asked(guarded=True)
    asked.address = await asked.server.listen("127.0.0.1", 0)
    for host in ("127.0.0.1:80", "[::1]:80", "localhost"):
        assert (await asked.get("/", f"Host: {host}"))[0] == 200
    for host in ("attacker.example", "127.0.0.1.attacker.example", "", "[::1"):
        assert (await asked.get("/", f"Host: {host}"))[0] == 403
    await asked.server.close()


async def test_a_token_is_shown_once_and_kept_in_a_cookie() -> None:
    asked = Asked(TOKEN, guarded=True)
    asked.address = await asked.server.listen("127.0.0.1", 0)
    for headers in ((), ("Cookie: asyncdmtl=wrong",), ("Cookie: a=\x7f;;=",), ("Authorization: Bearer no",)):
        assert (await asked.get("/", *headers))[0] == 401
    assert (await asked.get("/?token=wrong"))[0] == 401
    status, text = await asked.get(f"/?token={TOKEN}")
    assert status == 303
    assert "Location: /\r\n" in text
    assert f"Set-Cookie: asyncdmtl={TOKEN}; HttpOnly; SameSite=Strict; Path=/\r\n" in text
    assert (await asked.get("/", f"Cookie: other=1; asyncdmtl={TOKEN}"))[0] == 200
    assert (await asked.get("/", f"Authorization: Bearer {TOKEN}"))[0] == 200
    await asked.server.close()


async def test_an_address_that_is_taken_is_named(asked: Asked) -> None:
    with pytest.raises(
        LinkError, match=rf"cannot answer --pages at 127.0.0.1:{asked.address[1]}: address already"
    ):
        await HttpServer("--pages", {}).listen(*asked.address)
