"""`python -m asyncdmtl`."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line."""
    # Imports take a moment, in which Ctrl-C should end this as quietly as later.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from asyncdmtl.cli import main as commands
    from asyncdmtl.cli.command import execute

    signal.signal(signal.SIGINT, signal.default_int_handler)
    execute(commands.main)


if __name__ == "__main__":
    main()
