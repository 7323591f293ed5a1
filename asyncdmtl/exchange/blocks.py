"""Which blocks of which vectors a worker asks which other workers for.

Every vector that a worker lacks is cut into blocks. A worker that holds a vector may give any block of it. A
peer is asked for a few blocks at a time, and for more as it gives them, so that quick peers give more: no
schedule is needed, and a slow or lost peer costs its share. A peer that is slow is asked only for what others
cannot give sooner. Blocks that few can give are asked for first.
Once all blocks are asked for, a peer that is free is asked for one that is late elsewhere. Of short vectors,
messages and wake-ups are the cost: each is one block, and those that one peer is to give (`shares`) are asked
for at once. No clock is read: times are seconds of any monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median_low
from types import MappingProxyType
from typing import NamedTuple

# The blocks that a vector is cut into, unless they would be shorter or longer than these bytes. Short blocks
# cost messages; with long ones, the last to come are long in coming.
BLOCKS_OF_A_VECTOR = 32
FEWEST_BYTES, MOST_BYTES = 1 << 16, 1 << 20

# Where bytes come so quickly that messages are the larger cost, blocks are longer: as many bytes as came from
# all peers within these seconds, but no fewer blocks of a vector, so that several peers give parts of it.
BLOCK_SECONDS = 0.02
FEWEST_BLOCKS = 4

# The blocks that a peer is asked for at a time: one is on its way while the next one is being asked for. Of
# the short vectors that are its share, it is asked for more at a time.
ASKED_OF_A_PEER = 2
MOST_ASKED_OF_A_SHARE = 16

# A block is late once it takes as many times as long as blocks took on average, and never within as many
# seconds. Before any has come, nothing is known of the links.
LATE_FACTOR = 4.0
LATE_SECONDS, UNKNOWN_SECONDS = 0.05, 1.0

# The shares of the seconds of a round within which the next block, and all blocks, must come. What is left is
# for the rest of the round.
BLOCK_SHARE, ROUND_SHARE = 0.25, 0.5

# A peer is slow if its blocks take as many times as long as those of the peer in the middle. It is asked for
# what others cannot give sooner.
SLOW_FACTOR = 2.0

# The share of the last block in the average time of a peer's blocks.
NEW_SHARE = 0.25

# The share that is left of a slow peer's average in a round in which it gave nothing: it is asked again after
# some rounds. In a round in which fewer bytes came in a second, as much is left of the speed.
KEPT_SHARE = 0.95

NO_SHARES: Mapping[int, str] = MappingProxyType({})


def most_blocks(size: int) -> int:
    """The most blocks that a vector of `size` bytes is cut into, if it is not longer than usual."""
    return max(1, -(-size // FEWEST_BYTES))


class Block(NamedTuple):
    """Bytes `start` to `stop` of a vector, which has a number."""

    vector: int
    start: int
    stop: int


@dataclass(eq=False)
class _Asked:
    """A block that was asked for: of which peers, each with the time."""

    of: dict[str, float] = field(default_factory=dict)


class BlockRequests:
    """The blocks that a worker lacks in one round, and those that it has asked for.

    Parameters
    ----------
    sizes : mapping of vector to int
        The bytes of each vector that the worker lacks.
    holders : mapping of vector to names
        The peers that hold each of them.
    before : BlockRequests, optional
        Those of the round before, which know how quickly blocks come.
    now : float
        The time at which the round begins.
    shares : mapping of vector to name, optional
        The peers that are to give short vectors, unless they are slow or lost (`exchange.shares`).

    Attributes
    ----------
    width : int
        The bytes of the longest block.
    """

    def __init__(
        self,
        sizes: Mapping[int, int],
        holders: Mapping[int, Iterable[str]],
        before: BlockRequests | None = None,
        now: float = 0.0,
        shares: Mapping[int, str] = NO_SHARES,
    ) -> None:
        # The average time of each peer from asking for a block until it came, and those timed in this round.
        self._took: dict[str, float] = {} if before is None else before.remembered()
        self._timed: set[str] = set()
        self.width: int = 0 if before is None else before.width
        # The bytes that came in a second, from all peers together.
        self._speed = 0.0 if before is None else before.speed
        self._came, quick = 0, int(BLOCK_SECONDS * self._speed)
        self._began = self._last = now
        self._shares = {v: peer for v, peer in shares.items() if sizes.get(v, math.inf) <= FEWEST_BYTES}
        self._holders = {vector: set(holders[vector]) for vector in sizes}
        self._waiting: dict[int, list[Block]] = {}
        widest = 0
        for vector, size in sizes.items():
            longer = min(quick, -(-size // FEWEST_BLOCKS))
            width = min(max(FEWEST_BYTES, -(-size // BLOCKS_OF_A_VECTOR), longer), MOST_BYTES)
            widest = max(widest, min(width, size))
            starts = range(0, size, width)
            self._waiting[vector] = [Block(vector, at, min(at + width, size)) for at in starts][::-1]
        self._asked: dict[Block, _Asked] = {}
        self._missing = sum(map(len, self._waiting.values()))
        if sizes:
            # Longer blocks take longer, so that none counts as late for its length.
            longer_by = max(1.0, widest / self.width) if self.width else 1.0
            self._took = {peer: longer_by * seconds for peer, seconds in self._took.items()}
            self.width = widest

    @property
    def seconds(self) -> float:
        """The average time of a block, of the peer in the middle; 0 if it is not known."""
        return median_low(self._took.values()) if self._took else 0.0

    @property
    def speed(self) -> float:
        """The bytes that came in a second: of this round, or a little less than before."""
        seconds = self._last - self._began
        return max(KEPT_SHARE * self._speed, self._came / seconds if seconds > 0 else 0.0)

    def remembered(self) -> dict[str, float]:
        """The average time of each peer for the next round."""
        return {
            peer: seconds * (KEPT_SHARE if self._is_slow(peer) and peer not in self._timed else 1.0)
            for peer, seconds in self._took.items()
        }

    @property
    def complete(self) -> bool:
        """Whether all blocks have come."""
        return not self._missing

    def open(self, block: Block) -> bool:
        """Whether a block was asked for and has not come."""
        return block in self._asked

    def nothing_to_ask(self, now: float) -> bool:
        """Whether all blocks that are missing were asked for, and none is late: then `next` has none."""
        if any(self._waiting.values()):
            return False
        patience = self.patience
        return all(max(asked.of.values()) + patience > now for asked in self._asked.values())

    def seconds_to_late(self, now: float) -> float:
        """Seconds until the block that was asked for first is late; as long as that takes, if none was."""
        first = min((max(asked.of.values()) for asked in self._asked.values()), default=now)
        return max(LATE_SECONDS, first + self.patience - now)

    def next(self, peer: str, now: float) -> Block | None:
        """The next block to ask a peer for; None if there is none for it now."""
        slow = self._is_slow(peer)
        vectors = [
            v
            for v, blocks in self._waiting.items()
            if blocks
            and peer in self._holders[v]
            and not self._is_other_share(v, peer)
            and not (slow and self._others_suffice(v, peer, now))
        ]
        if vectors:
            # Of vectors that equally many hold, peers begin with different ones: the fullest queue first
            # would send all workers to the same holder.
            vector = min(vectors, key=lambda v: (len(self._holders[v]), -len(self._waiting[v])))
            block = self._waiting[vector].pop()
            self._asked[block] = _Asked({peer: now})
            return block
        late = [
            (max(asked.of.values()), block)
            for block, asked in self._asked.items()
            if peer in self._holders[block.vector] and peer not in asked.of
        ]
        patience = max(self.patience, self._took[peer]) if slow else self.patience
        if late and (oldest := min(late))[0] + patience <= now:
            self._asked[oldest[1]].of[peer] = now
            return oldest[1]
        return None

    @property
    def patience(self) -> float:
        """Seconds after which a block that was asked for is late."""
        return max(LATE_SECONDS, LATE_FACTOR * self.seconds) if self.seconds else UNKNOWN_SECONDS

    def came(self, block: Block, peer: str, now: float) -> None:
        """Note that a block has come from a peer."""
        asked = self._asked.pop(block)
        self._missing -= 1
        self._last = now
        self._came += block.stop - block.start
        if peer in asked.of:
            self.took(peer, now - asked.of[peer])

    def took(self, peer: str, seconds: float) -> None:
        """Note the time in which a peer gave a block, which another one may have given before."""
        before = self._took.get(peer, seconds)
        self._took[peer] = before + NEW_SHARE * (seconds - before)
        self._timed.add(peer)

    def asked_of(self, peer: str) -> int:
        """The blocks that a peer may be asked for at a time."""
        return MOST_ASKED_OF_A_SHARE if peer in self._shares.values() else ASKED_OF_A_PEER

    def _is_other_share(self, vector: int, peer: str) -> bool:
        """Whether a vector is the share of another peer, which is neither lost nor slow."""
        of = self._shares.get(vector, peer)
        return of != peer and of in self._holders[vector] and not self._is_slow(of)

    def _is_slow(self, peer: str) -> bool:
        """Whether the blocks of a peer take much longer than those of others."""
        return self._took.get(peer, 0.0) > max(LATE_SECONDS, SLOW_FACTOR * self.seconds)

    def _others_suffice(self, vector: int, peer: str, now: float) -> bool:
        """Whether quick peers give all waiting blocks of a vector before a slow one gives one."""
        silent = {
            other
            for asked in self._asked.values()
            for other, at in asked.of.items()
            if at + self.patience <= now
        }
        others = self._holders[vector] - silent - {peer}
        quick = sum(not self._is_slow(other) for other in others)
        in_turn = len(self._waiting[vector]) / (ASKED_OF_A_PEER * quick) if quick else math.inf
        return in_turn * self.seconds < self._took[peer]

    def too_late(self, now: float, seconds: float) -> dict[str, float]:
        """The peers that are asked for blocks which have not come, if the round has taken too long.

        Parameters
        ----------
        now : float
        seconds : float
            The most seconds that the round may take in all. The next block must come within
            `BLOCK_SHARE` of them, and all blocks within `ROUND_SHARE`.

        Returns
        -------
        dict of peer to float
            With the seconds that were waited.
        """
        waited = now - self._last
        if waited <= BLOCK_SHARE * seconds and (waited := now - self._began) <= ROUND_SHARE * seconds:
            return {}
        return {peer: waited for asked in self._asked.values() for peer in asked.of}

    def lost(self, peer: str) -> None:
        """Note that a peer gives nothing more: its blocks are asked of others."""
        for holders in self._holders.values():
            holders.discard(peer)
        for block, asked in list(self._asked.items()):
            if asked.of.pop(peer, None) is not None and not asked.of:
                del self._asked[block]
                self._waiting[block.vector].append(block)

    def without_holder(self) -> list[int]:
        """The vectors of which blocks are missing and that no peer can give any more."""
        open_vectors = {block.vector for block in self._asked}
        return [
            v for v, blocks in self._waiting.items() if (blocks or v in open_vectors) and not self._holders[v]
        ]
