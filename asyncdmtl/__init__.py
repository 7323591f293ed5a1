"""Coded distributed multi-task learning over TCP.

For codes alone, without any network::

    from asyncdmtl import Placement, make_plan

    plan = make_plan(Placement({"w0": ["a", "b"], "w1": ["b", "c"], "w2": ["c", "a"]}))
    plan.uplink_load, plan.downlink_load        # Fraction(3, 2), Fraction(1, 1)

The estimators for scikit-learn are described in `asyncdmtl.estimators`. All errors that the package raises on
purpose are subclasses of `AsyncDMTLError`; `asyncdmtl.errors` describes each of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asyncdmtl._version import __version__ as __version__
from asyncdmtl.errors import (
    AsyncDMTLError,
    AuthenticationError,
    CodingError,
    CorruptionError,
    DataError,
    DisagreementError,
    IntegrityError,
    LinkError,
    LocalProtocolError,
    PeerError,
    PlacementError,
    PlanError,
    ProtocolError,
    RemoteProtocolError,
    StateError,
    UsageError,
    WaitError,
)

if TYPE_CHECKING:
    from asyncdmtl.data.model_file import SavedModel
    from asyncdmtl.estimators import (
        CodedMultiTaskClassifier,
        CodedMultiTaskClassifierCV,
        CodedMultiTaskRegressor,
        CodedMultiTaskRegressorCV,
    )
    from asyncdmtl.learning.aggregation import register_aggregate
    from asyncdmtl.learning.couplings.registry import register_coupling
    from asyncdmtl.plan.codes.matrices import register_matrices
    from asyncdmtl.plan.compare import compare
    from asyncdmtl.plan.design.hierarchy import design_hierarchy
    from asyncdmtl.plan.design.search import design_placement
    from asyncdmtl.plan.hierarchy.levels import compare_hierarchies
    from asyncdmtl.plan.hierarchy.topology import Topology
    from asyncdmtl.plan.linear.plan import LinearPlan
    from asyncdmtl.plan.linear.planning import make_linear_plan
    from asyncdmtl.plan.placement import Placement
    from asyncdmtl.plan.plan import Plan
    from asyncdmtl.plan.planner import make_plan

__all__ = [
    "AsyncDMTLError",
    "AuthenticationError",
    "CodedMultiTaskClassifier",
    "CodedMultiTaskClassifierCV",
    "CodedMultiTaskRegressor",
    "CodedMultiTaskRegressorCV",
    "CodingError",
    "CorruptionError",
    "DataError",
    "DisagreementError",
    "IntegrityError",
    "LinearPlan",
    "LinkError",
    "LocalProtocolError",
    "PeerError",
    "Placement",
    "PlacementError",
    "Plan",
    "PlanError",
    "ProtocolError",
    "RemoteProtocolError",
    "SavedModel",
    "StateError",
    "Topology",
    "UsageError",
    "WaitError",
    "compare",
    "compare_hierarchies",
    "design_hierarchy",
    "design_placement",
    "make_linear_plan",
    "make_plan",
    "register_aggregate",
    "register_coupling",
    "register_matrices",
]

# The module that defines each public name; errors are imported above. A name is imported when it is first
# used, because SciPy and scikit-learn, which some of these modules need, take a second to import.
_MODULE_OF = {
    "CodedMultiTaskClassifier": "asyncdmtl.estimators",
    "CodedMultiTaskClassifierCV": "asyncdmtl.estimators",
    "CodedMultiTaskRegressor": "asyncdmtl.estimators",
    "CodedMultiTaskRegressorCV": "asyncdmtl.estimators",
    "LinearPlan": "asyncdmtl.plan.linear.plan",
    "Placement": "asyncdmtl.plan.placement",
    "Plan": "asyncdmtl.plan.plan",
    "SavedModel": "asyncdmtl.data.model_file",
    "Topology": "asyncdmtl.plan.hierarchy.topology",
    "compare": "asyncdmtl.plan.compare",
    "compare_hierarchies": "asyncdmtl.plan.hierarchy.levels",
    "design_hierarchy": "asyncdmtl.plan.design.hierarchy",
    "design_placement": "asyncdmtl.plan.design.search",
    "make_linear_plan": "asyncdmtl.plan.linear.planning",
    "make_plan": "asyncdmtl.plan.planner",
    "register_aggregate": "asyncdmtl.learning.aggregation",
    "register_coupling": "asyncdmtl.learning.couplings.registry",
    "register_matrices": "asyncdmtl.plan.codes.matrices",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
