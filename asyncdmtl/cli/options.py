"""Options that several commands share: what the data are, and how to train on them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from asyncdmtl.data import recipes
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.aggregation import AGGREGATES
from asyncdmtl.learning.compression import COMPRESSIONS
from asyncdmtl.learning.couplings.registry import COUPLINGS
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.settings import DTYPES, INTERCEPTS, UPDATES, Settings
from asyncdmtl.net.addresses import parse_address
from asyncdmtl.net.udp import Group
from asyncdmtl.plan.plan import CHOICES
from asyncdmtl.server.records import MulticastOptions

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_SUITS = "the one that suits the data"

# Averaged models come to rest, if at all, elsewhere than where the objective is least: to wait for that is in
# vain, and what local epochs do is done in some rounds.
_MODEL_DEFAULTS: Mapping[str, Any] = {"rounds": 100, "tolerance": 0.0}


def _all(*options: Decorator) -> Decorator:
    """Several options as one decorator, shown in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


data_options = _all(
    click.option(
        "--data",
        default="digits",
        help="What to train on: files (.csv, .tsv, .parquet, .npz; a path, pattern or URL, or several with "
        "commas), or a recipe: NAME, NAME:key=value,… or FILE.toml; names: "
        + ", ".join(recipes.list_recipes())
        + ".",
    ),
    click.option("--task", metavar="COL", help="The column that names each row's task."),
    click.option("--target", metavar="COL", help="The column to predict."),
    click.option("--features", metavar="COL,COL…", help="Columns to predict from.  [default: all others]"),
    click.option("--omit", metavar="COL,COL…", help="Columns not to predict from, such as names and dates."),
    click.option("--weight", metavar="COL", help="A column of sample weights."),
    click.option(
        "--test-fraction",
        type=float,
        metavar="SHARE",
        help="Of the rows of each task in the files, to test on and not to train on.  [default: 0.2 for run]",
    ),
    click.option(
        "--parts",
        type=int,
        help="Cut each task's training rows in the files into so many partitions.  [default: 2 for run]",
    ),
)

training_options = _all(
    click.option(
        "--strategy",
        type=click.Choice(CHOICES),
        default="relay",
        help="Who aggregates: workers (relay; uncoded, the baseline) or the server (central, personal). "
        "linear: only linear combinations travel, over the reals. auto: the cheapest exact one.",
    ),
    click.option(
        "--loss", type=click.Choice(tuple(LOSSES)), show_default=_SUITS, help="What fits are judged by."
    ),
    click.option(
        "--coupling",
        type=click.Choice(tuple(COUPLINGS)),
        show_default="that of the recipe; for files, run chooses nuclear or mean-regularised with λ",
        help="What ties the tasks' models together.",
    ),
    click.option(
        "--strength",
        type=float,
        show_default="that of the recipe; for files, run chooses it by cross-validation",
        help="λ, the weight of the coupling.",
    ),
    click.option(
        "--graph",
        type=click.Path(path_type=Path),
        help='TOML or JSON file with `edges`, a list of ["task", "task", weight]; for --coupling graph.',
    ),
    click.option(
        "--aggregate",
        type=click.Choice(tuple(AGGREGATES)),
        default="mean",
        help="How the updates of a task's partitions become one.",
    ),
    click.option(
        "--update",
        type=click.Choice(UPDATES),
        default="gradient",
        help="What comes from a partition in a round: its gradient, or the model that local epochs make.",
    ),
    click.option("--epochs", type=int, default=1, help="Local epochs a round, for --update model."),
    click.option(
        "--learner",
        default="",
        show_default="gradient descent",
        help="A linear model of scikit-learn for --update model, such as SGDRegressor(eta0=0.001).",
    ),
    click.option(
        "--accelerated/--plain",
        default=None,
        help="Whether gradients are taken ahead of the models (FISTA).  [default: where that is possible]",
    ),
    click.option(
        "--intercept",
        type=click.Choice(INTERCEPTS),
        show_default=_SUITS,
        help="free of the coupling, penalised as one more feature, or none.",
    ),
    click.option(
        "--standardise/--raw",
        default=None,
        help="Whether columns of files get mean 0 and deviation 1, by moments that the sites pool.  "
        "[default: standardise]",
    ),
    click.option("--rounds", type=int, show_default=_SUITS, help="Rounds at the most."),
    click.option(
        "--tolerance",
        type=float,
        show_default="1e-6 for gradients of files, else 0",
        help="End when the objective is as near to the least, relatively, by estimate; 0: after --rounds.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        show_default="float64 for files, float32 for recipes",
        help="Of models and exchanged vectors; float32 halves the bytes, and may end short of --tolerance.",
    ),
    click.option(
        "--compression",
        type=click.Choice(tuple(COMPRESSIONS)),
        default="none",
        help="Send updates in fewer bytes, rounded; what that takes off one is added to the next. "
        "For strategies by which workers aggregate.",
    ),
    click.option("--seed", type=int, default=0, help="Of the data: which rows train and which test."),
)


