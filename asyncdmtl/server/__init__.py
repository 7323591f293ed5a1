"""The server of a run: `python -m asyncdmtl.server`."""
