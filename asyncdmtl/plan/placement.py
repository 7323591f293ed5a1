"""The placement, an immutable and validated value: the partitions that each worker stores.

`M_k` is the set of partitions stored at worker `k`, `H_n` the set of holders of partition `n`
(docs/theory.md, section 1).
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from asyncdmtl.documents import read_document
from asyncdmtl.errors import PlacementError


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts `w2` before `w10`; different names have different keys."""
    # Numbers are compared by length and digits: as integers they could be too long for Python to read.
    pieces = re.findall(r"0*([0-9]+)|([^0-9]+)", name)
    numbered = tuple((0, len(digits), digits) if digits else (1, 0, text) for digits, text in pieces)
    return (*numbered, (2, 0, name))


class Placement:
    """The partitions that each worker stores.

    Parameters
    ----------
    stored : mapping of worker name to an iterable of partition names
        Any sizes and any overlaps; a worker may store nothing.
    partitions : sequence of str, optional
        All partitions, in order. Default: all stored partitions, in natural order. If given, each of them
        must have a holder, and no other partition may be stored.

    Attributes
    ----------
    workers, partitions : tuple of str
        Names; all other attributes refer to them by index.
    stored : tuple of tuple of int
        `stored[k]` is `M_k`, ascending.
    holders : tuple of tuple of int
        `holders[n]` is `H_n`, ascending.

    Raises
    ------
    PlacementError
        There is no worker or no partition, a name occurs twice, or a partition has no holder or is unknown.
    """

    workers: tuple[str, ...]
    partitions: tuple[str, ...]
    stored: tuple[tuple[int, ...], ...]

    def __init__(self, stored: Mapping[str, Iterable[str]], partitions: Sequence[str] | None = None) -> None:
        if not isinstance(stored, Mapping):
            raise PlacementError("placement", "must map worker names to lists of partition names", stored)
        by_worker = {
            str(worker) if isinstance(worker, str) else worker: _names(
                f"partitions of worker {worker!r}", held
            )
            for worker, held in stored.items()
        }
        if not by_worker:
            raise PlacementError("placement", "must have at least one worker", {})
        for worker, names in by_worker.items():
            _check_names(f"worker {worker!r}", [worker])
            _check_names(f"partitions of worker {worker!r}", names)
        present = {name for names in by_worker.values() for name in names}
        if partitions is None:
            partitions = sorted(present, key=natural_key)
        else:
            partitions = _names("partitions", partitions)
            _check_names("partitions", partitions)
        if not partitions:
            raise PlacementError("placement", "must have at least one partition", dict(by_worker))
        if missing := [name for name in partitions if name not in present]:
            raise PlacementError(
                "placement", "must store every partition at some worker; without holder", missing
            )
        index = {name: n for n, name in enumerate(partitions)}
        for worker, names in by_worker.items():
            if unknown := [name for name in names if name not in index]:
                raise PlacementError(
                    f"worker {worker!r}", "may store known partitions only; unknown", unknown
                )
        self.workers = tuple(by_worker)
        self.partitions = tuple(partitions)
        self.stored = tuple(tuple(sorted(index[name] for name in names)) for names in by_worker.values())

    @cached_property
    def holders(self) -> tuple[tuple[int, ...], ...]:
        """`H_n` for every partition `n`: the workers that store it, ascending."""
        found: list[list[int]] = [[] for _ in self.partitions]
        for k, stored in enumerate(self.stored):
            for n in stored:
                found[n].append(k)
        return tuple(map(tuple, found))

    def missing(self, worker: int) -> tuple[int, ...]:
        """The partitions that `worker` (an index) does not store, ascending."""
        stored = set(self.stored[counted("worker", worker, 0, len(self.workers) - 1)])
        return tuple(n for n in range(len(self.partitions)) if n not in stored)

    def as_dict(self) -> dict[str, list[str]]:
        """A mapping of worker names to partition names, from which `Placement` makes an equal value."""
        return {
            worker: [self.partitions[n] for n in stored]
            for worker, stored in zip(self.workers, self.stored, strict=True)
        }

    @classmethod
    def cyclic(cls, workers: int, partitions: int, copies: int) -> Placement:
        """Store partition `p{n}` at `copies` consecutive workers, cyclically, beginning at `n mod workers`.

        Every partition has `copies` holders and storage differs by at most one partition between workers.
        Workers are named `w0`, `w1`, …

        Raises
        ------
        PlacementError
            `workers` or `partitions` is below 1, or `copies` is outside 1…workers.
        """
        workers, partitions = counted("workers", workers), counted("partitions", partitions)
        copies = counted("copies", copies)
        if not 1 <= copies <= workers:
            raise PlacementError(
                "copies", f"must lie between 1 and the number of workers ({workers})", copies
            )
        whole_laps = partitions - partitions % workers
        stored: dict[str, list[str]] = {f"w{k}": [] for k in range(workers)}
        for n in range(partitions):
            # The last, incomplete lap starts at evenly spaced workers: that keeps storage balanced.
            start = n % workers if n < whole_laps else (n - whole_laps) * workers // (partitions - whole_laps)
            for i in range(copies):
                stored[f"w{(start + i) % workers}"].append(f"p{n}")
        return cls(stored, [f"p{n}" for n in range(partitions)])

    @classmethod
    def read(cls, path: str | Path) -> Placement:
        """Read a TOML or JSON file: a table `workers` of lists of partition names.

        An optional list `partitions` fixes their order and is checked against the table.

        Raises
        ------
        PlacementError
            The file cannot be read, does not parse, or does not describe a placement.
        """
        content = read_tables(path)
        workers = content.get("workers")
        if not isinstance(workers, dict) or not all(_is_names(names) for names in workers.values()):
            raise PlacementError(
                f"placement file {path}", "must have a table 'workers' of lists of partition names", workers
            )
        partitions = content.get("partitions")
        if partitions is not None and not _is_names(partitions):
            raise PlacementError(
                f"placement file {path}", "needs 'partitions' to be a list of names", partitions
            )
        try:
            return cls(workers, partitions)
        except PlacementError as error:
            raise PlacementError(
                f"placement file {path}: {error.argument}", error.rule, error.value
            ) from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Placement):
            return NotImplemented
        return (self.workers, self.partitions, self.stored) == (other.workers, other.partitions, other.stored)

    def __hash__(self) -> int:
        return hash((self.workers, self.partitions, self.stored))

    def __repr__(self) -> str:
        copies = sum(map(len, self.stored))
        return f"<Placement: {len(self.workers)} workers, {len(self.partitions)} partitions, {copies} copies>"


