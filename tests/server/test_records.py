from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.problems import make_settings

from asyncdmtl.errors import UsageError
from asyncdmtl.net.udp import Group
from asyncdmtl.server.records import MulticastOptions, RunOptions

MULTICAST = MulticastOptions(Group("239.1.2.3", 7701))


def options(**changes: Any) -> RunOptions:
    return RunOptions(**{"settings": make_settings(), "strategy": "relay", "workers": 2, **changes})


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"strategy": "magic"}, "--strategy"),
        ({"strategy": "linear", "settings": make_settings(aggregate="median")}, "--strategy linear"),
        ({"strategy": "central", "settings": make_settings(compression="int8")}, "--compression int8"),
        ({"workers": None}, "--workers or --cover"),
        ({"workers": 0}, "--workers"),
        ({"silent": 6}, "--silent must be a whole number from 0 to 1"),
        ({"silent": 1, "strategy": "personal"}, "--silent is for --strategy"),
        ({"silent": 1, "strategy": "relay", "peers": True}, "workers would wait for rows of late ones"),
        ({"silent": 1, "multicast": MULTICAST}, "--silent cannot be given with --downlink multicast"),
        ({"rejoin_timeout": -1.0}, "--rejoin-timeout"),
        ({"checkpoint_every": 0}, "--checkpoint-every"),
        ({"resume": True}, "--resume"),
        ({"join_timeout": 0.0}, "--join-timeout"),
    ],
)
def test_an_option_that_breaks_a_rule_is_named(changes: dict[str, Any], option: str) -> None:
    with pytest.raises(UsageError, match=option):
        options(**changes)


def test_options_that_fit_each_other_are_accepted() -> None:
    options(strategy="auto", settings=make_settings(compression="int8"))
    options(workers=None, cover=("p0",))
    options(resume=True, checkpoint=Path("somewhere"))


@pytest.mark.parametrize("rate", [1.0, 1e13])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match="--multicast-rate"):
        MulticastOptions(Group("239.1.2.3", 7701), rate=rate)
