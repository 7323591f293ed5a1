"""The options of a run whose server learns nothing of the data."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from asyncdmtl.cli.command import together

# The strategy of a blind run in which each partition has one holder.
UNCODED = "uncoded"

blind_option = click.option(
    "--blind",
    is_flag=True,
    help="Learn nothing of the data: workers mask their rows and seal all else that depends on data, with a "
    "secret that the server does not have (worker --group-secret-file). For --strategy relay and uncoded.",
)

group_options = together(
    click.option(
        "--group-secret-file",
        type=click.Path(path_type=Path),
        help="Keep all data from the server of a blind run: one line, the same at all workers, and nowhere "
        "else. Also: ASYNCDMTL_GROUP_SECRET in the environment.",
    ),
    click.option(
        "--group-agree",
        is_flag=True,
        help="Agree with the other workers on a key of each run, and on another when a worker is excluded: "
        "--group-secret-file only proves that they belong together.",
    ),
    click.option(
        "--group-ca",
        type=click.Path(path_type=Path),
        help="The same without a shared secret: workers prove themselves by --tls-cert, which one of these "
        "certificates has signed, PEM. The server's operator must not have their keys.",
    ),
)


def new_group_secret(folder: Path) -> Path:
    """A file with a new secret for the workers of a blind run. Here, too, only they use it."""
    file = folder / "group-secret"
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32), encoding="ascii")
    return file
