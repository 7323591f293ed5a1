from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.problems import make_partitions, make_settings
from support.raw_partitions import encoding_of, raw_partition

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.errors import DataError, LinkError, PeerError, UsageError
from asyncdmtl.learning.tasks import Declaration, PartitionInfo
from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.member import (
    Member,
    check_prepared,
    is_final,
    other_data,
    other_encoding,
    without_digests,
)

SETTINGS = make_settings()
PARTITIONS = make_partitions(2, "squared")
DECLARED = tuple(part.declaration() for part in PARTITIONS)
INFOS = tuple(part.info(SETTINGS) for part in PARTITIONS)


async def test_a_member_knows_its_partitions_and_whether_it_is_gone() -> None:
    member = Member("w0", Connection("server", Ledger(), 1.0), DECLARED)
    assert member.partitions == ("p0", "p1")
    assert member.declaration("p1") == DECLARED[1]
    assert (member.gone, member.ended) == (False, False)
    member.lost = LinkError("reset", peer="w0")
    assert (member.gone, member.ended) == (True, False)
    member.lost = PeerError("bad rows", exit_code=2)
    assert (member.gone, member.ended) == (True, True)


async def test_a_member_is_told_the_digests_of_its_own_partitions_only() -> None:
    member = Member("w0", Connection("server", Ledger(), 1.0), DECLARED[:1])
    assert member.told_infos(INFOS, without_digests(INFOS)) == (
        INFOS[0],
        replace(INFOS[1], digest=bytes(len(INFOS[1].digest))),
    )


def test_only_errors_of_data_and_options_are_final() -> None:
    assert is_final(PeerError("bad rows", exit_code=2))
    assert not is_final(PeerError("full disk", exit_code=1))
    assert not is_final(DataError("rows", "must be finite", 1))


def test_encoded_partitions_are_compared_with_what_was_declared_and_with_other_holders() -> None:
    known = {info.id: info for info in INFOS}
    check_prepared("w0", DECLARED, INFOS, Encoding.empty(), known)
    with pytest.raises(DataError, match="must encode what it declared"):
        check_prepared("w0", DECLARED, INFOS[:1], Encoding.empty(), {})
    other = replace(INFOS[0], smoothness=2 * INFOS[0].smoothness)
    with pytest.raises(DataError, match="'p0' of worker 'w0' must be encoded as at its other holders"):
        check_prepared("w0", DECLARED, (other, INFOS[1]), Encoding.empty(), known)


def test_errors_say_what_differs() -> None:
    shorter = replace(DECLARED[0], rows=1)
    message = str(other_data("w1", shorter, "w0, w2", DECLARED[0]))
    assert "partition 'p0' of worker 'w1' must be the same data as at w0, w2" in message
    assert "1 rows" in message
    assert f"{DECLARED[0].rows} rows" in message
    encoded = str(other_encoding("w1", INFOS[0], INFOS[1]))
    assert "must be encoded as at its other holders" in encoded
    # The digest of a content shows possession, so that nobody is told one.
    assert DECLARED[0].digest.hex()[:6] not in message
    assert repr(INFOS[0].digest) not in encoded
    assert repr(INFOS[1].digest) not in encoded


def test_a_malformed_survey_is_an_error_of_the_declaration() -> None:
    with pytest.raises(UsageError, match="fingerprints"):
        other_data("w1", replace(DECLARED[0], survey={"columns": 3}), "w0", declared_columns("a"))


def declared_columns(*names: str) -> Declaration:
    part = raw_partition("p0", {name: [1.0, 2.0, 3.0] for name in names}, np.arange(3.0))
    return part.declaration()


def test_rows_must_have_the_features_of_the_encoding() -> None:
    encoding = encoding_of(raw_partition("p0", {"age": [1.0, 2.0, 3.0]}, np.arange(3.0)))
    declared = [Declaration("p0", "t", bytes(16), 3, {})]
    info = PartitionInfo("p0", "t", bytes(16), 3, 3.0, 1, 1.0)
    check_prepared("w0", declared, [info], encoding, {})
    with pytest.raises(DataError, match=r"partitions of worker 'w0' must have the 1 features .* got \[2\]"):
        check_prepared("w0", declared, [replace(info, features=2)], encoding, {})
