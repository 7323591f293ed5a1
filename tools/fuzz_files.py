"""Give readers damaged input: heads, frames, model files, checkpoints, placements and configurations.

    python tools/fuzz_files.py --seconds 10             all readers, one after the other
    python tools/fuzz_files.py model --inputs 1000000   one of them

Coverage guides the search (atheris, which drives libFuzzer); where atheris is not installed, or with
--engine chance, inputs are changed at random. Inputs are derived from those in `tools/corpus`. An error that
a reader may not raise, or an input that takes more than ten seconds or 1 GB of memory, is a bug: it is kept
in a file for --replay, and the exit code is not 0. With --keep, inputs that reach further code are added.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"

# Modules that atheris measures for each reader.
MEASURED: Mapping[str, list[str]] = {
    "head": ["asyncdmtl.protocol"],
    "frames": ["asyncdmtl.protocol"],
    "model": ["asyncdmtl.data", "asyncdmtl.learning.settings", "asyncdmtl.learning.tasks"],
    "checkpoint": ["asyncdmtl.server.checkpoint", "asyncdmtl.server.round_log", "asyncdmtl.protocol"],
    "placement": ["asyncdmtl.plan.placement", "asyncdmtl.plan.placement_file", "asyncdmtl.documents"],
    "config": ["asyncdmtl.cli.configuration", "asyncdmtl.documents"],
}

NAMES = tuple(MEASURED)

# Seconds and MiB that one input may take, the process with its libraries included; and the longest input.
LONGEST_SECONDS = 10
MOST_MEMORY = 1024
LONGEST = 20_000

# What an input of an unexpected kind may be made of, besides random bytes.
PIECES = (b"[" * 50, b"9" * 50, b"\xff" * 9, b"\x00", b"{}", b"'''", b'""', b"=", b"\n[run]\n", b"\x93NUMPY")


def by_chance(reader: str, readers: Any, given: argparse.Namespace) -> int:
    """Run randomly changed inputs; return how many."""
    rng, count, end = random.Random(given.seed), 0, time.monotonic() + given.seconds
    kept = [file.read_bytes() for file in sorted((CORPUS / reader).iterdir())]
    while count < given.inputs and time.monotonic() < end:
        data = bytearray(rng.choice(kept))
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            start = rng.randrange(len(data) + 1)
            stop = min(len(data), start + rng.choice((0, 1, 2, 8, 100)))
            data[start:stop] = rng.choice((rng.randbytes(rng.choice((0, 1, 2, 9))), rng.choice(PIECES)))
        try:
            readers.refused(reader, bytes(data))
        except BaseException:
            file = Path(tempfile.gettempdir()) / f"fuzz-{reader}-{os.getpid()}"
            file.write_bytes(data)
            print(f"BUG: fuzz_files.py {reader} --replay {file}", flush=True)
            raise
        count += 1
    return count


def by_coverage(reader: str, atheris: Any, readers: Any, given: argparse.Namespace) -> None:
    """Run inputs guided by their coverage; libFuzzer ends this process."""

    def one(data: bytes) -> None:
        readers.refused(reader, data)

    found = tempfile.mkdtemp(prefix=f"fuzz-{reader}-")
    folders = [str(CORPUS / reader)] if given.keep else [found, str(CORPUS / reader)]
    arguments = [
        sys.argv[0], *folders, f"-runs={given.inputs}", f"-max_total_time={max(1, round(given.seconds))}",
        f"-seed={given.seed + 1}", f"-max_len={LONGEST}", f"-timeout={LONGEST_SECONDS}",
        f"-rss_limit_mb={MOST_MEMORY}", f"-artifact_prefix={found}/", "-print_final_stats=1", "-verbosity=0",
        "-reduce_inputs=1",
    ]  # fmt: skip
    atheris.Setup(arguments, one)
    atheris.Fuzz()


def _engine(chosen: str) -> str:
    there = importlib.util.find_spec("atheris") is not None
    if chosen == "atheris" and not there:
        raise SystemExit("atheris is not installed: pip install atheris, or --engine chance")
    return "chance" if chosen == "chance" or not there else "atheris"


def fuzz(reader: str, given: argparse.Namespace) -> int:
    """Fuzz one reader in this process."""
    logging.disable()
    if _engine(given.engine) == "chance":
        began = time.monotonic()
        count = by_chance(reader, importlib.import_module("fuzz_readers"), given)
        print(f"{reader}: {count} inputs by chance in {time.monotonic() - began:.1f} s, no bug", flush=True)
        return 0
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=MEASURED[reader]):
        readers = importlib.import_module("fuzz_readers")
    by_coverage(reader, atheris, readers, given)
    return 0


def fuzz_each(given: argparse.Namespace) -> int:
    """Fuzz all readers, each in a process of its own and for its share of the time."""
    share = given.seconds / len(NAMES)
    for reader in NAMES:
        options = ["--inputs", str(given.inputs), "--seconds", str(share), "--seed", str(given.seed)]
        options += ["--engine", _engine(given.engine), *(["--keep"] if given.keep else [])]
        done = subprocess.run(
            [sys.executable, __file__, reader, *options], stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            print(f"{done.stderr[-5000:]}\nBUG in the reader {reader!r}", flush=True)
            return 1
        told = [line for line in done.stderr.splitlines() if line.startswith("stat::number_of_executed")]
        print(f"{reader}: {told[0].split()[-1]} inputs, no bug" if told else done.stderr[-500:], flush=True)
    return 0


def write_seeds() -> int:
    """Write the valid inputs to the corpus."""
    readers = importlib.import_module("fuzz_readers")
    for reader in NAMES:
        (CORPUS / reader).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(readers.seeds(reader)):
            (CORPUS / reader / f"seed-{number:03d}").write_bytes(data)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reader", nargs="?", choices=NAMES, help="only this one")
    parser.add_argument("--inputs", type=int, default=100_000_000, help="no more than this, for each reader")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=["auto", "atheris", "chance"], default="auto")
    parser.add_argument("--keep", action="store_true", help="add inputs to the corpus")
    parser.add_argument("--replay", metavar="FILE", type=Path, help="run this input of a reader only")
    parser.add_argument("--write-seeds", action="store_true", help="write valid inputs to the corpus")
    given = parser.parse_args()
    if given.write_seeds:
        return write_seeds()
    if given.replay is not None:
        if given.reader is None:
            parser.error("--replay needs the reader")
        readers = importlib.import_module("fuzz_readers")
        print("refused" if readers.refused(given.reader, given.replay.read_bytes()) else "accepted")
        return 0
    return fuzz_each(given) if given.reader is None else fuzz(given.reader, given)


if __name__ == "__main__":
    sys.exit(main())
