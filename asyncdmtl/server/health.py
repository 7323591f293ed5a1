"""Health and metrics of a server over HTTP.

::

    GET /healthz     200 while the event loop answers
    GET /readyz      200 while workers may connect, else 503; JSON with the progress of the run
    GET /metrics     Prometheus' text exposition format 0.0.4

It is plaintext without authentication, and must not be reachable by strangers.
"""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any, Protocol

from asyncdmtl.net.addresses import format_address
from asyncdmtl.server.http import EXPOSITION, JSON, Answer, HttpServer, alive

log = logging.getLogger(__name__)


class Exposed(Protocol):
    """The metrics of a server or a relay."""

    @property
    def ready(self) -> bool:
        """Whether workers may connect."""

    def progress(self) -> dict[str, Any]:
        """The progress of the run, in plain JSON types."""

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""


class Health:
    """The pages for probes and scrapers.

    Parameters
    ----------
    metrics : Exposed
    """

    def __init__(self, metrics: Exposed) -> None:
        self._metrics = metrics
        pages = {"/healthz": alive, "/readyz": self._readiness, "/metrics": self._exposed}
        self._http = HttpServer("--health", pages)

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Begin to answer at an address; return it, with the port that was chosen if `port` is 0.

        Raises
        ------
        LinkError
            The server cannot listen at the address.
        """
        address = await self._http.listen(host, port)
        log.info("health and metrics at http://%s", format_address(*address))
        return address

    async def close(self) -> None:
        """End the server and all connections."""
        await self._http.close()

    def _readiness(self) -> Answer:
        metrics = self._metrics
        stand = {"ready": metrics.ready, **metrics.progress()}
        status = HTTPStatus.OK if metrics.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(status, json.dumps(stand).encode() + b"\n", JSON)

    def _exposed(self) -> Answer:
        return Answer(HTTPStatus.OK, self._metrics.exposition(), EXPOSITION)
