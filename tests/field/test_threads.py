from __future__ import annotations

import threading
from itertools import pairwise

import pytest

from asyncdmtl.field import threads
from asyncdmtl.field.threads import in_threads


@pytest.mark.parametrize("count", [None, 1, 2, 5])
@pytest.mark.parametrize("length", [0, 1, 63, 64, 1000, 100_001])
def test_parts_cover_the_length_once(length: int, count: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WORK_PER_THREAD", 1 << 10)
    spans, lock = [], threading.Lock()

    def compute(start: int, stop: int) -> None:
        with lock:
            spans.append((start, stop))

    in_threads(compute, 7, length, count)
    spans.sort()
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert all(start % 64 == 0 for start, _ in spans)


def test_an_error_in_another_thread_is_raised_after_all_have_ended() -> None:
    done = []

    def compute(start: int, stop: int) -> None:
        if start:
            raise ValueError("of the second part")
        done.append(stop)

    with pytest.raises(ValueError, match="of the second part"):
        in_threads(compute, 1, 1000, 2)
    assert done
    assert threads.cores() >= 1
