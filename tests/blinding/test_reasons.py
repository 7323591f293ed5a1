from __future__ import annotations

from asyncdmtl.blinding.reasons import without_details
from asyncdmtl.errors import DataError, IntegrityError


def test_an_error_is_told_without_values_but_with_its_exit_code() -> None:
    told = without_details(DataError("column 'dose'", "must be finite", 3.25))
    assert str(told) == "DataError; the worker's own log has the reason"
    assert told.exit_code == DataError.exit_code
    corrupted = IntegrityError("differs", partitions=[], workers=[])
    assert without_details(corrupted).exit_code == 6
