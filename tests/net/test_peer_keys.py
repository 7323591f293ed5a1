from __future__ import annotations

from asyncdmtl.net.peer_keys import PeerCredentials, peer_key


def test_a_key_is_that_of_one_name_at_one_worker() -> None:
    keys = {peer_key(secret, name) for secret in (bytes(32), b"1" * 32) for name in ("w0", "w1", "")}
    assert len(keys) == 6
    assert {len(key) for key in keys} == {32}


def test_a_worker_expects_the_key_that_the_server_gave() -> None:
    credentials = PeerCredentials(b"1" * 32)
    assert credentials.expected_of("w0") == credentials.of("w0") == peer_key(b"1" * 32, "w0")
    assert "1111" not in repr(credentials)
