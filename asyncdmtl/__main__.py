"""`python -m asyncdmtl`."""

from asyncdmtl.cli.entry import start


def main() -> None:
    """Run the command line."""
    start("main")


if __name__ == "__main__":
    main()
