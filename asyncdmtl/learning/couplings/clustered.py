"""The coupling that gathers the models of all tasks in clusters."""

from __future__ import annotations

from asyncdmtl.arithmetic.sums import norm, sum_of_all
from asyncdmtl.arrays import Floats
from asyncdmtl.learning.couplings.base import Coupling
from asyncdmtl.learning.proximal import clustered_prox, pair_differences


class Clustered(Coupling):
    """`R(W) = (1/T) Σ_{s<t} ‖w_s − w_t‖₂`: models gather in clusters, within which they are equal.

    The convex relaxation of clustering known as sum-of-norms clustering, on the complete graph of tasks:
    how many clusters there are follows from `λ`. With `1/T`, as in the mean-regularised penalty (which
    has squares in place of norms), no task is pulled harder than `λ` however many there are.
    The prox is found by iteration to a fixed accuracy, in memory for some `T²·min(T, features)` numbers:
    see `proximal.clustered_prox`. Reference: Hocking, Joulin, Bach, Vert, "Clusterpath: an Algorithm for
    Clustering using Convex Fusion Penalties", ICML 2011.
    """

    summary = "models gather in clusters (convex: sum of norms of differences)"

    def penalty(self, W: Floats) -> float:
        """`(λ/T) Σ_{s<t} ‖w_s − w_t‖₂`."""
        return self.strength / len(W) * sum_of_all(norm(pair_differences(W)))

    def prox(self, W: Floats, step: float, out: Floats | None = None) -> Floats:
        """Differences shortened so that they still fit together; the mean of the models stays."""
        return clustered_prox(W, step * self.strength / len(W))

    def critical_strength(self, Z: Floats, smoothness: float) -> float:
        """`max_{s,t} ‖z_s − z_t‖₂`: equal models, if `Z` is taken at the best equal ones, stay equal.

        Enough and not always needed: the pairs can then hold what pulls tasks apart, `(z_s − z_t)/T` each.
        """
        return float(norm(pair_differences(Z)).max(initial=0.0))
