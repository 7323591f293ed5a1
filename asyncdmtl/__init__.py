"""Coded distributed multi-task learning over TCP.

For codes alone, without any network::

    from asyncdmtl import Placement, make_plan

    plan = make_plan(Placement({"w0": ["a", "b"], "w1": ["b", "c"], "w2": ["c", "a"]}))
    plan.uplink_load, plan.downlink_load        # Fraction(3, 2), Fraction(1, 1)

The estimators for scikit-learn are described in `asyncdmtl.estimators`.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from asyncdmtl.plan.compare import compare
from asyncdmtl.plan.design import design_placement
from asyncdmtl.plan.linear import LinearPlan, make_linear_plan
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan

if TYPE_CHECKING:
    from asyncdmtl.estimators import (
        CodedMultiTaskClassifier,
        CodedMultiTaskClassifierCV,
        CodedMultiTaskRegressor,
        CodedMultiTaskRegressorCV,
    )

__all__ = [
    "CodedMultiTaskClassifier",
    "CodedMultiTaskClassifierCV",
    "CodedMultiTaskRegressor",
    "CodedMultiTaskRegressorCV",
    "LinearPlan",
    "Placement",
    "Plan",
    "compare",
    "design_placement",
    "make_linear_plan",
    "make_plan",
]


def __getattr__(name: str) -> Any:
    """The estimators, when they are asked for: scikit-learn takes a second to import."""
    if name.startswith("CodedMultiTask") and name in __all__:
        from asyncdmtl import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
