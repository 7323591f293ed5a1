"""The command line: `asyncdmtl` and its commands."""
