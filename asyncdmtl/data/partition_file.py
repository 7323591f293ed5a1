"""Files of partitions of numbers, which bring rows to worker processes on this machine, without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from asyncdmtl.errors import DataError
from asyncdmtl.learning.tasks import Partition


def write_partition(partition: Partition, file: BinaryIO) -> None:
    """Write an `.npz` of `names` (identifier and task), `X` (rows, features), `y` and, if any, `weights`."""
    arrays: dict[str, Any] = {"names": np.array([partition.id, partition.task])}
    arrays |= {"X": partition.X, "y": partition.y}
    if partition.weights is not None:
        arrays["weights"] = partition.weights
    np.savez(file, **arrays)


def read_partition(path: Path) -> Partition:
    """Read what `write_partition` wrote, bit for bit.

    Raises
    ------
    DataError
        The file cannot be read, or was not written by `write_partition`.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            id_, task = map(str, file["names"])
            return Partition(id_, task, file["X"], file["y"], file.get("weights"))
    except OSError as error:
        raise DataError("partition file", f"must be readable ({error.strerror})", str(path)) from error
    except (ValueError, KeyError, AttributeError, EOFError) as error:
        raise DataError("partition file", "must be as asyncdmtl wrote it", str(path)) from error
