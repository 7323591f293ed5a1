from __future__ import annotations

import numpy as np
import pytest
from support.messages import EXAMPLES, joined, wire_bytes

from asyncdmtl.errors import LocalProtocolError, RemoteProtocolError
from asyncdmtl.learning.tasks import Declaration
from asyncdmtl.protocol import framing
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.joining import SUBMITS
from asyncdmtl.protocol.messages.registry import (
    VERSION,
    Assign,
    AwaitRestore,
    Challenge,
    Declare,
    Done,
    Downlink,
    Failure,
    Fallback,
    Finish,
    Heartbeat,
    Hello,
    JobCall,
    JobEnded,
    JoinedGroup,
    JoinGroup,
    Listen,
    Listens,
    LossQuery,
    LossReport,
    Message,
    MoreRows,
    Prepare,
    Proof,
    Ready,
    Restore,
    Snapshot,
    Standby,
    StreamEnd,
    Submit,
    Uplink,
    Welcome,
    unpack,
)
from asyncdmtl.protocol.messages.streams import Then
from asyncdmtl.protocol.session import GREETING_HEAD_LIMIT, Session
from asyncdmtl.protocol.state_table import TOLERANT_TRANSITIONS, TRANSITIONS, State

ROWS = np.arange(100, dtype=np.uint8)


class Pair:
    """A worker's and a server's session, joined by hand."""

    def __init__(self, step: int = 1 << 20) -> None:
        self.ledgers = {"worker": Ledger(), "server": Ledger()}
        self.worker = Session("worker", self.ledgers["worker"], "w0")
        self.server = Session("server", self.ledgers["server"])
        self.worker.body_limit = self.server.body_limit = 1000
        self.step = step
        self.bytes = {"worker": 0, "server": 0}

    def pass_on(self, message: Message) -> list[Message]:
        ends = (self.worker, self.server)
        sender, receiver = ends if message.sender == "worker" else ends[::-1]
        data = joined(sender.send(message))
        self.bytes[sender.role] += len(data)
        return [
            got for i in range(0, len(data), self.step) for got in receiver.receive(data[i : i + self.step])
        ]


def whole_run(rounds: int = 2) -> list[Message]:
    exchange: list[Message] = []
    for r in range(rounds):
        then = "end" if r + 1 == rounds else "give"
        exchange.append(Uplink(0, r, bytes(16), ROWS))
        exchange.append(Downlink(0, r, then, bytes(16), (ROWS[:50], ROWS[:30])))
        exchange += [Snapshot(0, r, bytes(16), ROWS)] if then == "give" else []
    return [
        Hello(VERSION, "w0"),
        Challenge("run", bytes(32)),
        Proof(bytes(32), bytes(32)),
        Welcome("run", {}, proof=bytes(32)),
        Declare(()),
        Prepare({}),
        Ready(()),
        Listen(bytes(32)),
        Listens("127.0.0.1", 7702),
        JoinGroup("239.1.2.3", 7701, bytes(32), bytes(16), 1444),
        JoinedGroup(),
        Assign(0, 0, False, "take", {}, bytes(16), ()),
        AwaitRestore(0),
        Restore(bytes(16), ROWS),
        *exchange,
        Done(0, bytes(16)),
        Finish(),
    ]


@pytest.mark.parametrize("step", [1, 5, 1 << 20])
def test_a_whole_run_and_every_byte_of_it(step: int) -> None:
    pair = Pair(step)
    for message in whole_run():
        (received,) = pair.pass_on(message)
        assert received.kind == message.kind
    assert pair.worker.state is pair.server.state is State.FINISHED
    assert pair.server.worker == "w0"
    both = [list(ledger.entries()) for ledger in pair.ledgers.values()]
    assert both[0] == both[1]
    for direction, role in (("up", "worker"), ("down", "server")):
        payload, frames = pair.ledgers[role].total(lambda entry, d=direction: entry.direction == d)  # type: ignore[misc]
        assert payload + frames == pair.bytes[role]
        assert payload == (2 * 100 + 100 if role == "worker" else 100 + 2 * 80)
    assert pair.ledgers["server"].round_bytes(1, "up") == sum(
        entry.wire for entry in both[0] if entry.round == 1 and entry.direction == "up"
    )


