from __future__ import annotations

import math
import threading
from itertools import pairwise
from pathlib import Path

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


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "max 100000"}, math.inf),
        ("0::/a/b", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 0.5),
        ("0::/outside/of/this/container", {"cpu.max": "200000 100000"}, 2.0),
        ("4:memory:/x\n3:cpu,cpuacct:/a", {"cpu,cpuacct/a/cpu.cfs_quota_us": "300000",
         "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}, 3.0),
        ("3:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, math.inf),
        ("0::/", {"cpu.max": "nonsense"}, math.inf),
        ("0::/", {}, math.inf),
    ],
)  # fmt: skip
def test_the_quota_of_control_groups_counts(
    tmp_path: Path, own: str, files: dict[str, str], quota: float
) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert threads._quota(tmp_path / "groups", tmp_path / "own") == quota
    assert threads._quota(tmp_path / "groups", tmp_path / "absent") == math.inf


def test_cores_are_whole_and_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    here = threads.cores()
    assert here >= 1
    monkeypatch.setattr(threads, "_quota", lambda *_: 0.2)
    assert threads.cores() == 1


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
