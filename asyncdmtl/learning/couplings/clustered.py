"""The coupling "clustered", which groups the models of all tasks into clusters."""

from __future__ import annotations

from asyncdmtl.arithmetic.sums import norm, sum_of_all
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.couplings.base import Coupling
from asyncdmtl.learning.proximal import clustered_prox, pair_differences


class Clustered(Coupling):
    """`R(W) = (1/T) Σ_{s<t} ‖w_s − w_t‖₂`: models gather in clusters, within which they are equal.

    This convex relaxation of clustering is known as sum-of-norms clustering, here on the complete graph of
    tasks. The number of clusters follows from `λ`. The factor `1/T` bounds the pull on a task by `λ` for any
    number of tasks. (With squares in place of norms, the penalty would be the mean-regularised one.) The prox
    is computed by iteration to a fixed accuracy, with memory for about `T²·min(T, features)` numbers: see
    `proximal.clustered_prox`. Reference: Hocking, Joulin, Bach, Vert, "Clusterpath: an Algorithm for
    Clustering using Convex Fusion Penalties", ICML 2011.
    """

    summary = "models gather in clusters (convex: sum of norms of differences)"

    def penalty(self, W: Floats) -> float:
        """`(λ/T) Σ_{s<t} ‖w_s − w_t‖₂`."""
        return self.strength / len(W) * sum_of_all(norm(pair_differences(W)))

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """Models with shorter differences and the same mean."""
        return clustered_prox(W, step * self.strength / len(W))

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """`max_{s,t} ‖z_s − z_t‖₂`: if `Z` is taken at the best equal models, models stay equal.

        The condition is sufficient but not always necessary. Under it, the dual vectors of the pairs,
        `(z_s − z_t)/T` each, balance the gradients.
        """
        return float(norm(pair_differences(Z)).max(initial=0.0))