def whole_stream() -> list[Message]:
    return [Hello(VERSION, "w0"), Standby("run"), JobCall("run", "job"), StreamEnd()]


def submission() -> list[Message]:
    own = [Submit('{"name": "a"}', Then.MORE), JobEnded("a"), Submit("", Then.END), StreamEnd()]
    return [Hello(VERSION, "w0", run=SUBMITS), Standby("run", submits=True), *own]


def asking_for_a_key() -> list[Message]:
    return [*whole_run()[:4], EXAMPLES["key-request"], *whole_run()[4:]]


def ending_while_a_state_is_due() -> list[Message]:
    """The server goes on without a worker that it asked for its state, up to the last round."""
    before = whole_run()[:14]
    before[11] = Assign(0, 0, False, "take", {"silent": 1}, bytes(16), ())
    late = [Downlink(0, r, then, bytes(16), (ROWS[:50],)) for r, then in enumerate(("give", "end"))]
    return [*before, Uplink(0, 0, bytes(16), ROWS), *late, Snapshot(0, 1, bytes(16), ROWS)]


def advanced_to(state: State) -> Pair:
    pair = Pair()
    others = {
        State.STANDING_BY: whole_stream,
        State.SUBMITTING: submission,
        State.ASKING_KEY: asking_for_a_key,
        State.GIVING_BEFORE_END: ending_while_a_state_is_due,
    }
    for message in others.get(state, whole_run)():
        if pair.server.state is state:
            break
        pair.pass_on(message)
    assert pair.server.state is state
    return pair


@pytest.mark.parametrize(
    "state", [s for s in State if s not in (State.FAILED, State.CLOSED)], ids=lambda state: state.name
)
def test_a_message_out_of_order_is_an_error_of_its_sender(state: State) -> None:
    table = {**TRANSITIONS, **(TOLERANT_TRANSITIONS if state is State.GIVING_BEFORE_END else {})}
    allowed = {kind.split(",")[0] for before, kind in table if before is state}
    for message in (*whole_run(), *whole_stream()):
        if message.kind in allowed:
            continue
        pair = advanced_to(state)
        sender, receiver = (
            (pair.worker, pair.server) if message.sender == "worker" else (pair.server, pair.worker)
        )
        with pytest.raises(
            LocalProtocolError,
            match=rf"may not send {message.kind} when {state.name.lower().replace('_', ' ')}",
        ):
            sender.send(message)
        forged = wire_bytes(message)
        with pytest.raises(RemoteProtocolError):
            receiver.receive(forged)
        assert receiver.state is State.FAILED


def test_neither_end_may_send_the_messages_of_the_other() -> None:
    pair = Pair()
    with pytest.raises(LocalProtocolError, match="a server does not send hello"):
        pair.server.send(Hello(VERSION, "w0"))
    forged = wire_bytes(Welcome("run", {}))
    with pytest.raises(RemoteProtocolError, match="a worker does not send welcome"):
        pair.server.receive(forged)


def test_heartbeats_come_between_any_two_messages_and_change_nothing() -> None:
    pair = Pair()
    for message in whole_run():
        pair.pass_on(message)
        if pair.worker.heartbeats_due:
            state = pair.worker.state
            (beat,) = pair.server.receive(joined(pair.worker.send(Heartbeat())))
            assert isinstance(beat, Heartbeat)
            assert pair.worker.state is pair.server.state is state


def test_an_uplink_for_an_old_plan_is_counted_and_dropped() -> None:
    pair = advanced_to(State.COMPUTING)
    crossing = joined(pair.worker.send(Uplink(0, 0, b"", ROWS)))
    for message in pair.worker.receive(
        joined(pair.server.send(Assign(1, 0, False, "keep", {}, bytes(16), ())))
    ):
        assert isinstance(message, Assign)
    assert pair.server.receive(crossing) == []
    (current,) = pair.server.receive(joined(pair.worker.send(Uplink(1, 0, b"", ROWS))))
    assert isinstance(current, Uplink)
    assert pair.ledgers["server"].total(lambda entry: entry.kind == "uplink")[0] == 200


