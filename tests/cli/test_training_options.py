from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from asyncdmtl.cli.training_options import make_settings, read_edges, training_options
from asyncdmtl.data.loading import TABLE_DEFAULTS
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.settings import Settings


def parse(*words: str) -> dict[str, Any]:
    """The values of the training options for a command line."""
    given: dict[str, Any] = {}

    @click.command()
    @training_options
    def command(**values: Any) -> None:
        given.update(values)

    result = CliRunner().invoke(command, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return given


def settings_of(*words: str, **defaults: Any) -> Settings:
    return make_settings({**TABLE_DEFAULTS, "loss": "squared", "strength": 1.0, **defaults}, parse(*words))


def test_options_override_what_suits_the_data() -> None:
    plain = settings_of()
    assert (plain.coupling, plain.rounds, plain.tolerance) == ("nuclear", 5000, 1e-6)
    assert (plain.standardise, plain.accelerated, plain.intercept) == (True, True, "free")
    changed = settings_of("--coupling", "l21", "--rounds", "7", "--raw", "--plain", "--intercept", "none")
    assert (changed.coupling, changed.rounds, changed.standardise) == ("l21", 7, False)
    assert (changed.accelerated, changed.intercept) == (False, "none")


def test_a_given_number_of_rounds_means_gradients() -> None:
    assert settings_of().update == "auto"
    assert settings_of("--tolerance", "0").update == "gradient"
    assert settings_of("--tolerance", "0", "--update", "statistics").update == "statistics"
    assert settings_of("--tolerance", "0", "--strength", "auto").update == "auto"


@pytest.mark.parametrize("update", ["newton", "quasi-newton", "model"])
def test_rounds_of_a_recipe_are_for_gradients(update: str) -> None:
    recipe = {"tolerance": 0.0, "rounds": 20}
    ends = settings_of("--update", update, **recipe)
    assert (ends.rounds, ends.tolerance) == (500, 1e-6)
    assert settings_of("--update", update, "--rounds", "30", **recipe).rounds == 30
    given = settings_of("--update", update, "--tolerance", "0", **recipe)
    assert (given.rounds, given.tolerance) == (20, 0.0)
    assert settings_of(**recipe).rounds == settings_of("--update", "gradient", **recipe).rounds == 20


def test_acceleration_is_left_out_where_it_is_not_possible() -> None:
    assert not settings_of("--strategy", "linear").accelerated


def test_a_strength_must_come_from_somewhere() -> None:
    with pytest.raises(UsageError, match="--strength must be given"):
        make_settings({**TABLE_DEFAULTS, "loss": "squared"}, parse())


def test_a_linear_strategy_cannot_choose_a_strength() -> None:
    with pytest.raises(UsageError, match="--strength must be a number for --strategy linear"):
        settings_of("--strategy", "linear", "--strength", "auto")


def test_a_graph_must_come_from_a_file() -> None:
    with pytest.raises(UsageError, match="--graph must be given"):
        settings_of("--coupling", "graph")


@pytest.mark.parametrize("name", ["graph.toml", "graph.json"])
def test_edges_come_from_a_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    text = '[["a", "b", 1], ["b", "c", 0.5]]'
    file.write_text(f"edges = {text}" if name.endswith(".toml") else f'{{"edges": {text}}}')
    settings = settings_of("--coupling", "graph", "--graph", str(file))
    assert settings.edges == (("a", "b", 1.0), ("b", "c", 0.5))


@pytest.mark.parametrize("text", ["edges = 3", "nodes = []", "edges = [", "", "edges = []\nmore = 1"])
def test_files_without_edges_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "graph.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match="--graph must"):
        read_edges(file)
    with pytest.raises(UsageError, match="--graph must be readable"):
        read_edges(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("coupling", ["none", "mean"])
def test_no_strength_is_asked_for_where_it_has_no_effect(coupling: str) -> None:
    settings = make_settings({**TABLE_DEFAULTS, "loss": "squared"}, parse("--coupling", coupling))
    assert settings.strength == 0.0


def test_counts_take_newtons_steps_for_any_number_of_rounds() -> None:
    assert settings_of("--loss=poisson", "--tolerance=0").update == "auto"
    with pytest.raises(UsageError, match="--strategy must not be linear for poisson loss"):
        settings_of("--loss=poisson", "--strategy=linear")
