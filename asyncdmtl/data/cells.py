"""The meaning of the cells of a table: one rule for all formats, so that all sites read the same.

- Text is brought to Unicode normalisation form C, without spaces around it. An empty cell is a missing value.
- A column of cells that all are plain numbers is one of numbers. A whole number with a leading zero, such as
  `007`, is text, and so is every cell of its column.
- Words for a missing value (`NA`, `null`, `None`, …) are missing values in a column of numbers. In a column
  of text they might be values, so they are refused until the user has said which they are.
- Names of tasks, and text, have one identity for each spelling of the same number, truth value or day: `1.0`,
  `1e0` and `1` are "1", `TRUE` is "True", and `2026-01-02 00:00:00` is "2026-01-02".

Where a column could be read in two ways, an error names the cells and the options that decide.
"""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data.columns import Column, Texts, as_text, text_column
from asyncdmtl.errors import DataError, UsageError

log = logging.getLogger(__name__)

MISSING_WORDS = frozenset(
    {
        "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>", "n/a", "na",
        "nan", "nat", "none", "null",
    }
)  # fmt: skip
"""Words that programs write for a missing value, in lower case."""

MISSING_MARKS = frozenset({"?", "-", "--", "---", ".", "..", "*", "–", "—"})
"""Signs that people write for a missing value, but also for zero and as categories."""

# Share of a column's cells up to which cells that are no numbers look like exceptions in a column of numbers.
_EXCEPTIONS = 0.1

# Distinct numbers from which on a column with such exceptions is refused. Fewer may well be categories.
_MANY_NUMBERS = 10

# Share of the distinct texts of a column that look like numbers, from which on the column is refused.
_NEARLY_ALL = 0.9

# Example cells that an error names.
_EXAMPLES = 3

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.ASCII | re.IGNORECASE)
_LEADING_ZERO = re.compile(r"[+-]?0\d+", re.ASCII)
_MIDNIGHT = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ]00:00(?::00(?:\.0+)?)?Z?)?", re.ASCII)

# A number in another notation: with thousands separators, a decimal comma, a currency or a per cent sign.
_OTHER_NOTATION = re.compile(
    r"[+-]?\s*[$€£¥]?\s*[+-]?(?:\d{1,3}(?:[ ,.'’\u00a0\u202f]\d{3})+|\d+)(?:[.,]\d+)?"
    r"\s*(?:[$€£¥%]|[eE][+-]?\d+)?"
)

# Bytes of plain numbers and what separates them here.
_PLAIN = b"0123456789+-.eE\n "
_CODE = re.compile(rb"\n *[+-]?0\d")


