from __future__ import annotations

import math

import pytest

from asyncdmtl.report.units import decimal, gain_text, human_bytes, load_text, score_text, strength_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1234, "1.23 kB"), (999_499, "999 kB"), (999_500, "1 MB"),
        (5_000_000_000, "5 GB"), (12_345_000_000_000, "12.35 TB"), (10**18, "1e+06 TB"),
    ],
)  # fmt: skip
def test_bytes_have_units(count: int, text: str) -> None:
    assert human_bytes(count) == text


def test_fractions_become_decimals() -> None:
    assert (decimal("3/2"), decimal("7"), decimal("1/3")) == ("1.5", "7", "0.333333")


def test_loads_are_fractions_unless_they_are_long() -> None:
    assert (load_text("15/2"), load_text("1045/2"), load_text("-")) == ("15/2", "1045/2", "-")
    assert load_text("101573/13000") == "7.813"


def test_a_strength_may_be_unknown_to_the_server() -> None:
    assert (strength_text(0.012345), strength_text(None)) == ("λ = 0.01235", "λ chosen by the workers")


def test_scores_and_gains_keep_enough_digits() -> None:
    assert (score_text(0.25), score_text(1.234567e-6), score_text(0.0)) == ("0.2500", "1.23e-06", "0.0000")
    assert (score_text(None), score_text(math.nan), gain_text(None)) == ("-", "-", "-")
    assert (gain_text(0.5), gain_text(-0.25), gain_text(7.65e-7)) == ("+0.5000", "-0.2500", "+7.65e-07")
