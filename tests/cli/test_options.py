from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from asyncdmtl.cli.options import (
    as_options,
    downlink_options,
    make_multicast,
    make_settings,
    read_edges,
    training_options,
)
from asyncdmtl.data.loading import TABLE_DEFAULTS
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.net.udp import Group
from asyncdmtl.server.records import MulticastOptions


def parse(*words: str) -> dict[str, Any]:
    """What the training options give for a command line."""
    given: dict[str, Any] = {}

    @click.command()
    @training_options
    @downlink_options
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


def test_averaged_models_are_not_trained_until_they_rest() -> None:
    averaged = settings_of("--update", "model")
    assert (averaged.rounds, averaged.tolerance) == (100, 0.0)
    asked_for = settings_of("--update", "model", "--rounds", "7", "--tolerance", "0.1")
    assert (asked_for.rounds, asked_for.tolerance) == (7, 0.1)


def test_acceleration_is_left_out_where_it_is_not_possible() -> None:
    assert not settings_of("--strategy", "linear").accelerated
    assert not settings_of("--update", "model", "--epochs", "3").accelerated


def test_a_strength_must_come_from_somewhere() -> None:
    with pytest.raises(UsageError, match="--strength must be given"):
        make_settings({**TABLE_DEFAULTS, "loss": "squared"}, parse())


def test_a_graph_must_come_from_a_file() -> None:
    with pytest.raises(UsageError, match="--graph must be given"):
        settings_of("--coupling", "graph")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--coupling", "l21", "--strength", "0.1", "--dtype", "float64", "--raw", "--intercept", "none"],
        ["--update", "model", "--epochs", "3", "--learner", "SGDRegressor(eta0=0.001)", "--seed", "5"],
        ["--strategy", "linear", "--aggregate", "mean", "--tolerance", "1e-3"],
    ],
)
def test_a_server_gets_just_these_settings(words: list[str]) -> None:
    settings = settings_of(*words)
    again = parse(*as_options(settings, parse(*words)))
    assert make_settings({}, again) == settings
    assert again["strategy"] == parse(*words)["strategy"]


@pytest.mark.parametrize("name", ["graph.toml", "graph.json"])
def test_edges_come_from_a_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    text = '[["a", "b", 1], ["b", "c", 0.5]]'
    file.write_text(f"edges = {text}" if name.endswith(".toml") else f'{{"edges": {text}}}')
    settings = settings_of("--coupling", "graph", "--graph", str(file))
    assert settings.edges == (("a", "b", 1.0), ("b", "c", 0.5))
    words = as_options(settings, {"graph": file, "strategy": "relay"})
    assert make_settings({}, parse(*words)) == settings


@pytest.mark.parametrize("text", ["edges = 3", "nodes = []", "edges = [", "", "edges = []\nmore = 1"])
def test_files_without_edges_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "graph.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match="--graph must"):
        read_edges(file)
    with pytest.raises(UsageError, match="--graph must be readable"):
        read_edges(tmp_path / "nowhere.toml")


def test_rows_go_to_a_group_where_that_is_asked_for() -> None:
    assert make_multicast(parse("--group", "nonsense")) is None
    asked = ("--downlink", "multicast")
    assert make_multicast(parse(*asked)) == MulticastOptions(Group("239.192.77.77", 7701, 1), "", 90e6)
    more = ("--group", "[ff15::1]:9", "--interface", "eth7", "--hops", "3", "--multicast-rate", "900")
    assert make_multicast(parse(*asked, *more)) == MulticastOptions(Group("ff15::1", 9, 3), "eth7", 900e6)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--group", "239.1.2.3"), "--group must be HOST:PORT"),
        (("--group", "10.0.0.1:7701"), "--group must be a multicast address"),
        (("--group", "239.1.2.3:0"), "--group must have a port from 1 to 65535"),
        (("--hops", "300"), "--hops must lie between 0 and 255"),
        (("--multicast-rate", "0"), "--multicast-rate must lie between 0.01 and 1,000,000 Mbit/s"),
        (("--multicast-rate", "nan"), "--multicast-rate must lie between"),
    ],
)
def test_groups_and_rates_that_are_none(words: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        make_multicast(parse("--downlink", "multicast", *words))
