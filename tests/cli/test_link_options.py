from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from asyncdmtl.cli.link_options import link_options, make_links
from asyncdmtl.cli.multicast_options import downlink_options
from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.plan.links import EQUAL_LINKS, Links


def parse(*words: str) -> Links:
    """The links that a command line describes."""
    found: list[Links] = []

    @click.command()
    @link_options
    @downlink_options
    def command(**given: Any) -> None:
        found.append(make_links(given))

    CliRunner().invoke(command, words, catch_exceptions=False)
    return found[0]


def test_without_options_links_are_equal() -> None:
    assert parse() == EQUAL_LINKS


def test_tables_and_overhead_are_read(tmp_path: Path) -> None:
    file = tmp_path / "links.json"
    file.write_text('{"speeds": {"a": 10}, "prices": {"a": 2}}')
    assert parse("--speeds", str(file), "--max-overhead", "1/50") == Links(
        {}, {"a": Fraction(10)}, Fraction(1, 50)
    )
    both = tmp_path / "both.toml"
    both.write_text("[speeds]\na = 10\n[down_speeds]\na = 50\n")
    assert parse("--speeds", str(both)) == Links({}, {"a": Fraction(10)}, down_speeds={"a": Fraction(50)})
    assert parse("--prices", str(file)) == Links({"a": Fraction(2)})
    assert parse("--speeds", "auto", "--max-overhead", "0.1") == Links({}, {}, Fraction(1, 10), learned=True)
    with pytest.raises(UsageError, match="--prices cannot be given with --speeds"):
        parse("--prices", str(file), "--speeds", str(file))
    with pytest.raises(PlacementError, match=r"--speeds: placement file no\.toml must be readable"):
        parse("--speeds", "no.toml")
    with pytest.raises(UsageError, match="--max-overhead must be a finite number"):
        parse("--max-overhead", "some")


def test_the_file_of_speeds_tells_that_of_the_server(tmp_path: Path) -> None:
    file = tmp_path / "links.toml"
    file.write_text("[speeds]\na = 10\n[prices]\na = 1\n[server]\nspeed = 100\n")
    assert parse("--speeds", str(file)).server == 100
    with pytest.raises(
        UsageError, match="--prices cannot be given with --downlink auto, which chooses by time"
    ):
        parse("--prices", str(file), "--downlink", "auto")
