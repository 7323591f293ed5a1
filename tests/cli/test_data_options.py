from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from asyncdmtl.cli.data_options import data_options, names_option
from asyncdmtl.data import recipes


def parse(*words: str) -> dict[str, Any]:
    """The values of the data options for a command line."""
    given: dict[str, Any] = {}

    @click.command()
    @data_options
    def reads(**values: Any) -> None:
        given.update(values)

    done = CliRunner().invoke(reads, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return given


def test_without_options_the_recipe_of_digits_is_used_as_it_is() -> None:
    given = parse()
    assert given.pop("data") == "digits"
    assert given.pop("keep_missing_words") is False
    assert set(given.values()) == {None}


def test_an_option_that_is_repeated_gives_a_name_each_time() -> None:
    assert parse("--features", "age,dose")["features"] == "age,dose"
    assert parse("--features", "age", "--features", "dose, in mg")["features"] == ("age", "dose, in mg")
    assert parse("--data", "a.csv", "--data", "b.csv")["data"] == ("a.csv", "b.csv")


def test_numbers_are_read_as_numbers() -> None:
    given = parse("--test-fraction", "0.25", "--parts", "3")
    assert (given["test_fraction"], given["parts"]) == (0.25, 3)


def test_the_way_to_read_text_can_be_said() -> None:
    given = parse(
        "--missing", "-9,?", "--keep-missing-words", "--decimal", ",", "--separator", ";", "--encoding",
        "latin-1", "--header", "a,b",
    )  # fmt: skip
    assert given["missing"] == "-9,?"
    assert given["keep_missing_words"] is True
    assert (given["decimal"], given["separator"], given["encoding"]) == (",", ";", "latin-1")
    assert given["header"] == "a,b"


@pytest.mark.parametrize("recipe", recipes.list_recipes())
def test_the_help_names_every_recipe(recipe: str) -> None:
    shown = CliRunner().invoke(click.command()(data_options(lambda **_: None)), ["--help"])
    assert recipe in "".join(shown.output.split())


def test_a_names_option_may_have_a_default() -> None:
    @click.command()
    @names_option("--pick", default=["x"])
    def picks(pick: object) -> None:
        click.echo(repr(pick))

    assert CliRunner().invoke(picks, []).output == "'x'\n"
    assert CliRunner().invoke(picks, ["--pick", "a", "--pick", "b"]).output == "('a', 'b')\n"
