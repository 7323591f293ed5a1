from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from asyncdmtl.blinding import group_key
from asyncdmtl.blinding.group_key import SEAL_BYTES, TAG_BYTES, GroupKey
from asyncdmtl.digests import Digest
from asyncdmtl.errors import IntegrityError, UsageError

SECRET = b"a secret of the group"
KEY = GroupKey(SECRET, "run")
PLACE = ("vector", 3, 5, 0, b"a MAC of 16 bytes")


def stream(key: GroupKey, place: tuple[str | int | bytes, ...], size: int) -> bytes:
    out = np.zeros(size + 15, np.uint8)
    key.mask(place, np.zeros(size, np.uint8), out)
    return out[:size].tobytes()


def test_a_mask_is_taken_off_by_the_same_operation_also_in_place() -> None:
    vector = np.random.default_rng(0).integers(0, 256, 1001, np.uint8)
    masked = np.zeros(1016, np.uint8)
    KEY.mask(PLACE, vector, masked)
    assert masked[:1001].tobytes() == bytes(
        a ^ b for a, b in zip(vector, stream(KEY, PLACE, 1001), strict=True)
    )
    KEY.mask(PLACE, masked[:1001], masked)
    assert masked[:1001].tobytes() == vector.tobytes()


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (KEY, ("vector", 4, 5, 0, b"a MAC of 16 bytes")),
        (KEY, ("vector", 3, 6, 0, b"a MAC of 16 bytes")),
        (KEY, ("vector", 3, 5, 1, b"a MAC of 16 bytes")),
        (KEY, ("vector", 3, 5, 0, b"another of 16 byt")),
        (GroupKey(SECRET, "other run"), PLACE),
        (GroupKey(b"another secret of it", "run"), PLACE),
    ],
    ids=["plan", "round", "unit", "vector", "run", "secret"],
)
def test_every_part_of_a_place_makes_another_stream(
    key: GroupKey, place: tuple[str | int | bytes, ...]
) -> None:
    one, other = (np.frombuffer(stream(*each, 4096), np.uint8) for each in ((KEY, PLACE), (key, place)))
    assert 4096 / 400 < np.count_nonzero(one == other) + 5 < 4096 / 100


def test_a_stream_is_that_of_aes_in_counter_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[bytes] = []
    make = algorithms.AES

    def made_with(key: bytes) -> algorithms.AES:
        used.append(key)
        return make(key)

    monkeypatch.setattr(algorithms, "AES", made_with)
    made = stream(KEY, PLACE, 100)
    (key,) = used
    assert len(key) == 32
    # Block i of the key stream is the encrypted number i.
    blocks = b"".join(i.to_bytes(16, "big") for i in range(7))
    expected = Cipher(make(key), modes.ECB()).encryptor().update(blocks)
    assert made == expected[:100]


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


def test_a_tag_is_bound_to_key_place_and_content() -> None:
    tag = KEY.tag(("loss", 1, 2), b"content")
    assert len(tag) == TAG_BYTES
    assert tag == KEY.tag(("loss", 1, 2), b"content")
    others = [
        KEY.tag(("loss", 1, 3), b"content"),
        KEY.tag(("loss", 1, 2), b"contents"),
        GroupKey(SECRET, "other run").tag(("loss", 1, 2), b"content"),
        GroupKey(b"another secret of it", "run").tag(("loss", 1, 2), b"content"),
    ]
    assert len({tag, *others}) == 5


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
    assert stream(next_, PLACE, 32) != stream(first, PLACE, 32)
    with pytest.raises(IntegrityError, match="was not sealed by a worker"):
        first.open(place, next_.seal(place, b"new"))
