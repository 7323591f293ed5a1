from __future__ import annotations

import pytest

from asyncdmtl.net.sites import site_of


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("/run/socket", "/run/other", False),
    ],
)
def test_addresses_of_one_site_are_one(one: str, other: str, same: bool) -> None:
    assert (site_of(one) == site_of(other)) is same
