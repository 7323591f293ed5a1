from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.choosing import Selection
from asyncdmtl.learning.outcome import Outcome

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
