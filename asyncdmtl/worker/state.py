"""The state of a worker in a run, which outlasts its connections."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from asyncdmtl.arrays import Bytes
from asyncdmtl.blinding.group_key import SECRET_BYTES, GroupKey
from asyncdmtl.blinding.sealed import opened_state, sealed_state
from asyncdmtl.digests import UNKEYED, Digest
from asyncdmtl.errors import IntegrityError, RemoteProtocolError, UsageError
from asyncdmtl.exchange.sides import WorkerSide
from asyncdmtl.learning.outcome import settled
from asyncdmtl.learning.settings import Settings
from asyncdmtl.protocol.messages.registry import AfterRound, Assign, Downlink, Restore


class WorkerState:
    """The state of a worker in a run.

    A round is applied and counted as a whole, or not at all.

    Parameters
    ----------
    name : str
        The worker's name.
    group_secret : bytes, optional
        The secret that the workers of a blind run share.
    agrees : bool, optional
        Whether they agree on a key instead, of which each draws one that may become that of all.

    Attributes
    ----------
    name : str
    run : str or None
        The run's name, once it is known.
    digest : Digest
        The digests of the run; in a blind run, MACs of contents.
    group : GroupKey or None
        The key of the workers of a blind run, once the run is known.
    agreed : bool
        Whether `group` is the key of all.
    round : int
        The next round; the models are those at its beginning.
    over : bool
        Whether the training ended before this round.
    """

    def __init__(self, name: str, group_secret: bytes | None = None, *, agrees: bool = False) -> None:
        self.run: str | None = None
        self.digest = UNKEYED
        self.group: GroupKey | None = None
        self._secret = group_secret
        self._agrees = agrees
        self.agreed = False
        # The digests by which bytes are compared that are on their way.
        self._on_the_way = UNKEYED
        self.round = 0
        self.over = False
        self.name = name
        # The λ from which on all coefficients are 0, where they are and this is known.
        self.critical_strength: float | None = None
        self._side: WorkerSide | None = None

    def enter(self, run: str) -> None:
        """Take part in this run; if it is another run than before, start from its beginning."""
        if run != self.run:
            self.run, self.round, self.over, self._side = run, 0, False, None
            self.digest = self._on_the_way = Digest(run)
            self.agreed = False
            secret = secrets.token_bytes(SECRET_BYTES) if self._agrees else self._secret
            if secret is not None:
                self.group = GroupKey(secret, run)
                self.digest = self.group.digest

    def adopt(self, group: GroupKey) -> None:
        """Use a key on which all workers have agreed."""
        self.group, self.digest, self.agreed = group, group.digest, True

    def log_fields(self) -> dict[str, object]:
        """The fields of a log line about this worker."""
        run = {} if self.run is None else {"run": self.run, "round": self.round}
        return {**run, "worker": self.name}

    @property
    def side(self) -> WorkerSide:
        """The worker's side of the rounds under the current plan."""
        assert self._side is not None
        return self._side

    def check(self) -> bytes:
        """The check of the state of the training; empty before the first plan (see `WorkerSide`)."""
        if self._side is None:
            return b""
        return self._side.final_check() if self.over else self._side.state_check()

    def keep(self, side: WorkerSide, assign: Assign) -> None:
        """Follow a plan from here on, with the models that this worker has.

        Raises
        ------
        RemoteProtocolError
            The plan is for another round.
        """
        # A blind server learns that training is over from the workers.
        over = self.over if self.group is not None and not assign.over else assign.over
        if (assign.round, over) != (self.round, self.over):
            raise RemoteProtocolError(f"the plan is for round {assign.round}, this worker is in {self.round}")
        if self._side is not None:
            side.trainer.restore(self._side.trainer.state())
        self._side = side

    def take(self, side: WorkerSide, assign: Assign, restore: Restore) -> None:
        """Follow a plan from here on, with the models that the server sent.

        Raises
        ------
        IntegrityError
            The state was corrupted on the way.
        RemoteProtocolError
            The state does not belong to this training.
        """
        self.over = self._restore(side, restore, assign.round, over=assign.over)
        self._side, self.round = side, assign.round

    def catch_up(self, restore: Restore) -> None:
        """Go on from the models of a later round, which the server sent. Raises as `take`."""
        assert restore.round is not None
        self.over = self._restore(self.side, restore, restore.round, over=self.over)
        self.round = restore.round

    def _restore(self, side: WorkerSide, restore: Restore, round_: int, *, over: bool) -> bool:
        """Give a side the state that the server sent; whether the training is over."""
        if self._on_the_way(restore.body) != restore.digest:
            reason = "the state of the training was corrupted on its way"
            raise IntegrityError(reason, partitions=[], workers=[self.name])
        state, check = restore.body, b""
        if self.group is not None and len(state):
            state, over, check = opened_state(self.group, round_, state)
        # An empty state stands for the initial one, which the worker has.
        if len(state) or self.group is None:
            try:
                side.trainer.restore(state)
            except UsageError as error:
                raise RemoteProtocolError(f"what came is no state of this training: {error}") from error
        if check and check != (side.final_check() if over else side.state_check()):
            reason = "the state of the training is not the one that most workers hold"
            raise IntegrityError(reason, partitions=[], workers=[self.name])
        return over

    def snapshot(self) -> tuple[bytes, Bytes]:
        """The digest and the bytes of the state for other workers, which are sealed in a blind run."""
        state = self.side.trainer.state()
        if self.group is not None:
            state = sealed_state(self.group, self.round, self.check(), state, over=self.over)
        return self._on_the_way(state), state

    def outcome(self) -> Mapping[str, Any]:
        """The outcome of the training in plain types, if it ended with a solution; else empty."""
        outcome = self.side.trainer.outcome
        return {} if outcome is None else outcome.as_dict()

    @property
    def settings(self) -> Settings:
        """The settings of the run, with the coupling and the λ that were chosen in it."""
        trainer = self.side.trainer
        return settled(trainer.problem.settings, trainer.outcome)

    def apply(self, downlink: Downlink) -> None:
        """Apply the round whose rows were received, and count it.

        Raises
        ------
        IntegrityError
            The rows were corrupted on the way. No model has changed.
        DataError
            The models outgrow the dtype. No model has changed.
        """
        self.side.take_told(downlink.told)
        self.side.apply(downlink.digest)
        over = downlink.then == AfterRound.END or self.side.reached
        self.round, self.over = self.round + 1, over
