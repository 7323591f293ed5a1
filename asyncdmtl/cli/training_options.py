"""The options for training, and the settings that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from asyncdmtl.arithmetic.kinds import ARITHMETICS
from asyncdmtl.cli.command import together
from asyncdmtl.documents import read_document
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.aggregation import AGGREGATES
from asyncdmtl.learning.compression import COMPRESSIONS
from asyncdmtl.learning.couplings.registry import COUPLINGS
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.settings import (
    AUTO,
    AUTO_COUPLINGS,
    DTYPES,
    FEW_COUPLINGS,
    INTERCEPTS,
    UPDATES,
    WITHOUT_STRENGTH,
    Settings,
)
from asyncdmtl.plan.codes.matrices import ENTRIES
from asyncdmtl.plan.parameters import CHOICES

# The default that the help shows for options whose default depends on the data.
_SUITS = "the one that suits the data"

DEFAULT_STRATEGY = "relay"
"""The strategy where none is given."""


# Updates by which the objective may rise in the first rounds, before curvatures are known.
SECOND_ORDER = ("newton", "quasi-newton", "model")

# Rounds and tolerance of such updates for a recipe, whose own number of rounds is for gradients: after it,
# models could be worse than none.
TO_THE_END: Mapping[str, Any] = {"rounds": 500, "tolerance": 1e-6}


class Strength(click.ParamType):  # type: ignore[type-arg]
    """A number, or "auto"."""

    name = "strength"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Read what was given."""
        if value == AUTO:
            return AUTO
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor {AUTO}.", param, ctx)


training_options = together(
    click.option(
        "--strategy",
        type=click.Choice(CHOICES),
        show_default="relay; for run, auto where each partition is stored once",
        help="Where updates are aggregated: by the workers (relay; uncoded, the baseline) or by the server "
        "(central, personal). linear: only linear combinations travel, over the reals. auto: the cheapest "
        "exact one.",
    ),
    click.option("--loss", type=click.Choice(tuple(LOSSES)), show_default=_SUITS, help="The loss of a row."),
    click.option(
        "--coupling",
        type=click.Choice((*COUPLINGS, AUTO)),
        show_default="that of the recipe; for files, run chooses it with λ",
        help="What ties the tasks' models together. auto: cross-validation across the sites chooses one, "
        f"with λ: {', '.join(AUTO_COUPLINGS)} (the best of them also with a penalised intercept); "
        f"{', '.join(FEW_COUPLINGS)} where updates do not tell of all.",
    ),
    click.option(
        "--strength",
        type=Strength(),
        metavar="λ",
        show_default="that of the recipe; for files, run chooses it by cross-validation",
        help="λ, the weight of the coupling. auto: cross-validation across the sites chooses it; no row "
        "leaves its site, and hardly a round is added.",
    ),
    click.option("--folds", type=int, default=5, help="Folds of cross-validation across the sites."),
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
        default=AUTO,
        help="The result of a partition in a round: its statistics, once, from which every worker solves "
        "the rest (squared loss); its gradient, with loss and curvature (newton) or loss alone "
        "(quasi-newton); or first the model of local epochs, and then as newton. auto: whichever is "
        "predicted to be the least to send, with 1 MB for every round; gradients if --tolerance is 0.",
    ),
    click.option(
        "--least-rows",
        type=int,
        default=1,
        metavar="ROWS",
        help="Statistics of fewer rows are never sent: of a partition, or of a fold of it. With --update "
        "auto, gradients are sent instead.",
    ),
    click.option(
        "--epochs", type=int, default=1, help="Local epochs of the first round, for --update model."
    ),
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
        show_default="the one that suits the data; where the coupling is chosen, free or penalised is too",
        help="free: the coupling does not see it; penalised: it is one more feature; none: there is none.",
    ),
    click.option(
        "--standardise/--raw",
        default=None,
        help="Whether columns of files get mean 0 and deviation 1, by moments that the sites pool.  "
        "[default: standardise]",
    ),
    click.option("--rounds", type=int, show_default=_SUITS, help="The most rounds that are made."),
    click.option(
        "--tolerance",
        type=float,
        show_default="1e-6 for gradients of files, else 0",
        help="End when the objective is estimated to be within this relative distance of the least (with "
        "other aggregates than the mean: of that of a fixed point of the rounds); 0 makes all --rounds.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        show_default="float64 for files, float32 for recipes",
        help="The type of models and exchanged vectors; float32 halves the bytes, and may end short of "
        "--tolerance.",
    ),
    click.option(
        "--compression",
        type=click.Choice(tuple(COMPRESSIONS)),
        default="none",
        help="Round the change of each update since the round before, so that it takes fewer bytes; training "
        "ends at the same optimum. For strategies by which workers aggregate.",
    ),
    click.option(
        "--arithmetic",
        type=click.Choice(tuple(ARITHMETICS)),
        default="reproducible",
        help="reproducible: the same bits on every machine. fast: singular values, for couplings that look "
        "at these, by LAPACK; all machines must have the same NumPy, BLAS and kind of CPU.",
    ),
    click.option(
        "--matrices",
        type=click.Choice(tuple(ENTRIES)),
        default="random",
        help="How the entries of coding matrices are drawn: by default, or by a plug-in.",
    ),
    click.option("--seed", type=int, default=0, help="Decides which rows train and which test."),
)


