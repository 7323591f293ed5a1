"""The options by which cells are read, and the reading of a single cell of text under them."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from asyncdmtl.arrays import Floats
from asyncdmtl.data.columns import as_text
from asyncdmtl.errors import UsageError

MISSING_WORDS = frozenset(
    {
        "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>", "n/a", "na",
        "nan", "nat", "none", "null",
    }
)  # fmt: skip
"""Words that programs write for a missing value, in lower case."""

MISSING_MARKS = frozenset({"?", "-", "--", "---", ".", "..", "*", "–", "—"})
"""Signs that people write for a missing value, but also for zero or for a category."""

LEADING_ZERO = re.compile(r"[+-]?0\d+", re.ASCII)
"""Whole numbers with a leading zero, which are read as text."""

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.ASCII | re.IGNORECASE)
_MIDNIGHT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ]00:00(?::00(?:\.0+)?)?Z?)?", re.ASCII)


@dataclass(frozen=True)
class Reading:
    """The options by which cells are read.

    Attributes
    ----------
    missing : tuple of str
        Cells that are missing values besides empty ones. A number means all its spellings, and the number
        itself in formats with types.
    keep_missing_words : bool
        Whether `NA`, `None`, `?` and the like are values in columns of text.
    categorical : tuple of str
        Columns whose numbers are categories.
    decimal : str or None
        The decimal separator, "." or ",". If it is given, the other one may group thousands.
    separator : str or None
        The separator of CSV files; default "," (a tab in `.tsv`).
    encoding : str
        The encoding of CSV files.
    header : tuple of str or None
        Names of the columns of CSV files that have no header line.

    Raises
    ------
    UsageError
        Names the option that breaks a rule.
    """

    missing: tuple[str, ...] = ()
    keep_missing_words: bool = False
    categorical: tuple[str, ...] = ()
    decimal: str | None = None
    separator: str | None = None
    encoding: str = "utf-8-sig"
    header: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.decimal not in (None, ".", ","):
            raise UsageError("--decimal", "must be . or ,", self.decimal)
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '\r\n"'):
            raise UsageError("--separator", "must be one character, no quote and no line end", self.separator)
        try:
            "".encode(self.encoding)
        except LookupError:
            rule = "must be an encoding that Python knows, such as cp1252 or utf-16"
            raise UsageError("--encoding", rule, self.encoding) from None
        if self.header is not None and len(set(self.header)) < len(self.header):
            raise UsageError("--header", "must have different names", list(self.header))
        object.__setattr__(self, "missing", tuple(map(normalised, self.missing)))
        object.__setattr__(self, "categorical", tuple(map(normalised, self.categorical)))

    @cached_property
    def missing_numbers(self) -> tuple[float, ...]:
        """The numbers that are missing values."""
        return tuple(number for text in self.missing if (number := self.number(text)) is not None)

    @cached_property
    def _missing_names(self) -> frozenset[str]:
        return frozenset(map(identity, self.missing))

    def is_missing(self, text: str) -> bool:
        """Whether a normalised cell is a missing value in any column."""
        if not text or text in self.missing:
            return True
        return bool(self._missing_names) and identity(text) in self._missing_names

    def without_missing(self, column: Floats) -> Floats:
        """A column of numbers with NaN in place of the numbers that are missing values."""
        for number in self.missing_numbers:
            if (found := column == number).any():
                column = column.copy()
                column[found] = math.nan
        return column

    def is_doubtful(self, text: str) -> bool:
        """Whether a normalised cell may be a word or sign for a missing value."""
        return not self.keep_missing_words and (text.lower() in MISSING_WORDS or text in MISSING_MARKS)

    def number(self, text: str) -> float | None:
        """The number that a normalised cell is, or None. A leading zero of a whole number makes it text."""
        if self.decimal is not None:
            text = self._in_plain_notation(text)
        if _NUMBER.fullmatch(text):
            return None if LEADING_ZERO.fullmatch(text) else float(text)
        return float(text) if _INFINITE.fullmatch(text) else None

    def value(self, text: str | None) -> float | None:
        """The value of a cell in a column of numbers: NaN for a missing value, None for other text."""
        if text is None or self.is_missing(cell := normalised(text)):
            return math.nan
        # Among numbers, a word for a missing value can be nothing else.
        if not self.keep_missing_words and cell.lower() in MISSING_WORDS:
            return math.nan
        return self.number(cell)

    def _in_plain_notation(self, text: str) -> str:
        """A number with the decimal separator as a point and without grouping; other text unchanged."""
        group = "," if self.decimal == "." else "."
        pattern = rf"[+-]?(?:\d{{1,3}}(?:\{group}\d{{3}})+|\d*)(?:\{self.decimal}\d*)?(?:[eE][+-]?\d+)?"
        if re.fullmatch(pattern, text, re.ASCII):
            return text.replace(group, "").replace(",", ".")
        return text if self.decimal == "." else "" if _NUMBER.fullmatch(text) and "." in text else text


def normalised(text: str) -> str:
    """A text in Unicode normalisation form C, without spaces and byte order marks around it."""
    text = text.strip().strip("\ufeff\u200b").strip()
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def identity(text: str) -> str:
    """The one spelling of a normalised text: of numbers, truth values and days there are several."""
    if text.lower() in ("true", "false"):
        return text.title()
    if (day := _MIDNIGHT.fullmatch(text)) is not None:
        return day[1]
    if not _NUMBER.fullmatch(text) or LEADING_ZERO.fullmatch(text):
        return text
    if text.lstrip("+-").isdecimal():
        return str(int(text))
    number = float(text)
    return as_text(number) if math.isfinite(number) else text
