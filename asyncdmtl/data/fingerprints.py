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
    rows: NDArray[np.uint64] | None = None
    with np.errstate(over="ignore"):
        for name in sorted(columns):
            seed = int.from_bytes(_hash(name), "little") | 1
            mixed = _mixed(_hashes(columns[name]) * np.uint64(seed))
            rows = mixed if rows is None else rows + mixed
        total = np.uint64(0) if rows is None else _mixed(rows).sum(dtype=np.uint64)
    return f"{int(total):016x}"


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of a partition: of its rows in any order, and of each column in their order."""

    rows: str
    columns: Mapping[str, str]

    @classmethod
    def of(cls, columns: Mapping[str, Column]) -> Fingerprints:
        """The fingerprints of all columns of a partition, with its target and its weights."""
        return cls(rows_fingerprint(columns), column_fingerprints(columns))

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
        return f"it differs in the columns {', '.join(map(repr, different))}"

    def as_dict(self) -> dict[str, Any]:
        """Plain types, which `from_dict` reads."""
        return {"rows": self.rows, "columns": [list(pair) for pair in self.columns.items()]}

    @classmethod
    def from_dict(cls, content: Any) -> Fingerprints:
        """Read what `as_dict` returned. UsageError if it is malformed."""
        what = "fingerprints"
        rows, columns = read_fields(what, content, rows=str, columns=list)
        found = dict(read_pairs(what, columns))
        if not all(_HEXADECIMAL.fullmatch(str(text)) for text in (rows, *found.values())):
            raise UsageError(what, "must be of 16 hexadecimal digits", content)
        return cls(rows, found)


NO_FINGERPRINTS = Fingerprints("", {})
"""The fingerprints of a partition of prepared numbers, of which nothing is told."""


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
