"""Fuzz all code that a peer can reach: `.venv/bin/python tools/fuzz_protocol.py --inputs 1000000`.

The targets are frames, messages and both roles of the session; datagrams of a group, and loss reports;
settings, surveys, encodings and plan recipes in messages; and with --live a server and workers over TCP
(`fuzz_live`). Inputs are messages of honest peers (`fuzz_inputs`) with mutations (`fuzz_mutations`). With
--engine atheris (`pip install atheris`), coverage guides the search; otherwise it is random, which is several
times as fast.

`PERMITTED` lists the errors that an input may raise. Any other error is a bug, and so are an input that takes
long or much memory, a session that goes on after an error, and growing memory. Then seed and input are
printed, the input in hex for --replay, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import importlib
import logging
import mmap
import os
import random
import re
import resource
import sys
import tempfile
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgpack
import numpy as np

if "atheris" in sys.argv:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["asyncdmtl.protocol", "asyncdmtl.learning", "asyncdmtl.plan"]):
        import fuzz_inputs
        import fuzz_mutations
else:
    import fuzz_inputs
    import fuzz_mutations

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.pooling import pool
from asyncdmtl.data.surveys import Survey
from asyncdmtl.errors import PlanError, RemoteProtocolError, UsageError
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.multicast.sending import MAX_REPAIRS
from asyncdmtl.plan.serialization import _digest, rebuild
from asyncdmtl.protocol import fields
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.registry import Failure, Heartbeat, Message
from asyncdmtl.protocol.session import WORKER_HEAD_LIMIT, Session
from asyncdmtl.protocol.state_table import State

# Errors that an input of each target may raise; never LocalProtocolError, which would be this side's fault.
PERMITTED: dict[str, tuple[type[Exception], ...]] = {
    "session": (RemoteProtocolError,),
    "head": (RemoteProtocolError,),
    "group": (RemoteProtocolError,),
    "answers": (RemoteProtocolError,),
    "bomb": (RemoteProtocolError,),
    "settings": (RemoteProtocolError, UsageError),
    "survey": (RemoteProtocolError, UsageError),
    "encoding": (RemoteProtocolError, UsageError),
    "plan": (RemoteProtocolError, PlanError),
}

# The most processor seconds and bytes of memory of one input, and the largest growth of the process after
# warm-up.
LONGEST = 2.0
HANG = 60.0
MOST_MEMORY = 64 << 20
# One input of this number has a head of the largest size, which may take more memory: a multiple of its
# length.
BOMBS = 2000
MOST_SWOLLEN = 25
MOST_GROWTH = 32 << 20

BODY_LIMIT = 1 << 17
PROBE = fuzz_inputs.wire(Heartbeat())
BODY = np.zeros(8, np.uint8)
HONEST = fuzz_inputs.site(1)


class BugError(Exception):
    """An input had an effect that is not permitted."""


def session(data: bytes) -> None:
    """Feed a stream to a session, which answers as honest ends do."""
    if len(data) < 3:
        return
    moves = iter(data[3 : 3 + data[2]])
    ours = Session("server" if data[0] & 1 else "worker", Ledger())
    ours.body_limit = BODY_LIMIT
    try:
        _move(ours, moves)
        for piece in _pieces(data[3 + data[2] :], data[1]):
            if arrived := ours.receive(piece):
                _check_arrived(ours, arrived)
                _move(ours, moves)
        ours.receive_eof()
    except RemoteProtocolError:
        _check_failed(ours)
        raise


def _move(ours: Session, moves: Iterator[int]) -> None:
    """Send the message that the input selects, else the one that is due."""
    while own := fuzz_inputs.moves_of(ours.role, ours.state):
        forced = not fuzz_inputs.moves_of(ours.peer, ours.state)
        # A message after which the session is where it was, such as a part of a declaration, is never due.
        leaving = [
            i for i, event in enumerate(own) if (event, ours.state) not in fuzz_inputs.MOVES[ours.state]
        ]
        choice = next(moves, 1 + leaving[0] if forced else 0)
        if not choice:
            return
        message, *_ = fuzz_inputs.numbered(own[(choice - 1) % len(own)], ours.plan, ours.round)
        ours.send(message)


def _pieces(stream: bytes, delivery: int) -> Iterator[bytes]:
    """The stream at once (0), by frames (1), byte by byte (2), or in pieces of `delivery` bytes."""
    if delivery == 1:
        yield from fuzz_mutations.frames(stream)
        return
    size = len(stream) if delivery == 0 else 1 if delivery == 2 else delivery
    size = max(size, len(stream) // 1000, 1)
    yield from (stream[start : start + size] for start in range(0, len(stream), size))


def _check_arrived(ours: Session, arrived: list[Message]) -> None:
    for message in arrived:
        if message.sender == ours.role:
            raise BugError(f"a {ours.role} was handed {message.kind}")
        if sum(row.nbytes for row in message.rows()) > BODY_LIMIT:
            raise BugError("a body is larger than permitted")


def _check_failed(ours: Session) -> None:
    """Check that a failed session sends at most a failure, and returns no more messages."""
    if ours.state is not State.FAILED:
        raise BugError(f"a session that failed is {ours.state}")
    if ours.failure_due:
        ours.send(Failure(1, "fuzzed"))
    with contextlib.suppress(RemoteProtocolError):
        if ours.receive(PROBE):
            raise BugError("a session that failed handed on a message")


def head(data: bytes) -> None:
    """Parse the head of a frame, and pack it again."""
    body = BODY
    try:
        message = registry.unpack(data, body)
    except RemoteProtocolError:
        body = BODY[:0]
        message = registry.unpack(data, body)
    registry.unpack(registry.pack(message), body)


def group(data: bytes) -> None:
    """Feed datagrams to a worker in a round, which must assemble the rows that were sent, or none."""
    worker, *datagrams = _list(data)
    k = fields.integer(worker, "worker", 0, len(fuzz_inputs.AIR.solvers) - 1)
    end = fuzz_inputs.AIR.reassembly(k)
    for datagram in datagrams:
        end.take(memoryview(fields.binary(datagram, "datagram", 1)))
    for index in range(fuzz_inputs.AIR.layout.ranges):
        first, stop = fuzz_inputs.AIR.layout.pieces_of(index)
        if end.complete(index) and (end.lacks(index) or not fuzz_inputs.AIR.right(k, index, end)):
            raise BugError(f"range {index} is not what was sent")
        if not end.complete(index) and len(end.lacks(index)) != stop - first:
            raise BugError(f"range {index} is neither complete nor lacking")


def answers(data: bytes) -> None:
    """Feed loss reports to a broadcast. Repairs must come to an end."""
    broadcast, begun = fuzz_inputs.AIR.broadcast(), 0
    for told in _list(data):
        if told == [] and begun < fuzz_inputs.AIR.layout.ranges:
            begun += 1
            sum(block.count for block in broadcast.next_range())
            continue
        worker, *said = fields.exactly(told if type(told) is list else (), 4, "answer")
        lack = registry.LossReport.parse([0, 0, *said], BODY[:0])
        broadcast.take_report(f"w{worker}", lack.index, lack.lacks, lack.seen)
        if (index := broadcast.range_to_repair()) is not None:
            broadcast.take_unrepairable(index)
            if broadcast.lacking(index):
                sum(block.count for block in broadcast.repair(index))
        if lack.index < begun and broadcast.sent(lack.index) > _most_datagrams(lack.index):
            raise BugError(f"range {lack.index} was sent in {broadcast.sent(lack.index)} datagrams")


def _most_datagrams(index: int) -> int:
    """The most datagrams of a range, if all of them are always lost."""
    first, stop = fuzz_inputs.AIR.layout.pieces_of(index)
    needed = max(len(solver.own) for solver in fuzz_inputs.AIR.solvers)
    return (stop - first) * (len(fuzz_inputs.RELAYED.combined) + needed * MAX_REPAIRS)


def _list(packed: bytes) -> list[Any]:
    """A msgpack list that is not empty."""
    try:
        value = msgpack.unpackb(packed)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"not msgpack: {type(error).__name__}") from error
    if type(value) is not list or not value:
        raise RemoteProtocolError("not a list")
    return value


def settings(value: dict[str, Any]) -> None:
    """Read settings of the server's welcome."""
    Problem(Settings.from_dict(value), fuzz_inputs.INFOS)


