"""The text of a run's report: tables, and sentences about traffic and training."""

from __future__ import annotations

from typing import Any

import pytest
from support.problems import make_settings
from support.reports import PARTITIONS, TEST, full_report, make_report, shown

from asyncdmtl.learning.training import train
from asyncdmtl.report import run_tables
from asyncdmtl.report.evaluation import evaluate
from asyncdmtl.report.run_tables import show_run


@pytest.fixture(scope="module")
def report_of_a_run() -> dict[str, Any]:
    return full_report()


async def test_a_report_of_a_run_that_converged() -> None:
    settings = make_settings(rounds=5000, tolerance=1e-2)
    made, models = await make_report(settings)
    twin = train(PARTITIONS, settings)
    training = made["training"]
    assert (training["rounds"], training["converged"]) == (len(twin.objectives), True)
    assert training["residual"] <= 1e-2 * training["objective"]
    made["metrics"] = evaluate(PARTITIONS, TEST, models, settings, "RMSE")
    text = " ".join(shown(show_run, made).split())
    expected = f"objective {made['metrics']['objective']:.6g}; converged: by estimate, the objective is at"
    assert expected in text
    assert "of its value above the least." in text
    made["training"]["residual"] = 0.0
    text = " ".join(shown(show_run, made).split())
    assert "ended: the models no longer change in float32; --dtype float64 may bring them further." in text
    made["settings"]["dtype"] = "float64"
    assert "ended: the models no longer change in float64." in " ".join(shown(show_run, made).split())


async def test_a_report_of_a_blind_server_tells_what_it_does_not_know() -> None:
    made, models = await make_report(make_settings(rounds=5000, tolerance=1e-2))
    made["metrics"] = evaluate(PARTITIONS, TEST, models, make_settings(rounds=5000), "RMSE")
    made["settings"]["strength"] = None
    made["training"] |= {"objective": None, "residual": None}
    text = " ".join(shown(show_run, made).split())
    assert "λ chosen by the workers" in text
    assert "converged, as the workers found." in text


async def test_a_report_of_a_run_that_should_have_converged() -> None:
    made, _ = await make_report(make_settings(rounds=2, tolerance=1e-9))
    assert "--tolerance was not reached" in " ".join(shown(show_run, made).split())


@pytest.mark.parametrize(
    ("payload", "strategy", "words"),
    [
        (
            960,
            "relay",
            "framing is 52% of the uplink's payload; with it, the uplink costs 40% less than uncoded.",
        ),
        (1920, "uncoded", "framing is 26% of the uplink's payload."),
        (0, "relay", None),
        (960, "linear", "framing is 52% of the uplink's payload."),
        (50_000, "relay", None),
    ],
)
def test_framing_that_is_much_beside_small_vectors_is_told(
    report_of_a_run: dict[str, Any], payload: int, strategy: str, words: str | None
) -> None:
    up = {**report_of_a_run["uplink"], "payload_bytes": payload, "framing_bytes": 500, "uncoded_load": "6"}
    vector = {**report_of_a_run["vector"], "uncoded_bytes": 40}
    made = {**report_of_a_run, "uplink": up, "vector": vector, "strategy": strategy}
    made["rounds"] = report_of_a_run["rounds"][:8]
    text = run_tables._traffic_words(made)
    assert ("framing" in text) == (words is not None)
    assert words is None or words in text


def test_loads_of_several_plans_are_told_as_means(report_of_a_run: dict[str, Any]) -> None:
    assert "means over the rounds of all plans" not in run_tables._traffic_words(report_of_a_run)
    uplink = report_of_a_run["uplink"] | {"measured_load": "101573/13000"}
    report = report_of_a_run | {"uplink": uplink}
    assert "means over the rounds of all plans" in run_tables._traffic_words(report)
    text = shown(show_run, report)
    assert "7.813" in text
    assert "101573/13000" not in text


def test_where_nothing_travels_nothing_is_compared(report_of_a_run: dict[str, Any]) -> None:
    assert "No vector travels" not in run_tables._traffic_words(report_of_a_run)
    none = {"payload_bytes": 0, "load": "0"}
    quiet = {
        key: {**report_of_a_run[key], **none} for key in ("uplink", "downlink_broadcast", "downlink_wire")
    }
    text = run_tables._traffic_words({**report_of_a_run, **quiet})
    assert text.startswith("No vector travels: every worker has all partitions.\n")
    assert "uncoded." not in text


def test_at_fifty_columns_no_number_vanishes(report_of_a_run: dict[str, Any]) -> None:
    text = shown(show_run, report_of_a_run, width=50)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 50


async def test_a_training_that_ends_short_says_so_first() -> None:
    made, _ = await make_report(make_settings(rounds=2, tolerance=1e-9))
    first = " ".join(shown(show_run, made).split())
    assert first.index("not within --tolerance 1e-09 of the least objective after 2 rounds") < first.index(
        "Load"
    )
    made["training"]["converged"] = True
    assert "not within" not in shown(show_run, made)


def test_only_the_mean_claims_the_least(report_of_a_run: dict[str, Any]) -> None:
    told = {"converged": True, "residual": 1e-7, "objective": 1.0, "update": "gradient"}
    for settings, update in (({"aggregate": "median"}, "gradient"), ({}, "model"), ({}, "gradient")):
        made = report_of_a_run | {
            "training": report_of_a_run["training"] | told | {"update": update},
            "settings": report_of_a_run["settings"] | settings | {"tolerance": 1e-6},
        }
        text = " ".join(shown(show_run, made).split())
        minimises = not settings
        assert ("of its value above the least." in text) == minimises
        assert ("a fixed point of rounds with" in text) == (not minimises)
        made["training"]["converged"] = False
        text = " ".join(shown(show_run, made).split())
        assert ("of the least objective after" in text) == minimises
        assert ("still move by more than --tolerance 1e-06" in text) == (not minimises)


def test_separated_classes_are_told_first(report_of_a_run: dict[str, Any]) -> None:
    told = {"converged": True, "residual": 0.1, "objective": 1e-3, "update": "newton"}
    made = {
        **report_of_a_run,
        "training": {**report_of_a_run["training"], **told},
        "settings": {**report_of_a_run["settings"], "loss": "logistic", "tolerance": 1e-6},
    }
    text = " ".join(shown(show_run, made).split())
    assert text.index("The classes are separated, so that no models are best") < text.index("Loss logistic")
    assert "ended: the classes are separated." in text
    assert "within" not in text.partition("objective 0.001")[2].partition(".")[0]


@pytest.mark.parametrize(("strength", "told"), [(5.0, True), (0.5, False)])
def test_models_without_coefficients_are_told_first(
    report_of_a_run: dict[str, Any], strength: float, told: bool
) -> None:
    settings = {**report_of_a_run["settings"], "strength": strength}
    made = {**report_of_a_run, "settings": settings, "critical_strength": 1.5}
    text = " ".join(shown(show_run, made).split())
    assert text.startswith("All coefficients are 0, so that the model of a task predicts the same")
    assert ("The critical strength, at which this begins, is λ = 1.5: give a smaller λ." in text) is told
    assert "All coefficients are 0" not in shown(show_run, report_of_a_run)
