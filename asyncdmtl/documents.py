"""Documents that people write: TOML and JSON files, read without trust in their size or shape."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

# The most bytes of a document. A placement of 10,000 partitions has some hundred thousand.
MOST_BYTES = 16 << 20

# The most levels of lists and tables in each other. Documents of this project have four.
MOST_LEVELS = 32

# The dots in a line of TOML beyond which it is looked at for long keys, such as `a.b.c`. For those, `tomllib`
# takes memory and time that grow with the square of the number of their parts.
MANY_DOTS = 200

# The tokens of TOML: comments, strings, parts of keys or numbers, and all other characters.
_TOKEN = re.compile(
    r"""
    \#[^\n]*+
    | "{3} (?: [^"\\] | \\. | "{1,2}+ (?!") )*+ "{0,5}+
    | '{3} (?: [^'] | '{1,2}+ (?!') )*+ '{0,5}+
    | (?P<part> " (?: [^"\\\n] | \\. )*+ "? | '[^'\n]*+'? | [\w-]++ )
    | (?P<space> [ \t]++ )
    | (?P<dot> \. )
    | .
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)


def read_document(path: Path) -> Any:
    """The content of a file: JSON if its name ends in `.json`, else TOML. Errors as of `read_toml`."""
    return parse_document(_text(path), as_json=path.suffix == ".json")


def read_toml(path: Path) -> Any:
    """The content of a TOML file, whatever its name.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        The file is larger than `MOST_BYTES`, no such document, nested too deeply, or has a key twice.
    """
    return parse_document(_text(path))


def parse_document(text: str, *, as_json: bool = False) -> Any:
    """The content of a text. ValueError as for `read_toml`."""
    if not as_json and any(line.count(".") > MANY_DOTS for line in text.split("\n")) and _has_long_key(text):
        raise ValueError(_TOO_DEEP)
    try:
        content = json.loads(text, object_pairs_hook=_unique) if as_json else tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    level = [content]
    for _ in range(MOST_LEVELS):
        level = [
            item for each in level if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
        ]  # fmt: skip
        if not level:
            return content
    raise ValueError(_TOO_DEEP)


_TOO_DEEP = f"lists and tables are nested more than {MOST_LEVELS} levels deep"


def _has_long_key(text: str) -> bool:
    """Whether a key of a TOML text has more than `MOST_LEVELS` parts."""
    dots = 0
    for token in _TOKEN.finditer(text):
        if token.lastgroup is None:
            dots = 0
        elif token.lastgroup == "dot":
            dots += 1
            if dots >= MOST_LEVELS:
                return True
    return False


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
    return content.decode("utf-8")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The table of these pairs. JSON permits a key twice, by which all values but the last would be lost."""
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return table
