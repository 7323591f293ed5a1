"""Numbers as text for people: bytes with units, fractions as decimals, λ, scores with few digits."""

from __future__ import annotations

import math
from fractions import Fraction

# The most characters of a fraction that is shown as it is; longer ones would cover others in pictures.
LONGEST_FRACTION = 7


def human_bytes(count: int) -> str:
    """Bytes with a decimal unit (1 kB is 1000 B) and three digits."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.4g} TB"


def counted(count: float | str, noun: str) -> str:
    """A number and what it counts: "1 worker", "3 workers", "1.5 copies"."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"
    return f"{count} {noun if float(count) == 1.0 else plural}"


def decimal(fraction: str) -> str:
    """A fraction as a decimal number: `"3/2"` is `"1.5"`."""
    return f"{float(Fraction(fraction)):g}"


def load_text(load: str) -> str:
    """A load as a fraction, or with four digits if the fraction is long, as a mean over several plans is."""
    return load if len(load) <= LONGEST_FRACTION else f"{float(Fraction(load)):.4g}"


def strength_text(strength: float | None) -> str:
    """λ with four digits; where the workers of a blind run chose it, the server does not know it."""
    return "λ chosen by the workers" if strength is None else f"λ = {strength:.4g}"


def score_text(value: float | None) -> str:
    """A score with four decimals; "-" if there is none."""
    return "-" if value is None or math.isnan(value) else _fixed(value, "")


def gain_text(value: float | None) -> str:
    """A difference of scores, with its sign; "-" if there is none."""
    return "-" if value is None else _fixed(value, "+")


def _fixed(value: float, sign: str) -> str:
    """Four decimals, or three digits if four decimals would show too little of the value."""
    return f"{value:{sign}.4f}" if value == 0.0 or abs(value) >= 1e-3 else f"{value:{sign}.2e}"
