"""`asyncdmtl launch`: the server or a worker of a run, by the rank that Slurm or MPI gives this process.

It finds out its role and the address of the server, and goes on as the command `server` or `worker`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import click

from asyncdmtl.cli import server, worker
from asyncdmtl.cli.command import command
from asyncdmtl.cli.run import DEFAULT_COPIES, TABLE_CUT
from asyncdmtl.data import loading
from asyncdmtl.errors import UsageError
from asyncdmtl.launch.ranks import AUTO, LAUNCHERS, Rank, find_rank
from asyncdmtl.learning import settings
from asyncdmtl.net.addresses import format_address, parse_address
from asyncdmtl.net.authentication import is_loopback
from asyncdmtl.net.credentials import SECRET_VARIABLE

# What stands in values of options for the name of the process.
NAME = "{name}"

# The name of rank 0. Rank k is the worker w(k-1), as `run` names them.
SERVER_NAME = "server"

# Options of `server` and `worker` that follow from the rank, or are of no use here.
_LEFT_OUT = {
    "listen", "connect", "name", "partitions", "declare", "wants", "share", "until_eof", "partition_files",
    "class_weight", "by_file", "help", "version",
}  # fmt: skip


@command("launch", logs=False)
@click.option(
    "--launcher",
    type=click.Choice((AUTO, *LAUNCHERS)),
    default=AUTO,
    help="Whose environment variables tell the rank: Slurm's, Open MPI's, or those of MPICH and its kin.",
)
@click.option(
    "--address",
    metavar="HOST[:PORT]",
    show_default="the first host of the job, and a port that follows from the job",
    help="Where workers reach the server. MPI outside of Slurm tells no host: it must be given there, "
    "unless all ranks are on one host.",
)
@click.option(
    "--copies",
    type=int,
    show_default=str(DEFAULT_COPIES),
    help="Workers that store each partition, cyclically. Every rank must see the same data for that.",
)
def main(launcher: str, address: str | None, copies: int | None, **given: Any) -> None:
    """Take part in a run that srun or mpiexec starts: rank 0 is the server, the others are workers.

    Takes the options of `server` and of `worker`; `asyncdmtl server --help` and `worker --help` explain them.
    Rank 1 is the worker w0, rank 2 is w1, and so on; the run starts with all, unless --workers says how many
    are enough. In every value, {name} stands for the name of the worker (for rank 0: server), such as in
    --save models-{name}.npz. Without it, --save is for w0. Files whose names have {name} in --data, and all
    files with --site, are each worker's own. Other files and recipes are cut into partitions, of which each
    worker stores some, as `run` does it.

    Exit codes: 0 done, 1 failed, 2 usage, 3 connection, 4 authentication, 5 timeout, 6 decoding or integrity,
    130 interrupted, 143 terminated.
    """
    rank = find_rank(os.environ, launcher)
    host, port = _address(address, rank)
    _check_exposure(host, given)
    own = any(NAME in text for text in _texts(given["data"])) or given["site"] is not None
    if own and (copies is not None or given["placement"] is not None):
        option = "--copies" if copies is not None else "--placement"
        raise UsageError(
            option, "is for data that every rank sees, and each worker has its own", given["data"]
        )
    if given["strategy"] == "personal" and given["save"] is not None and NAME not in str(given["save"]):
        rule = f"must contain {NAME} with --strategy personal, by which workers have different models"
        raise UsageError("--save", rule, str(given["save"]))
    if rank.number == 0:
        shared = _server_options(given, own=own, workers=rank.size - 1)
        # Workers on other hosts come by a network, whichever of its interfaces that is.
        everywhere = host if is_loopback(host) else "::" if ":" in host else "0.0.0.0"
        words = ["--listen", format_address(everywhere, port), *_words(server.main, shared, SERVER_NAME)]
        server.main.main(words, standalone_mode=False)
        return
    name = f"w{rank.number - 1}"
    shared = _worker_options(given, name, own=own)
    words = ["--connect", format_address(host, port), "--name", name, *_words(worker.main, shared, name)]
    if not own and given["placement"] is None:
        number = min(DEFAULT_COPIES, rank.size - 1) if copies is None else copies
        words += ["--share", f"{rank.number - 1}/{rank.size - 1}/{number}"]
    worker.main.main(words, standalone_mode=False)


def _options_of_both() -> list[click.Parameter]:
    """The options of `worker` for data, then those of `server`, then the others of `worker`."""
    known = {parameter.name for parameter in main.params} | _LEFT_OUT
    data = [parameter for parameter in worker.main.params if parameter.name == "data"]
    found = []
    for parameter in [*data, *server.main.params, *worker.main.params]:
        # The server's recipe is a case of the worker's data.
        if parameter.name not in known and parameter.name != "recipe":
            known.add(parameter.name)
            found.append(parameter)
    return found


main.params += _options_of_both()


def _address(given: str | None, rank: Rank) -> tuple[str, int]:
    """Host and port of the server; UsageError if the host is neither given nor known."""
    if given is not None:
        bare = given.rpartition("]")[2] if given.startswith("[") else given
        return parse_address(given if ":" in bare else f"{given}:{rank.port}", "--address")
    if rank.host is None:
        rule = "must be given, or ASYNCDMTL_ADDRESS be set: ranks are on several hosts, and MPI tells none"
        raise UsageError("--address", rule, None)
    return rank.host, rank.port


def _check_exposure(host: str, given: Mapping[str, Any]) -> None:
    """UsageError if the ranks are on several hosts, and their connections are to be without protection."""
    proof = given["secret_file"] or given["tls_client_ca"] or SECRET_VARIABLE in os.environ
    if is_loopback(host) or given["insecure"] or (given["tls_cert"] and given["tls_ca"] and proof):
        return
    rule = (
        "is beyond this host, so that --insecure must be given, or TLS (--tls-cert, --tls-key, --tls-ca) and "
        "credentials (--secret-file or --tls-client-ca)"
    )
    raise UsageError("--address", rule, host)


def _server_options(given: Mapping[str, Any], *, own: bool, workers: int) -> dict[str, Any]:
    """The options of `server`: what to train on, if that is a recipe, else a loss; and all workers."""
    options = dict(given)
    if options["workers"] is None:
        options["workers"] = workers
    if not loading.is_table(given["data"]):
        return {**options, "recipe": given["data"]}
    if given["loss"] is None:
        if own:
            rule = "must be given: the server sees no row of data that each worker has for itself"
            raise UsageError("--loss", rule, None)
        with loading.unwarned():
            options["loss"] = loading.load(_cut(given), test=False).defaults["loss"]
    if given["strength"] is None:
        options["strength"] = settings.AUTO
    if given["coupling"] is None and options["strength"] == settings.AUTO:
        options["coupling"] = settings.AUTO
    return options


def _worker_options(given: Mapping[str, Any], name: str, *, own: bool) -> dict[str, Any]:
    """The options of `worker`. The server says which share of the rows is for tests."""
    options = {**given, "test_fraction": None}
    if given["save"] is not None and NAME not in str(given["save"]) and name != "w0":
        options["save"] = None
    if given["tls_client_ca"] is None:
        # The certificate is the server's.
        options |= {"tls_cert": None, "tls_key": None}
    return options if own or not loading.is_table(given["data"]) else _cut(options)


def _cut(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options by which files are cut into partitions; holders keep rows of each for tests, not the cut."""
    parts = TABLE_CUT["parts"] if given["parts"] is None else given["parts"]
    return {**given, "test_fraction": None, "parts": parts}


def _words(of: click.Command, given: Mapping[str, Any], name: str) -> list[str]:
    """The options that a command has, as words of its command line, for the process of this name."""
    words: list[str] = []
    for option in of.params:
        value = given.get(str(option.name))
        if not isinstance(option, click.Option) or value is None or option.name in ("config", "show_config"):
            continue
        if "--json" in option.opts:  # one of two options for the same value
            continue
        spelled = max(option.opts, key=len)
        if option.is_flag:
            spelled = spelled if value else next(iter(option.secondary_opts), "")
            words += [spelled] if spelled else []
            continue
        for text in _texts(value):
            words += [spelled, text.replace(NAME, name)]
    return words


def _texts(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, tuple) else [str(value)]
