"""The options by which a program proves who it is to a server, and trusts it."""

from __future__ import annotations

from pathlib import Path

import click

from asyncdmtl.cli.command import together

connection_options = together(
    click.option(
        "--secret-file",
        type=click.Path(path_type=Path),
        help="Prove knowledge of the secret in this file, and have the server prove it too: one line, or in "
        "FILE.toml the secret of --name in the table [workers]. Also: ASYNCDMTL_SECRET in the environment.",
    ),
    click.option(
        "--tls-ca",
        type=click.Path(path_type=Path),
        help="Speak TLS with a server whose certificate this CA signed, PEM; or that certificate itself.",
    ),
    click.option(
        "--tls-cert", type=click.Path(path_type=Path), help="Show this certificate for --name, PEM."
    ),
    click.option(
        "--tls-key", type=click.Path(path_type=Path), help="The certificate's key, PEM, unencrypted."
    ),
    click.option(
        "--tls-server-name",
        metavar="NAME",
        show_default="the host of the address in --connect",
        help="The name that the server's certificate must have.",
    ),
    click.option("--insecure", is_flag=True, help="Permit a plaintext connection to another host."),
)
