"""The server's memory is measured, and bounded by a small multiple of the coded bytes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "measure_memory.py"

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")


def test_a_round_takes_a_small_multiple_of_its_coded_bytes() -> None:
    sizes = ["--workers=2", "--partitions=2", "--copies=1", "--features=1000000", "--rounds=2"]
    done = subprocess.run(
        [sys.executable, TOOL, *sizes, "--tls", "--slow=50"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = re.search(r"coded in a round 12\.0 MB\n(?s:.*)the most is ([0-9.]+) times", done.stdout)
    assert told is not None, done.stdout
    # Some of the coded bytes must be seen, or nothing was measured; some 20 MB are in buffers anyway, and
    # modules that are imported only once they are needed, as those of TLS, take another 10 MB.
    assert 0.5 < float(told[1]) < 5.0
