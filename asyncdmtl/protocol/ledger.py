"""Every byte, counted where it enters or leaves a connection.

Payload is the bodies of messages: coded vectors, nothing else. Framing is all the rest of what the
connection carries: lengths, heads with digests and settings, msgpack headers. Headers of TCP and IP are
the kernel's and not in here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["up", "down"]


@dataclass(frozen=True)
class Entry:
    """What travelled in one direction between one worker and the server, of one kind in one round.

    `round` is None before the first round and after the last.
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
        self._sums: dict[tuple[str, Direction, str, int | None], list[int]] = {}
        self._rounds: dict[tuple[int | None, Direction], int] = {}
        self._kinds: dict[tuple[Direction, str], list[int]] = {}

    def count(
        self, worker: str, direction: Direction, kind: str, round: int | None, *, payload: int, size: int
    ) -> None:
        """Add a message of `size` bytes on the wire, of which `payload` are its body."""
        self._add((worker, direction, kind, round), 1, payload, size - payload)

    def add(self, worker: str, direction: Direction, kind: str, framing: int) -> None:
        """Add bytes that belong to no message and no round."""
        self._add((worker, direction, kind, None), 0, 0, framing)

    def _add(self, key: tuple[str, Direction, str, int | None], *counts: int) -> None:
        """Add messages, bytes of payload and bytes of framing to all sums that they belong to."""
        _, direction, kind, round = key
        for sums in (
            self._sums.setdefault(key, [0, 0, 0]),
            self._kinds.setdefault((direction, kind), [0, 0, 0]),
        ):
            for i, count in enumerate(counts):
                sums[i] += count
        self._rounds[round, direction] = self._rounds.get((round, direction), 0) + sum(counts[1:])

    def kinds(self) -> dict[tuple[Direction, str], tuple[int, int, int]]:
        """Messages, bytes of payload and bytes of framing, by direction and kind of message."""
        return {
            key: (messages, payload, framing) for key, (messages, payload, framing) in self._kinds.items()
        }

    def round_bytes(self, round: int | None, direction: Direction) -> int:
        """Bytes on the wire, payload and framing, in one round and direction."""
        return self._rounds.get((round, direction), 0)

    def merge(self, other: Ledger, worker: str | None = None) -> None:
        """Add the sums of `other`, all under the name `worker` if that is given."""
        for entry in other.entries():
            key = (worker or entry.worker, entry.direction, entry.kind, entry.round)
            self._add(key, entry.messages, entry.payload, entry.framing)

    def copy(self) -> Ledger:
        """A ledger with the same sums."""
        copied = Ledger()
        copied._sums = {key: list(sums) for key, sums in self._sums.items()}
        copied._rounds = dict(self._rounds)
        copied._kinds = {key: list(sums) for key, sums in self._kinds.items()}
        return copied

    def entries(self) -> Iterator[Entry]:
        """All sums, in the order in which they were begun."""
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
        """Read what `as_rows` gave; TypeError or ValueError if it is something else."""
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
