"""The attacks of `tools/attack.py`: each changes the worker of one process into a dishonest member.

They are carried out in the process of the attacker alone, by changes of the worker's own code; server and
other workers are as always.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import option_attacks
import upload_attacks
from planting import HONEST, put_in

from asyncdmtl.data import recipes
from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.exchange.linear import LinearWorkerSide
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.worker.own_partitions import OwnPartitions
from asyncdmtl.worker.participation import Participation
from asyncdmtl.worker.state import WorkerState

SIDES: tuple[Any, ...] = (CodedWorkerSide, LinearWorkerSide)


@dataclass(frozen=True)
class Attack:
    """An attack, and the run that it needs.

    Attributes
    ----------
    plant : callable
        Changes the worker of this process.
    scene : str
        "member": one of the workers attacks; "extra" or "extra late": one that joins beside them, at the
        start or during training; "late": an honest worker comes late; "restart": the server is killed and
        resumed.
    changes : callable of (strategy, copies)
        Whether the threat model says that the attack can change models.
    kind : str
        The kind of run that it needs, one of `KINDS`.
    """

    plant: Callable[[], None]
    scene: Literal["member", "extra", "extra late", "late", "restart"] = "member"
    changes: Callable[[str, int], bool] = lambda strategy, copies: False
    kind: str = "plain"


@dataclass(frozen=True)
class Kind:
    """A kind of runs.

    Attributes
    ----------
    words : tuple of str
        Options of the server.
    strategies : tuple of str
        The strategies that such runs can have; empty for all.
    least : int
        The fewest copies of each partition.
    workers : tuple of str
        Options of the workers.
    """

    words: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    least: int = 1
    workers: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    "plain": Kind(),
    "peers": Kind(("--downlink", "peers"), ("relay", "uncoded")),
    "silent": Kind(("--silent", "1"), ("relay", "central", "linear"), 2),
    "tolerant": Kind(("--update", "gradient", "--tolerance", "0.1")),
    "multicast": Kind(
        ("--downlink", "multicast", "--group", "239.192.77.78:20001", "--interface", "127.0.0.1"),
        ("relay", "central", "personal", "uncoded"),
        workers=("--interface", "127.0.0.1"),
    ),
    "blind": Kind(("--blind", "--loss", "squared", "--strength", "0.01"), ("relay", "uncoded")),
}


def _before_compute(act: Callable[[Any, int], None]) -> None:
    """Call `act` with the side and the number of the round before each round of updates."""
    rounds = itertools.count()
    for kind in SIDES:

        def compute(side: Any, compute: Any = kind.compute) -> Upload:
            act(side, next(rounds))
            made: Upload = compute(side)
            return made

        kind.compute = compute


def _after_compute(change: Callable[[Any, Upload], Upload]) -> None:
    """Change the uploads of all but the first rounds."""
    rounds = itertools.count()
    for kind in SIDES:

        def compute(side: Any, compute: Any = kind.compute) -> Upload:
            made: Upload = compute(side)
            return change(side, made) if next(rounds) >= HONEST else made

        kind.compute = compute


def _telling(**lies: Any) -> Callable[[], None]:
    """Tell other values; a function is called with the true one."""

    def change(_side: Any, made: Upload) -> Upload:
        told = {name: lie(getattr(made, name)) if callable(lie) else lie for name, lie in lies.items()}
        return replace(made, **told)

    return lambda: _after_compute(change)


def _odd_state(every: int) -> Callable[[], None]:
    def act(side: Any, number: int) -> None:
        if number >= HONEST and number % every == 0:
            side.trainer.W.flat[3] += 0.5

    return lambda: _before_compute(act)


def _forged_updates() -> None:
    def act(side: Any, number: int) -> None:
        if number != HONEST and (number < HONEST or "forging" in vars(side)):
            return
        side.forging = True
        name = "local_updates" if isinstance(side, LinearWorkerSide) else "packed_updates"
        honest = getattr(side.trainer, name)

        def forged(out: Any) -> Any:
            losses = honest(out)
            out.view(np.uint8)[..., 0] ^= 0x55
            out.view(np.uint8)[..., 6] ^= 0x15
            return losses

        setattr(side.trainer, name, forged)

    _before_compute(act)


def _bad_rows(every: int, *, zero: bool = False) -> Callable[[], None]:
    """Change one bit of the rows of every so many rounds, or all of them to 0."""
    rounds = itertools.count()

    def change(_side: Any, made: Upload) -> Upload:
        if next(rounds) % every or not made.size:
            return made
        rows = made.rows[0].copy()
        if zero:
            rows[:] = 0
        else:
            rows.reshape(-1)[5] ^= 1
        return replace(made, rows=(rows, *made.rows[1:]))

    return lambda: _after_compute(change)


def _replayed() -> None:
    """Send the rows, digests and losses of an earlier round."""
    made: list[Upload] = []

    def change(_side: Any, upload: Upload) -> Upload:
        made.append(replace(upload, rows=tuple(rows.copy() for rows in upload.rows)))
        old = made.pop(0) if len(made) > HONEST else upload
        if old.size != upload.size or len(old.digests) != len(upload.digests):
            return upload
        return replace(upload, rows=old.rows, digests=old.digests, losses=old.losses)

    _after_compute(change)


def _false_confirmation() -> None:
    for kind in SIDES:

        def told(side: Any, upload: Upload, told: Any = kind.told) -> Upload:
            made: Upload = told(side, upload)
            return replace(made, confirmation=os.urandom(16)) if made.confirmation else made

        kind.told = told


def _forged_state() -> None:
    give = Participation._give

    async def forge(part: Participation) -> None:
        trainer: Any = part._state.side.trainer
        honest = trainer.state
        state = honest()
        state[3] ^= 1
        trainer.state = lambda: state
        try:
            await give(part)
        finally:
            trainer.state = honest

    put_in(Participation, "_give", forge)


def _ahead() -> None:
    """Claim, at the second connection, that training is over, with other models."""
    check, enter, joined = WorkerState.check, WorkerState.enter, itertools.count()
    now = False

    def entered(state: WorkerState, run: str) -> None:
        nonlocal now
        enter(state, run)
        now = next(joined) > 0

    def claimed(state: WorkerState) -> bytes:
        nonlocal now
        if now and state.round:
            now = False
            state.round, state.over = ROUNDS, True
            state.side.trainer.W[:] = 7.0
        return check(state)

    put_in(WorkerState, "enter", entered)
    put_in(WorkerState, "check", claimed)


def _ahead_after_a_cut() -> None:
    """Cut the connection once, and claim the same at the next one."""
    upload_attacks.cut_once()
    _ahead()


def _false_end() -> None:
    """Tell another outcome and another final state."""
    for kind in SIDES:
        kind.final_check = lambda side: os.urandom(16)
    put_in(WorkerState, "outcome", lambda state: {"objective": 0.0})


def _encoding() -> None:
    encode = OwnPartitions.encode

    def lie(own: OwnPartitions, *given: Any) -> Any:
        return tuple(replace(info, smoothness=1e9) for info in encode(own, *given))

    put_in(OwnPartitions, "encode", lie)


def _false_answers(first: int) -> Callable[[], None]:
    """Give false answers to challenges: all, or only those with which later workers are compared."""

    def plant() -> None:
        answers = OwnPartitions.answers

        def lie(own: OwnPartitions, challenges: Any) -> tuple[bytes, ...]:
            return tuple(
                told[: 16 * first] + os.urandom(len(told) - 16 * first) for told in answers(own, challenges)
            )

        put_in(OwnPartitions, "answers", lie)

    return plant


class _Copied(Partition):
    """Other rows under the declarations of a holder."""

    of: Partition

    def declaration(self) -> Any:
        return self.of.declaration()

    def info(self, settings: Any) -> Any:
        return self.of.info(settings)


def _other_rows(*, copied: bool) -> Callable[[], None]:
    def plant() -> None:
        load = recipes.load

        def other(*given: Any, **named: Any) -> recipes.Dataset:
            found = load(*given, **named)
            made = []
            for part in found.partitions:
                kind = _Copied if copied else Partition
                row = kind(part.id, part.task, part.X + 1.0, part.y)
                if isinstance(row, _Copied):
                    object.__setattr__(row, "of", part)
                made.append(row)
            return replace(found, partitions=tuple(made))

        put_in(recipes, "load", other)

    return plant


def _flapping() -> None:
    send = Participation._send_round

    async def leave(part: Participation) -> Any:
        if part._state.round >= HONEST:
            part._connection.abort()
        return await send(part)

    put_in(Participation, "_send_round", leave)


def _silent() -> None:
    send = Participation._send_round

    async def wait(part: Participation) -> Any:
        if part._state.round >= HONEST:
            await asyncio.sleep(1e6)
        return await send(part)

    put_in(Participation, "_send_round", wait)


def _undigested(strategy: str, copies: int) -> bool:
    """Whether forged updates can change models: by sole holders, and under `linear`."""
    return strategy == "linear" or copies == 1


# Rounds of the runs.
ROUNDS = 24

ATTACKS: Mapping[str, Attack] = {
    "state": Attack(_odd_state(1)),
    "state-third": Attack(_odd_state(4)),
    "state-check": Attack(_telling(state=lambda told: os.urandom(len(told)))),
    "ahead": Attack(_ahead, "restart"),
    "ahead-after-cut": Attack(_ahead_after_a_cut),
    "forged-state": Attack(_forged_state, "late"),
    "short-state": Attack(upload_attacks.gives_state(upload_attacks.short_state), "late"),
    "old-state": Attack(upload_attacks.gives_state(upload_attacks.old_state), "late"),
    "no-state": Attack(upload_attacks.gives_state(upload_attacks.no_state), "late"),
    "state-digest": Attack(upload_attacks.gives_state(upload_attacks.bad_digest), "late"),
    "update": Attack(_forged_updates, changes=_undigested),
    "digests": Attack(_telling(digests=lambda told: tuple(os.urandom(16) for _ in told))),
    "rows": Attack(_bad_rows(1)),
    "rows-third": Attack(_bad_rows(4)),
    "rows-zero": Attack(_bad_rows(1, zero=True)),
    "confirmation": Attack(_false_confirmation),
    "loss-zero": Attack(_telling(losses=lambda told: tuple(0.0 for _ in told))),
    "loss-huge": Attack(_telling(losses=lambda told: tuple(1e300 for _ in told))),
    "loss-nan": Attack(_telling(losses=lambda told: tuple(math.nan for _ in told))),
    "loss-near": Attack(_telling(losses=lambda told: tuple(each * (1 - 1e-4) for each in told))),
    "loss-tolerant": Attack(
        _telling(losses=lambda told: tuple(0.0 for _ in told)),
        changes=lambda strategy, copies: copies == 1,
        kind="tolerant",
    ),
    "residual-tolerant": Attack(_telling(residual=0.0), kind="tolerant"),
    "residual-huge": Attack(_telling(residual=1e300), kind="tolerant"),
    "penalty-near": Attack(_telling(penalty=lambda told: told * (1 - 1e-4))),
    "residual-zero": Attack(_telling(residual=0.0)),
    "residual-nan": Attack(_telling(residual=math.nan)),
    "penalty-huge": Attack(_telling(penalty=1e300)),
    "penalty-negative": Attack(_telling(penalty=-1.0)),
    "end": Attack(_false_end),
    "encoding": Attack(_encoding, changes=lambda strategy, copies: copies == 1),
    "answers": Attack(_false_answers(0)),
    "later-answers": Attack(_false_answers(1), "late"),
    "takeover": Attack(_other_rows(copied=False), "extra"),
    "takeover-late": Attack(_other_rows(copied=False), "extra late"),
    "copied": Attack(_other_rows(copied=True), "extra"),
    "copied-late": Attack(_other_rows(copied=True), "extra late"),
    "flapping": Attack(_flapping),
    "leaves-after": Attack(upload_attacks.leaves(after=True)),
    "leaves-at-end": Attack(upload_attacks.leaves(after=False)),
    "misled": Attack(upload_attacks.misled(1)),
    "misled-third": Attack(upload_attacks.misled(4)),
    **{name: Attack(upload_attacks.messages(change)) for name, change in upload_attacks.MESSAGES.items()},
    "silent": Attack(_silent),
    "replayed": Attack(_replayed),
    "heartbeats": Attack(option_attacks.heartbeats),
    "bent-heads": Attack(option_attacks.bent_heads),
    "busy": Attack(option_attacks.busy, kind="silent"),
    "late": Attack(option_attacks.late, kind="silent"),
    "over": Attack(option_attacks.over, kind="blind"),
    "behind": Attack(option_attacks.behind(("x1", "x2", "x3"))),
    "behind-names": Attack(option_attacks.behind(("w0", "w2"))),
    "lacking": Attack(option_attacks.lacking(1), kind="peers"),
    "lacking-flood": Attack(option_attacks.lacking(option_attacks.FLOOD), kind="peers"),
    "reports": Attack(option_attacks.reports, kind="peers"),
    "gives-nothing": Attack(option_attacks.gives("nothing"), kind="peers"),
    "gives-empty": Attack(option_attacks.gives("empty"), kind="peers"),
    "gives-slowly": Attack(option_attacks.gives("slowly"), kind="peers"),
    "connections": Attack(option_attacks.connections, kind="peers"),
    "asks": Attack(option_attacks.asks, kind="peers"),
    "early-asks": Attack(option_attacks.early_asks, kind="peers"),
}
