from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncdmtl.errors import PeerError, UsageError
from asyncdmtl.launch import relays
from asyncdmtl.launch.relays import LocalTree, spread_workers
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.placement import Placement

PLACEMENT = Placement.cyclic(5, 5, 2)


def test_workers_are_spread_in_their_order() -> None:
    made = spread_workers(PLACEMENT, 2)
    assert made.relays == {"relay0": ("w0", "w1"), "relay1": ("w2", "w3", "w4")}
    assert all(len(nodes) == 1 for nodes in spread_workers(PLACEMENT, 5).relays.values())
    named = Placement({"relay0": ["p0"], "w1": ["p1"]})
    assert set(spread_workers(named, 2).relays) == {"relay1", "relay2"}


@pytest.mark.parametrize("count", [0, 6])
def test_there_are_at_most_as_many_relays_as_workers(count: int) -> None:
    with pytest.raises(UsageError, match="--relays must be from 1 to 5, the number of workers, got"):
        spread_workers(PLACEMENT, count)


class Processes:
    """In place of relay processes: keeps their words, and gives the events of each."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, events: Callable[[str], list[dict[str, Any]]]
    ) -> None:
        self.words: dict[str, list[str]] = {}
        self._events = events
        for name in ("start_process", "next_event", "stop_process"):
            monkeypatch.setattr(relays, name, getattr(self, name))

    async def start_process(self, module: str, secret: bytes, folder: Path, *words: str) -> Any:
        name = words[words.index("--name") + 1]
        self.words[name] = list(words)

        class Process:
            events = iter(self._events(name))

            async def wait(self) -> int:
                return 0

        return Process()

    async def next_event(self, what: str, process: Any) -> dict[str, Any]:
        event: dict[str, Any] = next(process.events)
        if event["event"] == "failed":
            raise PeerError(f"{what}: failed")
        return event

    async def stop_process(self, process: Any) -> None:
        """Nothing runs."""


async def test_nodes_join_at_their_parents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ports = {"outer": 1, "inner": 2}
    processes = Processes(
        monkeypatch,
        lambda name: [
            {"event": "listening", "host": "h", "port": ports[name]},
            {"event": "finished", "links": {name: {}}},
        ],
    )
    nodes = {"outer": ["inner", "w2"], "inner": ["w0", "w1"]}
    tree = LocalTree(Topology(PLACEMENT, nodes), ["--log-level", "debug"])
    joined: dict[str, tuple[str, int]] = {}

    def worker(name: str) -> Any:
        async def take_part(host: str, port: int, secret: bytes) -> None:
            joined[name] = host, port

        return take_part

    parts = tree.parts({name: worker(name) for name in PLACEMENT.workers}, tmp_path)
    await asyncio.gather(*(part("server", 7, b"secret") for part in parts.values()))
    assert joined == {
        "w0": ("h", 2),
        "w1": ("h", 2),
        "w2": ("h", 1),
        "w3": ("server", 7),
        "w4": ("server", 7),
    }
    outer, inner = processes.words["outer"], processes.words["inner"]
    assert outer[:2] == ["--connect", "server:7"]
    assert inner[:2] == ["--connect", "h:1"]
    assert [words[words.index("--workers") + 1] for words in (outer, inner)] == ["3", "2"]
    assert tree.links == {"outer": {"outer": {}}, "inner": {"inner": {}}}
    assert outer[-2:] == ["--log-level", "debug"]


async def test_a_relay_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Processes(monkeypatch, lambda name: [{"event": "failed"}])
    parts = LocalTree(spread_workers(PLACEMENT, 1)).parts({}, tmp_path)
    with pytest.raises(PeerError, match="relay 'relay0': failed"):
        await parts["relay0"]("server", 7, b"secret")
