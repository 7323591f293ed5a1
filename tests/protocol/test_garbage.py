from __future__ import annotations

import gc

import pytest

from asyncdmtl.protocol.garbage import without_collection


def test_the_collector_rests_and_is_as_before_even_after_an_error() -> None:
    seen = []

    def fail() -> None:
        with without_collection():
            seen.append(gc.isenabled())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [False]
    assert gc.isenabled()
    gc.disable()
    try:
        with without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
