"""What supervisors ask a server, over real HTTP; and what the events of real runs add up to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.clusters import Cluster, stored_at
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.errors import LinkError
from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server import health
from asyncdmtl.server.events import (
    Checkpointed,
    HealthListening,
    IncidentNoted,
    Joined,
    Left,
    Listening,
    LockedOut,
    Planned,
    Refused,
    Resumed,
    ServerEvent,
    Waiting,
)
from asyncdmtl.server.health import MOST_CONNECTIONS, MOST_HEADER, Health, Metrics

LISTENING = Listening("r1", "127.0.0.1", 7700)


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    return {
        (sample.name.removeprefix("asyncdmtl_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }


class Asker:
    """A listening `Health`, and those who ask it."""

    def __init__(self) -> None:
        self.metrics = Metrics(5, Ledger())
        self.health = Health(self.metrics)
        self.address = ("", 0)

    async def raw(self, request: bytes) -> bytes:
        """What comes back for these bytes until the connection ends."""
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write(request)
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()

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


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /healthz/.. HTTP/1.1\r\n\r\n", 404),
        (b"POST /healthz HTTP/1.1\r\n\r\n", 405),
        (b"\r\n\r\n", 400),
        (b"GET /healthz\r\n\r\n", 400),
        (b"GET /healthz HTTP/2\r\n\r\n", 400),
        (b"\xff\x00 \xff \xff\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * MOST_HEADER + b"\r\n\r\n", 431),
        (b"x" * (3 * MOST_HEADER), 431),
    ],
)
async def test_other_requests_are_refused(asker: Asker, request_: bytes, status: int) -> None:
    response = await asker.raw(request_)
    assert response.startswith(f"HTTP/1.1 {status} ".encode())
    assert (await asker.get("/healthz"))[0] == 200


@pytest.mark.parametrize("start", [b"", b"GET /healthz HTTP/1.1\r\nX: "])
async def test_who_is_slow_is_cut_off(asker: Asker, start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LONGEST_REQUEST", 0.1)
    assert await asker.raw(start) == b""


async def test_connections_are_limited_and_all_end_with_the_server(asker: Asker) -> None:
    async def answered() -> bool:
        try:
            return (await asker.raw(b"GET /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False

    held = [await asyncio.open_connection(*asker.address) for _ in range(MOST_CONNECTIONS)]
    assert not await answered()
    _, writer = held.pop()
    writer.transport.abort()
    async with asyncio.timeout(20):
        while not await answered():
            pass
    await asker.health.close()
    for reader, writer in held:
        assert await reader.read() == b""
        writer.transport.abort()


async def test_an_address_that_is_taken_is_named(asker: Asker) -> None:
    with pytest.raises(LinkError, match=rf"--health at 127.0.0.1:{asker.address[1]}: address already in use"):
        await Health(asker.metrics).listen(*asker.address)


def test_events_are_counted() -> None:
    metrics = Metrics(9, Ledger())
    events: list[ServerEvent] = [
        LISTENING,
        Refused("?", "nonsense"),
        Joined("w0", 1),
        Joined("w1", 1),
        Left("w1", "before the start"),
        Joined("w1", 1, True),
        Joined("w2", 1),
        LockedOut("name", "w9", 1.0),
        HealthListening("127.0.0.1", 9),
    ]
    for event in events:
        metrics.note(event)
    found = samples(metrics)
    assert {name: found[name,] for name in ("workers", "joined_total", "reconnects_total")} == {
        "workers": 3,
        "joined_total": 4,
        "reconnects_total": 1,
    }
    assert (found["refused_total",], found["lockouts_total",], found["ready",]) == (1, 1, 1)
    metrics.note(Planned(0, 4, ("w0", "w1", "w2"), "relay", "1", "1", 1, (), ""))
    assert samples(metrics)["rounds_done",] == 4
    for kind, worker in (("WaitError", "w0"), ("DisagreementError", "w1"), ("WaitError", "w2")):
        metrics.note(IncidentNoted(4, worker, kind, "…"))
    found = samples(metrics)
    assert found["incidents_total", "WaitError"] == 2
    assert found["incidents_total", "DisagreementError"] == 1
    # A worker that disagrees is still there.
    assert metrics.workers == {"w1"}
    metrics.note(Waiting(4, ("p0",), 60.0))
    assert (metrics.phase, metrics.ready) == ("waiting", True)


def test_a_resumed_run_goes_on_counting_where_it_was() -> None:
    metrics = Metrics(9, Ledger())
    metrics.note(LISTENING)
    metrics.note(Resumed("r1", 5))
    assert samples(metrics)["rounds_done",] == 5
    metrics.note(Checkpointed(6, 10, 0.1))
    found = samples(metrics)
    assert (found["checkpoints_total",], found["checkpoint_round",]) == (1, 6)


async def test_a_run_with_a_lost_worker_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    compute, leave, loop = CodedWorkerSide.compute, asyncio.Event(), asyncio.get_running_loop()

    def leaving(side: CodedWorkerSide) -> Any:
        if side.plan.placement.workers[side.worker] == "w1":
            loop.call_soon_threadsafe(leave.set)
        return compute(side)

    monkeypatch.setattr(CodedWorkerSide, "compute", leaving)
    partitions = make_partitions(6, "squared")
    options = run_options(settings=make_settings(rounds=4), workers=6)
    async with Cluster(options) as cluster:
        own = stored_at(HOMOGENEOUS, partitions)
        workers = {name: cluster.join(name, parts) for name, parts in own.items()}
        await leave.wait()
        workers.pop("w1").cancel()
        record = await cluster.server
        await asyncio.gather(*workers.values())
    metrics = Metrics(4, record.ledger)
    for event in cluster.events:
        metrics.note(event)
    found = samples(metrics)
    assert found["rounds_done",] == found["rounds_limit",] == found["round_seconds_count",] == 4
    assert found["round_seconds_sum",] == pytest.approx(sum(entry.seconds for entry in record.rounds))
    assert found["objective",] == record.rounds[-1].objective
    assert found["workers",] == 5
    assert sum(value for key, value in found.items() if key[0] == "incidents_total") == 1
    for direction in ("up", "down"):
        payload, framing = record.ledger.total(lambda entry, d=direction: entry.direction == d)  # type: ignore[misc]
        for part, expected in (("payload", payload), ("framing", framing)):
            shown = sum(v for k, v in found.items() if k[:2] == ("bytes_total", direction) and k[3] == part)
            assert shown == expected
    assert found["bytes_total", "up", "uplink", "payload"] > 0
