from __future__ import annotations

import math

import numpy as np
import pytest

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.exchange.upload import Layout, Upload

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)

DIGESTS = bytes(range(16)), bytes(range(16, 32))


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_what_is_packed_is_unpacked(dtype: np.dtype[np.floating]) -> None:
    layout = Layout(dtype, 2, 3, measures=True, state=True, confirmed=True)
    upload = Upload((), 7, DIGESTS, (0.5, 1.0, math.inf), 0.25, 2.0, b"s" * 16, b"c" * 16)
    told = layout.pack(upload)
    assert len(told) == layout.size == 4 * 16 + 5 * dtype.itemsize
    found = layout.unpack(told, (), 7)
    for name in (
        "rows",
        "size",
        "digests",
        "losses",
        "penalty",
        "residual",
        "state",
        "confirmation",
        "sealed",
    ):
        assert getattr(found, name) == getattr(upload, name), name


def test_what_is_not_told_takes_no_bytes() -> None:
    layout = Layout(DOUBLE, losses=1)
    upload = Upload((), 7, (), (0.5,), 3.0, 3.0, b"s" * 16)
    found = layout.unpack(layout.pack(upload), (), 7)
    assert layout.size == 8
    assert (found.losses, found.penalty, found.residual, found.state) == ((0.5,), 0.0, 0.0, b"")


def test_sealed_numbers_have_the_bytes_of_the_layout() -> None:
    layout = Layout(DOUBLE, 1, state=True, sealed=2, sealed_bytes=3)
    upload = Upload((), 7, DIGESTS[:1], (), 0.0, 0.0, b"s" * 16, b"", (b"one", b"two"))
    assert layout.unpack(layout.pack(upload), (), 7).sealed == (b"one", b"two")


@pytest.mark.parametrize("change", [-1, 1])
def test_another_number_of_bytes_is_refused(change: int) -> None:
    layout = Layout(SINGLE, 1, 2)
    with pytest.raises(RemoteProtocolError, match=f"received {24 + change} bytes of .*, the plan says 24"):
        layout.unpack(bytes(24 + change), (), 0)