def listed(argument: str, values: Any) -> list[Any]:
    """`values` as a list; PlacementError if they are no list, or a string (which would become letters)."""
    try:
        if not isinstance(values, str | bytes):
            return list(values)
    except TypeError:
        pass
    raise PlacementError(argument, "must be a list", values)


def counted(argument: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """`value` as an int; PlacementError unless it is a whole number (of NumPy, too) from `low` to `high`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < low or (high is not None and number > high):
        limit = f", at least {low}" if high is None else f" from {low} to {high}"
        raise PlacementError(argument, f"must be a whole number{limit}", value)
    return number


def read_tables(path: str | Path) -> dict[str, Any]:
    """The content of a placement file, TOML or JSON; PlacementError if it cannot be read or parsed."""
    path = Path(path)
    try:
        content = read_document(path)
    except OSError as error:
        rule = f"must be readable ({error.strerror})"
        raise PlacementError(f"placement file {path}", rule, str(path)) from error
    except ValueError as error:
        raise PlacementError(
            f"placement file {path}", f"must be TOML or JSON ({error})", str(path)
        ) from error
    if not isinstance(content, dict):
        raise PlacementError(f"placement file {path}", "must have a table 'workers'", content)
    return content


def _names(what: str, names: Any) -> list[str]:
    """`names` as a list. A single string is refused: it would become a list of its letters."""
    given = listed(what, names)
    # NumPy's strings are strings, too, but recipes and files take plain ones.
    return [str(name) if isinstance(name, str) else name for name in given]


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _check_names(what: str, names: Sequence[str]) -> None:
    for name in names:
        if not isinstance(name, str) or not name or len(name) > 200 or not name.isprintable():
            raise PlacementError(what, "must be named by 1 to 200 printable characters", name)
    if len(set(names)) != len(names):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        raise PlacementError(what, "may name each partition once; named twice", twice)
