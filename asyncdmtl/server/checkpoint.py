"""What a server writes down, so that another can go on with the run if it is killed.

::

    magic     8 bytes
    lengths   two u64, big-endian: bytes of the facts and of the state
    facts     one msgpack map
    state     of the training at the beginning of the round, or nothing if the workers hold it
    check     16 bytes of BLAKE2b over all before it

A file is written under another name, flushed to the disk, and renamed; then the directory is flushed. So a
checkpoint is there whole or not at all, whenever the server is killed. The last two are kept, and the first:
should one not be what was written, the one before it is used. The first is small and has no state, but tells
whose run it is: with it the server can go on from what the workers hold.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import AsyncDMTLError, UsageError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Declaration, PartitionInfo
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.base import (
    pack_declaration,
    pack_info,
    parse_declaration,
    parse_each,
    parse_info,
)
from asyncdmtl.server.records import Incident, RoundRecord

log = logging.getLogger(__name__)


MAGIC = b"admtlck1"
LENGTHS = struct.Struct(">QQ")
CHECK_BYTES = 16
KEPT = 2
SUFFIX = ".checkpoint"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that the server of a run must know to go on with it.

    Attributes
    ----------
    run : str
        The run's name.
    settings, strategy, encoding
        Of the run; `strategy` is a word of `CHOICES`, but not "auto".
    declared : tuple of Declaration
        All partitions, in natural order.
    infos : tuple of PartitionInfo
        What they became, in the same order.
    workers : tuple of str
        Who took part.
    plans : int
        How many were made.
    round, over
        Where the training stands: at the beginning of this round, or at its end.
    rounds, incidents, ledger
        What has been made so far, went wrong, and travelled.
    distrusted : tuple of (worker, partition)
        Who is treated as not holding what.
    state : uint8 array
        Of the training; empty if it is that before the first round, or if only the workers hold it.
    """

    run: str
    settings: Settings
    strategy: str
    encoding: Encoding
    declared: tuple[Declaration, ...]
    infos: tuple[PartitionInfo, ...]
    workers: tuple[str, ...]
    plans: int
    round: int
    over: bool
    rounds: tuple[RoundRecord, ...]
    incidents: tuple[Incident, ...]
    ledger: Ledger
    distrusted: tuple[tuple[str, str], ...]
    state: Bytes

    def pack(self) -> bytes:
        """The content of a file."""
        facts: bytes = msgpack.packb(
            {
                "run": self.run,
                "settings": self.settings.as_dict(),
                "strategy": self.strategy,
                "encoding": self.encoding.as_dict(),
                "declared": [pack_declaration(part) for part in self.declared],
                "infos": [pack_info(info) for info in self.infos],
                "workers": self.workers,
                "plans": self.plans,
                "round": self.round,
                "over": self.over,
                # Rows and not maps: a long run has a hundred thousand of them.
                "rounds": [list(vars(record).values()) for record in self.rounds],
                "incidents": [list(vars(incident).values()) for incident in self.incidents],
                "ledger": self.ledger.as_rows(),
                "distrusted": self.distrusted,
            }
        )
        lengths = LENGTHS.pack(len(facts), self.state.nbytes)
        content = b"".join((MAGIC, lengths, facts, self.state.tobytes()))
        return content + _check(content)

    @classmethod
    def unpack(cls, content: bytes) -> Checkpoint:
        """Read what `pack` gave; ValueError says what is wrong with it."""
        start = len(MAGIC) + LENGTHS.size
        if content[: len(MAGIC)] != MAGIC:
            raise ValueError("it is no checkpoint of this version")
        if len(content) < start + CHECK_BYTES:
            raise ValueError("it is truncated")
        facts, state = LENGTHS.unpack_from(content, len(MAGIC))
        if len(content) != start + facts + state + CHECK_BYTES:
            raise ValueError(f"it has {len(content)} bytes instead of {start + facts + state + CHECK_BYTES}")
        if _check(content[:-CHECK_BYTES]) != content[-CHECK_BYTES:]:
            raise ValueError("it does not match its check")
        try:
            known = msgpack.unpackb(content[start : start + facts])
            return cls._read(known, np.frombuffer(content, np.uint8, state, start + facts).copy())
        except (AsyncDMTLError, KeyError, TypeError, ValueError, msgpack.UnpackException) as error:
            raise ValueError(f"it makes no sense: {error!r}") from error

    @classmethod
    def _read(cls, facts: Mapping[str, Any], state: Bytes) -> Checkpoint:
        return cls(
            run=facts["run"],
            settings=Settings.from_dict(facts["settings"]),
            strategy=facts["strategy"],
            encoding=Encoding.from_dict(facts["encoding"]),
            declared=parse_each(facts["declared"], parse_declaration),
            infos=parse_each(facts["infos"], parse_info),
            workers=tuple(facts["workers"]),
            plans=facts["plans"],
            round=facts["round"],
            over=facts["over"],
            rounds=tuple(RoundRecord(*record) for record in facts["rounds"]),
            incidents=tuple(Incident(*incident) for incident in facts["incidents"]),
            ledger=Ledger.from_rows(facts["ledger"]),
            distrusted=tuple((worker, partition) for worker, partition in facts["distrusted"]),
            state=state,
        )


