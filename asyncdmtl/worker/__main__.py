"""`python -m asyncdmtl.worker`."""

from asyncdmtl.cli.command import execute
from asyncdmtl.cli.worker import main

if __name__ == "__main__":
    execute(main)
