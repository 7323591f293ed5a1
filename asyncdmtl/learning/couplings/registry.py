"""All couplings φ by name (docs/theory.md, section 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from asyncdmtl.arithmetic.kinds import ARITHMETICS
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.couplings.base import Coupling, NoCoupling
from asyncdmtl.learning.couplings.clustered import Clustered
from asyncdmtl.learning.couplings.graphs import ChainLaplacian, Edge, GraphLaplacian, edge_rows
from asyncdmtl.learning.couplings.group_sparse import L21Norm
from asyncdmtl.learning.couplings.low_rank import NuclearNorm, SparseLowRank, TaskCovariance
from asyncdmtl.learning.couplings.means import MeanRegularised, PlainMean
from asyncdmtl.learning.couplings.ridge import Ridge

COUPLINGS: Mapping[str, type[Coupling]] = MappingProxyType(
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
    }
)


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
    return COUPLINGS[name](strength, arithmetic=ARITHMETICS[arithmetic])