@pytest.mark.parametrize(
    ("first", "answer"),
    [("take", AwaitRestore(0)), ("give", Snapshot(0, 0, bytes(16), ROWS))],
    ids=["take", "give"],
)
def test_a_worker_s_state_for_an_old_plan_is_dropped_when_a_new_plan_crosses_it(
    first: str, answer: Message
) -> None:
    pair = advanced_to(State.READY)
    pair.pass_on(Assign(0, 0, False, first, {}, bytes(16), ()))
    crossing = joined(pair.worker.send(answer))
    pair.worker.receive(joined(pair.server.send(Assign(1, 0, False, "take", {}, bytes(16), ()))))
    assert pair.server.receive(crossing) == []
    (current,) = pair.server.receive(joined(pair.worker.send(AwaitRestore(1))))
    assert isinstance(current, AwaitRestore)
    assert pair.server.state is pair.worker.state is State.AWAITING_STATE


def test_received_bytes_may_be_written_into_a_buffer() -> None:
    pair = Pair()
    data = joined(pair.worker.send(Hello(VERSION, "w0")))
    assert pair.server.idle
    pair.server.get_buffer()[: len(data)] = data
    (hello,) = pair.server.buffer_updated(len(data))
    assert isinstance(hello, Hello)
    assert pair.server.progress == 1
    assert (pair.server.plan, pair.server.round) == (-1, 0)


def test_bodies_are_limited() -> None:
    pair = advanced_to(State.COMPUTING)
    assert pair.server.body_limit == 1000
    pair.server.body_limit = 99
    with pytest.raises(RemoteProtocolError, match="body of 100 bytes, permitted are at most 99"):
        pair.pass_on(Uplink(0, 0, b"", ROWS))


def test_a_stranger_cannot_make_the_server_take_much_memory() -> None:
    pair = Pair()
    with pytest.raises(RemoteProtocolError, match=f"to {GREETING_HEAD_LIMIT}$"):
        pair.server.receive(framing.pack_prefix(GREETING_HEAD_LIMIT + 1, 0))
    assert pair.server.state is State.FAILED


def test_a_failed_session_says_why_once_and_no_more() -> None:
    pair = advanced_to(State.DECLARED)
    with pytest.raises(RemoteProtocolError):
        pair.server.receive(framing.pack_prefix(0, 0))
    assert pair.server.failure_due
    (failure,) = pair.worker.receive(joined(pair.server.send(Failure(1, "nonsense"))))
    assert isinstance(failure, Failure)
    assert failure.reason == "nonsense"
    for session in (pair.server, pair.worker):
        assert not session.failure_due
        with pytest.raises(LocalProtocolError, match="when closed"):
            session.send(Failure(1, "again"))


def test_an_end_within_a_frame_is_an_error() -> None:
    pair = Pair()
    pair.server.receive_eof()
    data = joined(pair.worker.send(Hello(VERSION, "w0")))
    pair.server.receive(data[:-1])
    with pytest.raises(RemoteProtocolError, match="within a frame"):
        pair.server.receive_eof()


def test_before_the_welcome_a_server_takes_no_more_than_a_greeting() -> None:
    pair = Pair()
    pair.pass_on(Hello(VERSION, "w0"))
    long = framing.pack_prefix(GREETING_HEAD_LIMIT + 1, 0)
    with pytest.raises(RemoteProtocolError, match=f"to {GREETING_HEAD_LIMIT}$"):
        pair.server.receive(long)
    pair = Pair()
    pair.pass_on(Hello(VERSION, "w0"))
    pair.pass_on(Welcome("run", {}))
    assert pair.server.receive(long) == []


def test_the_bytes_of_encryption_are_counted_once() -> None:
    server, worker = Session("server", Ledger()), Session("worker", Ledger(), "w0")
    for total in (100, 130, 130):
        server.count_encryption(received=total, sent=7)
        worker.count_encryption(received=7, sent=total)
    for session in (server, worker):
        found = {entry.direction: entry for entry in session.ledger.entries()}
        assert {(entry.kind, entry.messages, entry.payload) for entry in found.values()} == {("tls", 0, 0)}
        assert (found["up"].framing, found["down"].framing) == (130, 7)
        assert session.ledger.round_bytes(None, "up") == 130


