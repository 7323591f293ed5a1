"""The modules that a worker imports to build a plan from its recipe; times are not measured."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import asyncdmtl.plan.planner, asyncdmtl.plan.serialization, asyncdmtl.plan.codes.repair
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("scipy", "sklearn", "pandas")))
"""


def test_building_a_plan_again_needs_no_scipy() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
