"""`python -m asyncdmtl.server`."""

from asyncdmtl.cli.entry import start

if __name__ == "__main__":
    start("server")
