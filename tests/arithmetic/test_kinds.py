from __future__ import annotations

import numpy as np
import pytest

from asyncdmtl.arithmetic.kinds import ARITHMETICS, FAST, REPRODUCIBLE, Arithmetic

A = np.random.default_rng(0).standard_normal((3, 40))


def test_there_are_two_kinds_by_name() -> None:
    assert ARITHMETICS == {"reproducible": REPRODUCIBLE, "fast": FAST}


@pytest.mark.parametrize("kind", [REPRODUCIBLE, FAST], ids=["reproducible", "fast"])
def test_each_kind_computes_what_its_names_say(kind: Arithmetic) -> None:
    B = np.random.default_rng(1).standard_normal((40, 2))
    assert kind.matmul(A, B) == pytest.approx(A.dot(B))
    S = kind.gram(A)
    assert pytest.approx(A.dot(A.T)) == S
    values, V = kind.eigh(S)
    assert (np.diff(values) >= 0).all()
    assert (V * values) @ V.T == pytest.approx(S)
    assert pytest.approx(np.eye(3)) == V.T @ V


@pytest.mark.parametrize("kind", [REPRODUCIBLE, FAST], ids=["reproducible", "fast"])
def test_left_singular_vectors_belong_to_descending_singular_values(kind: Arithmetic) -> None:
    U, sigma = kind.left_svd(A)
    assert sigma == pytest.approx(np.linalg.svd(A, compute_uv=False))
    # After rotation by the vectors, rows are orthogonal and have these lengths.
    rotated = U.T @ A
    assert rotated @ rotated.T == pytest.approx(np.diag(sigma**2), abs=1e-10)


@pytest.mark.parametrize("kind", [REPRODUCIBLE, FAST], ids=["reproducible", "fast"])
def test_singular_values_of_stacks_are_descending(kind: Arithmetic) -> None:
    expected = np.linalg.svd(np.stack([A, 2.0 * A]), compute_uv=False)
    assert kind.singular_values(np.stack([A, 2.0 * A])) == pytest.approx(expected)
    assert kind.singular_values(A.T) == pytest.approx(expected[0])
