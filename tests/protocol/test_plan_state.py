from __future__ import annotations

import pytest
from support.messages import BODY, EXAMPLES

from asyncdmtl.protocol.messages.base import Message, Role
from asyncdmtl.protocol.messages.registry import (
    Assign,
    Done,
    Downlink,
    Fallback,
    Heartbeat,
    LossQuery,
    LossReport,
    MoreRows,
    Restore,
    RowsLacking,
    Snapshot,
    Uplink,
)
from asyncdmtl.protocol.plan_state import PlanState, RowStream
from asyncdmtl.protocol.state_table import RowState, State


def uplink(plan: int = 3, round_: int = 5, rest: int = 0) -> Uplink:
    return Uplink(plan, round_, b"", BODY, rest)


def downlink(then: str = "go on", plan: int = 3, round_: int = 5) -> Downlink:
    return Downlink(plan, round_, then, bytes(16), (BODY,))


def computing() -> PlanState:
    return PlanState(3, 5, State.COMPUTING)


class TestRowStream:
    def test_ranges_follow_the_first_until_all_are_sent(self) -> None:
        stream = RowStream()
        stream.advance(uplink(rest=10), 6)
        assert (stream.state, stream.round, stream.missing) == (RowState.PARTIAL, 5, 10)
        for size, missing in ((6, 4), (4, 0)):
            more = MoreRows(3, 5)
            assert stream.complaint(more, size) is None
            stream.advance(more, size)
            assert stream.missing == missing
        assert stream.state is RowState.COMPLETE

    def test_a_message_with_all_rows_leaves_nothing_to_come(self) -> None:
        stream = RowStream()
        stream.advance(downlink(), 6)
        assert (stream.state, stream.round, stream.missing) == (RowState.COMPLETE, 5, 0)

    @pytest.mark.parametrize(
        ("message", "size", "complaint"),
        [
            (MoreRows(3, 5), 11, "of 11 bytes of round 5 where 10 of round 5 are to come"),
            (MoreRows(3, 5), 0, "of 0 bytes of round 5 where 10 of round 5 are to come"),
            (MoreRows(3, 6), 10, "of 10 bytes of round 6 where 10 of round 5 are to come"),
            (uplink(round_=6), 6, "where 10 bytes of rows are to come"),
            (Done(3, bytes(16)), 0, "where 10 bytes of rows are to come"),
        ],
        ids=["too many", "none", "of another round", "uplink", "done"],
    )
    def test_other_rows_than_were_announced_are_refused(
        self, message: Message, size: int, complaint: str
    ) -> None:
        stream = RowStream(RowState.PARTIAL, 5, 10)
        assert stream.complaint(message, size) == complaint

    @pytest.mark.parametrize("kind", ["heartbeat", "failure", "assign", "loss-query", "fallback"])
    def test_rows_may_be_interrupted_by_messages_that_do_not_need_them(self, kind: str) -> None:
        stream = RowStream(RowState.PARTIAL, 5, 10)
        assert stream.complaint(EXAMPLES[kind], 0) is None
        stream.advance(EXAMPLES[kind], 0)
        assert (stream.state, stream.missing) == (RowState.PARTIAL, 10)

    def test_rows_that_were_not_announced_are_refused(self) -> None:
        complaint = RowStream().complaint(MoreRows(3, 0), 4)
        assert complaint == "of 4 bytes of round 0 where 0 of round 0 are to come"


class TestPlanState:
    def test_a_round_is_made_by_an_uplink_and_a_downlink(self) -> None:
        plan = computing()
        for sender, message, state in (
            ("worker", uplink(), State.UPLINK_SENT),
            ("server", downlink("give"), State.GIVING_STATE),
        ):
            assert plan.complaint(sender, message, 6) is None  # type: ignore[arg-type]
            assert plan.advance(sender, message, 6) is plan  # type: ignore[arg-type]
            assert plan.state is state
        assert plan.round == 6

    def test_a_new_plan_begins_anew(self) -> None:
        plan = computing()
        plan.advance("worker", uplink(rest=10), 6)
        assign = Assign(4, 7, False, "take", {}, bytes(16), ())
        assert plan.complaint("server", assign, 0) is None
        following = plan.advance("server", assign, 0)
        assert (following.plan, following.round, following.state) == (4, 7, State.TAKING_STATE)
        assert following.rows["worker"].missing == 0
        assert (plan.state, plan.rows["worker"].missing) == (State.UPLINK_SENT, 10)

    def test_rows_of_both_ends_may_be_on_their_way_at_once(self) -> None:
        plan = computing()
        plan.advance("worker", uplink(rest=4), 6)
        plan.advance("server", downlink(), 6)
        assert plan.complaint("worker", MoreRows(3, 5), 4) is None
        assert plan.complaint("worker", uplink(round_=6), 6) == "where 4 bytes of rows are to come"

    @pytest.mark.parametrize(
        ("sender", "message", "complaint"),
        [
            ("worker", uplink(round_=4), "of round 4 in round 5"),
            ("worker", uplink(plan=2), "of plan 2 under plan 3"),
            ("server", downlink(), "when computing"),
            ("server", EXAMPLES["restore"], "when computing"),
            ("server", LossQuery(3, 5, 0), "of round 5, of which no rows are on their way"),
            ("server", LossQuery(2, 4, 0), "of plan 2 under plan 3"),
            ("server", Fallback(3, 6, 0, (BODY,)), "of round 6, of which no rows are on their way"),
            ("worker", LossReport(3, 5, 0, b"", 0), "of round 5, of which no rows are on their way"),
        ],
        ids=lambda value: value.kind if isinstance(value, Message) else "",
    )
    def test_messages_of_another_place_are_refused(
        self, sender: Role, message: Message, complaint: str
    ) -> None:
        assert computing().complaint(sender, message, 6) == complaint

    def test_rows_are_lacking_once_under_a_plan(self) -> None:
        plan, lacking = computing(), RowsLacking(3, 4, "all are gone")
        assert plan.complaint("worker", lacking, 0) is None
        plan.advance("worker", lacking, 0)
        assert plan.complaint("worker", lacking, 0) == "a second time under one plan"
        following = plan.advance("server", Assign(4, 5, False, "keep", {}, bytes(16), ()), 0)
        assert following.complaint("worker", RowsLacking(4, 4, "all are gone"), 0) is None

    def test_states_are_named_in_words(self) -> None:
        assert PlanState(3, 5, State.UPLINK_SENT).complaint("worker", uplink(), 6) == "when uplink sent"
        assert PlanState().complaint("worker", Heartbeat(), 0) == "when opened"


