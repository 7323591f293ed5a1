from __future__ import annotations

import numpy as np
import pytest

from asyncdmtl.blinding import group_key
from asyncdmtl.blinding.group_key import SEAL_BYTES, GroupKey
from asyncdmtl.digests import Digest
from asyncdmtl.errors import IntegrityError, UsageError

SECRET = b"a secret of the group"
KEY = GroupKey(SECRET, "run")
COMMON = b"what is common"


def masks_of(group: GroupKey, common: bytes = COMMON, size: int = 1001) -> bytes:
    """The first bytes of a stream of some place."""
    masks, out = group.masks(common, size, 3), np.zeros(size, np.uint8)
    masks.begin(b"a place")
    masks.apply([(0, 1)], out, out)
    return out[:1001].tobytes()


@pytest.mark.parametrize(
    ("key", "common", "size"),
    [
        (KEY, b"what is not ..", 1001),
        (KEY, COMMON, 1002),
        (GroupKey(SECRET, "other run"), COMMON, 1001),
        (GroupKey(b"another secret of it", "run"), COMMON, 1001),
    ],
    ids=["common", "size", "run", "secret"],
)
def test_all_that_vectors_follow_from_makes_another_stream(key: GroupKey, common: bytes, size: int) -> None:
    assert masks_of(KEY) == masks_of(GroupKey(SECRET, "run")) != masks_of(key, common, size)


def test_a_seal_is_opened_in_its_place_only() -> None:
    sealed = KEY.seal(("loss", 1, 2), b"content")
    assert len(sealed) == len(b"content") + SEAL_BYTES
    assert b"content" not in sealed
    assert KEY.open(("loss", 1, 2), sealed) == b"content"
    assert KEY.seal(("loss", 1, 2), b"content") == sealed != KEY.seal(("loss", 1, 3), b"content")
    others = [
        (KEY, ("loss", 2, 2)),
        (GroupKey(SECRET, "other"), ("loss", 1, 2)),
        (GroupKey(b"x" * 20, "run"), ("loss", 1, 2)),
    ]
    for key, place in others:
        with pytest.raises(IntegrityError, match=r"'loss' was not sealed .* same --group-secret-file"):
            key.open(place, sealed)
    for i in range(len(sealed)):
        with pytest.raises(IntegrityError):
            KEY.open(("loss", 1, 2), sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :])
    with pytest.raises(IntegrityError):
        KEY.open(("loss", 1, 2), b"")


def test_a_content_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_key, "MOST_SEALED_BYTES", 10)
    with pytest.raises(UsageError, match="--blind can seal at most 10 bytes at a time, got 11"):
        KEY.seal(("state", 0), bytes(11))


def test_digests_of_contents_are_macs_and_those_of_digests_are_known_to_the_server() -> None:
    vector = np.arange(5.0)
    known = Digest("run")
    assert KEY.digest(vector) != known(vector)
    assert (
        KEY.digest(vector) == GroupKey(SECRET, "run").digest(vector) != GroupKey(SECRET, "b").digest(vector)
    )
    assert KEY.digest.keyed(bytes(16)) != known.keyed(bytes(16))
    assert KEY.digest.of_parts([vector.view(np.uint8)]) == KEY.digest(vector)
    assert KEY.digest.combined([bytes(16)]) == known.combined([bytes(16)])


def test_a_key_does_not_show_itself() -> None:
    assert repr(KEY) == "GroupKey of run run"
    assert SECRET.decode() not in repr(KEY)


@pytest.mark.parametrize("size", [4, 8])
def test_a_tag_is_bound_to_key_and_content(size: int) -> None:
    tag = KEY.tag(b"content", size)
    assert len(tag) == size
    assert tag == KEY.tag(b"content", size)
    others = [
        KEY.tag(b"contents", size),
        GroupKey(SECRET, "other run").tag(b"content", size),
        GroupKey(b"another secret of it", "run").tag(b"content", size),
    ]
    assert len({tag, *others}) == 4


def test_a_key_that_replaces_others_opens_what_they_sealed_and_keeps_the_digests() -> None:
    first = GroupKey(b"1" * 32, "run")
    next_ = GroupKey(b"2" * 32, "run", first)
    assert (first.epoch, next_.epoch) == (0, 1)
    assert next_.secrets == (b"1" * 32, b"2" * 32)
    assert GroupKey.of_secrets(next_.secrets, "run").secrets == next_.secrets
    assert next_.name == first.name
    assert next_.digest(np.arange(3)) == first.digest(np.arange(3))
    place = ("state", 1, b"check")
    assert next_.open(place, first.seal(place, b"old")) == b"old"
    assert masks_of(next_) != masks_of(first)
    with pytest.raises(IntegrityError, match="was not sealed by a worker"):
        first.open(place, next_.seal(place, b"new"))
