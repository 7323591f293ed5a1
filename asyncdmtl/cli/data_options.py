"""The options that say what a command trains on."""

from __future__ import annotations

from typing import Any

import click

from asyncdmtl.cli.command import Decorator, together
from asyncdmtl.data import recipes


def _one_or_several(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> str | tuple[str, ...] | None:
    """One text, if the option was given once (it may hold several names), else a tuple of single names."""
    if len(given) > 1:
        return given
    return given[0] if given else None


def names_option(name: str, **settings: Any) -> Decorator:
    """An option that takes names: several with commas, or one each time it is repeated."""
    return click.option(name, multiple=True, callback=_one_or_several, **settings)


reading_options = together(
    names_option("--missing", metavar="CELL,CELL…", help="Cells that are missing values, as empty ones are."),
    click.option(
        "--keep-missing-words",
        is_flag=True,
        help="Take NA, None, ? and the like for values in columns of text, not for missing ones.",
    ),
    click.option(
        "--decimal",
        metavar="SIGN",
        help="The decimal separator in text, . or , (the other groups digits).",
    ),
    click.option(
        "--separator", metavar="SIGN", help="The separator of cells in text.  [default: a comma; tab in .tsv]"
    ),
    click.option("--encoding", metavar="NAME", help="The encoding of text.  [default: utf-8]"),
    names_option("--header", metavar="COL,COL…", help="Names for the columns of text without a header line."),
)

column_options = together(
    click.option("--task", metavar="COL", help="The column that names each row's task."),
    click.option("--target", metavar="COL", help="The column to predict."),
    names_option("--features", metavar="COL,COL…", help="Columns to predict from.  [default: all others]"),
    names_option("--omit", metavar="COL,COL…", help="Columns not to predict from, such as names and dates."),
    names_option("--categorical", metavar="COL,COL…", help="Columns whose numbers are categories."),
    click.option("--weight", metavar="COL", help="A column of sample weights."),
)

data_options = together(
    names_option(
        "--data",
        default=["digits"],
        help="What to train on: files (.csv, .tsv, .parquet, .npz; a path, pattern or URL, or several with "
        "commas), or a recipe: NAME, NAME:key=value,… or FILE.toml; names: "
        + ", ".join(recipes.list_recipes())
        + ".",
    ),
    column_options,
    click.option(
        "--test-fraction",
        type=float,
        metavar="SHARE",
        help="The share of the rows of each task in the files that is kept for tests and not trained on; of "
        "files that are a worker's partitions, of each partition.  [default: 0.2 for run; for a worker what "
        "the server says]",
    ),
    click.option(
        "--parts",
        type=int,
        help="Cut each task's training rows in the files into so many partitions.  [default: 2 for run]",
    ),
    reading_options,
)
