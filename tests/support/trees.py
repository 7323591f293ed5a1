"""Relays between the workers and the server of a cluster, in one process over real TCP on the loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from support.clusters import Cluster, stored_at
from support.problems import make_partitions

from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.plan.placement import Placement
from asyncdmtl.relay.options import RelayOptions
from asyncdmtl.relay.relay import Relay
from asyncdmtl.server.events import Listening, ServerEvent
from asyncdmtl.server.records import MulticastOptions, RunOptions
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker

# Seconds after which a test of a tree counts as hanging, and that its nodes wait for each other. The longest
# test takes 3 s on a machine that has nothing else to do, and has taken 100 s beside much other work.
PATIENCE = 600.0

# Five workers: two at each of two sites, and one that is connected to the server.
PLACEMENT = Placement(
    {"a": ["p0", "p1"], "b": ["p1", "p2"], "c": ["p2", "p3"], "d": ["p3", "p4"], "e": ["p4", "p5", "p0"]}
)
PARTITION_TASKS = {part.id: part.task for part in make_partitions(6, "squared")}
SITES: Mapping[str, str] = {"a": "north", "b": "north", "c": "south", "d": "south", "e": ""}


class Tree:
    """Relays and workers below a cluster's server, as tasks by name; `group` has the workers' own options."""

    def __init__(self, cluster: Cluster, stored: Mapping[str, Sequence[Any]], **group: Any) -> None:
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        self.relays: dict[str, Relay] = {}
        self.stack = contextlib.AsyncExitStack()
        self._addresses = {"": cluster.address}
        self._stored, self._group = stored, group

    def address(self, parent: str) -> tuple[str, int]:
        """The address of the server (""), of a relay, or of another way."""
        return self._addresses[parent]

    def add_address(self, parent: str, address: tuple[str, int]) -> None:
        """Name another way to the server, such as a proxy, which relays and workers may have as parent."""
        self._addresses[parent] = address

    async def relay(
        self, name: str, workers: int, parent: str = "", multicast: MulticastOptions | None = None
    ) -> None:
        """Start a relay, at the same address again if it was started before."""
        listening = asyncio.get_running_loop().create_future()

        def emit(event: ServerEvent) -> None:
            if isinstance(event, Listening) and not listening.done():
                listening.set_result((event.host, event.port))

        self.relays[name] = relay = Relay(
            RelayOptions(WorkerOptions(name), workers, PATIENCE, 1.0, multicast), emit
        )
        address = self._addresses.get(name, ("127.0.0.1", 0))
        self.tasks[name] = task = asyncio.create_task(relay.run([self._addresses[parent]], address))
        await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        self._addresses[name] = listening.result()

    def worker(
        self,
        name: str,
        parent: str | None = None,
        stored: Sequence[Any] | None = None,
        *,
        alone: bool = False,
        **options: Any,
    ) -> None:
        """Start a worker at its site, or below another parent. Unless `alone`, it knows the server, too."""
        own = self._stored[name] if stored is None else stored
        parent = SITES[name] if parent is None else parent
        others = [self._addresses[""]] if parent and not alone else []
        running = Worker(WorkerOptions(name, **self._group | options), own).run(
            *self._addresses[parent], *others
        )
        self.tasks[name] = asyncio.create_task(running)

    async def stop(self, name: str) -> None:
        """Stop a relay or worker at once."""
        self.tasks[name].cancel()
        await asyncio.wait([self.tasks[name]])


@contextlib.asynccontextmanager
async def trees(
    options: RunOptions, features: int = 9, partitions: Sequence[Any] | None = None, **group: Any
) -> AsyncIterator[tuple[Cluster, Tree]]:
    """A server, and a tree below it that is still empty."""
    stored = stored_at(PLACEMENT, partitions or make_partitions(6, "squared", features=features))
    async with asyncio.timeout(PATIENCE), Cluster(options) as cluster:
        tree = Tree(cluster, stored, **group)
        try:
            async with tree.stack:
                yield cluster, tree
        finally:
            for task in tree.tasks.values():
                task.cancel()
            await asyncio.gather(*tree.tasks.values(), return_exceptions=True)


def parts_of(whole: TaskModels, models: Sequence[TaskModels], *, own: bool = False) -> bool:
    """Whether all workers, in the order of `SITES`, have these models: of all tasks, or of their `own`."""
    for name, each in zip(SITES, models, strict=True):
        wanted = {PARTITION_TASKS[p] for p in PLACEMENT.as_dict()[name]} if own else set(whole.tasks)
        same = whole.of([whole.tasks.index(task) for task in each.tasks])
        pairs = (same.coef_, each.coef_), (same.intercept_, each.intercept_)
        if set(each.tasks) != wanted or any(one.tobytes() != other.tobytes() for one, other in pairs):
            return False
    return True


async def grow(tree: Tree) -> None:
    """Start both relays and all workers."""
    for name in ("north", "south"):
        await tree.relay(name, 2)
    for name in SITES:
        tree.worker(name)


async def restart(tree: Tree, names: Sequence[str]) -> None:
    """Stop these workers and relays of two workers, and start them again."""
    for name in names:
        await tree.stop(name)
    for name in names:
        if name in SITES:
            tree.worker(name)
        else:
            await tree.relay(name, 2)
