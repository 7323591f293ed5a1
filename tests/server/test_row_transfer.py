"""The rows of one round through the server: real plans and worker sides, with lists in place of sockets."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from support.clusters import stored_at
from support.members import Script
from support.messages import retold
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import DisagreementError, LinkError, RemoteProtocolError, StateError
from asyncdmtl.exchange.sides import SideOptions, UnconfirmedError
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.plan.codes import codec
from asyncdmtl.plan.placement import Placement
from asyncdmtl.protocol.messages.registry import AfterRound, Downlink, Message, MoreRows, Uplink
from asyncdmtl.server.assignment import make_assignment
from asyncdmtl.server.believed_states import BelievedStates
from asyncdmtl.server.events import MeasuredSpeed
from asyncdmtl.server.lateness import Lateness, LateUpload
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.peers import Peers, ReplanError
from asyncdmtl.server.row_transfer import RoundTransfer, RowTransfer
from asyncdmtl.server.state_requests import StateRequests
from asyncdmtl.server.training_progress import TrainingProgress

PARTITIONS = make_partitions(6, "squared", features=60)
SETTINGS = make_settings(dtype="float64")
OWN = stored_at(HOMOGENEOUS, PARTITIONS)


class Group:
    """Records the calls of the multicast server."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def begin(self, number: int, round_: int, side: Any, listeners: Any) -> None:
        self.calls.append(("begin", number, round_, {member.name: k for member, k in listeners.items()}))

    def ready(self, count: int) -> None:
        self.calls.append(("ready", count))

    async def settle(self, seconds: float) -> None:
        self.calls.append(("settle", seconds))

    async def stop(self) -> None:
        self.calls.append(("stop",))


class Run:
    """Six workers under one plan, and their sides."""

    def __init__(
        self,
        strategy: str = "relay",
        group: Group | None = None,
        hearing: Sequence[str] = (),
        *,
        detailed: bool = False,
        copies: int = 3,
        silent: int = 0,
    ) -> None:
        stored = stored_at(Placement.cyclic(6, 6, copies), PARTITIONS)
        problem = Problem(SETTINGS, [part.info(SETTINGS) for part in PARTITIONS])
        progress = TrainingProgress(
            "run", problem, strategy, lambda event: None, detailed=detailed, silent=silent
        )
        membership = Membership()
        self.scripts = [Script(name, own, hears=name in hearing) for name, own in stored.items()]
        for script in self.scripts:
            membership.add(script.member)
        self.assignment = made = make_assignment(0, [script.member for script in self.scripts], progress)
        multicast: Any = group
        peers, states = Peers(membership, progress, 5.0), BelievedStates(progress)
        requests = StateRequests(progress, peers, states, Lateness())
        self.transfer = RowTransfer(peers, states, requests, multicast)
        indices = {part.id: n for n, part in enumerate(PARTITIONS)}
        self.sides = [
            made.strategy.worker_side(
                made.plan,
                k,
                Trainer(problem, {indices[part.id]: part for part in own}),
                SideOptions(bool(group), progress.digest, made.detailed, keys={k: made.keys.get(k, b"")}),
            )
            for k, own in enumerate(stored.values())
        ]
        self.then = {script.member: AfterRound.GO_ON for script in self.scripts}

    def messages(self, k: int, round_: int = 0) -> list[Any]:
        """The messages of worker `k` in a round."""
        upload = self.sides[k].told(self.sides[k].compute())
        first, *others = (rows.reshape(-1) for rows in upload.rows)
        uplink = Uplink(0, round_, self.sides[k].layout.pack(upload), first, upload.size - first.nbytes)
        return [uplink, *(MoreRows(0, round_, (rows,), rows) for rows in others if rows.nbytes)]

    def say(self, but: int | None = None, instead: Sequence[Message] = ()) -> None:
        """Let all workers send their rows, except that one may send other messages."""
        for k, script in enumerate(self.scripts):
            script.says(*(instead if k == but else self.messages(k)))

    async def make(self, last: bool = False, number: int = 0) -> list[int]:
        """A whole round; the ranges in the order in which they went down."""
        order = []
        async with self.transfer.round(self.assignment, number) as round_:
            async for i in round_.ranges(last):
                round_.send(i, self.then)
                order.append(i)
        return order

    def apply(self, k: int) -> None:
        """Let worker `k` decode what it was sent, and check it by the digest."""
        side, sent = self.sides[k], self.scripts[k].sent
        rows = np.concatenate([np.empty(0, np.uint8), *(part for m in sent for part in m.parts)])
        start = 0
        for i in range(len(side.ranges)):
            side.receive(i, rows[start : start + side.received_range(i)])
            start += side.received_range(i)
        assert start == len(rows) == side.received_bytes
        side.apply(sent[0].digest)


