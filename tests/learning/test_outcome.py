from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from support.problems import make_settings

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.outcome import Outcome, outcome_numbers, packed, unpacked
from asyncdmtl.learning.statistics_selection import Selection

STRENGTHS = np.array([1.0, 0.1, 0.01])
LOSSES = np.array([[4.0, 6.0], [1.0, 3.0], [2.0, 4.0]])
TOLD = Outcome("l21", 0.1, 3.5, 1e-9, {"l21": Selection(0.1, STRENGTHS, LOSSES)})


def test_an_outcome_survives_json() -> None:
    same = Outcome.from_dict(json.loads(json.dumps(TOLD.as_dict())))
    assert (same.coupling, same.strength, same.objective, same.gap) == ("l21", 0.1, 3.5, 1e-9)
    assert same.selections["l21"].losses.tolist() == LOSSES.tolist()
    assert same.selections["l21"].strengths.tolist() == STRENGTHS.tolist()


def test_the_strength_of_a_selection_is_found_again_from_its_losses() -> None:
    # The means over the folds are 5, 2 and 3.
    assert Outcome.from_dict(TOLD.as_dict()).selections["l21"].strength == 0.1


def test_nothing_needs_to_be_chosen() -> None:
    plain = Outcome("nuclear", 0.5, 1.0, 0.0)
    assert plain.as_dict()["selections"] == {}
    assert Outcome.from_dict(plain.as_dict()).selections == {}


@pytest.mark.parametrize(
    "change",
    [
        {"gap": None},
        {"strength": "much"},
        {"selections": []},
        {"selections": {"l21": {"strengths": [1.0], "losses": []}}},
        {"selections": {"l21": {"strengths": [1.0], "losses": [[]]}}},
        {"selections": {"l21": {"strengths": [1.0, 2.0], "losses": [[1.0]]}}},
        {"selections": {"l21": {"strengths": [[1.0]], "losses": [[1.0]]}}},
        {"selections": {"l21": {"strengths": [1.0]}}},
        {"selections": {"l21": 3}},
    ],
)
def test_what_is_no_outcome_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="outcome must be what a trainer told"):
        Outcome.from_dict(TOLD.as_dict() | change)


@pytest.mark.parametrize("missing", ["coupling", "strength", "objective", "gap", "selections"])
def test_an_outcome_lacks_nothing(missing: str) -> None:
    content = {name: value for name, value in TOLD.as_dict().items() if name != missing}
    with pytest.raises(UsageError, match="outcome must be"):
        Outcome.from_dict(content)


CHOOSING = make_settings(coupling="auto", strength=None, update="auto", folds=2)
CHOSEN = Outcome("mean-regularised", 0.1, 3.5, 1e-9, {"mean-regularised": TOLD.selections["l21"]})


def test_an_outcome_survives_as_numbers() -> None:
    numbers = packed(CHOSEN, CHOOSING)
    assert len(numbers) == outcome_numbers(CHOOSING)
    again = unpacked(numbers, CHOOSING)
    assert again is not None
    assert again.as_dict() == CHOSEN.as_dict()
    given = make_settings(update="statistics")
    plain = Outcome("nuclear", 0.05, 1.0, 0.0)
    assert outcome_numbers(given) == 5
    same = unpacked(packed(plain, given), given)
    assert same is not None
    assert same.as_dict() == plain.as_dict()
    assert unpacked(packed(None, CHOOSING), CHOOSING) is None


@pytest.mark.parametrize(
    ("place", "number"),
    [(0, 2.0), (1, 7.0), (1, 0.5), (2, -1.0), (2, np.inf), (3, np.nan), (5, 99.0), (5, 1.5), (-1, np.inf)],
)
def test_numbers_that_are_no_outcome_are_refused(place: int, number: float) -> None:
    numbers = packed(CHOSEN, CHOOSING)
    block = (len(numbers) - 5) // len(CHOOSING.choices)
    # All strengths of all couplings are used, so that each number counts.
    numbers[5::block] = 20
    numbers[place] = number
    with pytest.raises(UsageError, match="state must hold what came of the training"):
        unpacked(numbers, CHOOSING)
