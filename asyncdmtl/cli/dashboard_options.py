"""The options of the dashboard, and the dashboard of a run."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import click

from asyncdmtl.cli.command import together
from asyncdmtl.errors import UsageError
from asyncdmtl.net.addresses import parse_address
from asyncdmtl.net.authentication import is_loopback
from asyncdmtl.net.credentials import MIN_SECRET_BYTES, read_private
from asyncdmtl.net.tls import server_context
from asyncdmtl.server.dashboard import Dashboard
from asyncdmtl.server.events import DashboardListening, OnEvent, ServerEvent
from asyncdmtl.server.records import RunOptions
from asyncdmtl.server.server import Server

log = logging.getLogger("asyncdmtl.server")

TOKEN_OPTION = "--dashboard-token-file"


page_options = together(
    click.option(
        "--dashboard",
        metavar="HOST:PORT",
        help="Show the run in browsers at this address, and answer /healthz, /readyz and, with "
        "asyncdmtl[metrics], /metrics; port 0: a free one. A server with --tls-cert shows it over HTTPS.",
    ),
    click.option(
        TOKEN_OPTION,
        type=click.Path(path_type=Path),
        help="Visitors of the dashboard must show the token in this file, once, as /?token=TOKEN, or in a "
        "header (Authorization: Bearer TOKEN). Beyond this machine it is needed.",
    ),
)


@dataclass(frozen=True)
class DashboardOptions:
    """Where the dashboard is, the token that visitors must show, and its TLS."""

    host: str
    port: int
    token: str | None = field(repr=False)
    tls: ssl.SSLContext | None


def dashboard_options(
    address: str | None,
    token_file: Path | None,
    certificate: Path | None,
    key: Path | None,
    *,
    insecure: bool,
) -> DashboardOptions | None:
    """The options of the dashboard; None if there is none.

    Raises
    ------
    UsageError
        An option breaks a rule; or strangers could see the run, and `insecure` is false.
    """
    if address is None:
        if token_file is not None:
            raise UsageError(TOKEN_OPTION, "needs --dashboard", str(token_file))
        return None
    host, port = parse_address(address, "--dashboard")
    token = None if token_file is None else _read_token(token_file)
    tls = None if certificate is None else server_context(certificate, key)
    if not is_loopback(host):
        if token is None:
            raise UsageError(
                "--dashboard", f"must be a loopback address unless {TOKEN_OPTION} is given", host
            )
        if tls is None and not insecure:
            rule = "must be a loopback address unless --tls-cert, or --insecure, is given"
            raise UsageError("--dashboard", rule, host)
        if tls is None:
            log.warning(
                "showing the dashboard on %s with --insecure: anyone on the network can read it", host
            )
    return DashboardOptions(host, port, token, tls)


def _read_token(file: Path) -> str:
    token = read_private(file, TOKEN_OPTION).strip()
    if len(token) < MIN_SECRET_BYTES or not token.isalnum() or not token.isascii():
        rule = f"must have one line of at least {MIN_SECRET_BYTES} letters and digits"
        raise UsageError(TOKEN_OPTION, rule, str(file))
    return token.decode()


@asynccontextmanager
async def show(
    options: DashboardOptions, run: RunOptions, server: Server, on_event: OnEvent
) -> AsyncIterator[OnEvent]:
    """Show the run of a server while the block lasts; yields the function that notes events."""
    notes: list[OnEvent] = []
    exposition = None
    if find_spec("prometheus_client") is not None:
        # Imported here, because the client library of Prometheus takes a moment to import.
        from asyncdmtl.server.metrics import Metrics

        metrics = Metrics(run.settings.rounds, server.ledger)
        notes, exposition = [metrics.note], metrics.exposition
    board = Dashboard(
        run.settings.rounds, server.ledger, options.token, exposition, lambda: server.uplink_seconds
    )
    notes.append(board.note)

    def note(event: ServerEvent) -> None:
        for each in notes:
            each(event)

    host, port = await board.listen(options.host, options.port, options.tls)
    on_event(DashboardListening(host, port, options.tls is not None))
    try:
        yield note
    except BaseException:
        await board.close("failed")
        raise
    await board.close("finished")
