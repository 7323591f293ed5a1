"""Fingerprints of a partition's columns, to find out how two supposed copies of a partition differ."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl.data.columns import Column, is_numeric, update_digest
from asyncdmtl.data.fields import read_fields, read_pairs
from asyncdmtl.errors import UsageError

# Bytes of the fingerprint of a column: enough to tell accidents apart.
FINGERPRINT_BYTES = 8

MAX_EACH = 4096
"""The most rows of a partition for which each row has a fingerprint of its own."""

_ROWS = re.compile(r"(?:[0-9a-f]{4})*")
_HEXADECIMAL = re.compile(r"[0-9a-f]{16}")

# Odd numbers that mix the bits of hashes (the finaliser of MurmurHash3).
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_SHIFT = np.uint64(33)


def column_fingerprints(columns: Mapping[str, Column]) -> dict[str, str]:
    """A mapping of column name to the hexadecimal fingerprint of its values in the order of the rows."""
    found = {}
    for name, column in columns.items():
        digest = hashlib.blake2b(digest_size=FINGERPRINT_BYTES, usedforsecurity=False)
        update_digest(digest, column)
        found[name] = digest.hexdigest()
    return found


def rows_fingerprint(columns: Mapping[str, Column]) -> str:
    """Hexadecimal fingerprint of the rows as a set, equal for every order of rows and columns."""
    total = row_hashes(columns).sum(dtype=np.uint64)
    return f"{int(total):016x}"


def row_hashes(columns: Mapping[str, Column]) -> NDArray[np.uint64]:
    """A hash of each row (rows,), equal for every order of the columns."""
    rows: NDArray[np.uint64] | None = None
    with np.errstate(over="ignore"):
        for name in sorted(columns):
            seed = int.from_bytes(_hash(name), "little") | 1
            mixed = _mixed(_hashes(columns[name]) * np.uint64(seed))
            rows = mixed if rows is None else rows + mixed
        return np.empty(0, np.uint64) if rows is None else _mixed(rows)


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of a partition.

    Attributes
    ----------
    rows : str
        The fingerprint of the rows in any order.
    columns : mapping of name to str
        The fingerprint of each column, in the order of the rows.
    each : str
        Four hexadecimal digits for each row, in their order; empty if there are more than `MAX_EACH`.
    """

    rows: str
    columns: Mapping[str, str]
    each: str = ""

    @classmethod
    def of(cls, columns: Mapping[str, Column]) -> Fingerprints:
        """The fingerprints of all columns of a partition, with its target and its weights."""
        each = row_hashes(columns)
        low = each.astype(">u2").tobytes().hex() if len(each) <= MAX_EACH else ""
        return cls(rows_fingerprint(columns), column_fingerprints(columns), low)

    def difference(self, other: Fingerprints) -> str:
        """Describe how the partition differs from a supposed copy, naming columns but no values.

        The text is empty if no column is equal in both: then they are no copies at all.
        """
        if self.rows == other.rows:
            return "it has the same rows in another order"
        if alone := sorted(set(self.columns) ^ set(other.columns)):
            return f"only one of them has the columns {', '.join(map(repr, alone))}"
        different = [name for name, print_ in self.columns.items() if print_ != other.columns[name]]
        if len(different) == len(self.columns):
            return ""
        where = "column" if len(different) == 1 else "columns"
        return f"it differs in the {where} {', '.join(map(repr, different))}{self._count_of_rows(other)}"

    def _count_of_rows(self, other: Fingerprints) -> str:
        """The number of rows in which a supposed copy differs, in words; empty if it is not known."""
        if not self.each or not other.each:
            return ""
        own, theirs = (bytes.fromhex(prints.each) for prints in (self, other))
        if len(own) != len(theirs):
            return f": it has {len(own) // 2} rows, the other {len(theirs) // 2}"
        count = np.count_nonzero(np.frombuffer(own, ">u2") != np.frombuffer(theirs, ">u2"))
        return f" in {count} of {len(own) // 2} rows"

    def as_dict(self) -> dict[str, Any]:
        """Plain types, which `from_dict` reads."""
        columns = [list(pair) for pair in self.columns.items()]
        return {"rows": self.rows, "columns": columns, "each": self.each}

    @classmethod
    def from_dict(cls, content: Any) -> Fingerprints:
        """Read what `as_dict` returned. UsageError if it is malformed."""
        what = "fingerprints"
        rows, columns, each = read_fields(what, content, rows=str, columns=list, each=str)
        found = dict(read_pairs(what, columns))
        if not all(_HEXADECIMAL.fullmatch(str(text)) for text in (rows, *found.values())):
            raise UsageError(what, "must be of 16 hexadecimal digits", content)
        if len(each) > 4 * MAX_EACH or not _ROWS.fullmatch(each):
            rule = f"must be of 4 hexadecimal digits for each of at most {MAX_EACH} rows"
            raise UsageError(f"{what} of rows", rule, each[:20])
        return cls(rows, found, each)


NO_FINGERPRINTS = Fingerprints("", {})
"""The empty fingerprints of a partition of numbers, which has no columns of a file."""


def _hashes(column: Column) -> NDArray[np.uint64]:
    """A hash of each value (rows,)."""
    if is_numeric(column):
        return np.ascontiguousarray(column + 0.0).view(np.uint64)
    texts = column.tolist()
    known = {text: int.from_bytes(_hash(f"text {text!r}"), "little") for text in set(texts)}
    return np.array([known[text] for text in texts], np.uint64)


def _hash(text: str) -> bytes:
    raw = text.encode(errors="surrogatepass")
    return hashlib.blake2b(raw, digest_size=8, usedforsecurity=False).digest()


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix hashes, so that every bit of a result depends on all bits of the given hash."""
    for factor in _MIX:
        hashes = (hashes ^ (hashes >> _SHIFT)) * factor
    return hashes ^ (hashes >> _SHIFT)