def test_tls_is_recognised() -> None:
    with pytest.raises(RemoteProtocolError, match=r"speaks TLS, which is off here \(--tls-cert\)"):
        Session("server", Ledger()).receive(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32))


def uplink(plan: int, round_: int) -> bytes:
    return wire_bytes(Uplink(plan, round_, b"", ROWS))


def replaced() -> Pair:
    """The server has sent plan 1, and has not received the worker's uplink for plan 0 yet."""
    pair = advanced_to(State.COMPUTING)
    pair.server.send(Assign(1, 0, False, "keep", {}, bytes(16), ()))
    return pair


@pytest.mark.parametrize(
    ("late", "complaint"),
    [
        ([uplink(0, 0), uplink(0, 0)], "sent uplink when uplink sent"),
        ([uplink(0, 0), uplink(0, 1)], "sent uplink when uplink sent"),
        ([uplink(0, 7)], "sent uplink of round 7 in round 0"),
        ([uplink(1, 0), uplink(0, 0)], "sent uplink when uplink sent"),
        ([uplink(1, 5)], "sent uplink of round 5 in round 0"),
        ([uplink(2, 0)], "sent uplink of plan 2 under plan 1"),
    ],
)
def test_only_messages_that_were_on_their_way_may_be_late(late: list[bytes], complaint: str) -> None:
    pair = replaced()
    with pytest.raises(RemoteProtocolError, match=complaint):
        pair.server.receive(b"".join(late))
    rounds = {entry.round for entry in pair.server.ledger.entries() if entry.kind == "uplink"}
    assert rounds <= {0, None}


def test_late_messages_follow_the_table_from_where_their_plan_was_replaced() -> None:
    pair = advanced_to(State.READY)
    pair.pass_on(Assign(0, 0, False, "give", {}, bytes(16), ()))
    crossing = joined(pair.worker.send(Snapshot(0, 0, bytes(16), ROWS)))
    crossing += joined(pair.worker.send(Uplink(0, 0, b"", ROWS)))
    pair.server.send(Assign(1, 0, False, "keep", {}, bytes(16), ()))
    pair.server.send(Assign(2, 0, False, "keep", {}, bytes(16), ()))
    assert pair.server.receive(crossing) == []
    assert pair.server.receive(uplink(1, 0)) == []
    assert len(pair.server.receive(uplink(2, 0))) == 1


def test_a_stranger_cannot_fill_the_ledger() -> None:
    ledger = Ledger()
    for round_ in range(50):
        stranger = Session("server", Ledger())
        with pytest.raises(RemoteProtocolError, match="when opened"):
            stranger.receive(wire_bytes(Uplink(0, round_, b"")))
        ledger.merge(stranger.ledger, worker="(refused)")
    assert [(entry.kind, entry.round, entry.messages) for entry in ledger.entries()] == [("uplink", None, 50)]


def test_this_end_must_keep_to_plan_and_round_as_well() -> None:
    pair = advanced_to(State.COMPUTING)
    with pytest.raises(LocalProtocolError, match="may not send uplink of round 3 in round 0"):
        pair.worker.send(Uplink(0, 3, b"", ROWS))
    with pytest.raises(LocalProtocolError, match="may not send uplink of plan 1 under plan 0"):
        pair.worker.send(Uplink(1, 0, b"", ROWS))


FIRST, REST = ROWS[:60], (ROWS[60:80], ROWS[80:])


def send_first_rows(pair: Pair, rest: int = 40, round_: int = 0, plan: int = 0) -> list[Message]:
    return pair.pass_on(Uplink(plan, round_, b"", FIRST, rest))


