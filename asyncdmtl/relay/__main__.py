"""`python -m asyncdmtl.relay`."""

from asyncdmtl.cli.entry import start

if __name__ == "__main__":
    start("relay")
