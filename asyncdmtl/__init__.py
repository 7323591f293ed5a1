"""Coded distributed multi-task learning over TCP.

For codes alone, without any network::

    from asyncdmtl import Placement, make_plan

    plan = make_plan(Placement({"w0": ["a", "b"], "w1": ["b", "c"], "w2": ["c", "a"]}))
    plan.uplink_load, plan.downlink_load        # Fraction(3, 2), Fraction(1, 1)
"""

__version__ = "0.1.0"

from asyncdmtl.plan.compare import compare
from asyncdmtl.plan.design import design_placement
from asyncdmtl.plan.linear import LinearPlan, make_linear_plan
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan

__all__ = ["LinearPlan", "Placement", "Plan", "compare", "design_placement", "make_linear_plan", "make_plan"]