def survey(value: dict[str, Any]) -> None:
    """Read a survey of a worker's declaration, and pool it with an honest one."""
    found = Survey.from_dict(value)
    if Survey.from_dict(found.as_dict()) != found:
        raise BugError("a survey does not survive being written")
    for standardise in (False, True):
        pool({"p0": found, "p1": HONEST.survey()}, "squared", standardise=standardise)


def encoding(value: dict[str, Any]) -> None:
    """Read the server's encoding, and encode rows with it."""
    HONEST.encoded(Encoding.from_dict(value))


def plan(value: dict[str, Any]) -> None:
    """Read a plan recipe; that of a linear plan has a valid digest, so that it is read to its end."""
    rebuild(value, _digest(value) if value.get("strategy") == "linear" else fuzz_inputs.DIGEST)


def bomb(data: bytes) -> None:
    """Read the largest head that a worker may send, filled with one small value."""
    registry.unpack(fuzz_mutations.exploded(data, WORKER_HEAD_LIMIT), BODY[:0])


BYTES: dict[str, Callable[[bytes], None]] = {
    reader.__name__: reader for reader in (session, head, group, answers, bomb)
}
READERS: dict[str, Callable[[dict[str, Any]], None]] = {
    reader.__name__: reader for reader in (settings, survey, encoding, plan)
}