def test_rows_may_come_in_ranges_and_both_ways_at_once() -> None:
    pair = advanced_to(State.COMPUTING)
    pair.server.body_limit = pair.worker.body_limit = 100
    send_first_rows(pair)
    # The server sends the first range down, and heartbeats, while the second range comes up.
    pair.pass_on(Downlink(0, 0, "go on", bytes(16), (FIRST,), rest=40))
    for row in REST:
        (up,) = pair.server.receive(joined(pair.worker.send(MoreRows(0, 0, (row,)))))
        pair.server.receive(joined(pair.worker.send(Heartbeat())))
        (down,) = pair.worker.receive(joined(pair.server.send(MoreRows(0, 0, (row,)))))
        assert isinstance(up, MoreRows)
        assert isinstance(down, MoreRows)
        assert up.body.tobytes() == down.body.tobytes() == row.tobytes()
    pair.pass_on(Uplink(0, 1, b"", ROWS))
    for ledger in pair.ledgers.values():
        counted = {
            (e.kind, e.round): (e.messages, e.payload) for e in ledger.entries() if e.round is not None
        }
        assert counted == {("uplink", 0): (3, 100), ("downlink", 0): (3, 100), ("uplink", 1): (1, 100)}


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (
            MoreRows(0, 0, (ROWS[:41],)),
            "sent more-rows of 41 bytes of round 0 where 40 of round 0 are to come",
        ),
        (MoreRows(0, 0), "sent more-rows of 0 bytes"),
        (MoreRows(0, 1, (REST[0],)), "sent more-rows of 20 bytes of round 1 where 40 of round 0 are to come"),
        (MoreRows(1, 0, (REST[0],)), "sent more-rows of plan 1 under plan 0"),
        (Uplink(0, 0, b"", ROWS), "sent uplink when uplink sent"),
        (Done(0, bytes(16)), "sent done when uplink sent"),
    ],
    ids=lambda value: "" if isinstance(value, str) else value.kind,
)
def test_the_rest_of_the_rows_is_as_announced(message: Message, complaint: str) -> None:
    pair = advanced_to(State.COMPUTING)
    send_first_rows(pair)
    with pytest.raises(LocalProtocolError, match=complaint.replace("sent", "may not send", 1)):
        pair.worker.send(message)
    forged = wire_bytes(message)
    with pytest.raises(RemoteProtocolError, match=complaint):
        pair.server.receive(forged)


def test_nothing_comes_before_the_rest_of_the_rows() -> None:
    pair = advanced_to(State.COMPUTING)
    send_first_rows(pair)
    pair.pass_on(Downlink(0, 0, "go on", bytes(16), (ROWS,)))
    message = Uplink(0, 1, b"", ROWS)
    with pytest.raises(LocalProtocolError, match="may not send uplink where 40 bytes of rows are to come"):
        pair.worker.send(message)
    with pytest.raises(RemoteProtocolError, match="sent uplink where 40 bytes of rows are to come"):
        pair.server.receive(uplink(0, 1))


def test_the_rest_of_the_rows_is_limited_as_a_body_is() -> None:
    pair = advanced_to(State.COMPUTING)
    with pytest.raises(RemoteProtocolError, match="with 1001 more bytes of rows, permitted are at most 1000"):
        send_first_rows(pair, rest=1001)


def test_a_new_plan_makes_the_rest_of_the_rows_pointless() -> None:
    pair = advanced_to(State.COMPUTING)
    send_first_rows(pair)
    pair.pass_on(Downlink(0, 0, "go on", bytes(16), (FIRST,), rest=40))
    crossing = [joined(pair.worker.send(MoreRows(0, 0, (row,)))) for row in REST]
    pair.pass_on(Assign(1, 0, False, "keep", {}, bytes(16), ()))
    assert pair.server.receive(crossing[0]) == []
    with pytest.raises(LocalProtocolError, match="may not send more"):
        pair.server.send(MoreRows(0, 0, (REST[0],)))
    assert pair.server.receive(crossing[1]) == []
    send_first_rows(pair, plan=1)
    (last,) = pair.server.receive(joined(pair.worker.send(MoreRows(1, 0, (ROWS[60:],)))))
    assert isinstance(last, MoreRows)
    # Late rows must not exceed the announced bytes.
    with pytest.raises(RemoteProtocolError, match="sent more"):
        pair.server.receive(crossing[1])


