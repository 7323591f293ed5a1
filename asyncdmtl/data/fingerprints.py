"""Fingerprints of a partition's columns, to find out how two supposed copies of a partition differ."""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Mapping, Sequence
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

# The most columns that a description of a difference lists by name, so that it stays readable.
MAX_LISTED = 8

_ROWS = re.compile(r"(?:[0-9a-f]{4})*")
_HEXADECIMAL = re.compile(r"[0-9a-f]{16}")

# Odd numbers that mix the bits of hashes (the finaliser of MurmurHash3).
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_SHIFT = np.uint64(33)

# Half a unit of a rounded number, in bits of a float64: 17 binary digits stay, which are 5 decimal ones.
# Numbers that were written with fewer digits than they have, or as float32, then mostly round alike.
_HALF = np.uint64(1 << 34)
_KEPT = np.uint64((1 << 64) - (1 << 35))


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
    return _set_fingerprint(row_hashes(columns))


def row_hashes(columns: Mapping[str, Column], *, rounded: bool = False) -> NDArray[np.uint64]:
    """A hash of each row (rows,), equal for every order of the columns; of rounded numbers if asked for."""
    if not columns:
        return np.empty(0, np.uint64)
    # Thousands of short columns take a few operations on a matrix, not a few for each.
    numbers = {name: column for name, column in columns.items() if is_numeric(column)}
    texts = {name: column for name, column in columns.items() if not is_numeric(column)}
    hashes = [_text_hashes(column) for column in texts.values()]
    if numbers:
        bits = (np.stack(list(numbers.values())) + 0.0).view(np.uint64)
        hashes.append((bits + _HALF) & _KEPT if rounded else bits)
    seeds = np.array([int.from_bytes(_hash(name), "little") | 1 for name in (*texts, *numbers)], np.uint64)
    each = _mixed(np.vstack(hashes) * seeds[:, np.newaxis])
    return _mixed(each.sum(axis=0, dtype=np.uint64))


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of a partition.

    Attributes
    ----------
    rows : str
        The fingerprint of the rows in any order.
    columns : mapping of name to str
        The fingerprint of each column, in the order of the rows.
    each, rounded : str
        Four hexadecimal digits for each row, in their order; empty if there are more than `MAX_EACH`. Those
        of `rounded` are nearly always equal for numbers that agree in their first five digits.
    """

    rows: str
    columns: Mapping[str, str]
    each: str = ""
    rounded: str = ""

    @classmethod
    def of(cls, columns: Mapping[str, Column]) -> Fingerprints:
        """The fingerprints of all columns of a partition, with its target and its weights."""
        each = row_hashes(columns)
        digits = (_digits(each), _digits(row_hashes(columns, rounded=True))) if len(each) <= MAX_EACH else ()
        return cls(_set_fingerprint(each), column_fingerprints(columns), *digits)

    def difference(self, other: Fingerprints) -> str:
        """Describe how the partition differs from a supposed copy, naming columns but no values.

        The text is empty if no column is equal in both: then they are no copies at all.
        """
        if self.rows == other.rows:
            return "it has the same rows in another order"
        if alone := set(self.columns) ^ set(other.columns):
            return f"only one of them has the {_listed(heapq.nsmallest(MAX_LISTED, alone), len(alone))}"
        different = [name for name, print_ in self.columns.items() if print_ != other.columns[name]]
        rows, changed = _count_different(self.each, other.each)
        by_little = 2 * _count_different(self.rounded, other.rounded)[1] < changed
        if len(different) == len(self.columns) and not by_little:
            return ""
        text = f"it differs in the {_listed(different, len(different))}"
        if len(self.each) != len(other.each):
            return f"{text}: it has {len(self.each) // 4} rows, the other {len(other.each) // 4}"
        text += f" in {changed} of {rows} rows" if rows else ""
        return f"{text}, after the fifth digit: copy the file, or write all digits" if by_little else text

    def as_dict(self) -> dict[str, Any]:
        """Plain types, which `from_dict` reads."""
        columns = [list(pair) for pair in self.columns.items()]
        return {"rows": self.rows, "columns": columns, "each": self.each, "rounded": self.rounded}

    @classmethod
    def from_dict(cls, content: Any) -> Fingerprints:
        """Read what `as_dict` returned. UsageError if it is malformed."""
        what = "fingerprints"
        rows, columns, each, rounded = read_fields(
            what, content, rows=str, columns=list, each=str, rounded=str
        )
        found = dict(read_pairs(what, columns))
        texts = (rows, *found.values())
        if not all(isinstance(text, str) and _HEXADECIMAL.fullmatch(text) for text in texts):
            raise UsageError(what, "must be of 16 hexadecimal digits", content)
        for digits in (each, rounded):
            if len(digits) > 4 * MAX_EACH or len(digits) != len(each) or not _ROWS.fullmatch(digits):
                rule = f"must be of 4 hexadecimal digits for each of at most {MAX_EACH} rows"
                raise UsageError(f"{what} of rows", rule, digits[:20])
        return cls(rows, found, each, rounded)


NO_FINGERPRINTS = Fingerprints("", {})
"""The empty fingerprints of a partition of numbers, which has no columns of a file."""


def _text_hashes(column: Column) -> NDArray[np.uint64]:
    """A hash of each text (rows,)."""
    texts = column.tolist()
    known = {text: int.from_bytes(_hash(f"text {text!r}"), "little") for text in set(texts)}
    return np.array([known[text] for text in texts], np.uint64)


def _listed(names: Sequence[str], count: int) -> str:
    """`count` columns in words, the first few by name."""
    more = f" and {count - MAX_LISTED} more" if count > MAX_LISTED else ""
    listed = ", ".join(map(repr, names[:MAX_LISTED]))
    return f"column{'s' if count > 1 else ''} {listed}{more}"


def _set_fingerprint(hashes: NDArray[np.uint64]) -> str:
    """Hexadecimal fingerprint of rows in any order, from the hash of each."""
    return f"{int(hashes.sum(dtype=np.uint64)):016x}"


def _digits(hashes: NDArray[np.uint64]) -> str:
    """Four hexadecimal digits of each hash."""
    return hashes.astype(">u2").tobytes().hex()


def _count_different(own: str, theirs: str) -> tuple[int, int]:
    """The number of rows, and of those whose four digits differ; zeros if the numbers of rows differ."""
    if len(own) != len(theirs):
        return 0, 0
    pairs = [np.frombuffer(bytes.fromhex(digits), ">u2") for digits in (own, theirs)]
    return len(pairs[0]), int(np.count_nonzero(pairs[0] != pairs[1]))


def _hash(text: str) -> bytes:
    raw = text.encode(errors="surrogatepass")
    return hashlib.blake2b(raw, digest_size=8, usedforsecurity=False).digest()


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix hashes, so that every bit of a result depends on all bits of the given hash."""
    for factor in _MIX:
        hashes = (hashes ^ (hashes >> _SHIFT)) * factor
    return hashes ^ (hashes >> _SHIFT)
