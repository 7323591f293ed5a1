"""The server sends plans and the state of the training to its members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from support.members import Script
from support.problems import make_partitions, make_settings

from asyncdmtl.digests import Digest
from asyncdmtl.errors import IntegrityError, LinkError, RemoteProtocolError, WaitError
from asyncdmtl.exchange.states import ExactStates
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.training import make_trainer
from asyncdmtl.plan.serialization import recipe_and_digest
from asyncdmtl.protocol.messages.registry import AwaitRestore, Snapshot
from asyncdmtl.protocol.state_table import State
from asyncdmtl.server import state_handover
from asyncdmtl.server.assignment import Assignment, make_assignment
from asyncdmtl.server.believed_states import BelievedStates
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.peers import Peers, ReplanError
from asyncdmtl.server.state_handover import StateHandover
from asyncdmtl.server.training_progress import TrainingProgress
from asyncdmtl.server.training_state import TrainingState

digest = Digest("run")

PARTITIONS = make_partitions(4, "squared")
SETTINGS = make_settings()
PROBLEM = Problem(SETTINGS, [part.info(SETTINGS) for part in PARTITIONS])
STATE = make_trainer(PROBLEM, {}).state()
# The check of that state, which is not the digest of its bytes.
CHECK = ExactStates(PROBLEM, digest).check(STATE)
ROUND = 2


class Run:
    """Three workers of a run at round 2, which all hold all partitions."""

    def __init__(self, strategy: str = "relay") -> None:
        self.progress = TrainingProgress("run", PROBLEM, strategy, lambda event: None, round=ROUND)
        self.membership = Membership()
        self.scripts = [Script(f"w{k}", PARTITIONS) for k in range(3)]
        self.members = [script.member for script in self.scripts]
        for member in self.members:
            self.membership.add(member)
        self.believed = BelievedStates(self.progress)
        self.states = StateHandover(Peers(self.membership, self.progress, 0.05), self.progress, self.believed)

    def assign(self) -> Assignment:
        """A plan for all members, as the server makes it before it sends it."""
        made = make_assignment(self.progress.plans, self.members, self.progress)
        self.progress.plans += 1
        return made

    def origin(self, *keepers: int, **facts: Any) -> TrainingState:
        """The state of this round, held by the members at these positions."""
        return TrainingState(ROUND, False, tuple(self.members[k] for k in keepers), **facts)

    def sent(self) -> list[list[str]]:
        """What each member was sent, in words."""
        return [[message.event for message in script.sent] for script in self.scripts]


def snapshot(plan: int = 0, round_: int = ROUND, body: Any = STATE, told: bytes | None = None) -> Snapshot:
    return Snapshot(plan, round_, digest(body) if told is None else told, body)


async def test_where_the_server_trains_it_has_the_state_itself() -> None:
    run = Run("personal")
    run.progress.trainer = make_trainer(PROBLEM, {})
    run.members[0].current = True
    state = run.believed.latest(run.members)
    assert state.state is not None
    assert state.state.tobytes() == STATE.tobytes()
    assert (state.check, state.keepers) == (CHECK, (run.members[0],))


async def test_a_worker_that_wants_no_models_is_not_given_those_of_a_training_that_is_over() -> None:
    run = Run()
    run.members[0].wants, run.members[0].current = "none", True
    assignment = run.assign()
    run.progress.over = True
    origin = TrainingState(ROUND, True, tuple(run.members[1:]))
    await run.states.hand_out(assignment, origin)
    assert run.sent() == [["assign, keep"]] * 3
    assert run.progress.electorate == ("w1", "w2")


async def test_all_that_keep_the_state_are_sent_the_plan_alone() -> None:
    run = Run()
    assignment = run.assign()
    await run.states.hand_out(assignment, run.origin(0, 1, 2))
    assert run.sent() == [["assign, keep"]] * 3
    assert all(member.current for member in run.members)
    (assign,) = run.scripts[0].sent
    recipe, plan_digest = recipe_and_digest(assignment.plan)
    assert (assign.plan, assign.round, assign.over, assign.grouped) == (0, ROUND, False, False)
    assert (assign.recipe, assign.digest, assign.partitions) == (recipe, plan_digest, PROBLEM.infos)
    # The limit is the longer of the two messages that may come next: rows of the round, or the state.
    expected = [max(assignment.side.uplink_bytes(k), PROBLEM.state_bytes) for k in range(3)]
    assert [member.connection.session.body_limit for member in run.members] == expected


async def test_digests_of_contents_go_to_holders_only() -> None:
    run = Run()
    member = run.members[1]
    member.declared = member.declared[:1]
    await run.states.hand_out(run.assign(), run.origin(0, 1, 2))
    (told,), (others,) = run.scripts[1].sent, run.scripts[0].sent
    assert [info.digest == bytes(16) for info in told.partitions] == [False, True, True, True]
    assert others.partitions == PROBLEM.infos
    assert [replace(info, digest=b"") for info in told.partitions] == [
        replace(info, digest=b"") for info in PROBLEM.infos
    ]


async def test_the_limit_of_messages_never_shrinks() -> None:
    run = Run()
    run.members[0].connection.session.body_limit = 1 << 20
    await run.states.hand_out(run.assign(), run.origin(0, 1, 2))
    assert run.members[0].connection.session.body_limit == 1 << 20


async def test_a_keeper_gives_the_state_to_those_that_lack_it() -> None:
    run = Run()
    script = run.scripts[1]
    # Messages for the old plan are dropped with the new plan, so that answers must come after it.
    answer_to_assign(script, {"assign, give": [snapshot()]})
    for k in (0, 2):
        answer_to_assign(run.scripts[k], {"assign, take": [AwaitRestore(0)]})
    await run.states.hand_out(run.assign(), run.origin(1))
    assert run.sent() == [["assign, take", "restore"], ["assign, give"], ["assign, take", "restore"]]
    restore = run.scripts[0].sent[1]
    assert restore.body.tobytes() == STATE.tobytes()
    assert restore.digest == digest(STATE)
    assert all(member.current for member in run.members)


async def test_a_state_that_the_server_has_is_asked_of_nobody() -> None:
    run = Run()
    answer_to_assign(run.scripts[2], {"assign, take": [AwaitRestore(0)]})
    await run.states.hand_out(run.assign(), run.origin(0, 1, state=STATE, check=CHECK))
    assert run.sent() == [["assign, keep"], ["assign, keep"], ["assign, take", "restore"]]


async def test_under_a_plan_that_tolerates_a_silent_worker_the_first_of_two_states_is_taken() -> None:
    run = Run()
    run.progress.silent = 1
    answer_to_assign(run.scripts[1], {"assign, give": [snapshot()]})
    answer_to_assign(run.scripts[2], {"assign, take": [AwaitRestore(0)]})
    await run.states.hand_out(run.assign(), run.origin(0, 1))
    assert run.sent() == [["assign, give"], ["assign, give"], ["assign, take", "restore"]]
    assert all(member.lost is None for member in run.members)


async def test_a_state_other_than_the_one_that_was_announced_costs_the_giver_its_place() -> None:
    run = Run()
    answer_to_assign(run.scripts[0], {"assign, give": [snapshot()]})
    with pytest.raises(ReplanError):
        await run.states.hand_out(run.assign(), run.origin(0, check=bytes(len(CHECK))))
    assert "gave another state than it said it has" in str(run.members[0].lost)
    assert run.sent()[1:] == [["assign, take"]] * 2
    assert not any(member.current for member in run.members)


async def test_a_taker_that_says_nothing_is_lost() -> None:
    run = Run()
    answer_to_assign(run.scripts[2], {"assign, take": [AwaitRestore(0)]})
    with pytest.raises(ReplanError):
        await run.states.hand_out(run.assign(), run.origin(0, state=STATE))
    assert isinstance(run.members[1].lost, WaitError)
    assert [incident.worker for incident in run.progress.incidents] == ["w1"]
    assert run.members[2].lost is None


@pytest.mark.parametrize(
    ("given", "error", "complaint"),
    [
        (snapshot(round_=ROUND - 1), RemoteProtocolError, rf"gave a state of {len(STATE)} bytes of round 1"),
        (snapshot(body=STATE[:-1]), RemoteProtocolError, rf"of {len(STATE) - 1} bytes of round {ROUND}"),
        (snapshot(told=bytes(16)), IntegrityError, r"the state that worker 'w0' at \? gave was corrupted"),
    ],
    ids=["round", "size", "digest"],
)
async def test_a_state_is_checked(given: Snapshot, error: type[Exception], complaint: str) -> None:
    run = Run()
    run.scripts[0].says(given)
    with pytest.raises(error, match=complaint) as caught:
        await run.states.snapshot(run.members[0])
    if isinstance(caught.value, IntegrityError):
        assert caught.value.workers == ("w0",)


async def test_a_state_as_it_was_announced_is_taken() -> None:
    run = Run()
    run.scripts[0].says(snapshot())
    assert await run.states.snapshot(run.members[0]) is STATE


def computing(run: Run, *members: int) -> None:
    """Let some members be in the middle of a round."""
    for k in members:
        session: Any = run.members[k].connection.session
        session._current = SimpleNamespace(state=State.COMPUTING)
        run.members[k].current = True


async def test_the_last_state_is_that_of_the_first_member_that_gives_it() -> None:
    run = Run()
    assignment = run.assign()
    computing(run, 1, 2)
    run.believed.confirm({"w0": CHECK}, None)
    run.members[1].lost = LinkError("reset", peer="w1")
    answer_to_assign(run.scripts[2], {"assign, give": [snapshot(1)]})
    assert await run.states.last_state(assignment) is STATE
    assert run.sent() == [[], [], ["assign, give"]]
    assert run.scripts[2].sent[0].plan == 1  # a new number: what comes for the round in progress is old
    assert run.progress.plans == 2


async def test_a_last_state_that_nobody_has_compared_is_asked_of_most_members() -> None:
    run = Run()
    assignment = run.assign()
    computing(run, 0, 1, 2)
    forged = STATE.copy()
    forged[3] ^= 1
    answer_to_assign(run.scripts[0], {"assign, give": [snapshot(1, body=forged)]})
    answer_to_assign(run.scripts[1], {"assign, give": [snapshot(2)]})
    answer_to_assign(run.scripts[2], {"assign, give": [snapshot(3, body=STATE.copy())]})
    found = await run.states.last_state(assignment)
    assert found is not None
    assert found.tobytes() == STATE.tobytes()
    assert run.sent() == [["assign, give"]] * 3


async def test_a_member_that_gives_a_wrong_state_at_the_end_is_passed_over() -> None:
    run = Run()
    assignment = run.assign()
    computing(run, 0, 1)
    run.believed.confirm({"w0": CHECK}, None)
    answer_to_assign(run.scripts[0], {"assign, give": [snapshot(1, told=bytes(16))]})
    answer_to_assign(run.scripts[1], {"assign, give": [snapshot(2)]})
    assert await run.states.last_state(assignment) is STATE
    assert run.sent() == [["assign, give"], ["assign, give"], []]


async def test_the_last_state_is_not_waited_for_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_handover, "LAST_STATE_SECONDS", 0.01)
    run = Run()
    run.states = StateHandover(Peers(run.membership, run.progress, 60.0), run.progress, run.believed)
    computing(run, 0)
    assert await run.states.last_state(run.assign()) is None


async def test_members_between_rounds_are_asked_for_nothing() -> None:
    run = Run()
    run.members[0].current = True
    assert await run.states.last_state(run.assign()) is None
    assert run.sent() == [[], [], []]


def answer_to_assign(script: Script, answers: Mapping[str, list[Any]]) -> None:
    """Let a worker answer a message of a kind as soon as it is sent."""
    connection: Any = script.member.connection

    def write(message: Any) -> None:
        script.sent.append(message)
        script.says(*answers.get(message.event, ()))

    connection.write = write
