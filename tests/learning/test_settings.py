from __future__ import annotations

import json
from typing import Any

import pytest
from support.problems import make_settings

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss", "hinge"),
        ("aggregate", "mode"),
        ("coupling", "trace"),
        ("coupling", ["nuclear"]),
        ("dtype", "float16"),
        ("strength", -1.0),
        ("strength", float("nan")),
        ("strength", float("inf")),
        ("strength", "1"),
        ("rounds", 0),
        ("rounds", 2.5),
        ("rounds", True),
        ("seed", -1),
        ("intercept", "yes"),
        ("update", "weights"),
        ("epochs", 0),
        ("tolerance", -1e-6),
        ("accelerated", 1),
        ("learner", None),
        ("edges", [("a", "b")]),
        ("edges", "ab"),
    ],
)
def test_settings_name_the_option_that_is_wrong(name: str, value: object) -> None:
    with pytest.raises(UsageError) as caught:
        make_settings(**{name: value})
    assert caught.value.argument == name


@pytest.mark.parametrize(
    "together",
    [
        {"update": "model", "compression": "int8"},
        {"epochs": 2},
        {"learner": "SGDRegressor"},
        {"edges": [("a", "b", 1.0)]},
    ],
)
def test_settings_that_do_not_fit_each_other(together: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make_settings(**together)


def test_settings_survive_json() -> None:
    settings = make_settings(strength=1)
    assert Settings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings
    for content in ({}, settings.as_dict() | {"more": 1}):
        with pytest.raises(UsageError, match="settings must be exactly loss, "):
            Settings.from_dict(content)


def test_defaults_are_those_of_the_reference() -> None:
    made = Settings("squared", "nuclear", 1, 10)
    assert (made.strength, type(made.strength)) == (1.0, float)
    assert (made.aggregate, made.update, made.epochs, made.accelerated) == ("mean", "gradient", 1, True)
    assert (made.dtype, made.intercept, made.tolerance, made.compression) == ("float32", "free", 0.0, "none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "hinge"}, r"loss must be one of .*squared.*, got 'hinge'"),
        ({"strength": -1.0}, r"strength must be a finite number, at least 0, got -1\.0"),
        ({"strength": True}, "strength must be a finite number, at least 0, got True"),
        ({"rounds": 0}, "rounds must be a whole number, at least 1, got 0"),
        ({"seed": 2**53 + 1}, r"seed must be at most 2\*\*53, got 9007199254740993"),
        ({"standardise": None}, "standardise must be true or false, got None"),
        ({"learner": 3}, "learner must be text, got 3"),
        (
            {"update": "model", "aggregate": "median"},
            'aggregate must be mean for update "model", got \'median\'',
        ),
        ({"epochs": 2}, r"learner and epochs are for updates that are models only, got \('', 2\)"),
        ({"edges": [("a", "b", 1.0)]}, "edges are for the coupling graph only, got 'nuclear'"),
        ({"edges": 5}, r"edges must be a list of \(task, task, weight\), got 5"),
        ({"edges": [["a", "b"]]}, r"edges must each be \(task, task, weight\), got \['a', 'b'\]"),
        ({"edges": [["a", 3, 1.0]]}, r"edges must each be two names of tasks and a number, got \['a', 3"),
        ({"edges": [["a", "b", True]]}, "edges must each be two names of tasks and a number"),
    ],
)  # fmt: skip
def test_errors_name_the_setting_the_rule_and_the_value(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        make_settings(**changes)


def test_the_largest_seed_is_exact_in_json() -> None:
    assert make_settings(seed=2**53).as_dict()["seed"] == 2**53


def test_edges_become_tuples_of_floats_and_survive_json() -> None:
    settings = make_settings(coupling="graph", edges=[["a", "b", 2]])
    assert settings.edges == (("a", "b", 2.0),)
    plain = json.loads(json.dumps(settings.as_dict()))
    assert plain["edges"] == [["a", "b", 2.0]]
    assert Settings.from_dict(plain) == settings


@pytest.mark.parametrize(
    ("intercept", "standardise", "has", "centred"),
    [
        ("free", True, True, True),
        ("penalised", True, True, True),
        ("none", True, False, False),
        ("free", False, True, False),
    ],
)
def test_targets_are_centred_only_where_an_intercept_holds_the_mean(
    intercept: str, standardise: bool, has: bool, centred: bool
) -> None:
    settings = make_settings(intercept=intercept, standardise=standardise)
    assert (settings.has_intercept, settings.centred) == (has, centred)


def test_a_run_may_choose_the_strength_and_the_coupling() -> None:
    settings = make_settings(strength=None, coupling="auto", update="auto")
    assert settings.chooses
    assert not make_settings().chooses
    assert Settings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coupling": "auto"}, r"coupling can be auto only if λ is chosen too, got 0\.05"),
        (
            {"strength": None, "update": "gradient"},
            "update must be auto, statistics or newton for a strength",
        ),
        (
            {"strength": None, "update": "auto", "aggregate": "median"},
            "aggregate must be mean for a str",
        ),
        ({"update": "statistics", "loss": "huber"}, 'loss must be squared for update "statistics"'),
        ({"update": "statistics", "aggregate": "median"}, 'aggregate must be mean for update "statistics"'),
        ({"update": "statistics", "compression": "int8"}, 'compression must be none for update "statistics"'),
        (
            {"update": "newton", "aggregate": "krum"},
            "aggregate must be mean for update \"newton\", got 'krum'",
        ),
        ({"update": "quasi-newton", "compression": "int8"}, 'compression must be none for update "quasi-new'),
        ({"folds": 1}, "folds must be a whole number, at least 2, got 1"),
        ({"least_rows": 0}, "least_rows must be a whole number, at least 1, got 0"),
    ],
)
def test_few_rounds_have_their_conditions(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        make_settings(**changes)
