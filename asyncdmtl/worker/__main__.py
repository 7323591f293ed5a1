"""`python -m asyncdmtl.worker`."""

from asyncdmtl.cli.entry import start

if __name__ == "__main__":
    start("worker")
