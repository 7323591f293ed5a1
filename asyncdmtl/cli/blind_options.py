"""The options of a run whose server learns nothing of the data."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

# The strategy of a blind run in which each partition has one holder.
UNCODED = "uncoded"

blind_option = click.option(
    "--blind",
    is_flag=True,
    help="Learn nothing of the data: workers mask their rows and seal all else that depends on data, with a "
    "secret that the server does not have (worker --group-secret-file). For --strategy relay and uncoded.",
)

group_secret_option = click.option(
    "--group-secret-file",
    type=click.Path(path_type=Path),
    help="Keep all data from the server of a blind run: one line, the same at all workers, and nowhere else. "
    "Also: ASYNCDMTL_GROUP_SECRET in the environment.",
)


def new_group_secret(folder: Path) -> Path:
    """A file with a new secret for the workers of a blind run. Here, too, only they use it."""
    file = folder / "group-secret"
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32), encoding="ascii")
    return file
