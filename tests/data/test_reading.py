from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncdmtl.data.reading import Reading, identity, normalised
from asyncdmtl.errors import UsageError


@pytest.mark.parametrize(
    ("spellings", "name"),
    [
        (("1", "1.0", "01.0", "1e0", "+1", "1.", "10e-1", "100E-2"), "1"),
        (("1.5", "1.50", "15e-1"), "1.5"),
        (("0", "-0", "0.0", "-0.0"), "0"),
        (("true", "True", "TRUE"), "True"),
        (("2026-01-02", "2026-01-02 00:00:00", "2026-01-02T00:00", "2026-01-02T00:00:00.000Z"), "2026-01-02"),
        (("007",), "007"),
        (("1_000",), "1_000"),
        (("red",), "red"),
        (("123456789012345678901234567890",), "123456789012345678901234567890"),
        (("2026-01-02 10:00:00",), "2026-01-02 10:00:00"),
    ],
)
def test_a_name_has_one_identity(spellings: tuple[str, ...], name: str) -> None:
    assert {identity(spelling) for spelling in spellings} == {name}


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(1e16)
@example(0.1)
def test_identities_of_numbers_are_those_of_their_texts(number: float) -> None:
    assert identity(repr(number)) == identity(identity(repr(number)))
    assert float(identity(repr(number))) == number


@pytest.mark.parametrize(
    ("text", "normal"),
    [("red ", "red"), ("\u00a0red\ufeff", "red"), ("u\u0308", "\u00fc"), ("  ", ""), ("a b", "a b")],
)
def test_text_is_brought_to_a_normal_form(text: str, normal: str) -> None:
    assert normalised(text) == normal


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"decimal": ";"}, "--decimal"),
        ({"separator": "ab"}, "--separator"),
        ({"separator": '"'}, "--separator"),
        ({"encoding": "klingon"}, "--encoding"),
        ({"header": ("a", "a")}, "--header"),
    ],
)
def test_options_that_break_a_rule_are_named(options: dict[str, Any], argument: str) -> None:
    with pytest.raises(UsageError) as caught:
        Reading(**options)
    assert caught.value.argument == argument


@pytest.mark.parametrize("cell", ["-999", "-999.0", " -9.99e2 "])
def test_a_number_that_is_missing_is_so_in_all_spellings(cell: str) -> None:
    reading = Reading(missing=("-999",))
    assert reading.is_missing(normalised(cell))
    assert math.isnan(reading.value(cell) or 0.0)
    assert reading.value("999") == 999.0
    column = np.array([1.0, -999.0])
    np.testing.assert_array_equal(reading.without_missing(column), [1.0, np.nan])
    assert column[1] == -999.0


def test_values_of_cells() -> None:
    reading = Reading(decimal=",", missing=("9,9",))
    assert [reading.value(cell) for cell in ("1,5", "1.234", "n.d.")] == [1.5, 1234.0, None]
    assert math.isnan(reading.value("9,9") or 0.0)
    assert math.isnan(reading.value(None) or 0.0)