@dataclass(frozen=True)
class Reading:
    """The options by which cells are read.

    Attributes
    ----------
    missing : tuple of str
        Cells that are missing values besides empty ones, exactly as they are written.
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

    def is_missing(self, text: str) -> bool:
        """Whether a normalised cell is a missing value in any column."""
        return not text or text in self.missing

    def is_doubtful(self, text: str) -> bool:
        """Whether a normalised cell may be a word or sign for a missing value."""
        return not self.keep_missing_words and (text.lower() in MISSING_WORDS or text in MISSING_MARKS)

    def number(self, text: str) -> float | None:
        """The number that a normalised cell is, or None. A leading zero of a whole number makes it text."""
        if self.decimal is not None:
            text = self._in_plain_notation(text)
        if _NUMBER.fullmatch(text):
            return None if _LEADING_ZERO.fullmatch(text) else float(text)
        return float(text) if _INFINITE.fullmatch(text) else None

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
    if not _NUMBER.fullmatch(text) or _LEADING_ZERO.fullmatch(text):
        return text
    if text.lstrip("+-").isdecimal():
        return str(int(text))
    number = float(text)
    return as_text(number) if math.isfinite(number) else text


def read_texts(
    texts: Sequence[str | None], name: str, what: str, reading: Reading, *, spelled: bool = False
) -> Column:
    """The column that cells of text are: numbers, or text.

    Parameters
    ----------
    texts : sequence of str or None
        The cells; None is a missing value.
    name : str
        The name of the column.
    what : str
        The column in errors, such as "column 'x' of a.csv".
    reading : Reading
    spelled : bool
        Whether text keeps its spelling, as classes do that predictions are to repeat.

    Raises
    ------
    DataError
        The column can be read in two ways. The error names cells and options.
    """
    if name not in reading.categorical:
        if reading.decimal is None and (plain := plain_numbers(texts)) is not None:
            return plain
        counted = _counted(texts, reading)
        numbers = {text: reading.number(text) for text in counted}
        others = [text for text, number in numbers.items() if number is None]
        # Among numbers, a word for a missing value can be nothing else.
        left = [text for text in others if text.lower() not in MISSING_WORDS or reading.keep_missing_words]
        if not left:
            found = {text: math.nan if number is None else number for text, number in numbers.items()}
            return _looked_up(texts, found)
        _check_exceptions(counted, left, what)
    return read_names(texts, what, reading, spelled=spelled)


def read_names(
    texts: Sequence[str | None],
    what: str,
    reading: Reading,
    *,
    known: Collection[str] = (),
    spelled: bool = False,
) -> Texts:
    """Cells of text as names or categories: their identities, or None for a missing value.

    Parameters
    ----------
    texts : sequence of str or None
    what : str
        The column in errors.
    reading : Reading
    known : collection of str
        Identities that are values even if they look like words for a missing value.
    spelled : bool
        Whether text keeps its spelling.

    Raises
    ------
    DataError
        A cell might be a missing value or a name.
    """
    counted = _counted(texts, reading)
    for text, count in counted.items():
        if reading.is_doubtful(text) and identity(text) not in known:
            rule = (
                f"has a cell in {count} of {len(texts)} rows that may be a missing value or not: "
                f"--missing {_quoted(text)} says it is, --keep-missing-words that it is none"
            )
            raise DataError(what, rule, text)
    _warn_of_spellings(counted, what)
    names: dict[str | None, str] = {}
    for cell_text in set(texts):
        if cell_text is not None and not reading.is_missing(cell := normalised(cell_text)):
            names[cell_text] = cell if spelled else identity(cell)
    return text_column([names.get(cell_text) for cell_text in texts])


def warn_of_number_texts(column: Texts, what: str) -> None:
    """Warn if a column of text from a format with types looks like one of numbers."""
    distinct = {value for value in column.tolist() if value is not None}
    numbers = [value for value in distinct if Reading().number(value) is not None]
    if len(distinct) >= _MANY_NUMBERS and len(numbers) >= _NEARLY_ALL * len(distinct):
        examples = ", ".join(sorted(numbers)[:_EXAMPLES])
        log.warning("%s is text that looks like numbers (%s): each value is a category", what, examples)


def plain_numbers(texts: Sequence[str | None]) -> Floats | None:
    """The numbers of cells that all are plain numbers or empty; None if one is anything else."""
    cells = [text or "" for text in texts]
    raw = ("\n" + "\n".join(cells)).encode(errors="replace")
    if raw.translate(None, _PLAIN) or _CODE.search(raw):
        return None
    if "" in cells or b" " in raw:
        cells = [cell if cell.strip() else "nan" for cell in cells]
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return None


def _counted(texts: Iterable[str | None], reading: Reading) -> Counter[str]:
    """The normalised cells that have a value, with the number of rows of each."""
    counted: Counter[str] = Counter()
    for text, count in Counter(texts).items():
        if text is not None and not reading.is_missing(cell := normalised(text)):
            counted[cell] += count
    return counted


def _looked_up(texts: Sequence[str | None], found: dict[str, float]) -> Floats:
    values: dict[str | None, float] = {None: math.nan}
    for text in set(texts):
        if text is not None:
            values[text] = found.get(normalised(text), math.nan)
    return np.array([values[text] for text in texts], np.float64)


def _check_exceptions(counted: Counter[str], left: Sequence[str], what: str) -> None:
    """Refuse a column of numbers in which a few cells are none, or whose numbers are written differently."""
    rows, exceptions = counted.total(), sum(counted[text] for text in left)
    numbers = len(counted) - len(left)
    codes = [text for text in left if _LEADING_ZERO.fullmatch(text)]
    if codes:
        if len(codes) == len(left):
            log.warning("%s is taken as text, since numbers such as %s begin with a zero", what, codes[0])
        return
    examples = sorted(left, key=lambda text: -counted[text])[:_EXAMPLES]
    if numbers >= _MANY_NUMBERS and exceptions <= _EXCEPTIONS * rows:
        named = " ".join(f"--missing {_quoted(text)}" for text in examples)
        rule = (
            f"has numbers in {rows - exceptions} of {rows} rows, and other cells in {exceptions}: "
            f"{named} takes these as missing, --categorical the column as categories"
        )
        raise DataError(what, rule, examples)
    foreign = [text for text in left if _OTHER_NOTATION.fullmatch(text)]
    if foreign and len(foreign) + numbers >= _NEARLY_ALL * len(counted) and len(counted) > 2:
        rule = (
            "looks like numbers in another notation: --decimal , reads 1,5 and 1.234,5; --decimal . reads "
            "1,234.5; others must be written plainly; --categorical takes the column as categories"
        )
        raise DataError(what, rule, foreign[0])


def _warn_of_spellings(counted: Counter[str], what: str) -> None:
    """Warn of values that are written in several ways, or that differ by upper and lower case only."""
    spelled: dict[str, list[str]] = {}
    for text in counted:
        spelled.setdefault(identity(text), []).append(text)
    folded: dict[str, list[str]] = {}
    for name in spelled:
        folded.setdefault(name.casefold(), []).append(name)
    for groups, taken in ((spelled, "the same"), (folded, "different")):
        several = [" and ".join(map(repr, sorted(texts))) for texts in groups.values() if len(texts) > 1]
        if several:
            more = f" and {len(several) - _EXAMPLES} more" if len(several) > _EXAMPLES else ""
            log.warning("%s: %s%s are taken as %s", what, "; ".join(several[:_EXAMPLES]), more, taken)


def _quoted(text: str) -> str:
    """A cell as it can be typed in a shell."""
    return text if re.fullmatch(r"[\w./-]+", text) and not text.startswith("-") else f"'{text}'"


def texts_of(values: Sequence[Any], what: str) -> list[str | None]:
    """Values of any type as cells of text: bytes are UTF-8, None and NaN are missing.

    Raises
    ------
    DataError
        Bytes that are not UTF-8.
    """
    try:
        # NaN is the one value that does not equal itself.
        return [
            None if value is None or value != value
            else value.decode() if isinstance(value, bytes)
            else as_text(value)
            for value in values
        ]  # fmt: skip
    except UnicodeDecodeError as error:
        raise DataError(what, "must be text in UTF-8", error.object[:20]) from None
