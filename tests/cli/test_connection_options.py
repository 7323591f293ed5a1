from __future__ import annotations

from typing import Any

import click
from click.testing import CliRunner

from asyncdmtl.cli.connection_options import connection_options


def test_without_options_nothing_is_proven_and_nothing_trusted() -> None:
    found: dict[str, Any] = {}

    @click.command()
    @connection_options
    def command(**given: Any) -> None:
        found.update(given)

    CliRunner().invoke(command, [], catch_exceptions=False)
    files = ("secret_file", "tls_ca", "tls_cert", "tls_key", "tls_server_name")
    assert found == {**dict.fromkeys(files), "insecure": False}