def make_settings(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> Settings:
    """Settings from the training options; `defaults` replace options that were not given.

    Raises
    ------
    UsageError
        Names the option that breaks a rule, or is missing.
    """
    chosen = {**defaults, **{name: value for name, value in given.items() if value is not None}}
    chosen.setdefault("strategy", DEFAULT_STRATEGY)
    if given.get("coupling") == AUTO and given.get("strength") is None:
        chosen["strength"] = AUTO
    if given.get("coupling") == AUTO and given.get("intercept") is None and chosen["intercept"] == "free":
        chosen["intercept"] = AUTO
    if chosen.get("coupling") in WITHOUT_STRENGTH:
        # Without a coupling, λ has no effect.
        chosen["strength"] = 0.0 if chosen.get("strength") in (None, AUTO) else chosen["strength"]
    for name in ("coupling", "strength"):
        if chosen.get(name) is None:
            raise UsageError(f"--{name}", "must be given, or be auto: data in files suggest none", None)
    if chosen["strength"] == AUTO:
        chosen["strength"] = None
    if chosen["strategy"] == "linear" and chosen["strength"] is None:
        rule = "must be a number for --strategy linear: statistics, by which λ is chosen, are no real numbers"
        raise UsageError("--strength", rule, AUTO)
    counts = LOSSES[chosen["loss"]].counts
    if chosen["strategy"] == "linear" and counts:
        rule = f"must not be linear for {chosen['loss']} loss, which gradients do not train"
        raise UsageError("--strategy", rule, "linear")
    if chosen["strategy"] == "linear" and chosen["update"] == AUTO:
        chosen["update"] = "gradient"
    open_end = given.get("rounds") is None and given.get("tolerance") is None
    if given.get("update") in SECOND_ORDER and open_end and not chosen.get("tolerance"):
        chosen |= TO_THE_END
    fixed = not chosen.get("tolerance") and chosen["strength"] is not None
    if chosen["update"] == AUTO and fixed and not counts:
        # A fixed number of rounds asks for early stopping, which statistics cannot do: they give the optimum.
        chosen["update"] = "gradient"
    if chosen.get("accelerated") is None:
        chosen["accelerated"] = chosen["strategy"] != "linear"
    if chosen["coupling"] == "graph" and given.get("graph") is None:
        raise UsageError("--graph", "must be given for the coupling graph", None)
    chosen["edges"] = () if given.get("graph") is None else read_edges(given["graph"])
    chosen["standardise"] = bool(chosen.get("standardise"))
    chosen.setdefault("tolerance", 0.0)
    chosen.setdefault("dtype", "float32")
    chosen.setdefault("test_fraction", 0.0)
    return Settings(**{name: chosen[name] for name in Settings.__dataclass_fields__})


def read_edges(path: Path) -> tuple[Any, ...]:
    """The `edges` of a TOML or JSON file. `Settings` checks their shape, and the coupling their tasks.

    Raises
    ------
    UsageError
        The file cannot be read, or holds something else.
    """
    try:
        content = read_document(path)
    except OSError as error:
        raise UsageError("--graph", f"must be readable ({error.strerror})", str(path)) from error
    except ValueError as error:
        raise UsageError("--graph", f"must be TOML or JSON ({error})", str(path)) from error
    if not isinstance(content, dict) or set(content) != {"edges"} or not isinstance(content["edges"], list):
        raise UsageError("--graph", "must hold just `edges`, a list", str(path))
    return tuple(content["edges"])
