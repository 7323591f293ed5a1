from __future__ import annotations

import numpy as np
import pytest
from support.raw_partitions import encoding_of, raw_partition

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.stored import Stored
from asyncdmtl.errors import DataError
from asyncdmtl.learning.tasks import Partition

ROWS = raw_partition("p0", {"age": [1.0, 3.0]}, [0.0, 1.0])
NUMBERS = Partition("p0", "t", np.array([[1.0], [3.0]]), np.array([0.0, 1.0]))


@pytest.mark.parametrize("stored", [NUMBERS, ROWS], ids=["numbers", "rows of a file"])
def test_both_kinds_are_declared_and_encoded_alike(stored: Stored) -> None:
    encoding = Encoding.empty() if stored is NUMBERS else encoding_of(ROWS, standardise=False)
    declared, encoded = stored.declaration(), stored.encoded(encoding)
    assert (
        (stored.id, stored.task) == (declared.id, declared.task) == (encoded.id, encoded.task) == ("p0", "t")
    )
    assert declared.rows == encoded.rows == 2
    assert encoded.X.tolist() == [[1.0], [3.0]]
    assert encoded.y.tolist() == [0.0, 1.0]


def test_numbers_are_not_encoded_again() -> None:
    numbers: Stored = NUMBERS
    with pytest.raises(DataError, match="p0"):
        numbers.encoded(encoding_of(ROWS))
