from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.requests import raw_answer

from asyncdmtl.errors import LinkError
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.events import Joined, Listening
from asyncdmtl.server.health import Health
from asyncdmtl.server.metrics import Metrics

LISTENING = Listening("r1", "127.0.0.1", 7700)


class Asker:
    """A listening `Health`, and a client of it."""

    def __init__(self) -> None:
        self.metrics = Metrics(5, Ledger())
        self.health = Health(self.metrics)
        self.address = ("", 0)

    async def raw(self, request: bytes) -> bytes:
        """The answer to these bytes, until the connection ends."""
        return await raw_answer(self.address, request)

    async def get(self, target: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
        """Status, headers and body of a response."""
        response = await self.raw(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = response.decode().partition("\r\n\r\n")
        status, *headers = head.split("\r\n")
        return int(status.split()[1]), dict(line.split(": ", 1) for line in headers), body


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    asker = Asker()
    asker.address = await asker.health.listen("127.0.0.1", 0)
    yield asker
    await asker.health.close()


async def test_alive_and_ready(asker: Asker) -> None:
    assert (await asker.get("/healthz"))[::2] == (200, "ok\n")
    status, _, body = await asker.get("/readyz")
    assert (status, json.loads(body)["ready"]) == (503, False)
    asker.metrics.note(LISTENING)
    asker.metrics.note(Joined("w1", 2))
    status, headers, body = await asker.get("/readyz?verbose=1")
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"ready": True, "run": "r1", "phase": "joining", "round": 0, "workers": ["w1"]}


async def test_metrics_are_exposed_as_prometheus_reads_them(asker: Asker) -> None:
    status, headers, body = await asker.get("/metrics")
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert int(headers["Content-Length"]) == len(body)
    names = {family.name for family in text_string_to_metric_families(body)}
    assert {"asyncdmtl_workers", "asyncdmtl_rounds_done", "asyncdmtl_bytes"} <= names
    status, headers, body = await asker.get("/metrics", "HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 0


async def test_an_address_that_is_taken_is_named(asker: Asker) -> None:
    with pytest.raises(LinkError, match=rf"--health at 127.0.0.1:{asker.address[1]}: address already in use"):
        await Health(asker.metrics).listen(*asker.address)