class Fuzzer:
    """Runs inputs, and counts how they end.

    Parameters
    ----------
    seed : int
        The seed, which is printed with a bug.
    last : Path, optional
        A file that holds the current input, in case that the process crashes. An input that takes longer than
        a minute ends the process.
    """

    def __init__(self, seed: int, last: Path | None = None) -> None:
        self.seed = seed
        self._last = None if last is None else _mapped(last)
        self.count = 0
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.reasons: set[str] = set()
        self.peak = 0
        self._began = time.monotonic()
        self._warm: int | None = None
        self._most = MOST_MEMORY

    def run(self, data: bytes) -> str:
        """Run an input: "accepted", "refused" or "ignored"; BugError if it is a bug."""
        if self._last is not None:
            self._last[: len(data) + 4] = len(data).to_bytes(4, "big") + data
            if self.count % 20 == 0:
                faulthandler.dump_traceback_later(HANG, exit=True)
        self.count += 1
        self._most = MOST_SWOLLEN * WORKER_HEAD_LIMIT if data[:1] == b"b" else MOST_MEMORY
        target, began, largest = _target(data), time.process_time(), _largest()
        traced = self.count % 499 == 0 and target != "bomb"
        if traced:
            tracemalloc.start()
        try:
            outcome = self._outcome(target, data)
        except Exception as error:
            raise BugError(f"{target}: {error!r}") from error
        finally:
            if traced:
                self._note_peak(tracemalloc.get_traced_memory()[1], data)
                tracemalloc.stop()
        self.outcomes[target, outcome] += 1
        self._check_limits(time.process_time() - began, _largest() - largest)
        return outcome

    def _outcome(self, target: str, data: bytes) -> str:
        try:
            if target in READERS:
                READERS[target](_mapping(data[2:]))
            elif target:
                BYTES[target](data[1:])
            else:
                return "ignored"
        except PERMITTED[target] as error:
            if len(self.reasons) < 10_000:
                self.reasons.add(re.sub(r"[0-9]+|'.*?'", "#", f"{target}: {error}"[:150]))
            return "refused"
        return "accepted"

    def _note_peak(self, peak: int, data: bytes) -> None:
        self.peak = max(self.peak, peak)
        if peak > self._most:
            raise BugError(f"{len(data)} bytes took {peak >> 20} MB of memory")

    def _check_limits(self, seconds: float, growth: int) -> None:
        if seconds > LONGEST:
            raise BugError(f"it took {seconds:.1f} s of CPU")
        if growth > self._most:
            raise BugError(f"it took {growth >> 20} MB of memory")
        if self.count % 10_000 == 0:
            self._check_growth()

    def _check_growth(self) -> None:
        if self._warm is None:
            self._warm = _resident()
        elif _resident() - self._warm > MOST_GROWTH:
            raise BugError(f"memory has grown by {(_resident() - self._warm) >> 20} MB")

    def summary(self) -> str:
        """A summary: inputs, how they ended, speed and memory."""
        seconds = time.monotonic() - self._began
        lines = [f"{self.count} inputs in {seconds:.0f} s ({self.count / seconds:.0f} a second), 0 bugs"]
        for target in PERMITTED:
            counts = ", ".join(
                f"{self.outcomes[target, outcome]} {outcome}" for outcome in ("accepted", "refused")
            )
            lines.append(f"  {target}: {counts}")
        grown = 0 if self._warm is None else _resident() - self._warm
        lines.append(
            f"{len(self.reasons)} different refusals; memory {_resident() / 2**20:.0f} MB, grown by "
            f"{grown / 2**20:+.1f} MB once warm; the most for one input {self.peak / 2**20:.1f} MB"
        )
        return "\n".join(lines)

    def bug(self, data: bytes, error: BugError) -> NoReturn:
        """Report a bug and end the process."""
        traceback.print_exception(error)
        print(f"BUG, seed {self.seed}, input {self.count}: {error}\n--replay {data.hex()}", flush=True)
        # Not sys.exit: atheris would catch its exception.
        os._exit(1)


