"""Checks of plain types from the wire or from a file: fields, names and pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from asyncdmtl.errors import UsageError


def read_fields(what: str, content: Any, **types: type) -> list[Any]:
    """The values of a mapping, checked to have exactly these keys and types, and only finite numbers.

    Parameters
    ----------
    what : str
        Names the mapping in errors.
    content : object
        The mapping to check.
    types : type
        The exact type of each key's value (`True` is no int). A list may be a tuple.

    Raises
    ------
    UsageError
        `content` is no mapping, has other keys, or a value breaks a rule; the error names it.
    """
    if not isinstance(content, Mapping) or set(content) != set(types):
        raise UsageError(what, f"must have exactly {', '.join(types)}", content)
    for name, kind in types.items():
        value = content[name]
        found = list if type(value) is tuple else type(value)
        if found is not kind or (isinstance(value, float) and not math.isfinite(value)):
            raise UsageError(f"{name} of {what}", f"must be of type {kind.__name__}, and finite", value)
    return [content[name] for name in types]


def read_names(what: str, names: Any) -> tuple[str, ...]:
    """Check a list of different texts and return it as a tuple. UsageError calls it `what`."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise UsageError(what, "must be a list of texts", names)
    if len(set(names)) != len(names):
        raise UsageError(what, "must be different", names)
    return tuple(names)


def read_pairs(what: str, pairs: list[Any]) -> list[tuple[str, Any]]:
    """Check a list of pairs whose first items are different names. UsageError calls it `what`."""
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise UsageError(what, "must be pairs", pairs)
    return list(zip(read_names(what, [name for name, _ in pairs]), [rest for _, rest in pairs], strict=True))
