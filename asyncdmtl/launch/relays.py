"""Relays of a run on this machine: processes between the server and the worker processes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from asyncdmtl.errors import UsageError
from asyncdmtl.launch.processes import RELAY, next_event, start_process, stop_process
from asyncdmtl.launch.threads import LOOPBACK, TakePart
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.net.addresses import format_address
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.placement import Placement

# Seconds that a relay waits for a worker that was lost. No other worker is started in its place, but the
# others of the site need some time to connect again.
REJOIN_SECONDS = "1"


def spread_workers(placement: Placement, relays: int) -> Topology:
    """A topology with relays `relay0`, `relay1` and so on, over which workers are spread in their order.

    Raises
    ------
    UsageError
        There are more relays than workers, or none.
    """
    workers = placement.workers
    if not 1 <= relays <= len(workers):
        raise UsageError("--relays", f"must be from 1 to {len(workers)}, the number of workers", relays)
    begin = [len(workers) * r // relays for r in range(relays + 1)]
    names = iter(f"relay{r}" for r in range(relays + len(workers)) if f"relay{r}" not in workers)
    return Topology(placement, {next(names): workers[a:b] for a, b in pairwise(begin)})


@dataclass
class _Node:
    """A relay or worker of the run: where it listens, and whether it has ended."""

    address: tuple[str, int] | None = None
    listening: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class LocalTree:
    """Starts the relays of a run, and lets each worker join at its relay.

    Parameters
    ----------
    topology : Topology
        A node that is behind several relays joins at the first of them.
    words : sequence of str
        Further options of every relay.

    Attributes
    ----------
    topology : Topology
    links : dict of relay to dict
        The bytes that each relay that has ended counted on the links below it.
    """

    def __init__(self, topology: Topology, words: Sequence[str] = ()) -> None:
        self.topology = topology
        self.links: dict[str, dict[str, dict[str, int]]] = {}
        self._words = words
        self._nodes = {name: _Node() for name in (*topology.placement.workers, *topology.relays)}

    def parts(self, workers: Mapping[str, TakePart], folder: Path) -> dict[str, TakePart]:
        """The relays and workers for `threads.serve`, from workers that could join at the server.

        The processes of the run keep files in `folder`.
        """
        parts = {name: self._relay(name, folder) for name in self.topology.relays} | dict(workers)
        return {name: self._placed(name, part) for name, part in parts.items()}

    def _placed(self, name: str, part: TakePart) -> TakePart:
        """A relay or worker that joins at its parent, once that listens."""
        parent = self.topology.parent(name)

        async def take_part(host: str, port: int, secret: bytes) -> TaskModels | None:
            try:
                if parent is not None:
                    above = self._nodes[parent]
                    await above.listening.wait()
                    assert above.address is not None
                    host, port = above.address
                return await part(host, port, secret)
            finally:
                self._nodes[name].ended.set()

        return take_part

    def _relay(self, name: str, folder: Path) -> TakePart:
        behind = [node for node in self._nodes if self.topology.parent(node) == name]
        workers = len(self._joining(name))

        async def take_part(host: str, port: int, secret: bytes) -> None:
            words = ["--connect", format_address(host, port), "--listen", f"{LOOPBACK}:0", "--name", name]
            words += ["--workers", str(workers), "--rejoin-timeout", REJOIN_SECONDS, *self._words]
            process = await start_process(RELAY, secret, folder, *words)
            try:
                while (event := await next_event(f"relay {name!r}", process))["event"] != "finished":
                    if event["event"] == "listening":
                        self._nodes[name].address = event["host"], event["port"]
                        self._nodes[name].listening.set()
                self.links[name] = event["links"]
                await process.wait()
            finally:
                await asyncio.shield(stop_process(process))
            # The server waits for relays only, and workers write their models after their relay has ended.
            for node in behind:
                await self._nodes[node].ended.wait()

        return take_part

    def _joining(self, relay: str) -> list[str]:
        """The workers that join at a relay, or at one behind it."""
        topology = self.topology
        return [w for w in topology.placement.workers if relay in (above for _, above in topology.path(w))]
