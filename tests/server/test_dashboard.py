from __future__ import annotations

import asyncio
import itertools
import json

import pytest

from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server import dashboard
from asyncdmtl.server.dashboard import MOST_NOTES, MOST_POINTS, Dashboard, page, slow_workers
from asyncdmtl.server.events import IncidentNoted, Joined, Left, Listening, Planned, Refused, Waiting
from asyncdmtl.server.records import RoundRecord

PLANNED = Planned(0, 0, ("w2", "w10"), "relay", "3/2", "1", "3/2", "1", "3", "3", 2, (), "")


def board() -> Dashboard:
    made = Dashboard(1000, Ledger())
    for event in (Listening("r1", "127.0.0.1", 7700), Joined("w10", 3), Joined("w2", 4), PLANNED):
        made.note(event)
    return made


def test_the_state_follows_the_events() -> None:
    ledger = Ledger()
    made = Dashboard(5, ledger)
    assert made.state()["phase"] == "starting"
    made.note(Listening("r1", "127.0.0.1", 7700))
    made.note(Joined("w0", 3))
    made.note(Refused("w9", "no secret"))
    assert made.state()["phase"] == "joining"
    made.note(PLANNED)
    made.note(RoundRecord(0, 0.5, float("inf"), 10, 20, 0.25))
    ledger.count("w0", "up", "uplink", 0, payload=10, size=12)
    state = made.state()
    assert (state["run"], state["phase"], state["round"], state["objective"]) == ("r1", "training", 1, 0.5)
    assert state["residual"] is None
    assert state["plan"]["uplink_bound"] == "3/2"
    assert state["workers"] == [
        {"name": "w0", "partitions": 3, "state": "lost", "up": 12, "down": 0, "uplink_seconds": None}
    ]
    assert state["notes"] == [{"round": None, "worker": "w9", "text": "refused: no secret"}]
    made.note(Waiting(1, ("p0",), 60.0))
    assert made.state()["phase"] == "waiting"
    assert made.state()["notes"][-1]["text"] == "waiting up to 60 s for holders of p0"
    json.dumps(made.state(), allow_nan=False)


def test_workers_are_in_natural_order_and_lost_ones_stay() -> None:
    made = board()
    made.note(IncidentNoted(1, "w2", "LinkError", "lost"))
    made.note(IncidentNoted(2, "w10", "DisagreementError", "other bits"))
    made.note(Left("w11", "unknown to the page"))
    assert [(worker["name"], worker["state"]) for worker in made.state()["workers"]] == [
        ("w2", "lost"), ("w10", "at fault"),
    ]  # fmt: skip


def test_long_runs_keep_few_points_and_notes() -> None:
    made = board()
    for r in range(5000):
        made.note(RoundRecord(r, 1.0 / (r + 1), 0.1, 1, 1, 0.1))
        made.note(IncidentNoted(r, "", "Rewound", "again"))
    curve = made.state()["curve"]
    assert MOST_POINTS / 2 <= len(curve) <= MOST_POINTS
    assert curve[0][0] == 0
    assert len({b[0] - a[0] for a, b in itertools.pairwise(curve)}) == 1
    assert len(made.state()["notes"]) == MOST_NOTES


def test_a_page_of_a_state_has_it_and_no_name_ends_its_script() -> None:
    shown = page({"run": "</script><b>"})
    assert '{"run": "\\u003c/script>\\u003cb>"}' in shown
    assert "const kept = null;" in page()
    assert "http" not in page().replace("http://www.w3.org/2000/svg", "")


async def test_a_browser_is_sent_each_change_and_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "SHORTEST_PAUSE", 0.01)
    made = board()
    address = await made.listen("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(20):
        await reader.readuntil(b"\r\n\r\n")

        async def state() -> dict[str, object]:
            line = await reader.readuntil(b"\n\n")
            content: dict[str, object] = json.loads(line.removeprefix(b"data: "))
            return content

        assert (await state())["round"] == 0
        made.note(RoundRecord(0, 0.5, 0.1, 10, 20, 0.25))
        assert (await state())["round"] == 1
        ended = asyncio.create_task(made.close("finished"))
        assert (await state())["phase"] == "finished"
        assert await reader.read() == b""
        await ended
    writer.close()


async def test_probes_are_answered_without_the_token_that_metrics_ask_for() -> None:
    made = Dashboard(5, Ledger(), "0123456789abcdef", lambda: b"asyncdmtl_ready 1.0\n")
    address = await made.listen("127.0.0.1", 0)

    async def ask(path: str, headers: str = "") -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: n7.cluster\r\n{headers}\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]), body

    async with asyncio.timeout(20):
        assert await ask("/healthz") == (200, b"ok\n")
        assert (await ask("/readyz"))[0] == 503
        made.note(Listening("r1", "127.0.0.1", 7700))
        assert await ask("/readyz") == (200, b"OK\n")
        assert (await ask("/metrics"))[0] == 401
        bearer = "Authorization: Bearer 0123456789abcdef\r\n"
        assert await ask("/metrics", bearer) == (200, b"asyncdmtl_ready 1.0\n")
        await made.close("finished")


@pytest.mark.parametrize(
    ("delays", "slow"),
    [
        ({}, set()),
        ({"a": 9.0}, set()),
        ({"a": 0.1, "b": 0.1, "c": 0.25}, {"c"}),
        ({"a": 0.1, "b": 0.3}, {"b"}),
        ({"a": 0.001, "b": 0.001, "c": 0.009}, set()),  # by chance
        ({"a": 0.2, "b": 0.2, "c": 0.3}, set()),
    ],
)
def test_a_worker_is_slow_if_the_others_wait_for_it(delays: dict[str, float], slow: set[str]) -> None:
    assert slow_workers(delays) == slow


def test_a_slow_worker_is_marked_while_it_is_present() -> None:
    delays = {"w2": 0.1, "w10": 0.5, "w11": 9.0}
    made = Dashboard(1000, Ledger(), delays=lambda: delays)
    for name in delays:
        made.note(Joined(name, 3))
    made.note(IncidentNoted(1, "w11", "LinkError", "lost"))
    workers = made.state()["workers"]
    assert [(worker["name"], worker["state"], worker["uplink_seconds"]) for worker in workers] == [
        ("w2", "present", 0.1), ("w10", "slow", 0.5), ("w11", "lost", 9.0),
    ]  # fmt: skip
