from __future__ import annotations

from typing import Any

import pytest
from support.reports import shown

from asyncdmtl.report.plan_costs import cost_table, predicted_costs

STRATEGIES: dict[str, dict[str, Any]] = {
    "relay": {"uplink_load": "3/2", "downlink_load": "1", "unicast_load": "3"},
    "uncoded": {"uplink_load": "3", "downlink_load": "3", "unicast_load": "3"},
}


@pytest.mark.parametrize(("network", "down"), [("unicast", 3), ("multicast", 1)])
def test_loads_become_bytes_and_seconds(network: str, down: int) -> None:
    costs = predicted_costs(STRATEGIES, network, 100, 10, 1e6)
    assert costs["relay"]["uplink_bytes"] == 1.5 * 100 * 8 * 10
    assert costs["relay"]["downlink_bytes"] == down * 100 * 8 * 10
    assert costs["relay"]["seconds"] == pytest.approx(8 * (1.5 + down) * 8000 / 1e6)
    assert predicted_costs(STRATEGIES, network, 100, 10)["relay"]["seconds"] is None


def test_the_table_compares_with_uncoded_exchange() -> None:
    costs = predicted_costs(STRATEGIES, "unicast", 100, 10, 1e6)
    text = shown(lambda console: console.print(cost_table(costs, "relay")))
    row = next(line for line in text.splitlines() if "→ relay" in line)
    assert [cell.strip() for cell in row.split("│")[2:-1]] == ["12 kB", "24 kB", "36 kB", "0.288", "-25%"]
    assert "+0%" in text
    alone = shown(lambda console: console.print(cost_table({"relay": costs["relay"]}, "relay")))
    assert alone.splitlines()[-2].split("│")[-2].strip() == "-"
