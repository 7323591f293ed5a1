"""`python -m asyncdmtl.server`."""

from asyncdmtl.cli.command import execute
from asyncdmtl.cli.server import main

if __name__ == "__main__":
    execute(main)
