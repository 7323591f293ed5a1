"""Certificates for tests, made when they are needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import trustme


class Files(NamedTuple):
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A CA; `ca` is the file of its own certificate."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca)

    def issue(self, *names: str, common_name: str | None = None, expired: bool = False) -> Files:
        """A certificate for hosts, addresses or worker names."""
        end = datetime.now(UTC) + timedelta(days=-1 if expired else 1)
        issued = self._authority.issue_cert(
            *names, common_name=common_name, not_before=end - timedelta(days=2), not_after=end
        )
        stem = "expired-" * expired + (names[0] if names else str(common_name))
        files = Files(self._folder / f"{stem}.pem", self._folder / f"{stem}.key")
        files.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        files.key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(files.key)
        return files