class TestToleratedLateness:
    """The server goes on without a late worker."""

    def test_rounds_go_down_before_the_workers_rows_came_up(self) -> None:
        plan = PlanState(3, 5, State.COMPUTING, tolerant=True)
        for number in (5, 6):
            assert plan.complaint("server", downlink(round_=number), 6) is None
            plan.advance("server", downlink(round_=number), 6)
        assert (plan.round, plan.state) == (7, State.COMPUTING)
        # The worker's uplinks of these rounds come late, each once and in order.
        assert plan.complaint("worker", uplink(round_=5, rest=4), 6) is None
        plan.advance("worker", uplink(round_=5, rest=4), 6)
        assert plan.state is State.COMPUTING
        assert plan.complaint("worker", uplink(round_=5), 6) == "of round 5 in round 7"
        assert plan.complaint("worker", MoreRows(3, 5), 4) is None
        # It gives up what is left of them.
        assert plan.complaint("worker", uplink(round_=7), 6) is None
        plan.advance("worker", uplink(round_=7), 6)
        assert (plan.state, plan.rows["worker"].missing) == (State.UPLINK_SENT, 0)
        assert plan.complaint("worker", uplink(round_=8), 6) == "when uplink sent"

    def test_the_end_may_come_before_the_worker_is_there(self) -> None:
        plan = PlanState(3, 5, State.COMPUTING, tolerant=True)
        plan.advance("server", downlink("end"), 6)
        assert plan.state is State.ENDING
        assert plan.complaint("worker", uplink(), 6) is None
        plan.advance("worker", uplink(), 6)
        assert plan.complaint("worker", Done(3, bytes(16)), 0) is None

    def test_rounds_go_on_while_a_state_is_due(self) -> None:
        plan = PlanState(3, 5, State.UPLINK_SENT, tolerant=True)
        for number, then, state in (
            (5, "give", State.GIVING_STATE),
            (6, "go on", State.GIVING_STATE),
            (7, "end", State.GIVING_BEFORE_END),
        ):
            assert plan.complaint("server", downlink(then, round_=number), 6) is None
            plan.advance("server", downlink(then, round_=number), 6)
            assert plan.state is state
        assert plan.complaint("worker", uplink(round_=6), 6) == "when giving before end"
        given = Snapshot(3, 6, bytes(16), BODY)
        assert plan.complaint("worker", given, 6) is None
        plan.advance("worker", given, 6)
        assert plan.complaint("worker", uplink(round_=6), 6) is None

    def test_a_worker_that_waits_may_be_given_a_later_state(self) -> None:
        plan = PlanState(3, 5, State.COMPUTING, tolerant=True)
        assert plan.complaint("server", Restore(bytes(16), BODY, 9), 6) == "when computing"
        plan.advance("worker", uplink(), 6)
        assert plan.complaint("server", Restore(bytes(16), BODY, 4), 6) == "of round 4 in round 5"
        assert plan.complaint("server", Restore(bytes(16), BODY), 6) == "of round None in round 5"
        plan.advance("server", Restore(bytes(16), BODY, 9), 6)
        assert (plan.round, plan.state) == (9, State.COMPUTING)

    def test_a_plan_whose_recipe_says_so_tolerates_it(self) -> None:
        for silent, tolerant in ((1, True), (0, False), ("1", False), (True, False)):
            assign = Assign(4, 7, False, "keep", {"silent": silent}, bytes(16), ())
            assert computing().advance("server", assign, 0).tolerant is tolerant
