from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from asyncdmtl._version import __version__
from asyncdmtl.cli.command import command, together
from asyncdmtl.cli.failure import CurrentCommand
from asyncdmtl.cli.logs import PACKAGE_LOG
from asyncdmtl.errors import UsageError

called: list[dict[str, Any]] = []


@command("plan")
@click.option("--rows", type=int, default=3, help="Rows.")
@click.option("--name", help="A name.")
def example(**values: Any) -> None:
    """Do something."""
    called.append(values)


@pytest.fixture(autouse=True)
def _state_is_restored() -> Iterator[None]:
    called.clear()
    context = CurrentCommand.context
    yield
    CurrentCommand.context = context


def run(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(example, words, env=environment)


def test_a_command_has_its_own_options_and_the_common_ones() -> None:
    assert run("--rows", "5").exit_code == 0
    (values,) = called
    assert (values["rows"], values["name"]) == (5, None)
    assert (values["format"], values["log_level"]) == ("text", "warning")
    assert "show_config" not in values


def test_json_is_short_for_its_format() -> None:
    run("--json")
    run("--format", "json")
    assert [values["format"] for values in called] == ["json", "json"]


def test_the_configuration_is_shown_instead_of_run(tmp_path: Path) -> None:
    shown = run("--show-config", "--rows", "9", "--log-file", str(tmp_path / "log"))
    assert called == []
    assert not (tmp_path / "log").exists()
    content = json.loads(shown.stdout)
    assert (content["rows"], content["name"], content["log_file"]) == (9, None, str(tmp_path / "log"))


def test_a_file_sets_defaults_that_the_command_line_overrides(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[plan]\nrows = 7\nname = "x"\n')
    run("--config", str(file))
    run("--rows", "1", "--config", str(file))
    assert [(values["rows"], values["name"]) for values in called] == [(7, "x"), (1, "x")]
    file.write_text("[plan]\nrow = 7\n")
    assert isinstance(run("--config", str(file)).exception, UsageError)


def test_logs_go_where_the_options_say(tmp_path: Path) -> None:
    run("--log-level", "info", "--log-file", str(tmp_path / "log"))
    PACKAGE_LOG.info("hello")
    assert "INFO hello" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_shows_options_with_their_defaults(option: str) -> None:
    text = " ".join(run(option).stdout.split())
    assert "Do something." in text
    assert "Rows. [default: 3]" in text
    for common in (
        "--config",
        "--show-config",
        "--format",
        "--json",
        "--log-level",
        "--log-file",
        "--version",
    ):
        assert common in text


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_every_command_tells_the_version(option: str) -> None:
    assert run(option).stdout == f"asyncdmtl, version {__version__}\n"


def test_failures_are_told_as_the_running_command_wants() -> None:
    run("--format", "json")
    assert CurrentCommand.context is not None
    assert CurrentCommand.context.params["format"] == "json"


def test_options_together_stand_in_their_order() -> None:
    @click.command()
    @together(click.option("--first"), click.option("--second"))
    @click.option("--third")
    def several(**_: object) -> None:
        """Do nothing."""

    assert [parameter.name for parameter in several.params] == ["first", "second", "third"]
