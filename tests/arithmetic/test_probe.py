"""Arithmetic is the same under every BLAS kernel, set of CPU features and number of threads found here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from asyncdmtl.arithmetic import elementary, probe

# Prints the digests, and the digests of NumPy's own results for the same numbers.
PROGRAM = """
import hashlib, json
import numpy as np
from asyncdmtl.arithmetic import probe
def digest(*arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
A = probe._numbers(60, 61)
plain = {
    "products": digest(A @ A[:59].T),
    "elementary functions": digest(np.exp(A), np.log(np.abs(A)), np.log1p(A)),
    "spectral decompositions": digest(*np.linalg.eigh(A @ A.T), *np.linalg.svd(A)),
    "solving": digest(np.linalg.cholesky(A @ A.T)),
}
ours = {name: value.hex() for name, value in probe.digests().items()}
print(json.dumps({"ours": ours, "plain": plain, "about": probe.describe()}))
"""

AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR X86_V4"
# OpenBLAS takes whatever kernels it is told to, and a CPU that lacks their instructions ends the process.
NEWEST = ["SkylakeX"] if "AVX512_SKX" in probe.describe()["CPU"] else []
KERNELS = [{"OPENBLAS_CORETYPE": name} for name in ("Haswell", "Prescott", "Zen", "Nehalem", *NEWEST)]
THREADS = [{"OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": "2"}]
FEATURES = [
    {"NPY_DISABLE_CPU_FEATURES": AVX512},
    {"NPY_DISABLE_CPU_FEATURES": f"AVX2 FMA3 X86_V3 {AVX512}"},
]
SETTINGS = KERNELS + THREADS + FEATURES


# The digests on x86-64 with NumPy 1.26.4 and 2.4.6, and on arm64. They change only if the arithmetic does.
EVERYWHERE = {
    "IEEE operations": "75e246a247bc82b3424dbaae80cd4d5e",
    "sums": "e2acbbb71fab49cd692f6e1f3290754c",
    "products": "ed2d274599a960bb5799959ad5474b8a",
    "elementary functions": "1a3c2a5224a2afc7bee99e9c63acd0c4",
    "spectral decompositions": "25be771e819695b4e09aa21030d24e18",
    "solving": "eaed7533a9ad66791a84f48539a5a62d",
}


@cache
def elsewhere(name: str = "", value: str = "") -> dict[str, dict[str, str]]:
    environment = {key: kept for key, kept in os.environ.items() if not key.startswith(("OPENBLAS", "NPY_"))}
    given = {name: value} if name else {}
    # NumPy warns about features that it was not built for.
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, env=environment | given, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_digests_are_the_same_on_other_machines(setting: dict[str, str]) -> None:
    ((name, value),) = setting.items()
    assert elsewhere(name, value)["ours"] == {part: d.hex() for part, d in probe.digests().items()}


@pytest.mark.skipif("SkylakeX" not in probe.describe()["BLAS"], reason="needs OpenBLAS on a CPU with AVX-512")
def test_plain_numpy_differs_where_ours_does_not() -> None:
    plain = [elsewhere(*item)["plain"] for setting in SETTINGS for item in setting.items()]
    for part in plain[0]:
        assert len({found[part] for found in plain}) > 1, part


def test_digests_are_those_of_all_machines_and_versions_of_numpy() -> None:
    assert {part: found.hex() for part, found in probe.digests().items()} == EVERYWHERE


def test_the_digest_covers_all_parts() -> None:
    assert len(probe.digest()) == probe.DIGEST_BYTES
    parts = probe.digests()
    assert len(set(parts.values())) == len(parts) == 6


def test_a_bit_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    before = probe.digests()
    monkeypatch.setattr(elementary, "exp", np.exp)
    monkeypatch.setattr(elementary, "log", lambda x: np.nextafter(np.log(x), 0.0))
    after = probe.digests.__wrapped__()
    assert [name for name in before if before[name] != after[name]] == ["elementary functions"]


def test_machines_describe_themselves() -> None:
    about = probe.describe()
    assert about["NumPy"] == np.__version__
    assert set(about) == {"NumPy", "BLAS", "CPU"}
    assert all(about.values())
