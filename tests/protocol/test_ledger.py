from __future__ import annotations

from typing import Any

import pytest

from asyncdmtl.protocol import ledger as module
from asyncdmtl.protocol.ledger import EARLIER, Entry, Ledger


@pytest.fixture
def ledger() -> Ledger:
    counted = Ledger()
    counted.count("w0", "up", "uplink", 0, payload=100, size=130)
    counted.count("w0", "up", "uplink", 0, payload=50, size=60)
    counted.count("w0", "down", "downlink", 0, payload=80, size=95)
    counted.count("w1", "up", "uplink", 1, payload=10, size=11)
    counted.count("w1", "up", "hello", None, payload=0, size=20)
    counted.add("w1", "down", "tls", 7)
    return counted


def test_messages_of_one_kind_and_round_are_summed(ledger: Ledger) -> None:
    assert list(ledger.entries()) == [
        Entry("w0", "up", "uplink", 0, 2, 150, 40),
        Entry("w0", "down", "downlink", 0, 1, 80, 15),
        Entry("w1", "up", "uplink", 1, 1, 10, 1),
        Entry("w1", "up", "hello", None, 1, 0, 20),
        Entry("w1", "down", "tls", None, 0, 0, 7),
    ]
    assert next(ledger.entries()).wire == 190


def test_sums_by_kind_by_round_and_in_all(ledger: Ledger) -> None:
    assert ledger.kinds() == {
        ("up", "uplink"): (3, 160, 41),
        ("down", "downlink"): (1, 80, 15),
        ("up", "hello"): (1, 0, 20),
        ("down", "tls"): (0, 0, 7),
    }
    assert ledger.round_bytes(0, "up") == 190
    assert ledger.round_bytes(None, "down") == 7
    assert ledger.round_bytes(9, "up") == 0
    assert ledger.total() == (240, 83)
    assert ledger.total(lambda entry: entry.worker == "w1") == (10, 28)


def test_a_copy_goes_its_own_way(ledger: Ledger) -> None:
    copied = ledger.copy()
    copied.count("w0", "up", "uplink", 0, payload=1, size=1)
    assert copied.total()[0] == ledger.total()[0] + 1
    assert copied.round_bytes(0, "up") == ledger.round_bytes(0, "up") + 1
    assert copied.kinds()["up", "uplink"] != ledger.kinds()["up", "uplink"]


def test_ledgers_are_merged_under_their_own_names_or_under_another(ledger: Ledger) -> None:
    both = ledger.copy()
    both.merge(ledger)
    assert both.total() == (480, 166)
    named = Ledger()
    named.merge(ledger, worker="(refused)")
    assert {entry.worker for entry in named.entries()} == {"(refused)"}
    assert named.total() == ledger.total()


def test_a_ledger_is_read_back_from_its_rows(ledger: Ledger) -> None:
    back = Ledger.from_rows(ledger.as_rows())
    assert list(back.entries()) == list(ledger.entries())
    assert back.kinds() == ledger.kinds()
    assert back.round_bytes(0, "down") == ledger.round_bytes(0, "down")


@pytest.mark.parametrize(
    "row", [["w0", "sideways", "uplink", 0, 1, 2, 3], ["w0", "up"], 7, ["w0", "up", "uplink", 0, "x", 2, 3]]
)
def test_rows_of_something_else_are_refused(row: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Ledger.from_rows([row])


def counted_rounds(rounds: int, workers: int) -> Ledger:
    ledger = Ledger()
    for round_ in range(rounds):
        for worker in range(workers):
            ledger.count(f"w{worker}", "up", "uplink", round_, payload=10, size=13)
            ledger.count(f"w{worker}", "down", "downlink", round_, payload=7, size=8)
    return ledger


def test_earlier_rounds_are_added_up_and_every_byte_stays_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 100)
    ledger = counted_rounds(rounds=200, workers=3)
    entries = list(ledger.entries())
    assert len(entries) <= 100
    assert ledger.total() == (200 * 3 * 17, 200 * 3 * 4)
    assert ledger.kinds()["up", "uplink"] == (600, 6000, 1800)
    earlier = {entry.worker: entry for entry in entries if entry.round == EARLIER and entry.direction == "up"}
    later = [entry for entry in entries if entry.round != EARLIER and entry.worker == "w0"]
    assert set(earlier) == {"w0", "w1", "w2"}
    assert earlier["w0"].messages + len(later) // 2 == 200
    assert max(entry.round or 0 for entry in entries) == 199
    assert ledger.round_bytes(0, "up") == ledger.round_bytes(199, "up") == 39
    back = Ledger.from_rows(ledger.as_rows())
    assert sorted(back.as_rows()) == sorted(ledger.as_rows())
    copied = ledger.copy()
    for followed in (ledger, copied):
        for round_ in range(200, 300):
            followed.count("w0", "up", "uplink", round_, payload=1, size=1)
    assert list(copied.entries()) == list(ledger.entries())
    assert len(list(copied.entries())) <= 100


def test_the_last_round_is_never_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 10)
    ledger = counted_rounds(rounds=3, workers=20)
    assert {entry.round for entry in ledger.entries()} == {EARLIER, 2}
    assert ledger.total() == (3 * 20 * 17, 3 * 20 * 4)


def test_entries_are_listed_in_plain_types(ledger: Ledger) -> None:
    assert ledger.as_list()[0] == {
        "worker": "w0",
        "direction": "up",
        "kind": "uplink",
        "round": 0,
        "messages": 2,
        "payload_bytes": 150,
        "framing_bytes": 40,
    }
    assert len(ledger.as_list()) == 5
