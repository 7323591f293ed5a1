from __future__ import annotations

from dataclasses import replace

import pytest

from asyncdmtl.blinding.agreement import Agreement, Offer, SecretProofs
from asyncdmtl.blinding.group_key import SEAL_BYTES, GroupKey
from asyncdmtl.errors import AuthenticationError

PROOFS = SecretProofs(b"a secret of the members")
FIRST, SECOND = bytes(range(32)), bytes(range(32, 64))


def agreement(name: str, run: str = "run", proofs: SecretProofs = PROOFS) -> Agreement:
    return Agreement(run, name, proofs)


def test_a_gift_brings_all_keys_of_the_run() -> None:
    giver, taker, group = agreement("w0"), agreement("w1"), GroupKey.of_secrets([FIRST, SECOND], "run")
    taken = taker.taken(giver.offer, giver.gift(group, taker.offer))
    assert (taken.secrets, taken.epoch, taken.name) == ((FIRST, SECOND), 1, group.name)
    assert taken.open(("state", 1), group.seal(("state", 1), b"content")) == b"content"


def test_a_giver_is_among_the_takers_of_a_new_key() -> None:
    own = agreement("w0")
    assert own.taken(own.offer, own.gift(GroupKey(FIRST, "run"), own.offer)).secrets == (FIRST,)


def test_two_pairs_have_nothing_in_common() -> None:
    giver, group = agreement("w0"), GroupKey(FIRST, "run")
    gifts = {giver.gift(group, agreement("w1").offer) for _ in range(3)}
    assert len(gifts) == 3
    assert all(FIRST not in gift for gift in gifts)


def test_no_gift_is_taken_again_or_by_others_or_from_elsewhere() -> None:
    giver, taker, group = agreement("w0"), agreement("w1"), GroupKey(FIRST, "run")
    gift = giver.gift(group, taker.offer)
    for other in (agreement("w1"), agreement("w2"), giver):
        with pytest.raises(AuthenticationError, match="was not sealed by worker 'w0' for this connection"):
            other.taken(giver.offer, gift)
    with pytest.raises(AuthenticationError, match="was not sealed by worker 'w3'"):
        taker.taken(agreement("w3").offer, gift)
    for changed in (gift[:-1] + bytes([gift[-1] ^ 1]), gift + bytes(32)):
        with pytest.raises(AuthenticationError, match="was not sealed"):
            taker.taken(giver.offer, changed)
    for short in (b"", bytes(SEAL_BYTES), gift[:-1]):
        with pytest.raises(AuthenticationError, match=f"gave {len(short)} bytes, which are no keys"):
            taker.taken(giver.offer, short)


def test_an_offer_is_bound_to_run_name_and_key() -> None:
    giver, taker, group = agreement("w0"), agreement("w1"), GroupKey(FIRST, "run")
    wrong = [
        agreement("w1", "another run").offer,
        replace(taker.offer, name="w2"),
        replace(taker.offer, public=agreement("w1").offer.public),
        replace(taker.offer, proof=bytes(32)),
        replace(taker.offer, proof=b""),
    ]
    for offer in wrong:
        with pytest.raises(AuthenticationError, match="did not prove that it is in the group"):
            giver.gift(group, offer)
        with pytest.raises(AuthenticationError, match="did not prove that it is in the group"):
            taker.taken(offer, giver.gift(group, taker.offer))


def test_a_server_without_the_secret_plays_no_member() -> None:
    server = agreement("w0", proofs=SecretProofs(b"a secret that it has guessed"))
    taker = agreement("w1")
    with pytest.raises(AuthenticationError, match="worker 'w0' did not prove"):
        taker.taken(server.offer, bytes(48))
    with pytest.raises(AuthenticationError, match="worker 'w0' did not prove"):
        taker.gift(GroupKey(FIRST, "run"), server.offer)


def test_a_point_of_small_order_is_no_key() -> None:
    point = Offer("w1", bytes(32), b"")
    proven = replace(point, proof=PROOFS.prove(point.facts("run")))
    with pytest.raises(AuthenticationError, match="offers a public key that is none"):
        agreement("w0").gift(GroupKey(FIRST, "run"), proven)


def test_proofs_show_nothing_of_the_secret() -> None:
    assert repr(PROOFS) == "SecretProofs"
