"""Sums of bytes by round and direction, kept for every round of a run."""

from __future__ import annotations

from typing import Literal

Direction = Literal["up", "down"]


class RoundTotals:
    """Sums of bytes by round and direction.

    A run has up to a hundred thousand rounds, one after the other. Their sums are in lists, which take a
    third of the memory of a dict and are copied in a moment.
    """

    def __init__(self) -> None:
        self._first = 0
        self._lists: dict[Direction, list[int]] = {"up": [], "down": []}
        # The sums of bytes that belong to no round, and of rounds that do not follow on those of the lists.
        self._others: dict[tuple[int | None, Direction], int] = {}

    def add(self, round: int | None, direction: Direction, count: int) -> None:
        """Add bytes to the sum of a round, or to that of no round."""
        sums = self._lists[direction]
        place = self._place(round)
        if place is None or place > len(self._lists["up"]):
            self._others[round, direction] = self._others.get((round, direction), 0) + count
            return
        if place == len(self._lists["up"]):
            for each in self._lists.values():
                each.append(0)
        sums[place] += count

    def of(self, round: int | None, direction: Direction) -> int:
        """The sum of a round, or of no round; 0 without bytes."""
        sums, place = self._lists[direction], self._place(round)
        found = sums[place] if place is not None and place < len(sums) else 0
        return found + self._others.get((round, direction), 0)

    def copy(self) -> RoundTotals:
        """The same sums, which go their own way."""
        copied = RoundTotals()
        copied._first = self._first
        copied._lists = {direction: sums.copy() for direction, sums in self._lists.items()}
        copied._others = self._others.copy()
        return copied

    def _place(self, round: int | None) -> int | None:
        """The place of a round in the lists, which may be one beyond their ends; None if it has none."""
        if round is None or round < 0:
            return None
        if not self._lists["up"]:
            self._first = round
        return round - self._first if round >= self._first else None
