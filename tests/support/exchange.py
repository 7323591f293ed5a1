"""Rounds of a run without a wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.blinding.sealed import opened_info, sealed_info
from asyncdmtl.digests import Digest
from asyncdmtl.exchange.sides import NOBODY, SideOptions, WorkerSide
from asyncdmtl.exchange.strategies import EXCHANGE_STRATEGIES, codable_units, strategy_of
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.serialization import AnyPlan, rebuild, recipe_and_digest

DIGEST = Digest("run")
"""The digests of all sides."""


class RoundExchange:
    """All sides of a run in one process, which pass each other their bytes by hand.

    With `group` the server is blind.
    """

    def __init__(
        self,
        placement: Placement,
        partitions: list[Partition],
        settings: Settings,
        strategy: Any,
        *,
        detailed: bool = True,
        group: GroupKey | None = None,
    ) -> None:
        infos = [part.info(settings) for part in partitions]
        if group is not None:
            infos = [opened_info(group, sealed_info(group, info)) for info in infos]
        self.problem = Problem(settings, infos)
        self.plan: AnyPlan = (
            EXCHANGE_STRATEGIES["linear"].make_plan(placement, self.problem)
            if strategy == "linear"
            else make_plan(
                placement,
                strategy,
                tasks=self.problem.task_of,
                units=codable_units(settings),
            )
        )
        recipe, plan_digest = recipe_and_digest(self.plan)
        made = strategy_of(self.plan)
        blind, self.round = group is not None, 0
        options = SideOptions(digest=DIGEST, detailed=detailed, blind=blind)
        self.server = made.server_side(self.plan, self.problem, options=options)
        digest = DIGEST if group is None else group.digest
        options = replace(options, digest=digest, group=group)
        self.workers: list[WorkerSide] = [
            made.worker_side(
                rebuild(recipe, plan_digest),
                k,
                Trainer(self.problem, {n: partitions[n] for n in stored}),
                options,
            )
            for k, stored in enumerate(placement.stored)
        ]

    def up(self) -> list[Upload]:
        """The uploads of all workers, checked by the server."""
        for worker in self.workers:
            worker.begin(0, self.round)
        self.round += 1
        sent = [worker.told(worker.compute()) for worker in self.workers]
        for k, part in enumerate(sent):
            self.server.check(k, part)
        return sent

    def combine(
        self, sent: list[Upload], last: bool, established: Mapping[str, int] = NOBODY
    ) -> list[list[Bytes]]:
        """The rows that each worker is sent, range by range."""
        server = self.server
        server.agree(server.completed(sent), established)
        replies: list[list[Bytes]] = [[] for _ in self.workers]
        for i in range(len(server.ranges)):
            server.put(i, [part.rows[i] for part in sent])
            if server.streams:
                self._reply(i, replies)
        if not server.streams:
            server.finish(last)
            for i in range(len(server.down_ranges)):
                self._reply(i, replies)
        return replies

    def _reply(self, i: int, replies: list[list[Bytes]]) -> None:
        for k, reply in enumerate(replies):
            reply.append(np.concatenate([np.empty(0, np.uint8), *self.server.rows(k, i)]))

    def down(self, replies: list[list[Bytes]]) -> None:
        """Let each worker decode and apply its rows."""
        for k, (worker, reply) in enumerate(zip(self.workers, replies, strict=True)):
            assert sum(map(len, reply)) == worker.received_bytes == self.server.downlink_bytes(k)
            for i, rows in enumerate(reply):
                worker.receive(i, rows)
            worker.take_told(self.server.told(k))
            worker.apply(self.server.digest(k))