@pytest.fixture
def many_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even the short rows of these tests into ranges."""
    monkeypatch.setattr(codec, "LEAST_RANGE", 64)
    monkeypatch.setattr(codec, "LEAST_SQUARE", 1)


@pytest.mark.parametrize("strategy", ["relay", "central", "personal", "uncoded"])
@pytest.mark.usefixtures("many_ranges")
async def test_all_workers_decode_the_rows_of_a_round(strategy: str) -> None:
    run = Run(strategy)
    side = run.assignment.side
    run.say()
    assert await run.make() == list(range(len(side.ranges)))
    for k, script in enumerate(run.scripts):
        first, *more = script.sent
        assert isinstance(first, Downlink)
        assert (first.plan, first.round, first.then, first.grouped) == (0, 0, AfterRound.GO_ON, False)
        assert first.rest == sum(part.nbytes for message in more for part in message.parts)
        assert all(isinstance(message, MoreRows) for message in more)
        run.apply(k)
    if strategy != "personal":  # there, each worker has the models of its own tasks only
        assert len({worker.final_check() for worker in run.sides}) == 1
    assert run.transfer.established == dict.fromkeys(OWN, 0)


@pytest.mark.usefixtures("many_ranges")
async def test_rows_of_a_range_go_down_before_the_next_ones_came_up() -> None:
    run = Run("relay")
    assert run.assignment.side.streams
    up = [run.messages(k) for k in range(6)]
    assert max(map(len, up)) > 2
    for script, messages in zip(run.scripts, up, strict=True):
        script.says(messages[0])
    async with run.transfer.round(run.assignment, 0) as round_:
        ranges = round_.ranges(last=False)
        assert await anext(ranges) == 0
        round_.send(0, run.then)
        assert all(len(script.sent) == 1 for script in run.scripts)
        waiting = asyncio.ensure_future(anext(ranges))
        for script, messages in zip(run.scripts, up, strict=True):
            script.says(*messages[1:])
        assert await waiting == 1


async def make_with_late_upload(copies: int, *, forged: bool = False, **changes: Any) -> Run:
    """Make a round without worker w2, whose upload comes in the next round, which needs its rows.

    Its first digest may be forged, and other values changed.
    """
    run = Run(copies=copies, silent=1)
    late, *_ = run.messages(2)
    run.say(2)
    await run.make()
    if forged:
        late = replace(late, told=bytes([late.told[0] ^ 1]) + late.told[1:])
    run.scripts[2].says(retold(run.sides[2].layout, late, **changes))
    for k, script in enumerate(run.scripts[:5]):
        script.says(*run.messages(k, 1))
    await run.make(number=1)
    return run


async def test_a_late_upload_that_agrees_with_those_that_were_used_is_no_fault() -> None:
    run = await make_with_late_upload(2)
    assert run.transfer.lateness.uploads == []
    assert run.transfer.lateness.late_rounds == {"w2": 1, "w5": 1}
    assert run.transfer.lateness.ignored_bytes["w2"] > 0


async def test_a_late_upload_that_two_other_holders_outvote_names_its_worker() -> None:
    with pytest.raises(DisagreementError) as caught:
        await make_with_late_upload(3, forged=True)
    assert set(caught.value.odd) == {"w2"}
    assert not caught.value.undecided


async def test_a_late_upload_against_the_only_one_that_was_used_ends_the_run() -> None:
    with pytest.raises(DisagreementError, match="round 0 went on before the upload of worker 'w2'") as caught:
        await make_with_late_upload(2, forged=True)
    assert caught.value.undecided


async def test_a_late_upload_with_another_state_names_its_worker() -> None:
    with pytest.raises(StateError) as caught:
        await make_with_late_upload(2, state=bytes(16))
    assert caught.value.workers == ("w2",)


@pytest.mark.usefixtures("many_ranges")
async def test_late_uploads_of_a_plan_before_are_not_compared_where_no_late_workers_are_tolerated() -> None:
    run = Run("relay")
    run.say()
    # The plan before had more workers.
    run.transfer.lateness.uploads.append(
        LateUpload(len(run.scripts), 0, Upload((), 0, (), (), 0.0, 0.0, b""))
    )
    assert await run.make() == list(range(len(run.assignment.side.ranges)))


@pytest.mark.parametrize("last", [False, True])
async def test_where_the_server_trains_nothing_goes_down_before_the_end(last: bool) -> None:
    run = Run("personal")
    run.then = dict.fromkeys(run.then, AfterRound.END if last else AfterRound.GIVE)
    side, trainer = run.assignment.side, run.assignment.side.trainer
    assert trainer is not None
    before = trainer.state().tobytes()
    run.say()
    await run.make(last)
    assert not side.streams
    assert trainer.state().tobytes() != before
    assert {script.sent[0].then for script in run.scripts} == set(run.then.values())


@pytest.mark.parametrize(("plan", "round_"), [(1, 0), (0, 3)])
async def test_an_upload_for_another_round_costs_the_worker_its_place(plan: int, round_: int) -> None:
    run = Run()
    (uplink,) = run.messages(2)
    run.say(2, [replace(uplink, plan=plan, round=round_)])
    with pytest.raises(ReplanError):
        await run.make()
    lost = run.scripts[2].member.lost
    assert isinstance(lost, RemoteProtocolError)
    assert f"worker 'w2' at ? sent round {round_} of plan {plan} in round 0 of plan 0" in str(lost)
    assert [script.member.lost for script in run.scripts if script.member.name != "w2"] == [None] * 5
    assert run.transfer.established == {}


async def test_an_upload_of_another_size_costs_the_worker_its_place() -> None:
    run = Run()
    (uplink,) = run.messages(0)
    run.say(0, [replace(uplink, body=uplink.body[:-1])])
    with pytest.raises(ReplanError):
        await run.make()
    size = uplink.body.nbytes
    assert size > 0
    assert f"sent {size - 1} bytes of rows in a range, the plan says {size}" in str(
        run.scripts[0].member.lost
    )


async def test_the_announced_rest_is_compared_with_the_plan() -> None:
    run = Run()
    (uplink,) = run.messages(2)
    run.say(2, [replace(uplink, rest=9)])
    with pytest.raises(ReplanError):
        await run.make()
    assert isinstance(run.scripts[2].member.lost, RemoteProtocolError)
    size = uplink.body.nbytes
    assert f"worker 'w2' sent {size + 9} bytes of rows, the plan says {size}" in str(
        run.scripts[2].member.lost
    )


@pytest.mark.usefixtures("many_ranges")
async def test_further_ranges_are_checked_as_well() -> None:
    run = Run()
    uplink, more, *others = run.messages(0)
    run.say(0, [uplink, replace(more, round=7), *others])
    with pytest.raises(ReplanError):
        await run.make()
    assert "sent round 7 of plan 0 in round 0 of plan 0" in str(run.scripts[0].member.lost)


async def test_a_worker_that_is_gone_ends_the_round() -> None:
    run = Run()
    run.say(3)
    run.scripts[3].member.connection.failure = LinkError("reset", peer="w3")
    with pytest.raises(ReplanError):
        await run.make()
    assert all(not script.sent for script in run.scripts)


async def test_values_that_are_not_confirmed_are_noticed_before_anything_goes_down() -> None:
    run = Run()
    (uplink,) = run.messages(2)
    run.say(2, [replace(uplink, told=bytes(16) + uplink.told[16:])])
    with pytest.raises(UnconfirmedError, match="did not compute the same values"):
        await run.make()
    assert all(not script.sent for script in run.scripts)


async def test_holders_that_differ_are_named_before_anything_goes_down() -> None:
    run = Run(detailed=True)
    (uplink,) = run.messages(2)
    digest = bytes(16)
    run.say(2, [replace(uplink, told=digest + uplink.told[16:])])
    with pytest.raises(DisagreementError) as caught:
        await run.make()
    assert set(caught.value.odd) == {"w2"}
    assert all(not script.sent for script in run.scripts)


async def test_the_first_round_of_each_worker_is_remembered_for_ties() -> None:
    run = Run()
    seen: list[dict[str, int]] = []
    side: Any = run.assignment.side
    side.agree = lambda uploads, established: seen.append(dict(established))
    run.transfer.established["w1"] = -3
    run.say()
    async with run.transfer.round(run.assignment, 0):
        pass
    assert seen == [{"w1": -3}]
    assert run.transfer.established == dict.fromkeys(OWN, 0) | {"w1": -3}


async def test_the_delay_of_each_uplink_is_averaged() -> None:
    run = Run()
    run.say()
    async with run.transfer.round(run.assignment, 0):
        pass
    assert set(run.transfer.uplink_seconds) == set(OWN)
    assert all(0.0 <= seconds < 60.0 for seconds in run.transfer.uplink_seconds.values())
    new, uplink = Script("new").member, Uplink(0, 0, b"", timing=(0.5, 8e6))
    run.transfer.note_uplink(new, uplink, 2.0)
    run.transfer.note_uplink(new, uplink, 1.0)
    assert run.transfer.uplink_seconds["new"] == pytest.approx(1.8)
    assert run.transfer.speeds.measured() == {"new": MeasuredSpeed(0.5, 0.0, 8.0)}


@pytest.mark.usefixtures("many_ranges")
async def test_listeners_are_sent_no_rows_over_their_connections() -> None:
    group = Group()
    run = Run("relay", group, hearing=tuple(OWN)[:5])
    assert run.assignment.listeners == tuple(OWN)[:5]
    run.scripts[4].member.hears = False  # served over TCP since the plan was made
    run.say()
    order = await run.make()
    listening = {name: k for k, name in enumerate(OWN) if k < 4}
    assert group.calls == [("begin", 0, 0, listening), *(("ready", i + 1) for i in order)]
    for script in run.scripts[:4]:
        (downlink,) = script.sent
        assert (downlink.grouped, downlink.parts, downlink.rest) == (True, (), 0)
    for k in (4, 5):
        assert not run.scripts[k].sent[0].grouped
        run.apply(k)


async def test_the_group_is_settled_and_stopped() -> None:
    group = Group()
    transfer = Run(group=group).transfer
    await transfer.settle(3.0)
    await transfer.stop_multicast()
    assert group.calls == [("settle", 3.0), ("stop",)]
    alone = Run().transfer
    await alone.settle(3.0)
    await alone.stop_multicast()


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"losses": (math.nan, 1.0, 1.0)}, "told a loss of nan"),
        ({"losses": (-1.0, 1.0, 1.0)}, "told a loss of -1.0"),
        ({"penalty": math.inf}, "told a penalty of inf"),
        ({"residual": -0.5}, "told a residual of -0.5"),
        ({"residual": math.nan}, "told a residual of nan"),
    ],
)
async def test_a_worker_that_tells_what_cannot_be_is_excluded(wrong: dict[str, Any], complaint: str) -> None:
    run = Run(detailed=True)
    uplink, *more = run.messages(1)
    run.say(but=1, instead=[retold(run.sides[1].layout, uplink, **wrong), *more])
    with pytest.raises(ReplanError):
        await run.make()
    assert complaint in str(run.scripts[1].member.lost)
    assert run.scripts[1].member.name in run.transfer.peers.membership.excluded
    assert all(script.member.lost is None for k, script in enumerate(run.scripts) if k != 1)


class Found:
    """The uploads of a blind run, of which some workers have none, since training is over for them."""

    done = True

    def __init__(self, ended: Sequence[int]) -> None:
        self.ended = ended

    async def uploads(self) -> Sequence[Any]:
        return [None if k in self.ended else object() for k in range(6)]


@pytest.mark.parametrize(
    ("ended", "odd", "complaint"),
    [
        ([1], [1], "said that training was over"),
        ([0, 2, 3, 4, 5], [1], "went on when training was over"),
        ([0, 1, 2], [], ""),
        (range(6), [], ""),
    ],
)
async def test_most_members_of_a_blind_run_say_whether_training_is_over(
    ended: Sequence[int], odd: Sequence[int], complaint: str
) -> None:
    run, collection = Run(), cast(Any, Found(ended))
    round_ = RoundTransfer(run.transfer, run.assignment, 0, collection)
    if odd:
        with pytest.raises(ReplanError):
            await round_.begin()
    elif len(ended) < 6:
        with pytest.raises(StateError, match="training was over at w0, w1, w2, and went on at w3, w4, w5"):
            await round_.begin()
    else:
        await round_.begin()
    assert round_.over is (len(ended) == 6)
    excluded = run.transfer.peers.membership.excluded
    assert [script.member.name for k, script in enumerate(run.scripts) if k in odd] == list(excluded)
    assert all(complaint in reason for reason in excluded.values())
