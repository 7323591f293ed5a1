"""The options that say what a command trains on."""

from __future__ import annotations

import click

from asyncdmtl.cli.command import together
from asyncdmtl.data import recipes

data_options = together(
    click.option(
        "--data",
        default="digits",
        help="What to train on: files (.csv, .tsv, .parquet, .npz; a path, pattern or URL, or several with "
        "commas), or a recipe: NAME, NAME:key=value,… or FILE.toml; names: "
        + ", ".join(recipes.list_recipes())
        + ".",
    ),
    click.option("--task", metavar="COL", help="The column that names each row's task."),
    click.option("--target", metavar="COL", help="The column to predict."),
    click.option("--features", metavar="COL,COL…", help="Columns to predict from.  [default: all others]"),
    click.option("--omit", metavar="COL,COL…", help="Columns not to predict from, such as names and dates."),
    click.option("--weight", metavar="COL", help="A column of sample weights."),
    click.option(
        "--test-fraction",
        type=float,
        metavar="SHARE",
        help="The share of the rows of each task in the files that is kept for tests and not trained on.  "
        "[default: 0.2 for run]",
    ),
    click.option(
        "--parts",
        type=int,
        help="Cut each task's training rows in the files into so many partitions.  [default: 2 for run]",
    ),
)
