"""Flower, by direct gRPC (its legacy server and client, without SuperLink, which is slower).

A client's fit takes the updates of all workers in the round before, and returns its own next one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.client import NumPyClient, start_client
from flwr.common import (
    EvaluateIns,
    FitIns,
    FitRes,
    Parameters,
    ndarrays_to_parameters,
)
from flwr.server import ServerConfig, start_server
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import Strategy
from systems.common import (
    ALL_ROUNDS,
    HOST,
    PORT,
    ROUNDS,
    WORKERS,
    Server,
    Vector,
    check,
    checked,
    update,
)

# The first fit receives no updates, so that there is one fit more than rounds.
FITS = len(ALL_ROUNDS) + 1


class Exchange(Strategy):  # type: ignore[misc]
    """Sends every client the updates of all clients."""

    def __init__(self) -> None:
        self._coordinator = Server()

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters:
        """Wait for all workers; none has a vector yet."""
        client_manager.wait_for(WORKERS)
        return ndarrays_to_parameters([])

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """The message for each client."""
        # The first fit is round -1: it ends with the updates of round 0 at the server.
        instructions = FitIns(parameters, {"round": server_round - 2})
        return [(client, instructions) for client in client_manager.sample(WORKERS, WORKERS)]

    def aggregate_fit(
        self, server_round: int, results: list[tuple[ClientProxy, FitRes]], failures: Sequence[object]
    ) -> tuple[Parameters, dict[str, Any]]:
        """Collect all updates, sorted by worker."""
        if failures or len(results) != WORKERS:
            sys.exit(f"Flower: {len(failures)} failures: {failures[:1]}")
        by_worker = sorted(results, key=lambda result: int(result[1].metrics["worker"]))
        tensors = [result.parameters.tensors[0] for _, result in by_worker]
        if server_round >= 2:
            self._coordinator.round(server_round - 2)
        return Parameters(tensors, "numpy.ndarray"), {}

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Do nothing: there is no evaluation."""
        return []

    def aggregate_evaluate(
        self, server_round: int, results: Any, failures: Any
    ) -> tuple[None, dict[str, Any]]:
        """Do nothing: there was no evaluation."""
        return None, {}

    def evaluate(self, server_round: int, parameters: Parameters) -> None:
        """Do nothing: there is no evaluation."""
        return


class Site(NumPyClient):  # type: ignore[misc]
    """A worker."""

    def __init__(self, worker: int) -> None:
        self._worker = worker

    def fit(
        self, parameters: list[Vector], config: dict[str, Any]
    ) -> tuple[list[Vector], int, dict[str, Any]]:
        """Take all updates, and return the next."""
        round_ = int(config["round"])
        if checked(round_):
            check(parameters, round_)
        following = update(self._worker, min(round_ + 1, ROUNDS))
        return [np.asarray(following)], 1, {"worker": self._worker}


if sys.argv[1] == "server":
    start_server(server_address=f"{HOST}:{PORT}", config=ServerConfig(num_rounds=FITS), strategy=Exchange())
else:
    start_client(server_address=f"{HOST}:{PORT}", client=Site(int(sys.argv[1])).to_client(), insecure=True)
