"""`python -m asyncdmtl`."""

from __future__ import annotations

from asyncdmtl import cli
from asyncdmtl.command import execute


def main() -> None:
    """Run the command line."""
    execute(cli.main)


if __name__ == "__main__":
    main()
