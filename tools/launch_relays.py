"""Start a run with relays on hosts: the server, the relays from the server downwards, and the workers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch import PORT, SERVER, Processes, follow
from namespaces import Host

from asyncdmtl.plan.hierarchy.topology import Topology

COMMON = ("--insecure", "--log-level", "error", "--format", "json")
PYTHON = (sys.executable, "-m")


def train_tree(
    started: Processes,
    hosts: Mapping[str, Host],
    inside: Mapping[str, str],
    topology: Topology,
    spec: str,
    options: Sequence[str],
    save: Path | None = None,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Make a run with a relay on each of these hosts.

    Parameters
    ----------
    started : Processes
    hosts : mapping of name to Host
        The hosts "server", and of each relay and worker.
    inside : mapping of relay to str
        The address of each relay towards its nodes. A relay without one is not started; its workers join at
        the server.
    topology : Topology
    spec : str
        The value of `--data`.
    options : sequence of str
        Options of the server.
    save : Path, optional
        The file to which the first worker writes the models.

    Returns
    -------
    report : dict
        The server's.
    told : dict of relay to dict
        What each relay counted: its event `finished`.

    Raises
    ------
    click.ClickException
        A process failed.
    """

    def address(of: str, host: str) -> str:
        return f"{host}:{PORT if hosts[of].namespace else 0}"

    def listening(process: Any) -> str:
        event = started.event(process)
        return f"{event['host']}:{event['port']}"

    stored = topology.placement.as_dict()
    server = started.start(
        hosts[SERVER], *PYTHON, "asyncdmtl.server", *COMMON, "--data", spec,
        "--listen", address(SERVER, hosts[SERVER].address), "--workers", str(len(stored)), *options,
    )  # fmt: skip
    ways = {"": listening(server)}
    relays = {}
    for site in topology.top_down:
        if site not in inside:
            continue
        behind = [worker for worker in stored if site in (above for _, above in topology.path(worker))]
        relays[site] = started.start(
            hosts[site], *PYTHON, "asyncdmtl.relay", *COMMON, "--name", site,
            "--connect", ways[topology.parent(site) or ""], "--listen", address(site, inside[site]),
            "--workers", str(len(behind)),
        )  # fmt: skip
        # A relay listens once its parent has welcomed it.
        ways[site] = listening(relays[site])
    workers = []
    for position, (name, own) in enumerate(stored.items()):
        way = ways.get(topology.parent(name) or "", ways[""])
        words = ["--connect", way, "--name", name, "--partitions", ",".join(own), "--data", spec]
        words += ["--save", str(save)] if save and not position else []
        workers.append(started.start(hosts[name], *PYTHON, "asyncdmtl.worker", *COMMON, *words))
    report = follow(started, server, lambda event: None)
    told = {site: started.event(relay) for site, relay in relays.items()}
    for process in (server, *relays.values(), *workers):
        started.end(process)
    return report, told
