"""A worker of a run: `python -m asyncdmtl.worker`."""