def _mapped(path: Path) -> mmap.mmap:
    """A file, mapped into memory, with room for the length of an input and the input."""
    with path.open("wb+") as file:
        file.truncate(4 + 2 * fuzz_mutations.LONGEST)
        return mmap.mmap(file.fileno(), 0)


def _target(data: bytes) -> str:
    letter = data[:1]
    if letter == b"v" and len(data) > 1:
        return fuzz_inputs.READERS[data[1] % len(fuzz_inputs.READERS)]
    return {b"s": "session", b"h": "head", b"d": "group", b"a": "answers", b"b": "bomb"}.get(letter, "")


def _mapping(packed: bytes) -> dict[str, Any]:
    """A field of a message that is a map, as the message checks it."""
    try:
        value = msgpack.unpackb(packed)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"not msgpack: {type(error).__name__}") from error
    return fields.mapping(value, "field")


def _resident() -> int:
    """Bytes of memory of this process, without freed memory that the allocator keeps."""
    with contextlib.suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _largest() -> int:
    """The peak of the memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def by_chance(fuzzer: Fuzzer, inputs: int, seconds: float) -> None:
    """Run a number of inputs, or for some seconds: first inputs of honest peers, then mutations."""
    rng = random.Random(fuzzer.seed)
    seeds = fuzz_inputs.corpus(rng)
    mutate = fuzz_mutations.Mutator(rng, seeds)
    kinds = [[data for data in seeds if data[:1] == letter] for letter in (b"s", b"h", b"v", b"d", b"a")]
    end = time.monotonic() + seconds
    for data in seeds:
        if _run(fuzzer, data) != "accepted":
            fuzzer.bug(data, BugError("what an honest peer sends was refused"))
    while fuzzer.count < inputs and time.monotonic() < end:
        if fuzzer.count % BOMBS == 0:
            _run(fuzzer, fuzz_mutations.bomb(rng))
        else:
            _run(fuzzer, mutate(rng.choice(rng.choices(kinds, (6, 3, 2, 2, 1))[0])))


def _run(fuzzer: Fuzzer, data: bytes) -> str:
    try:
        return fuzzer.run(data)
    except BugError as error:
        fuzzer.bug(data, error)


def by_coverage(fuzzer: Fuzzer, inputs: int, seconds: float) -> NoReturn:
    """Run inputs guided by their coverage, with libFuzzer (atheris)."""
    rng = random.Random(fuzzer.seed)
    seeds = fuzz_inputs.corpus(rng)
    mutator = fuzz_mutations.Mutator(rng, seeds)
    end = time.monotonic() + seconds

    def one(data: bytes) -> None:
        _run(fuzzer, data)
        if fuzzer.count >= inputs or time.monotonic() >= end:
            print(fuzzer.summary(), flush=True)
            os._exit(0)

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        rng.seed(seed)
        return mutator(data)[:size] if rng.random() < 0.7 else bytes(atheris.Mutate(data, size))

    with tempfile.TemporaryDirectory() as folder:
        for i, data in enumerate(seeds):
            (Path(folder) / str(i)).write_bytes(data)
        arguments = [
            sys.argv[0],
            folder,
            f"-seed={fuzzer.seed + 1}",
            "-max_len=30000",
            "-print_final_stats=1",
        ]
        atheris.Setup(arguments, one, custom_mutator=mutate)
        atheris.Fuzz()
    raise AssertionError("libFuzzer does not return")


def replay(text: str) -> int:
    """Run one input, given in hex or as a file; the exit code."""
    if Path(text[:250]).exists():
        kept = Path(text).read_bytes()
        data = kept[4 : 4 + int.from_bytes(kept[:4], "big")]
    else:
        data = bytes.fromhex(text)
    fuzzer = Fuzzer(0)
    print(_run(fuzzer, data), *fuzzer.reasons)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3600.0, help="no longer than this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=["chance", "atheris"], default="chance")
    parser.add_argument("--replay", metavar="HEX|FILE", help="run this input only")
    parser.add_argument("--live", action="store_true", help="a server and workers over TCP, --inputs peers")
    given = parser.parse_args()
    if given.replay is not None:
        return replay(given.replay)
    if given.live:
        import fuzz_live

        return fuzz_live.main(given.inputs, given.seconds, given.seed)
    logging.disable()
    last = Path(tempfile.gettempdir()) / f"fuzz-{os.getpid()}"
    print(f"seed {given.seed}; if this dies or hangs: --replay {last}", flush=True)
    fuzzer = Fuzzer(given.seed, last)
    engine = by_coverage if given.engine == "atheris" else by_chance
    engine(fuzzer, given.inputs, given.seconds)
    faulthandler.cancel_dump_traceback_later()
    last.unlink()
    print(fuzzer.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