downlink_options = _all(
    click.option(
        "--downlink",
        type=click.Choice(("tcp", "multicast")),
        default="tcp",
        help="How rows come down: to each worker over TCP, or once to a group that all workers listen to, "
        "where that is less. Workers that do not hear it are served over TCP.",
    ),
    click.option(
        "--group", default="239.192.77.77:7701", metavar="ADDRESS:PORT", help="The group; IPv4 or [IPv6]."
    ),
    click.option(
        "--interface",
        metavar="NAME",
        default="",
        show_default="that of the connection",
        help="By which datagrams go: its name, or an address of it.",
    ),
    click.option("--hops", type=int, default=1, help="How many routers datagrams may pass, and one."),
    click.option(
        "--multicast-rate",
        type=float,
        default=90.0,
        metavar="MBIT/S",
        help="Send datagrams no faster than this, headers included; loss makes it less.",
    ),
)


def make_multicast(given: Mapping[str, Any]) -> MulticastOptions | None:
    """What the downlink options ask for; UsageError names the one that breaks a rule."""
    if given["downlink"] == "tcp":
        return None
    address, port = parse_address(given["group"], "--group")
    return MulticastOptions(
        Group(address, port, given["hops"]), given["interface"], given["multicast_rate"] * 1e6
    )


def make_settings(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> Settings:
    """Settings from the training options, with `defaults` where one was not given.

    Raises
    ------
    UsageError
        Names the option that breaks a rule, or is missing.
    """
    if given.get("update") == "model" and defaults.get("tolerance") and given.get("tolerance") is None:
        defaults = {**defaults, **_MODEL_DEFAULTS}
    chosen = {**defaults, **{name: value for name, value in given.items() if value is not None}}
    for name in ("coupling", "strength"):
        if chosen.get(name) is None:
            raise UsageError(f"--{name}", "must be given where the data do not suggest it", None)
    if chosen.get("accelerated") is None:
        chosen["accelerated"] = chosen["strategy"] != "linear" and chosen["update"] == "gradient"
    if chosen["coupling"] == "graph" and given.get("graph") is None:
        raise UsageError("--graph", "must be given for the coupling graph", None)
    chosen["edges"] = () if given.get("graph") is None else read_edges(given["graph"])
    chosen["standardise"] = bool(chosen.get("standardise"))
    chosen.setdefault("tolerance", 0.0)
    chosen.setdefault("dtype", "float32")
    return Settings(**{name: chosen[name] for name in Settings.__dataclass_fields__})


def as_options(settings: Settings, given: Mapping[str, Any]) -> list[str]:
    """The training options that give a server just these settings."""
    words = []
    for name, value in settings.as_dict().items():
        if name == "edges":
            words += ["--graph", str(given["graph"])] if value else []
        elif name == "accelerated":
            words.append("--accelerated" if value else "--plain")
        elif name == "standardise":
            words.append("--standardise" if value else "--raw")
        else:
            words += [f"--{name}", repr(value) if isinstance(value, float) else str(value)]
    return [*words, "--strategy", given["strategy"]]


def read_edges(path: Path) -> tuple[Any, ...]:
    """The `edges` of a TOML or JSON file; their shape is checked by Settings, their tasks by the coupling."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UsageError("--graph", f"must be readable ({error.strerror})", str(path)) from error
    except ValueError as error:
        raise UsageError("--graph", f"must be TOML or JSON ({error})", str(path)) from error
    if not isinstance(content, dict) or set(content) != {"edges"} or not isinstance(content["edges"], list):
        raise UsageError("--graph", "must hold just `edges`, a list", str(path))
    return tuple(content["edges"])
