"""The readers that `fuzz_files` gives damaged input, and valid inputs to begin with.

Each reader is a function of an input. It returns if the input is valid, and raises one of the errors in
`PERMITTED` if it is not; any other error is a bug. The first byte of most inputs says how the rest is
wrapped, so that damage reaches what lies behind checks and lengths.
"""

from __future__ import annotations

import io
import random
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import fuzz_inputs
import fuzz_protocol
import msgpack
import numpy as np

from asyncdmtl.cli.configuration import read_defaults
from asyncdmtl.cli.main import main as commands
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import DataError, RemoteProtocolError, UsageError
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.plan.placement_file import read_request
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.checkpoint import CHECK_BYTES, LENGTHS, MAGIC, Checkpoint, _check
from asyncdmtl.server.records import Incident, RoundRecord
from asyncdmtl.server.round_log import RoundLog

PERMITTED: Mapping[str, tuple[type[Exception], ...]] = {
    "head": (RemoteProtocolError,),
    "frames": (RemoteProtocolError,),
    "model": (DataError,),
    "checkpoint": (ValueError,),
    "placement": (UsageError,),
    "config": (UsageError,),
}

# Commands whose configuration is read.
COMMANDS = ("run", "server", "worker")


def _command(name: str) -> click.Command:
    found = commands.get_command(click.Context(commands), name)
    assert found is not None
    return found


_COMMANDS = {name: _command(name) for name in COMMANDS}

# Fields of a zip archive: what both headers of a member tell of it, its place in the file, and the end.
_MEMBER, _PLACE, _END = struct.Struct("<HHHHHIIIHH"), struct.Struct("<HHHII"), struct.Struct("<HHHHIIH")

_MEMORY = Path("/dev/shm")
_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)


def head(data: bytes) -> None:
    """Parse the head of a message, and pack it again."""
    fuzz_protocol.head(data)


def frames(data: bytes) -> None:
    """Feed a stream to a session, as `fuzz_protocol` does."""
    fuzz_protocol.session(data)


def model(data: bytes) -> None:
    """Load a model file: after "j" comes its JSON, after "a" that of its coefficients; or the whole file."""
    if data[:1] in (b"j", b"a"):
        data = _archive(data[1:], _ARRAY) if data[:1] == b"j" else _archive(_JSON, data[1:])
    SavedModel.load(_written("input.model", data))


def checkpoint(data: bytes) -> None:
    """Unpack a checkpoint: "f" is followed by its facts, to which lengths and check are added."""
    if data[:1] == b"f":
        content = MAGIC + LENGTHS.pack(len(data) - 1, 8) + data[1:] + bytes(8)
        data = content + _check(content)
    Checkpoint.unpack(data)


def placement(data: bytes) -> None:
    """Read a placement: "j" is followed by JSON, any other byte by TOML."""
    read_request(_written(f"input.{'json' if data[:1] == b'j' else 'toml'}", data[1:]))


def config(data: bytes) -> None:
    """Read the configuration of the command that the first byte selects."""
    name = COMMANDS[(data[0] if data else 0) % len(COMMANDS)]
    command = _COMMANDS[name]
    option = next(param for param in command.params if param.name == "config")
    read_defaults(click.Context(command, info_name=name), option, _written("input.toml", data[1:]))


READERS: Mapping[str, Callable[[bytes], None]] = {
    reader.__name__: reader for reader in (head, frames, model, checkpoint, placement, config)
}


def refused(reader: str, data: bytes) -> bool:
    """Whether the reader refuses an input with a permitted error; other errors are raised."""
    try:
        READERS[reader](data)
    except PERMITTED[reader]:
        return True
    return False


def _written(name: str, data: bytes) -> Path:
    path = Path(_FOLDER.name) / name
    path.write_bytes(data)
    return path


def _archive(json: bytes, coefficients: bytes) -> bytes:
    """A model file with this JSON and this content of the array of coefficients.

    `zipfile` would take as long to write it as the reader takes to read it.
    """
    content = directory = b""
    members = (b"coef_.npy", coefficients), (b"intercept_.npy", _INTERCEPT), (b"model.json", json)
    for name, data in members:
        told = _MEMBER.pack(20, 0, 0, 0, 33, zlib.crc32(data), len(data), len(data), len(name), 0)
        directory += b"PK\1\2\24\0" + told + _PLACE.pack(0, 0, 0, 0, len(content)) + name
        content += b"PK\3\4" + told + name + data
    return content + directory + b"PK\5\6" + _END.pack(0, 0, 3, 3, len(directory), len(content), 0)


def _model_file() -> bytes:
    saved = SavedModel(
        TaskModels(("a", "b"), np.ones((2, len(fuzz_inputs.ENCODING.features))), np.zeros(2), "squared"),
        fuzz_inputs.ENCODING, fuzz_inputs.SETTINGS, "task", {"ledger": [["up", "w0", 0, 5]]},
    )  # fmt: skip
    path = Path(_FOLDER.name) / "whole.model"
    saved.save(path)
    return path.read_bytes()


def _checkpoint() -> Checkpoint:
    rounds = RoundLog()
    rounds.append(RoundRecord(0, 0.5, 0.25, 10, 20, 0.125))
    return Checkpoint(
        run="run",
        settings=fuzz_inputs.SETTINGS,
        strategy="relay",
        encoding=Encoding.empty(),
        declared=fuzz_inputs.DECLARATIONS,
        infos=fuzz_inputs.INFOS,
        workers=("w0", "w1"),
        plans=2,
        round=1,
        over=False,
        rounds=rounds,
        incidents=(Incident(0, "w1", "late"),),
        ledger=Ledger(),
        distrusted=(("w1", "p0"),),
        state=np.zeros(8, np.uint8),
    )


_TOML = b"""partitions = ["p0", "p1", "p2"]
[workers]
w0 = ["p0", "p1"]
w1 = ["p1", "p2"]
[tasks]
a = ["p0", "p1"]
b = ["p2"]
[prices]
w0 = "1/2"
w1 = 1
[speeds]
w0 = 2
w1 = 3
[wants]
w0 = "own"
"""
_JSON_PLACEMENT = b'{"workers": {"w0": ["p0", "p1"], "w1": ["p1"]}, "tasks": {"a": ["p0"], "b": ["p1"]}}'
_CONFIG = b"""[run]
rounds = 3
loss = "logistic"
standardise = true
data = ["a.csv", "b.csv"]
[server]
workers = 3
[worker]
connect = "127.0.0.1:7700"
"""
_MODEL = _model_file()
with zipfile.ZipFile(io.BytesIO(_MODEL)) as _opened:
    _JSON, _ARRAY, _INTERCEPT = map(_opened.read, ("model.json", "coef_.npy", "intercept_.npy"))


def seeds(reader: str) -> list[bytes]:
    """Valid inputs of a reader."""
    packed = _checkpoint().pack()
    facts = packed[len(MAGIC) + LENGTHS.size : -CHECK_BYTES - 8]
    protocol = fuzz_inputs.corpus(random.Random(0), sessions=10)
    made: dict[str, list[bytes]] = {
        "head": [data[1:] for data in protocol if data[:1] == b"h"],
        "frames": [data[1:] for data in protocol if data[:1] == b"s"],
        "model": [_MODEL, b"j" + _JSON, b"a" + _ARRAY],
        "checkpoint": [packed, b"f" + facts, b"f" + msgpack.packb({})],
        "placement": [b"t" + _TOML, b"j" + _JSON_PLACEMENT],
        "config": [bytes([number]) + _CONFIG for number in range(len(COMMANDS))],
    }
    return made[reader]
