"""The sources of options. test_main checks, in whole runs, that one source overrides another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from asyncdmtl.cli.configuration import read_defaults
from asyncdmtl.cli.data_options import names_option
from asyncdmtl.data.loading import names_of
from asyncdmtl.errors import UsageError


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that calls a command `run` with a configuration file, and returns its options' values."""

    @click.command("run")
    @click.option("--config", type=click.Path(path_type=Path), is_eager=True, callback=read_defaults)
    @click.option("--log-level", default="warning")
    @click.option("--rounds", type=int)
    @click.option("--resume", is_flag=True)
    @click.option("--until-eof", is_flag=True, hidden=True)
    @click.pass_context
    def command(context: click.Context, /, **values: Any) -> None:
        context.obj.update(values)

    def call(text: str | None = None, *words: str, **environment: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        file = tmp_path / "run.toml"
        if text is not None:
            file.write_text(text)
            words = ("--config", str(file), *words)
        done = CliRunner().invoke(command, words, obj=found, env=environment)
        if done.exception is not None:
            raise done.exception
        return found

    return call


def test_the_command_line_overrides_the_file_and_that_the_environment(seen: Any) -> None:
    everywhere = {"ASYNCDMTL_ROUNDS": "1", "ASYNCDMTL_LOG_LEVEL": "debug", "ASYNCDMTL_RESUME": "true"}
    assert seen() == {
        "config": None, "log_level": "warning", "rounds": None, "resume": False, "until_eof": False,
    }  # fmt: skip
    values = seen(**everywhere)
    assert (values["rounds"], values["log_level"], values["resume"]) == (1, "debug", True)
    values = seen("[run]\nrounds = 2\nresume = false\n[server]\nrounds = 7\n", **everywhere)
    assert (values["rounds"], values["log_level"], values["resume"]) == (2, "debug", False)
    assert seen("[run]\nrounds = 2\n", "--rounds=3", **everywhere)["rounds"] == 3


@pytest.mark.parametrize("names", [["a, b"], [" a"], ['a "b", c'], ["a, b", " c"]])
def test_each_text_of_a_list_is_one_name(tmp_path: Path, names: list[str]) -> None:
    @click.command("run")
    @click.option("--config", type=click.Path(path_type=Path), is_eager=True, callback=read_defaults)
    @names_option("--omit")
    @click.pass_context
    def command(context: click.Context, /, config: Path, omit: Any) -> None:
        context.obj.append(names_of(omit))

    file = tmp_path / "run.toml"
    file.write_text(f"[run]\nomit = {json.dumps(names)}\n")
    found: list[tuple[str, ...]] = []
    assert CliRunner().invoke(command, ["--config", str(file)], obj=found).exit_code == 0
    assert found == [tuple(names)]


def test_hidden_options_are_not_for_the_environment(seen: Any) -> None:
    assert seen(ASYNCDMTL_UNTIL_EOF="true")["until_eof"] is False


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[run]\nround = 3\n", r"\[run\] may set only log-level, resume, rounds, got 'round'"),
        ("[run]\nuntil-eof = true\n", "may set only"),
        ("[run]\nrounds = [1, 2]\n", r"\[run\] rounds must be text or a number, got \[1, 2\]"),
        ("[run]\nrounds = true\n", "rounds must be text or a number"),
        ("[run]\nresume = 1\n", "resume must be true or false"),
        ("run = 3\n", "run must be a table of options"),
        ("[runn]\n", r"may have the tables run, .*; unknown, got \['runn'\]"),
        ("[run", "--config must be TOML"),
    ],
)
def test_files_that_make_no_sense(seen: Any, text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        seen(text)


def test_a_file_that_cannot_be_read(seen: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--config must be readable"):
        seen(None, "--config", str(tmp_path / "absent.toml"))
