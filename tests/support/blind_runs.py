"""Runs whose server is blind, with a tap on each worker's connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest
from support.clusters import Cluster, stored_at
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings, run_options
from support.proxies import Proxy

from asyncdmtl.blinding.agreement import SecretProofs
from asyncdmtl.data.stored import Stored
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import Trained
from asyncdmtl.server.records import RunRecord
from asyncdmtl.worker.participation import Participation

SECRET = b"a secret that the server does not have"
PARTITIONS = make_partitions(6, "squared")
SETTINGS = make_settings(rounds=6, dtype="float64", coupling="mean")
OWN = stored_at(HOMOGENEOUS, PARTITIONS)

options = partial(run_options, settings=SETTINGS, blind=True)


class Tap(Proxy):
    """A proxy that keeps all bytes that a worker sends."""

    def __init__(self, server: tuple[str, int]) -> None:
        super().__init__(server)
        self.sent: list[bytes] = []
        self.up = self._keep

    def _keep(self, data: bytes) -> bytes:
        self.sent.append(data)
        return data


class BlindRun:
    """A cluster with a tap between each worker and the server."""

    def __init__(self, cluster: Cluster, secret: bytes | None, *, agree: bool = False) -> None:
        self.cluster, self.secret = cluster, secret
        # By the proofs, workers agree on a key; else it follows from the secret.
        self.agree = agree
        self.taps: dict[str, Tap] = {}
        self.workers: dict[str, asyncio.Task[TaskModels]] = {}
        self.stack = AsyncExitStack()

    async def join(self, name: str, partitions: Sequence[Stored], **changes: Any) -> asyncio.Task[TaskModels]:
        self.taps[name] = Tap(self.cluster.address)
        await self.stack.enter_async_context(self.taps[name].running())
        there, self.cluster.address = self.cluster.address, self.taps[name].address
        group: dict[str, Any] = {"group_secret": self.secret}
        if self.agree:
            group = {"group_proofs": SecretProofs(self.secret or b"")}
        task = self.cluster.join(name, partitions, **group, **changes)
        self.cluster.address = there
        self.workers[name] = task
        return task

    async def end(self) -> tuple[RunRecord, list[TaskModels]]:
        record = await self.cluster.server
        return record, list(await asyncio.gather(*self.workers.values()))


@asynccontextmanager
async def blind_run(
    secret: bytes | None = SECRET, *, agree: bool = False, **changes: Any
) -> AsyncIterator[BlindRun]:
    async with asyncio.timeout(60), Cluster(options(**changes)) as cluster:
        made = BlindRun(cluster, secret, agree=agree)
        async with made.stack:
            yield made


def check(record: RunRecord, models: Iterable[TaskModels], twin: Trained) -> None:
    for found in models:
        assert found.coef_.tobytes() == twin.models.coef_.tobytes()
        assert found.intercept_.tobytes() == twin.models.intercept_.tobytes()
    assert [entry.round for entry in record.rounds] == list(range(len(twin.objectives)))


def hold_rounds(monkeypatch: pytest.MonkeyPatch, run: BlindRun, name: str, round_: int) -> None:
    """Let no worker go on with this round before worker `name` is ready, however fast rounds are."""
    send, membership = Participation._send_round, run.cluster.instance._membership

    async def waiting(part: Participation) -> None:
        while part._state.round >= round_ and not (
            name in membership.members and membership.members[name].ready
        ):
            await membership.change(None)
        await send(part)

    monkeypatch.setattr(Participation, "_send_round", waiting)
