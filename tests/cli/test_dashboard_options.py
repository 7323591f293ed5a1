from __future__ import annotations

import logging
from pathlib import Path

import pytest
from support.certificates import Authority

from asyncdmtl.cli.dashboard_options import dashboard_options
from asyncdmtl.errors import UsageError


def token_file(folder: Path, content: str = "0123456789abcdef\n", mode: int = 0o600) -> Path:
    file = folder / "token"
    file.write_text(content)
    file.chmod(mode)
    return file


def test_the_address_of_this_machine_needs_nothing_else() -> None:
    found = dashboard_options("127.0.0.1:0", None, None, None, insecure=False)
    assert found is not None
    assert (found.host, found.port, found.token, found.tls) == ("127.0.0.1", 0, None, None)
    assert dashboard_options(None, None, None, None, insecure=False) is None


def test_beyond_this_machine_there_are_a_token_and_tls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token, issued = token_file(tmp_path), Authority(tmp_path / "ca").issue("10.0.0.1")
    with pytest.raises(UsageError, match="must be a loopback address unless --dashboard-token-file is given"):
        dashboard_options("10.0.0.1:80", None, None, None, insecure=True)
    with pytest.raises(UsageError, match="must be a loopback address unless --tls-cert, or --insecure"):
        dashboard_options("10.0.0.1:80", token, None, None, insecure=False)
    found = dashboard_options("10.0.0.1:80", token, issued.certificate, issued.key, insecure=False)
    assert found is not None
    assert found.tls is not None
    assert found.token == "0123456789abcdef"
    assert "0123456789" not in repr(found)
    with caplog.at_level(logging.WARNING):
        assert dashboard_options("10.0.0.1:80", token, None, None, insecure=True) is not None
    assert "anyone on the network can read it" in caplog.text


@pytest.mark.parametrize("content", ["short", "with a space in it and more", "ö" * 20, ""])
def test_tokens_are_long_and_plain(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match="must have one line of at least 16 letters and digits"):
        dashboard_options("127.0.0.1:0", token_file(tmp_path, content), None, None, insecure=False)


def test_a_token_is_kept_from_others_and_needs_a_dashboard(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be readable by its owner only"):
        dashboard_options("127.0.0.1:0", token_file(tmp_path, mode=0o644), None, None, insecure=False)
    with pytest.raises(UsageError, match="--dashboard-token-file needs --dashboard"):
        dashboard_options(None, token_file(tmp_path), None, None, insecure=False)
