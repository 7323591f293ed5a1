"""The meaning of the cells of a table: one rule for all formats, so that all sites read equal values.

- Text is brought to Unicode normalisation form C, without spaces around it. An empty cell is a missing value.
- A column is numeric if all its cells are plain numbers. A whole number with a leading zero, such as `007`,
  is text, and so is every cell of its column.
- Words for a missing value (`NA`, `null`, `None`, …) are missing values in a column of numbers. In a column
  of text they might be values, so they are refused until an option says what they are.
- In names of tasks and in text, all spellings of a number, truth value or day count as one: `1.0`, `1e0` and
  `1` are "1", `TRUE` is "True", and `2026-01-02 00:00:00` is "2026-01-02".

Where a column could be read in two ways, an error names the cells and the options that decide.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.data.columns import Column, Texts, as_text, text_column
from asyncdmtl.data.reading import LEADING_ZERO, Reading, identity, normalised
from asyncdmtl.errors import DataError

log = logging.getLogger(__name__)

# A column of numbers with other cells among them is refused, rather than read as text, if these are at most
# this share of all cells: they are then more likely missing values than categories.
_EXCEPTIONS = 0.1

# The least count of distinct numbers for that refusal. A column with fewer may well hold categories.
_MANY_NUMBERS = 10

# A column is refused if at least this share of its distinct texts are numbers, or look like numbers in
# another notation.
_NEARLY_ALL = 0.9

# The most example cells that an error quotes.
_EXAMPLES = 3

# A number in another notation: with thousands separators, a decimal comma, a currency or a per cent sign, a
# typographic minus or an accountant's brackets, a bound such as <0.1, or hexadecimal.
_OTHER_NOTATION = re.compile(
    r"\(?[<>≤≥~]?\s*[+\-−–]?\s*[$€£¥]?\s*[+\-−–]?"
    r"(?:\d{1,3}(?:[ ,.'’_\u00a0\u2009\u202f]\d{3})+|\d+)(?:[.,]\d+)?"
    r"\s*(?:[$€£¥%]|[eE][+\-−]?\d+)?\)?|0[xX][0-9a-fA-F]+"
)

# The characters of plain numbers, and the characters that separate cells in the text to be parsed.
_PLAIN = b"0123456789+-.eE\n "
_CODE = re.compile(rb"\n *[+-]?0\d")


def read_texts(
    texts: Sequence[str | None], name: str, what: str, reading: Reading, *, spelled: bool = False
) -> Column:
    """Read cells of text as a column: of numbers if all are numbers or missing, else of text.

    Parameters
    ----------
    texts : sequence of str or None
        The cells; None is a missing value.
    name : str
        The name of the column.
    what : str
        The column's name in errors, such as "column 'x' of a.csv".
    reading : Reading
    spelled : bool
        Whether text keeps its spelling: predictions repeat the classes of a target as they were written.

    Raises
    ------
    DataError
        The column can be read in two ways. The error names cells and options.
    """
    if name not in reading.categorical:
        if (numbers := as_numbers(texts, reading)) is not None:
            return numbers
        counted = _counted(texts, reading)
        left = [text for text in counted if reading.value(text) is None]
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
    """Read cells of text as names or categories: the `identity` of each, or None for a missing value.

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
    """Warn if a column that a typed format (Parquet, `.npz`) stores as text looks like numbers."""
    distinct = {value for value in column.tolist() if value is not None}
    numbers = [value for value in distinct if Reading().number(value) is not None]
    if len(distinct) >= _MANY_NUMBERS and len(numbers) >= _NEARLY_ALL * len(distinct):
        examples = ", ".join(sorted(numbers)[:_EXAMPLES])
        log.warning("%s is text that looks like numbers (%s): each value is a category", what, examples)


def as_numbers(texts: Sequence[str | None], reading: Reading) -> Floats | None:
    """The cells as numbers (rows,), NaN for a missing value; None if a cell is neither."""
    if reading.decimal is None and (plain := _plain_numbers(texts)) is not None:
        return reading.without_missing(plain)
    values: dict[str | None, float] = {}
    for text in set(texts):
        if (value := reading.value(text)) is None:
            return None
        values[text] = value
    return np.array([values[text] for text in texts], np.float64)


def _plain_numbers(texts: Sequence[str | None]) -> Floats | None:
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
    """The number of rows of each normalised cell; missing values are left out."""
    counted: Counter[str] = Counter()
    for text, count in Counter(texts).items():
        if text is not None and not reading.is_missing(cell := normalised(text)):
            counted[cell] += count
    return counted


def _check_exceptions(counted: Counter[str], left: Sequence[str], what: str) -> None:
    """Refuse a column of numbers with a few other cells, or with numbers in another notation."""
    rows, exceptions = counted.total(), sum(counted[text] for text in left)
    numbers = len(counted) - len(left)
    codes = [text for text in left if LEADING_ZERO.fullmatch(text)]
    if codes:
        if len(codes) == len(left):
            log.warning("%s is taken as text, since numbers such as %s begin with a zero", what, codes[0])
        return
    examples = sorted(left, key=lambda text: -counted[text])[:_EXAMPLES]
    few_kinds = len(left) <= (1.0 - _NEARLY_ALL) * len(counted)
    if numbers >= _MANY_NUMBERS and (exceptions <= _EXCEPTIONS * rows or few_kinds):
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
    """A cell quoted for a shell."""
    return text if re.fullmatch(r"[\w./-]+", text) and not text.startswith("-") else f"'{text}'"


def texts_of(values: Sequence[Any], what: str) -> list[str | None]:
    """Values of any type as cells of text: bytes are UTF-8, None and NaN are missing.

    Raises
    ------
    DataError
        A value is bytes that are not UTF-8.
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
