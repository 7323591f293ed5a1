"""`python -m asyncdmtl.relay`: a relay between workers and a server, or another relay."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from asyncdmtl.cli.command import command, seconds_option, together
from asyncdmtl.cli.health_option import health_address, health_option
from asyncdmtl.cli.multicast_options import group_options, make_multicast
from asyncdmtl.net.addresses import format_address, parse_address, parse_addresses
from asyncdmtl.net.authentication import ServerSecurity, WorkerSecurity
from asyncdmtl.net.event_loop import run
from asyncdmtl.relay.options import RelayOptions
from asyncdmtl.relay.relay import Relay
from asyncdmtl.report.json_output import emit
from asyncdmtl.report.relay_report import level_totals, link_totals
from asyncdmtl.report.units import counted, human_bytes
from asyncdmtl.server.events import HealthListening, Listening, OnEvent, ServerEvent
from asyncdmtl.worker.options import WorkerOptions

log = logging.getLogger("asyncdmtl.relay")

_wait_options = together(
    seconds_option(
        "--max-wait",
        60.0,
        "Wait this long for the parent to be up, at the start and whenever the connection is lost.",
    ),
    seconds_option("--join-timeout", 300.0, "Wait this long for all workers to join."),
    seconds_option(
        "--rejoin-timeout",
        5.0,
        "Wait this long for workers to come back after one was lost; then go on without those missing.",
    ),
    seconds_option("--start-timeout", 3600.0, "Wait this long for the start of the training."),
    seconds_option(
        "--round-timeout",
        500.0,
        "Wait this long for a worker's uplink, and half as long again for the parent's downlink, of a round; "
        "the parent must wait longer for uplinks.",
    ),
    seconds_option("--silence-timeout", 10.0, "Give a worker or the parent up that is silent for longer."),
)

_security_options = together(
    click.option(
        "--secret-file",
        type=click.Path(path_type=Path),
        help="Prove knowledge of the secret in this file to the parent, and have workers prove it: one line, "
        "or in FILE.toml a table [workers] with a secret for each name. Also: ASYNCDMTL_SECRET in the "
        "environment.",
    ),
    click.option(
        "--tls-ca",
        type=click.Path(path_type=Path),
        help="Speak TLS with a parent whose certificate this CA signed, PEM; or that certificate itself.",
    ),
    click.option(
        "--tls-server-name",
        metavar="NAME",
        show_default="the host of the address in --connect",
        help="The name that the parent's certificate must have.",
    ),
    click.option(
        "--tls-cert",
        type=click.Path(path_type=Path),
        help="Speak TLS with workers with this certificate (chain), PEM; with --tls-ca, show it to a parent "
        "that asks for one for --name, too.",
    ),
    click.option(
        "--tls-key", type=click.Path(path_type=Path), help="The certificate's key, PEM, unencrypted."
    ),
    click.option(
        "--tls-client-ca",
        type=click.Path(path_type=Path),
        help="Workers must show a certificate for their name that this CA signed, PEM.",
    ),
    click.option(
        "--insecure",
        is_flag=True,
        help="Listen beyond this machine, or connect to another host, without TLS or proofs of identity.",
    ),
)


@command("relay")
@click.option(
    "--listen",
    default="127.0.0.1:7701",
    metavar="HOST:PORT",
    help="Where to listen for workers, or other relays; port 0: a free one.",
)
@click.option(
    "--connect",
    default="127.0.0.1:7700",
    metavar="HOST:PORT,…",
    help="The parent: the server, or another relay. Of several addresses, those after the first are tried in "
    "this order when one does not serve.",
)
@click.option("--name", required=True, help="The relay's name, unique among all workers and relays.")
@click.option(
    "--workers",
    type=int,
    required=True,
    help="Join the run once so many workers are here, those behind other relays included.",
)
@click.option(
    "--downlink",
    type=click.Choice(("tcp", "multicast")),
    default="tcp",
    help="How rows come to workers: to each over TCP; or once to a group that those of this site listen to, "
    "where that costs less. Give each relay whose network is the same a group of its own.",
)
@group_options
@_wait_options
@_security_options
@health_option
@click.option("--until-eof", is_flag=True, hidden=True, help="End with standard input.")
def main(
    listen: str,
    connect: str,
    name: str,
    workers: int,
    max_wait: float,
    join_timeout: float,
    rejoin_timeout: float,
    start_timeout: float,
    round_timeout: float,
    silence_timeout: float,
    insecure: bool,
    health: str | None,
    until_eof: bool,
    format: str,
    **given: Any,
) -> None:
    """Stand for all workers of a site: a server towards them, one worker towards the server.

    A relay trains nothing, keeps no rows and needs no data. It collects each update of its workers once, and
    hands them what they lack, so that less travels between the site and the server.

    Exit codes: 0 done, 1 failed, 2 usage, 3 connection, 4 authentication, 5 timeout, 6 decoding or integrity,
    130 interrupted, 143 terminated.
    """
    address, parents = parse_address(listen, "--listen"), parse_addresses(connect, "--connect")
    upward, downward = _securities(name, given)
    risks = [*upward.check_exposures(parents, insecure), downward.check_exposure(address[0], insecure)]
    for risk in risks:
        if risk is not None:
            log.warning("%s", risk)
    options = RelayOptions(
        WorkerOptions(name, max_wait, start_timeout, round_timeout, silence_timeout),
        workers,
        join_timeout,
        rejoin_timeout,
        make_multicast(given),
    )
    exposed = health_address(health, insecure)
    notes: list[OnEvent] = [lambda event: _say(event, name, format)]

    def tell(event: ServerEvent) -> None:
        for note in notes:
            note(event)

    relay = Relay(options, tell, upward, downward)
    run(_relay(relay, parents, address, exposed, notes), until_eof=until_eof)
    levels = {"above": level_totals(relay.up), "below": level_totals(relay.below)}
    if format == "json":
        kernel = {node: asdict(count) for node, count in relay.kernel.items()}
        emit(
            {
                "event": "finished",
                "relay": name,
                **levels,
                "links": link_totals(relay.below),
                "kernel": kernel,
            }
        )
        return
    told = "; ".join(
        f"{level} {human_bytes(total['up_bytes'])} up, {human_bytes(total['down_bytes'])} down"
        for level, total in levels.items()
    )
    click.echo(f"relay {name}: done with {counted(workers, 'worker')}; bytes {told}")


def _securities(name: str, given: Mapping[str, Any]) -> tuple[WorkerSecurity, ServerSecurity]:
    """The proofs towards the parent, and those that workers must give, from the options."""
    secret, certificate = given["secret_file"], (given["tls_cert"], given["tls_key"])
    # Towards the parent, the relay's certificate is that of a member.
    shown: tuple[Any, Any] = certificate if given["tls_ca"] is not None else (None, None)
    return (
        WorkerSecurity.from_files(name, secret, given["tls_ca"], *shown, given["tls_server_name"]),
        ServerSecurity.from_files(secret, *certificate, given["tls_client_ca"]),
    )


async def _relay(
    relay: Relay,
    parents: Sequence[tuple[str, int]],
    address: tuple[str, int],
    health: tuple[str, int] | None,
    notes: list[OnEvent],
) -> None:
    """Relay the run and, if an address is given for it, answer health probes beside it."""
    if health is None:
        await relay.run(parents, address)
        return
    # Imported here, because the client library of Prometheus takes a moment to import.
    from asyncdmtl.relay.metrics import RelayMetrics
    from asyncdmtl.server.health import Health

    metrics = RelayMetrics(relay)
    notes.insert(0, metrics.note)
    pages = Health(metrics)
    notes[-1](HealthListening(*await pages.listen(*health)))
    try:
        await relay.run(parents, address)
    finally:
        await pages.close()


def _say(event: ServerEvent, name: str, format: str) -> None:
    """Print where the relay listens; all other events are in the log."""
    if not isinstance(event, Listening | HealthListening):
        return
    what = "listening on" if isinstance(event, Listening) else "health and metrics at"
    if format == "json":
        emit({**event.as_json(), "relay": name})
    else:
        click.echo(f"relay {name}: {what} {format_address(event.host, event.port)}", err=True)
