from __future__ import annotations

import resource

import pytest

from asyncdmtl.net import strangers
from asyncdmtl.net.strangers import MAX_OF_ONE_NAME, MAX_STRANGERS, Standing, Strangers, max_strangers


class Door:
    """Strangers whose connections are names, and the list of those that were closed to make room."""

    def __init__(self, most: int = 4, most_from_one: int = 3) -> None:
        self.now = 0.0
        self.closed: list[str] = []
        self.strangers = Strangers[str](
            self.closed.append, lambda: self.now, most=most, most_from_one=most_from_one
        )

    def enter(self, *peers: str, site: str = "10.0.0.1") -> None:
        for peer in peers:
            self.strangers.enter(peer, site)


def test_a_new_connection_is_always_taken_and_the_oldest_of_its_site_makes_room() -> None:
    door = Door()
    door.enter("a", "b", "c")
    assert not door.closed
    door.enter("d", "e")
    assert door.closed == ["a", "b"]
    assert len(door.strangers) == 3


def test_where_all_are_too_many_the_site_with_most_makes_room() -> None:
    door = Door()
    door.enter("a1", "a2", "a3", site="a")
    door.enter("b1", site="b")
    door.enter("c1", site="c")
    assert door.closed == ["a1"]


def test_a_connection_without_a_greeting_makes_room_before_one_with() -> None:
    door = Door()
    door.enter("a", "b", "c")
    door.strangers.rise("a", Standing.GREETED)
    door.strangers.rise("b", Standing.PROVEN)
    door.enter("d", "e", "f", "g")
    assert door.closed == ["c", "d", "e", "f"]
    door.strangers.rise("g", Standing.GREETED)
    door.enter("h")
    assert door.closed[-1] == "a"
    door.strangers.rise("h", Standing.PROVEN)
    door.enter("i")
    assert door.closed[-1] == "g"


def test_connections_from_sites_of_known_workers_make_room_last() -> None:
    door = Door(most=4, most_from_one=4)
    door.enter("worker", site="known")
    door.strangers.leave("worker", joined=True)
    door.enter("again", "and again", "once more", site="known")
    door.enter("stranger", "stranger 2", site="unknown")
    assert door.closed == ["stranger"]


def test_a_worker_cannot_take_all_places_by_its_proofs() -> None:
    door = Door(most=20, most_from_one=20)
    names = [f"c{n}" for n in range(MAX_OF_ONE_NAME + 2)]
    for name in names:
        door.enter(name)
        door.strangers.rise(name, Standing.PROVEN, "w0")
    assert door.closed == names[:2]
    door.strangers.leave(names[2], joined=True)
    door.enter("again", "other")
    door.strangers.rise("again", Standing.PROVEN, "w0")
    door.strangers.rise("other", Standing.PROVEN, "w1")
    assert door.closed == names[:2]


def test_a_proof_makes_a_site_known() -> None:
    door = Door(most=3, most_from_one=3)
    door.enter("proven", site="known")
    door.strangers.rise("proven", Standing.PROVEN)
    door.enter("second", site="known")
    door.enter("stranger", "stranger 2", site="unknown")
    assert door.closed == ["stranger"]


def test_connections_that_left_are_not_counted() -> None:
    door = Door()
    door.enter("a", "b", "c")
    for peer in ("a", "b", "c"):
        door.strangers.leave(peer)
        door.strangers.leave(peer)
        door.strangers.rise(peer, Standing.GREETED)
    assert len(door.strangers) == 0
    door.enter("d", "e", "f")
    assert not door.closed
    assert not door.strangers._queues.keys() - {(Standing.SILENT, "10.0.0.1")}


def test_a_flood_is_logged_in_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    door = Door()
    for second in range(21):
        door.now = float(second)
        door.enter(*(f"{second}.{number}" for number in range(100)))
    lines = [record.message for record in caplog.records]
    assert len(lines) == 3
    assert " connections that had not joined were closed to make room for new ones" in lines[1]
    assert 950 < int(lines[1].split()[0]) <= 1000


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "MAX_KNOWN_SITES", 10)
    door = Door()
    for number in range(100):
        door.enter(f"p{number}", site=f"10.0.1.{number}")
        door.strangers.leave(f"p{number}", joined=True)
    assert len(door.strangers._known) == 10
    assert not door.strangers._counts
    assert not door.strangers._queues


@pytest.mark.parametrize(
    ("files", "most"), [(-1, MAX_STRANGERS), (1 << 20, MAX_STRANGERS), (1024, 512), (1, 1)]
)
def test_strangers_leave_files_for_members(monkeypatch: pytest.MonkeyPatch, files: int, most: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (files, files))
    assert max_strangers() == most
