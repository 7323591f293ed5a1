"""The ledger counts every byte where it enters or leaves a connection.

Payload is the bodies of messages: coded vectors and states of the training. Framing is the rest of what the
connection carries: lengths, heads with digests and settings, msgpack headers. Headers of TCP and IP belong to
the kernel and are not counted here.

There is a sum for each round, worker, direction and kind. A long run of many workers would have millions of
sums. Beyond `MAX_ENTRIES`, the sums of the earliest rounds are added up under the round `EARLIER`, so that
every byte stays counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from asyncdmtl.protocol.round_totals import Direction, RoundTotals

# Worker, direction, kind and round.
Key = tuple[str, Direction, str, int | None]

# The most separate sums of a ledger: some 7 MB of memory, and 1 MB of a checkpoint. A run of 3 workers
# reaches this after 3,000 rounds, a run of 200 workers after 50.
MAX_ENTRIES = 20_000

# The share of `MAX_ENTRIES` that is left after earlier rounds were added up, so that this is not done in
# every round.
LEFT_SHARE = 0.9

# The round under which the sums of the earliest rounds are added up.
EARLIER = -1


@dataclass(frozen=True)
class Entry:
    """The messages of one kind in one direction between one worker and the server, in one round.

    `round` is None before the first round and after the last, and `EARLIER` for rounds that were added up.
    """

    worker: str
    direction: Direction
    kind: str
    round: int | None
    messages: int
    payload: int
    framing: int

    @property
    def wire(self) -> int:
        """Payload and framing together, in bytes."""
        return self.payload + self.framing


class Ledger:
    """Sums of messages and bytes by worker, direction, kind and round."""

    def __init__(self) -> None:
        self._sums: dict[Key, list[int]] = {}
        self._of_round: dict[int, list[Key]] = {}
        self._rounds = RoundTotals()
        self._kinds: dict[tuple[Direction, str], list[int]] = {}
        self._workers: dict[str, list[int]] = {}

    def count(
        self, worker: str, direction: Direction, kind: str, round: int | None, *, payload: int, size: int
    ) -> None:
        """Add a message of `size` bytes on the wire, including a body of `payload` bytes."""
        self._add((worker, direction, kind, round), 1, payload, size - payload)

    def add(self, worker: str, direction: Direction, kind: str, framing: int) -> None:
        """Add bytes of framing that belong to no message and no round."""
        self._add((worker, direction, kind, None), 0, 0, framing)

    def _add(self, key: Key, *counts: int) -> None:
        """Add messages, bytes of payload and bytes of framing to all sums that they belong to."""
        worker, direction, kind, round = key
        for sums in (self._sum_of(key), self._kinds.setdefault((direction, kind), [0, 0, 0])):
            for i, count in enumerate(counts):
                sums[i] += count
        self._rounds.add(round, direction, sum(counts[1:]))
        self._workers.setdefault(worker, [0, 0])[direction == "down"] += sum(counts[1:])

    def _sum_of(self, key: Key) -> list[int]:
        """The sum with this key, which begins with zeros if it is new."""
        if (found := self._sums.get(key)) is not None:
            return found
        if len(self._sums) >= MAX_ENTRIES:
            self._add_up_earlier_rounds()
        if (round := key[3]) is not None and round != EARLIER:
            self._of_round.setdefault(round, []).append(key)
        return self._sums.setdefault(key, [0, 0, 0])

    def _add_up_earlier_rounds(self) -> None:
        """Add up the earliest rounds, but never the last one, until there is room for new sums."""
        for round in sorted(self._of_round)[:-1]:
            for key in self._of_round.pop(round):
                earlier = self._sums.setdefault((*key[:3], EARLIER), [0, 0, 0])
                for i, count in enumerate(self._sums.pop(key)):
                    earlier[i] += count
            if len(self._sums) <= LEFT_SHARE * MAX_ENTRIES:
                return

    def kinds(self) -> dict[tuple[Direction, str], tuple[int, int, int]]:
        """Messages, bytes of payload and bytes of framing, by direction and kind of message."""
        return {
            key: (messages, payload, framing) for key, (messages, payload, framing) in self._kinds.items()
        }

    def workers(self) -> dict[str, tuple[int, int]]:
        """Bytes on the wire, payload and framing, up and down, by worker."""
        return {worker: (up, down) for worker, (up, down) in self._workers.items()}

    def round_bytes(self, round: int | None, direction: Direction) -> int:
        """Bytes on the wire, payload and framing, in one round and direction."""
        return self._rounds.of(round, direction)

    def merge(self, other: Ledger, worker: str | None = None) -> None:
        """Add the sums of `other`, all under the name `worker` if that is given."""
        for entry in other.entries():
            key = (worker or entry.worker, entry.direction, entry.kind, entry.round)
            self._add(key, entry.messages, entry.payload, entry.framing)

    def copy(self) -> Ledger:
        """A ledger with the same sums."""
        copied = Ledger()
        copied._sums = {key: list(sums) for key, sums in self._sums.items()}
        copied._of_round = {round: list(keys) for round, keys in self._of_round.items()}
        copied._rounds = self._rounds.copy()
        copied._kinds = {key: list(sums) for key, sums in self._kinds.items()}
        copied._workers = {worker: list(sums) for worker, sums in self._workers.items()}
        return copied

    def entries(self) -> Iterator[Entry]:
        """All sums, in the order of their first messages."""
        for key, sums in self._sums.items():
            yield Entry(*key, *sums)

    def total(self, selected: Callable[[Entry], bool] = lambda entry: True) -> tuple[int, int]:
        """Bytes of payload and of framing over the selected entries."""
        chosen = [entry for entry in self.entries() if selected(entry)]
        return sum(entry.payload for entry in chosen), sum(entry.framing for entry in chosen)

    def as_rows(self) -> list[list[Any]]:
        """Worker, direction, kind, round, messages, bytes of payload and of framing of each entry."""
        return [[*key, *sums] for key, sums in self._sums.items()]

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[Any]]) -> Ledger:
        """Read the result of `as_rows`; TypeError or ValueError if `rows` are something else."""
        ledger = cls()
        for worker, direction, kind, round_, messages, payload, framing in rows:
            if direction not in ("up", "down"):
                raise ValueError(f"direction {direction!r}")
            ledger._add((worker, direction, kind, round_), messages, payload, framing)
        return ledger

    def as_list(self) -> list[dict[str, Any]]:
        """The entries in plain JSON types."""
        return [
            {
                "worker": entry.worker,
                "direction": entry.direction,
                "kind": entry.kind,
                "round": entry.round,
                "messages": entry.messages,
                "payload_bytes": entry.payload,
                "framing_bytes": entry.framing,
            }
            for entry in self.entries()
        ]
