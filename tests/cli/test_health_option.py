from __future__ import annotations

import logging

import pytest

from asyncdmtl.cli import health_option
from asyncdmtl.errors import UsageError


def test_what_is_open_to_the_network_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert health_option.health_address("0.0.0.0:80", insecure=True) == ("0.0.0.0", 80)
    assert "answering --health on 0.0.0.0: anyone on the network can read it" in caplog.text
    assert health_option.health_address(None, insecure=False) is None
    assert health_option.health_address("127.0.0.1:0", insecure=False) == ("127.0.0.1", 0)


def test_metrics_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_option, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--health needs: pip install 'asyncdmtl\[metrics\]'"):
        health_option.health_address("127.0.0.1:0", insecure=False)
