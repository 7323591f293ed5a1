"""States that rounds do not wait for: which is taken, who gets it, and when others are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.members import Script
from support.problems import make_partitions, make_settings

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.digests import Digest
from asyncdmtl.errors import IntegrityError, LinkError, RemoteProtocolError
from asyncdmtl.exchange.states import ExactStates
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.training import make_trainer
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import Downlink, Snapshot
from asyncdmtl.server.believed_states import BelievedStates
from asyncdmtl.server.checkpoint_store import CheckpointStore
from asyncdmtl.server.checkpointing import CheckpointWriter
from asyncdmtl.server.lateness import MOST_LAG, Lateness
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.peers import Peers, ReplanError
from asyncdmtl.server.state_requests import StateRequests
from asyncdmtl.server.training_progress import TrainingProgress

digest = Digest("run")

PARTITIONS = make_partitions(4, "squared")
SETTINGS = make_settings()
PROBLEM = Problem(SETTINGS, [part.info(SETTINGS) for part in PARTITIONS])
STATE = make_trainer(PROBLEM, {}).state()
CHECK = ExactStates(PROBLEM, digest).check(STATE)
ROUND = 5


class Run:
    """Givers a and b, and c, which has missed all rounds from round 3 on; the run is in round 5."""

    def __init__(self) -> None:
        self.progress = TrainingProgress("run", PROBLEM, "relay", lambda event: None, round=ROUND)
        self.membership = Membership()
        self.scripts = [Script(name, PARTITIONS) for name in "abc"]
        self.a, self.b, self.c = (script.member for script in self.scripts)
        for script in self.scripts:
            self.membership.add(script.member)
        self.states = BelievedStates(self.progress)
        self.lateness = Lateness()
        self.lateness._heard = dict.fromkeys((self.a, self.b, self.c), 0)
        self.lateness._unsent = {self.c: 3}
        peers = Peers(self.membership, self.progress, 0.05)
        self.requests = StateRequests(self.progress, peers, self.states, self.lateness)

    def sent_to_c(self) -> list[Any]:
        return [(message.kind, getattr(message, "round", None)) for message in self.scripts[2].sent]

    def writer(self, folder: Path) -> CheckpointWriter:
        declared = [part.declaration() for part in PARTITIONS]
        store = CheckpointStore(folder)
        return CheckpointWriter(store, self.progress, self.membership, Ledger(), Encoding.empty(), declared)


def snapshot(round_: int = ROUND, body: Any = STATE, told: bytes | None = None) -> Snapshot:
    return Snapshot(0, round_, digest(body) if told is None else told, body)


def rows(round_: int) -> Downlink:
    return Downlink(0, round_, "go on", bytes(16))


async def test_a_late_worker_has_the_first_state_that_comes_and_the_rows_since() -> None:
    run = Run()
    run.requests.ask([run.a, run.b], [run.c], None)
    assert run.requests.serves(run.c)
    for number in (ROUND, ROUND + 1):
        run.requests.hold(run.c, rows(number))
    run.progress.round = ROUND + 2
    run.requests.take(run.b, snapshot())
    assert run.sent_to_c() == [("restore", ROUND), ("downlink", ROUND), ("downlink", ROUND + 1)]
    assert run.lateness.is_sent(run.c)
    assert run.states.unconfirmed == {"c"}
    # The other one's state comes too late to be of use.
    assert not run.requests.is_open(ROUND + 2)
    run.requests.take(run.a, snapshot())
    assert len(run.sent_to_c()) == 3


async def test_others_are_asked_if_all_givers_are_lost_or_silent_for_many_rounds() -> None:
    run = Run()
    run.requests.ask([run.a], [run.c], None)
    assert run.requests.is_open(ROUND + MOST_LAG - 1)
    assert not run.requests.is_open(ROUND + MOST_LAG)
    assert not run.requests.serves(run.c)
    run.requests.ask([run.b], [run.c], None)
    run.b.connection.link_failed(LinkError("gone", peer="b"))
    assert not run.requests.serves(run.c)
    assert not run.requests.is_open(ROUND + 1)


async def test_a_state_that_was_not_asked_for_is_dropped() -> None:
    run = Run()
    run.requests.take(run.a, snapshot())
    run.requests.ask([run.a], [run.c], None)
    run.requests.take(run.b, snapshot())
    run.requests.forget()
    run.requests.take(run.a, snapshot())
    assert run.sent_to_c() == []


@pytest.mark.parametrize(
    ("given", "error", "complaint"),
    [
        (snapshot(round_=ROUND - 1), RemoteProtocolError, "of round 4"),
        (snapshot(told=bytes(16)), IntegrityError, "was corrupted on its way"),
    ],
    ids=["round", "digest"],
)
async def test_a_state_is_checked(given: Snapshot, error: type[Exception], complaint: str) -> None:
    run = Run()
    run.requests.ask([run.a], [run.c], None)
    with pytest.raises(error, match=complaint):
        run.requests.take(run.a, given)
    assert run.sent_to_c() == []


async def test_a_state_that_is_known_to_be_wrong_is_given_to_nobody() -> None:
    run = Run()
    run.requests.ask([run.a], [run.c], None)
    run.states._checks[ROUND] = bytes(len(CHECK))
    with pytest.raises(RemoteProtocolError, match="another state of the training than most workers hold"):
        run.requests.take(run.a, snapshot())
    assert run.sent_to_c() == []


async def test_a_checkpoint_is_of_the_round_for_which_it_was_asked(tmp_path: Path) -> None:
    run = Run()
    writer = run.writer(tmp_path)
    run.requests.ask([run.a], [], writer.prepare())
    run.progress.round = ROUND + 2
    await run.requests.save(writer)
    run.requests.take(run.a, snapshot())
    # No majority has told its check of that round.
    await run.requests.save(writer)
    assert CheckpointStore(tmp_path).files == []
    run.states._checks[ROUND] = CHECK
    await run.requests.save(writer)
    written = CheckpointStore(tmp_path).load()
    assert written is not None
    assert (written.round, written.state.tobytes()) == (ROUND, STATE.tobytes())
    assert run.progress.saved is not None
    assert run.progress.saved.round == ROUND
    assert not run.requests.is_open(ROUND + 2)


async def test_a_giver_of_a_wrong_state_for_a_checkpoint_is_lost(tmp_path: Path) -> None:
    run = Run()
    writer = run.writer(tmp_path)
    run.requests.ask([run.a], [], writer.prepare())
    run.requests.take(run.a, snapshot())
    run.states._checks[ROUND] = bytes(len(CHECK))
    with pytest.raises(ReplanError):
        await run.requests.save(writer)
    assert isinstance(run.a.lost, RemoteProtocolError)
    assert CheckpointStore(tmp_path).files == []
