"""Rounds of a run with real plans, worker sides and models, and lists in place of sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support.clusters import stored_at
from support.members import Script
from support.messages import retold
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.digests import Digest
from asyncdmtl.errors import LinkError
from asyncdmtl.exchange.sides import SideOptions
from asyncdmtl.exchange.strategies import strategy_of
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.learning.training import train
from asyncdmtl.plan.serialization import rebuild
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import (
    AfterRound,
    Assign,
    AwaitRestore,
    Done,
    Downlink,
    Finish,
    Restore,
    Snapshot,
    StateTransfer,
    Uplink,
)
from asyncdmtl.server.assignment import Assignment
from asyncdmtl.server.checkpoint_store import CheckpointStore
from asyncdmtl.server.checkpointing import CheckpointWriter
from asyncdmtl.server.events import Planned, ServerEvent
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.peers import Peers
from asyncdmtl.server.rounds import Rounds
from asyncdmtl.server.training_progress import TrainingProgress

digest = Digest("run")

PARTITIONS = make_partitions(6, "squared")
SETTINGS = make_settings(dtype="float64", rounds=4)
OWN = stored_at(HOMOGENEOUS, PARTITIONS)


class Hand(Script):
    """A worker that answers each message at once, as a real one does; tests may change its messages.

    Attributes
    ----------
    uplink, done : callable
        Functions that change its messages.
    before : callable
        Called with the number of a round before its uplink is sent.
    """

    def __init__(self, name: str, own: Sequence[Partition], problem: Problem) -> None:
        super().__init__(name, own)
        self.uplink: Callable[[Uplink], Uplink] = lambda message: message
        self.done: Callable[[Done], Done] = lambda message: message
        self.before: Callable[[int], None] = lambda number: None
        self.trainer = Trainer(problem, {})
        self._problem = problem
        self._own = {part.id: part for part in own}
        self._plan = self._round = 0
        self._over = False
        self._side: Any = None
        connection: Any = self.member.connection
        connection.write = self._take

    def retold(self, uplink: Uplink, **changes: Any) -> Uplink:
        """An uplink of this worker with some of the values changed that it tells."""
        return retold(self._side.layout, uplink, **changes)

    def vanish(self) -> None:
        """End the connection."""
        connection = self.member.connection
        connection.failure = LinkError(f"worker {self.member.name!r} was lost", peer=self.member.name)
        connection.inbox.wake()

    def _take(self, message: Any) -> None:
        self.sent.append(message)
        if isinstance(message, Assign):
            self._follow(message)
        elif isinstance(message, Restore):
            self.trainer.restore(message.body)
            self._go_on()
        elif isinstance(message, Downlink):
            self._side.receive(0, np.concatenate([np.empty(0, np.uint8), *message.parts]))
            self._side.apply(message.digest)
            self._round += 1
            if message.then == AfterRound.END:
                self._end()
                return
            if message.then == AfterRound.GIVE:
                self._give()
            self._compute()

    def _follow(self, assign: Assign) -> None:
        plan = rebuild(assign.recipe, assign.digest)
        k = plan.placement.workers.index(self.member.name)
        state = self.trainer.state()
        parts = {n: self._own[plan.placement.partitions[n]] for n in plan.placement.stored[k]}
        self.trainer = Trainer(self._problem, parts)
        self.trainer.restore(state)
        options = SideOptions(digest=digest, detailed=assign.detailed, keys={k: assign.key})
        self._side = strategy_of(plan).worker_side(plan, k, self.trainer, options)
        self._plan, self._round, self._over = assign.plan, assign.round, assign.over
        if assign.first == StateTransfer.TAKE:
            self.says(AwaitRestore(self._plan))
            return
        if assign.first == StateTransfer.GIVE:
            self._give()
        self._go_on()

    def _go_on(self) -> None:
        if self._over:
            self._end()
        else:
            self._compute()

    def _give(self) -> None:
        state = self.trainer.state()
        self.says(Snapshot(self._plan, self._round, digest(state), state))

    def _compute(self) -> None:
        self.before(self._round)
        if self.member.connection.lost:
            return
        sent = self._side.told(self._side.compute())
        rows = sent.rows[0].reshape(-1).copy()
        told = Uplink(self._plan, self._round, self._side.layout.pack(sent), rows)
        self.says(self.uplink(told))

    def _end(self) -> None:
        told = self.done(Done(self._plan, self._side.final_check()))
        if not self.member.connection.lost:
            self.says(told)


class Run:
    """Six workers, and the rounds that they make."""

    def __init__(
        self,
        strategy: str = "relay",
        settings: Settings = SETTINGS,
        folder: Path | None = None,
        every: int = 1,
        *,
        detailed: bool = False,
    ) -> None:
        problem = Problem(settings, [part.info(settings) for part in PARTITIONS])
        self.events: list[ServerEvent] = []
        self.membership = Membership()
        self.progress = TrainingProgress("run", problem, strategy, self.events.append, detailed=detailed)
        options = run_options(
            settings=settings,
            strategy=strategy,
            checkpoint_every=every,
            rejoin_timeout=0.0,
            round_timeout=5.0,
        )
        self.hands = {name: Hand(name, own, problem) for name, own in OWN.items()}
        for hand in self.hands.values():
            self.membership.add(hand.member)
        self.store = None if folder is None else CheckpointStore(folder)
        ledger = Ledger()
        declared = [part.declaration() for part in PARTITIONS]
        writer = (
            None
            if self.store is None
            else CheckpointWriter(
                self.store, self.progress, self.membership, ledger, Encoding.empty(), declared
            )
        )
        peers = Peers(self.membership, self.progress, 5.0)
        self.rounds = Rounds(options, self.progress, peers, ledger, writer)

    async def make(self) -> Assignment:
        return await self.rounds.make(0.0)

    def plans(self) -> list[Planned]:
        return [event for event in self.events if isinstance(event, Planned)]

    def check(self, *without: str) -> None:
        """Check that the run gave the models of the one-process twin, and that all workers were told."""
        twin = train(PARTITIONS, self.progress.problem.settings)
        assert [record.objective for record in self.progress.records] == list(twin.objectives)
        assert [record.round for record in self.progress.records] == list(range(len(twin.objectives)))
        assert self.progress.over
        for name, hand in self.hands.items():
            if name not in without:
                assert isinstance(hand.sent[-1], Finish)
                if self.progress.strategy != "personal":
                    assert hand.trainer.models().coef_.tobytes() == twin.models.coef_.tobytes()