def test_messages_about_multicast_rows_come_while_other_rows_go_up() -> None:
    pair = advanced_to(State.COMPUTING)
    send_first_rows(pair)
    pair.pass_on(Downlink(0, 0, "go on", bytes(16), grouped=True))
    lacks = LossReport(0, 0, 0, b"\1", 3), LossReport(0, 0, 1, b"", 9)
    for message in (LossQuery(0, 0, 0, 2), lacks[0], Fallback(0, 0, 0, (ROWS,)), lacks[1]):
        (received,) = pair.pass_on(message)
        assert received.fields() == message.fields()
        assert (pair.worker.state, pair.server.state) == (State.COMPUTING, State.COMPUTING)
    (more,) = pair.server.receive(joined(pair.worker.send(MoreRows(0, 0, (ROWS[60:],)))))
    assert isinstance(more, MoreRows)
    for ledger in pair.ledgers.values():
        counted = {(e.kind, e.round): e.payload for e in ledger.entries() if e.round is not None}
        assert counted == {
            ("uplink", 0): 100,
            ("downlink", 0): 100,
            ("loss-query", 0): 0,
            ("loss-report", 0): 0,
        }


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (LossQuery(0, 1, 0), "loss-query of round 1, of which no rows are on their way"),
        (LossQuery(1, 0, 0), "loss-query of plan 1 under plan 0"),
        (Fallback(0, 1, 0, (ROWS,)), "fallback of round 1, of which no rows are on their way"),
        (LossReport(0, 1, 0, b"", 0), "loss-report of round 1, of which no rows are on their way"),
        (LossReport(1, 0, 0, b"", 0), "loss-report of plan 1 under plan 0"),
    ],
    ids=lambda value: "" if isinstance(value, str) else value.kind,
)
def test_messages_about_multicast_rows_need_rows_that_are_on_their_way(
    message: Message, complaint: str
) -> None:
    pair = advanced_to(State.COMPUTING)
    send_first_rows(pair, rest=0)
    pair.pass_on(Downlink(0, 0, "go on", bytes(16), grouped=True))
    ends = (pair.worker, pair.server)
    sender, receiver = ends if message.sender == "worker" else ends[::-1]
    with pytest.raises(LocalProtocolError, match=complaint):
        sender.send(message)
    with pytest.raises(RemoteProtocolError, match=complaint):
        receiver.receive(wire_bytes(message))


def test_there_are_no_messages_about_multicast_rows_before_the_first_round() -> None:
    pair = advanced_to(State.WELCOMED)
    with pytest.raises(LocalProtocolError, match="loss-query"):
        pair.server.send(LossQuery(-1, 0, 0))


def test_a_loss_report_for_a_replaced_plan_is_dropped() -> None:
    pair = advanced_to(State.COMPUTING)
    send_first_rows(pair, rest=0)
    pair.pass_on(Downlink(0, 0, "go on", bytes(16), grouped=True))
    crossing = joined(pair.worker.send(LossReport(0, 0, 0, b"\1", 3)))
    pair.pass_on(Assign(1, 1, False, "keep", {}, bytes(16), ()))
    assert pair.server.receive(crossing) == []
    send_first_rows(pair, rest=0, round_=1, plan=1)


def test_what_follows_a_large_head_waits_until_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair()
    pair.pass_on(Hello(VERSION, "w0"))
    pair.pass_on(Welcome("run", {}))
    monkeypatch.setattr("asyncdmtl.protocol.session.LARGE_HEAD_BYTES", 100)
    declare = Declare((Declaration("p" * 150, "t", bytes(16), 1, {}),))
    data = joined(pair.worker.send(declare)) + joined(pair.worker.send(Heartbeat()))
    pair.server.get_buffer()[: len(data)] = data
    assert pair.server.buffer_updated(len(data)) == []
    assert pair.server.large is not None
    assert not pair.server.idle
    frame = pair.server.large
    first, second = pair.server.accept_large(lambda: unpack(frame.head, frame.body))
    assert (type(first), type(second)) == (Declare, Heartbeat)
    assert pair.server.idle


def test_a_large_head_that_cannot_be_read_fails_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncdmtl.protocol.session.LARGE_HEAD_BYTES", 5)
    pair = Pair()
    data = framing.frame_start(b"\x92\x01nothing", 0)
    pair.server.get_buffer()[: len(data)] = data
    assert pair.server.buffer_updated(len(data)) == []
    frame = pair.server.large
    assert frame is not None
    with pytest.raises(RemoteProtocolError, match="not msgpack"):
        pair.server.accept_large(lambda: unpack(frame.head, frame.body))
    assert pair.server.state is State.FAILED
    assert pair.server.large is None
