from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.problems import make_partitions

from asyncdmtl.data.partition_file import read_partition, write_partition
from asyncdmtl.errors import DataError
from asyncdmtl.learning.tasks import Partition


@pytest.mark.parametrize("weighted", [False, True])
def test_a_partition_is_read_back_bit_for_bit(tmp_path: Path, weighted: bool) -> None:
    (made,) = make_partitions(1, "squared")
    partition = Partition("north/é=1", "tâche", made.X, made.y, made.y**2 if weighted else None)
    with (tmp_path / "0.npz").open("wb") as file:
        write_partition(partition, file)
    read = read_partition(tmp_path / "0.npz")
    assert (read.id, read.task) == (partition.id, partition.task)
    assert read.X.tobytes() == partition.X.tobytes()
    assert read.y.tobytes() == partition.y.tobytes()
    assert (read.weights is None) == (not weighted)
    assert read.weights is None or read.weights.tobytes() == (made.y**2).tobytes()


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="partition file must be readable"):
        read_partition(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", X=np.eye(2))
    np.savez(tmp_path / "objects.npz", names=np.array([{}, []], dtype=object))
    for name in ("text.npz", "other.npz", "objects.npz"):
        with pytest.raises(DataError, match="must be as asyncdmtl wrote it"):
            read_partition(tmp_path / name)
