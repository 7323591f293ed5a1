"""What must not reach those that a blind run keeps from its data, and where it is looked for."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from support.raw_partitions import raw_partition

from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.protocol.frame_reader import FrameReader

WORDS = (b"sulfacol", b"ward-al", b"ward-ki", b"wellness", b"sickened", b"mildened", b"grimness")
"""Words that the partitions of `raw` have."""


class Seen:
    """What the workers of a run computed: every number of which the server must not see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers: set[float] = set()
        compute = CodedWorkerSide.compute

        def watched(side: CodedWorkerSide) -> Upload:
            upload = compute(side)
            models = side.trainer.state()
            self.add(side._own_updates, models[: len(models) // 8 * 8].view(np.float64))
            self.add(np.array([*upload.losses, upload.penalty, upload.residual]))
            return upload

        monkeypatch.setattr(CodedWorkerSide, "compute", watched)

    def add(self, *arrays: Any) -> None:
        for array in arrays:
            self.numbers |= set(np.asarray(array, np.float64).ravel().tolist())

    def found_in(self, sent: bytes) -> set[float]:
        """The numbers that occur in some bytes, in either order of bytes."""
        known = dict[bytes, float]()
        for value in self.numbers:
            words = struct.pack("<d", value), struct.pack(">d", value)
            # Round numbers, such as counts, occur by chance.
            if np.isfinite(value) and len(set(words[0])) > 5 and words[0][:2] != bytes(2):
                known |= dict.fromkeys(words, value)
        assert len(known) > 50
        # Places where the first two bytes are those of a number.
        begins = np.zeros(1 << 16, bool)
        begins[[int.from_bytes(word[:2], "little") for word in known]] = True
        content, places = np.frombuffer(sent, np.uint8), []
        for first in (0, 1):
            pairs = content[first : first + (len(content) - first) // 2 * 2].view("<u2")
            places += (2 * np.flatnonzero(begins[pairs]) + first).tolist()
        return {known[word] for place in places if (word := sent[place : place + 8]) in known}

    def add_columns(self, partitions: Sequence[Any]) -> None:
        """Add the numbers of raw partitions (`raw`), and the means of their columns."""
        for part in partitions:
            columns = [part.columns[name] for name in ("sulfacol", "age")]
            self.add(*columns, *(column.mean() for column in columns))


def raw(seed: int) -> list[Any]:
    """Partitions as from files, with numbers, words and two classes; all seeds have the same shapes."""
    rng = np.random.default_rng(seed)
    words = [
        np.array(["ward-alpha", "ward-bravo", "ward-delta"], object),
        np.array(["ward-kilos", "ward-oscar", "ward-tango"], object),
    ][seed]
    classes = [np.array(["wellness", "sickened"], object), np.array(["mildened", "grimness"], object)][seed]
    return [
        raw_partition(
            f"p{n}",
            {
                "sulfacol": rng.standard_normal(9) + 100 * (seed + 1),
                "ward": words[np.arange(9) % 3],
                "age": rng.standard_normal(9),
            },
            classes[rng.permutation(9) % 2],
            task=f"t{n // 2}",
        )
        for n in range(6)
    ]


def heads_and_opaque(sent: bytes) -> tuple[list[Any], bytes]:
    """The heads of the frames, with each field of bytes replaced by its length; and all these bytes."""
    opaque = []

    def shape(value: Any) -> Any:
        if isinstance(value, bytes):
            opaque.append(value)
            return f"{len(value)} bytes"
        if isinstance(value, dict):
            return {key: shape(item) for key, item in value.items()}
        return [shape(item) for item in value] if isinstance(value, list) else value

    heads = []
    for frame in FrameReader(1 << 26, 1 << 26).feed(sent):
        head = msgpack.unpackb(bytes(frame.head))
        if head[0] != 14:  # heartbeats come when they come
            heads.append([shape(head), len(frame.body)])
            opaque.append(frame.body.tobytes())
    # Each once: holders of a partition send the same bytes about it.
    return heads, b"".join(dict.fromkeys(opaque))


STAYING = """
import sys
from asyncdmtl.cli.{} import main
main.main(sys.argv[1:], standalone_mode=False)
print("over", flush=True)
sys.stdin.read()
"""
"""A command, of the name that is put in, that stays when its run is over, until its standard input ends."""


def memory_of(pid: int) -> bytes:
    """All that a process has written to its memory."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, stop = (int(place, 16) for place in span.split("-"))
                memory.seek(start)
                with contextlib.suppress(OSError):
                    found.append(memory.read(stop - start))
    return b"".join(found)
