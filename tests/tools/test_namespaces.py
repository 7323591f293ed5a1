from __future__ import annotations

import namespaces
import pytest


@pytest.mark.parametrize(
    ("rate", "most"), [("100kbit", 3072), ("2mbit", 3072), ("20mbit", 12_500), ("1gbit", 65_536)]
)
def test_a_slow_link_passes_little_at_once(rate: str, most: int) -> None:
    assert namespaces.burst_of(rate) == most
