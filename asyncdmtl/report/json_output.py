"""JSON as this package writes it: one object a line, with null for what JSON cannot say."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def emit(event: dict[str, Any]) -> None:
    """Print one event as a JSON line on stdout, at once. What is not a number (NaN) becomes null."""
    print(json.dumps(finite(event), allow_nan=False), flush=True)


def finite(value: Any) -> Any:
    """`value` with null for every number that JSON cannot say."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
