from __future__ import annotations

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.server.wants import check_relay, check_wants, served_strategy, unserved


@pytest.mark.parametrize(
    ("wants", "strategy", "update", "rule"),
    [
        ("none", "relay", "gradient", "with --update statistics only"),
        ("none", "personal", "newton", "with --update statistics only"),
        ("own", "relay", "statistics", "with --strategy personal only"),
        ("own", "linear", "gradient", "with --strategy personal only"),
        ("all", "personal", "gradient", "cannot be all with --strategy personal"),
    ],
)
def test_a_want_that_a_run_cannot_meet_is_refused(wants: str, strategy: str, update: str, rule: str) -> None:
    with pytest.raises(UsageError, match=f"--wants of worker 'w' .*{rule}"):
        check_wants("w", wants, strategy, update)


@pytest.mark.parametrize(
    ("wants", "strategy", "update"),
    [
        ("", "personal", "gradient"),
        ("none", "relay", "statistics"),
        ("none", "auto", "auto"),
        ("own", "personal", "gradient"),
        ("own", "auto", "auto"),
        ("all", "relay", "model"),
    ],
)
def test_a_want_that_a_run_can_meet_or_may_turn_out_to_is_taken(
    wants: str, strategy: str, update: str
) -> None:
    check_wants("w", wants, strategy, update)


def test_under_auto_a_worker_cannot_want_its_own_models_beside_one_that_wants_all() -> None:
    wants = {"a": "all", "b": "own", "c": "none", "d": ""}
    assert unserved(wants, "auto", "statistics").keys() == {"b"}
    assert unserved(wants, "auto", "gradient").keys() == {"b", "c"}
    assert unserved({"b": "own", "d": ""}, "auto", "gradient") == {}


def test_own_models_are_served_by_personal() -> None:
    assert served_strategy("auto", {"a": "own", "b": ""}) == "personal"
    assert served_strategy("auto", {"a": "none", "b": ""}) == "auto"
    assert served_strategy("relay", {"a": "none"}) == "relay"


def test_runs_of_real_combinations_or_with_silent_workers_have_no_relays() -> None:
    check_relay("north", ["a"], "auto", 0)
    check_relay("north", ["a"], "personal", 0)
    check_relay("a", (), "linear", 1)
    with pytest.raises(UsageError, match="can have relays without --silent only, got 1"):
        check_relay("north", ["a"], "relay", 1)
    with pytest.raises(UsageError, match=r"the run that 'north' joins can have relays .* got 'linear'"):
        check_relay("north", ["a"], "linear", 0)