class Store:
    """A directory with the last checkpoints of one run.

    Parameters
    ----------
    folder : Path
        Made if it is not there.

    Raises
    ------
    UsageError
        It cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise UsageError("--checkpoint", "must be a directory that can be written to", str(folder))
        except OSError as error:
            raise _unusable(folder, error) from error

    def lock(self) -> None:
        """Have the directory to oneself until `unlock`, or until this process has ended, however it does.

        Raises
        ------
        UsageError
            Another server has it.
        """
        try:
            self._handle = os.open(self._folder, os.O_RDONLY)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.unlock()
            rule = "must not be in use by another server"
            raise UsageError("--checkpoint", rule, str(self._folder)) from error
        except OSError as error:
            raise _unusable(self._folder, error) from error

    def unlock(self) -> None:
        """Let others have the directory."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    @property
    def files(self) -> list[Path]:
        """The checkpoints, the latest first."""
        return sorted(self._folder.glob(f"*{SUFFIX}"), reverse=True)

    def load(self) -> Checkpoint | None:
        """The latest checkpoint that is as it was written; None if there is none at all.

        Raises
        ------
        UsageError
            There are some, and none of them can be used.
        """
        reasons: dict[Path, str] = {}
        for file in self.files:
            try:
                found = Checkpoint.unpack(file.read_bytes())
            except (OSError, ValueError) as error:
                reasons[file] = str(error)
                log.warning("checkpoint %s cannot be used: %s", file, error)
                continue
            for useless in reasons:
                useless.rename(useless.with_suffix(".unusable"))
            return found
        if reasons:
            told = {file.name: reason for file, reason in reasons.items()}
            raise UsageError("--checkpoint", "must have a checkpoint that can be used", told)
        return None

    def save(self, checkpoint: Checkpoint) -> int:
        """Write a checkpoint, and forget those before the one before it but the first; its size in bytes.

        Raises
        ------
        UsageError
            It cannot be written.
        """
        content = checkpoint.pack()
        files = self.files
        number = int(files[0].stem) + 1 if files and files[0].stem.isdecimal() else 0
        target = self._folder / f"{number:08d}{SUFFIX}"
        temporary = target.with_suffix(".unfinished")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            self._flush()
            for old in files[KEPT - 1 : -1]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise _unusable(self._folder, error) from error
        return len(content)

    def clear(self) -> None:
        """Forget all checkpoints: the run is over."""
        for file in [*self.files, *self._folder.glob("*.unfinished")]:
            file.unlink(missing_ok=True)

    def _flush(self) -> None:
        """Have the directory itself on the disk."""
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _check(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=CHECK_BYTES).digest()


def _unusable(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        "--checkpoint", f"must be a directory that can be written to ({error.strerror})", str(folder)
    )
