"""Challenges by which workers show that they have the rows of the partitions that they declare.

A worker answers a challenge, which is a fresh random number, by a hash of its rows with the challenge as key
(`digests.answer`). At the start, all workers answer the same challenge, and the answers of the holders of a
partition are compared. Each worker answers a second challenge, which it alone is given: with this answer the
server compares later workers. So the server needs no rows. No answer is ever sent to a worker, and a new
start has a new challenge, so that a worker cannot repeat what another one has answered.

This proves that a worker has the rows when it joins, or is helped by one that has them. It does not prove
that the worker uses them in its updates.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asyncdmtl.digests import CHALLENGE_BYTES, CONTENT_DIGEST_BYTES
from asyncdmtl.errors import DataError

# The most answers of holders of a partition that are kept: with three, one that is false is outvoted.
MOST_KEPT = 3


@dataclass(frozen=True)
class Shown:
    """A worker's answers for one partition.

    Attributes
    ----------
    answers : mapping of challenge to answer
        To the challenges that others have answered or, at the start, to that of all workers.
    own : tuple of bytes
        The challenge that this worker alone was given, and its answer.
    """

    answers: Mapping[bytes, bytes]
    own: tuple[bytes, bytes]

    @property
    def first(self) -> bytes:
        """The answer to the first challenge: at the start, that of all workers."""
        return next(iter(self.answers.values()), b"")


@dataclass(frozen=True)
class Asked:
    """The challenges that a worker is given, of each of its partitions; the last one is its own."""

    challenges: Mapping[str, tuple[bytes, ...]]

    @property
    def packed(self) -> tuple[bytes, ...]:
        """The challenges of each partition as they are sent."""
        return tuple(b"".join(several) for several in self.challenges.values())

    def answered(self, answers: Sequence[bytes]) -> dict[str, Shown]:
        """The answers by partition; those that are missing are empty."""
        found = {}
        packed = [*answers, *[b""] * (len(self.challenges) - len(answers))]
        for (name, several), joined in zip(self.challenges.items(), packed, strict=False):
            starts = range(0, len(several) * CONTENT_DIGEST_BYTES, CONTENT_DIGEST_BYTES)
            each = [joined[start : start + CONTENT_DIGEST_BYTES] for start in starts]
            pairs = list(zip(several, each, strict=True))
            found[name] = Shown(dict(pairs[:-1]), pairs[-1])
        return found


class Possession:
    """Draws the challenges of a run, and compares the answers of workers."""

    def __init__(self) -> None:
        self._first = secrets.token_bytes(CHALLENGE_BYTES)
        # By partition and worker: the challenge of the worker, and its answer. The first holders come first.
        self._kept: dict[str, dict[str, tuple[bytes, bytes]]] = {}

    def challenge(self, partitions: Sequence[str], *, settled: bool) -> Asked:
        """The challenges for a worker that declares some partitions.

        Parameters
        ----------
        partitions : sequence of str
        settled : bool
            Whether the start is over, so that the worker is compared with those before.
        """
        own = secrets.token_bytes(CHALLENGE_BYTES)
        asked = {}
        for name in partitions:
            kept = self._kept.get(name, {}).values()
            others = tuple(challenge for challenge, _ in kept) if settled else (self._first,)
            asked[name] = (*others, own)
        return Asked(asked)

    def checked(self, worker: str, asked: Asked, answers: Sequence[bytes]) -> dict[str, Shown]:
        """The answers of a worker, by partition. If it comes later, they are compared with earlier holders'.

        Raises
        ------
        DataError
            More of them differ than agree, for some partition: one false answer of an earlier holder does not
            keep out a worker that has the rows, if there are others.
        """
        shown = asked.answered(answers)
        for name, own in shown.items():
            # Others may have answered since this worker was asked.
            pairs = self._kept.get(name, {}).values()
            kept = {challenge: answer for challenge, answer in pairs if challenge in own.answers}
            agree = sum(own.answers.get(challenge) == answer for challenge, answer in kept.items())
            if agree < len(kept) - agree:
                raise no_proof(worker, name, sorted(self._kept[name]))
        return shown

    def keep(self, worker: str, shown: Mapping[str, Shown]) -> None:
        """Keep the answers of a worker that is believed to have the rows."""
        for name, own in shown.items():
            kept = self._kept.setdefault(name, {})
            if own.own[1] and (worker in kept or len(kept) < MOST_KEPT):
                kept[worker] = own.own


def no_proof(worker: str, partition: str, holders: Sequence[str]) -> DataError:
    """The error that a worker has other rows, or none, of a partition that it declared."""
    rule = f"must have the rows that {', '.join(holders)} have; its proof of possession is of other rows"
    return DataError(f"worker {worker!r}", rule, partition)
