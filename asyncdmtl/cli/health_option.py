"""The option --health of the server and of relays."""

from __future__ import annotations

import logging
from importlib.util import find_spec

import click

from asyncdmtl.errors import UsageError
from asyncdmtl.net.addresses import parse_address
from asyncdmtl.net.authentication import is_loopback

log = logging.getLogger("asyncdmtl.health")

health_option = click.option(
    "--health",
    metavar="HOST:PORT",
    help="Answer /healthz, /readyz and /metrics (Prometheus) over HTTP here; port 0: a free one. Plaintext.",
)


def health_address(health: str | None, insecure: bool) -> tuple[str, int] | None:
    """Host and port of --health; None if it is not given. The health server answers everyone in plaintext."""
    if health is None:
        return None
    host, port = parse_address(health, "--health")
    if find_spec("prometheus_client") is None:
        raise UsageError("--health", "needs: pip install 'asyncdmtl[metrics]'", health)
    if not is_loopback(host):
        if not insecure:
            raise UsageError("--health", "must be a loopback address unless --insecure is given", host)
        log.warning("answering --health on %s: anyone on the network can read it", host)
    return host, port
