"""All couplings φ by name (docs/theory.md, section 1)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from asyncdmtl.arithmetic.kinds import ARITHMETICS
from asyncdmtl.errors import UsageError
from asyncdmtl.extensions import Registry
from asyncdmtl.learning.couplings.base import Coupling, NoCoupling
from asyncdmtl.learning.couplings.checked import Checked
from asyncdmtl.learning.couplings.clustered import Clustered
from asyncdmtl.learning.couplings.graphs import ChainLaplacian, Edge, GraphLaplacian, edge_rows
from asyncdmtl.learning.couplings.group_sparse import L21Norm
from asyncdmtl.learning.couplings.low_rank import NuclearNorm, SparseLowRank, TaskCovariance
from asyncdmtl.learning.couplings.means import MeanRegularised, PlainMean
from asyncdmtl.learning.couplings.ridge import Ridge

COUPLINGS: Registry[type[Coupling]] = Registry(
    "coupling",
    {
        "none": NoCoupling,
        "ridge": Ridge,
        "nuclear": NuclearNorm,
        "l21": L21Norm,
        "mean": PlainMean,
        "mean-regularised": MeanRegularised,
        "chain": ChainLaplacian,
        "graph": GraphLaplacian,
        "covariance": TaskCovariance,
        "sparse-low-rank": SparseLowRank,
        "clustered": Clustered,
    },
)


def register_coupling(name: str, coupling: type[Coupling]) -> type[Coupling]:
    """Make a subclass of `Coupling` known by this name, to settings and to the option --coupling.

    Only gradients train with it (`update` "gradient", which "auto" takes), with a given λ or one that `run`
    and the estimators choose. It must compute the same bits at all workers (docs/reproducibility.md).

    Returns
    -------
    The class.

    Raises
    ------
    UsageError
        The name is malformed or is that of a coupling of this package; or `coupling` is no class that
        defines all methods of `Coupling`.
    """
    if not (inspect.isclass(coupling) and issubclass(coupling, Coupling)) or inspect.isabstract(coupling):
        rule = "must be a subclass of Coupling with penalty, prox and critical_strength"
        raise UsageError(f"coupling {name}", rule, coupling)
    COUPLINGS.register(name, coupling)
    return coupling


def make_coupling(
    name: str,
    strength: float,
    tasks: Sequence[str] | None = None,
    edges: Sequence[Edge] = (),
    arithmetic: str = "reproducible",
) -> Coupling:
    """The coupling called `name` with λ = `strength`.

    Parameters
    ----------
    tasks : sequence of str, optional
        Names of the `T` tasks, in the order of the rows of `W`; needed for the coupling "graph" only.
    edges : sequence of (task, task, weight)
        For the coupling "graph" only: each pair once, in either order, with its weight `a_st > 0`.
    arithmetic : str
        The arithmetic for singular values, a name in `ARITHMETICS`.

    Raises
    ------
    UsageError
        The coupling is unknown; edges are malformed; "graph" has no edges, or another coupling has some.
    """
    if name not in COUPLINGS:
        raise UsageError("coupling", f"must be one of {', '.join(COUPLINGS)}", name)
    if name == "graph":
        return GraphLaplacian(strength, len(tasks or ()), edge_rows(tasks or (), edges))
    if edges:
        raise UsageError("edges", "are for the coupling graph only", name)
    made = COUPLINGS[name](strength, arithmetic=ARITHMETICS[arithmetic])
    return Checked(strength, name, made) if COUPLINGS.digests(name) else made
