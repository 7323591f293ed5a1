"""The attack tool makes runs with an attacker, and finds what the threat model does not permit."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(autouse=True)
def _tools_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)


def tool() -> Any:
    return importlib.import_module("attack")


@pytest.mark.parametrize(("permitted", "bad"), [(True, 0), (False, 1)])
async def test_a_sole_holder_changes_the_models_and_this_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], permitted: bool, bad: int
) -> None:
    made = tool()
    if not permitted:
        update = replace(made.ATTACKS["update"], changes=lambda strategy, copies: False)
        monkeypatch.setattr(made, "ATTACKS", {"update": update})
    assert await made.attack_all(["update"], ["relay"], [1]) == bad
    told = capsys.readouterr().out
    if permitted:
        assert "other models, as the threat model says" in told
    else:
        assert "NOT PERMITTED" in told
        assert "other models than the twin's" in told
