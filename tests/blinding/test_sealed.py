from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from support.problems import make_partitions, make_settings
from support.raw_partitions import encoding_of, raw_partition

from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.blinding.sealed import (
    SEALED_NUMBER_BYTES,
    SEALED_STATE_BYTES,
    SURVEY_BLOCK,
    check_numbers,
    check_sealed,
    content_mark,
    opened_info,
    opened_number,
    opened_state,
    pooled_encoding,
    sealed_declaration,
    sealed_info,
    sealed_number,
    sealed_state,
    sealed_surveys,
    split,
)
from asyncdmtl.errors import IntegrityError, RemoteProtocolError, UsageError
from asyncdmtl.learning.tasks import SEALED, Declaration

KEY = GroupKey(b"a secret of the group", "run")
SETTINGS = make_settings(loss="logistic")

ROWS = 6
RAW = [
    raw_partition(
        f"p{n}",
        {"dose": np.linspace(n, n + 0.1, ROWS), "ward": np.array(["alpha", "beta"] * 3, object)},
        np.array(["well", "ill"] * 3, object),
    )
    for n in range(2)
]


def declared() -> dict[str, Declaration]:
    return {part.id: sealed_declaration(KEY, part.declaration()) for part in RAW}


def test_workers_pool_surveys_that_the_server_cannot_read() -> None:
    sealed = declared()
    for part in sealed.values():
        known = repr(part).encode()
        assert not any(word in known for word in (b"dose", b"ward", b"alpha", b"well"))
        assert len(part.survey[SEALED]) % SURVEY_BLOCK == 16
    encoding = pooled_encoding(KEY, sealed_surveys(sealed), SETTINGS)
    assert encoding == encoding_of(*RAW, loss="logistic", standardise=SETTINGS.standardise)


def test_copies_of_a_partition_have_one_claim_whatever_the_order_of_their_columns() -> None:
    part = RAW[0]
    turned = replace(part, columns={name: part.columns[name] for name in reversed(list(part.columns))})
    claims = {sealed_declaration(KEY, each.declaration()).claim for each in (part, turned)}
    assert len(claims) == 1
    other = replace(part, columns={**part.columns, "dose": np.zeros(ROWS)})
    assert sealed_declaration(KEY, other.declaration()).claim not in claims
    assert part.declaration().claim not in claims
    assert sealed_declaration(GroupKey(b"another one of them", "run"), part.declaration()).claim not in claims


def test_what_is_no_sealed_survey_is_refused() -> None:
    with pytest.raises(UsageError, match="survey of partition 'p0' must be sealed in a blind run"):
        check_sealed([RAW[0].declaration()])
    check_sealed(declared().values())
    for surveys in (None, {"p0": "text"}):
        with pytest.raises(RemoteProtocolError, match="must be a map of names to bytes"):
            pooled_encoding(KEY, surveys, SETTINGS)
    swapped = sealed_surveys(declared())
    swapped = {"p0": swapped["p1"], "p1": swapped["p0"]}
    with pytest.raises(IntegrityError, match="'survey' was not sealed"):
        pooled_encoding(KEY, swapped, SETTINGS)


@pytest.mark.parametrize("classes", ["", "0", "1", "01"])
def test_facts_of_a_partition_are_opened_by_workers(classes: str) -> None:
    part = make_partitions(1, "logistic")[0]
    info = replace(part.info(SETTINGS), classes=classes, weight=2.5)
    sealed = sealed_info(KEY, info)
    told = (sealed.id, sealed.task, sealed.rows, sealed.features, sealed.held)
    assert told == (info.id, info.task, info.rows, info.features, info.held)
    assert (sealed.weight, sealed.smoothness, sealed.classes) == (info.rows, 1.0, "")
    assert len(sealed.sealed) == 16 + 34
    mark = content_mark(KEY, info)
    assert opened_info(KEY, sealed) == replace(info, digest=sealed.digest, sealed=mark)
    others = replace(info, digest=bytes(16)), replace(info, id="p1")
    assert len({mark, sealed.digest, info.digest, *(content_mark(KEY, other) for other in others)}) == 5
    with pytest.raises(IntegrityError, match="'facts' was not sealed"):
        opened_info(KEY, replace(sealed, id="p1"))


def test_numbers_are_bound_to_what_they_are() -> None:
    sealed = sealed_number(KEY, "loss", 3, 1, 0.75)
    assert len(sealed) == SEALED_NUMBER_BYTES
    assert opened_number(KEY, "loss", 3, 1, sealed) == 0.75
    assert sealed == sealed_number(KEY, "loss", 3, 1, 0.75)
    for place in (("penalty", 3, 1), ("loss", 2, 1), ("loss", 3, 0)):
        with pytest.raises(IntegrityError):
            opened_number(KEY, *place, sealed)


def test_pieces_are_of_equal_size() -> None:
    assert split(b"aabbcc", 2) == [b"aa", b"bb", b"cc"]
    with pytest.raises(RemoteProtocolError, match="5 bytes are no whole number of pieces of 2"):
        split(b"aabbc", 2)


@pytest.mark.parametrize("over", [False, True])
def test_a_state_is_opened_for_its_round_with_its_check(over: bool) -> None:
    state, check = np.arange(50, dtype=np.uint8), b"c" * 16
    body = sealed_state(KEY, 4, check, state, over=over)
    assert len(body) == len(state) + SEALED_STATE_BYTES
    assert body[:16].tobytes() == check
    opened, ended, told = opened_state(KEY, 4, body)
    assert (opened.tobytes(), ended, told) == (state.tobytes(), over, check)
    forged = body.copy()
    forged[0] ^= 1
    for round_, other in ((5, body), (4, forged), (4, body[:20])):
        with pytest.raises(IntegrityError, match="'state' was not sealed"):
            opened_state(KEY, round_, other)


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        (([1.0, -1.0], 0.0, 0.0), "a loss of -1.0"),
        (([math.nan], 0.0, 0.0), "a loss of nan"),
        (([1.0], math.inf, 0.0), "a penalty of inf"),
        (([1.0], 0.0, math.nan), "a residual of nan"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    numbers: tuple[list[float], float, float], complaint: str
) -> None:
    check_numbers([0.0, 1.0], 0.0, math.inf)
    with pytest.raises(IntegrityError, match=complaint):
        check_numbers(*numbers)
