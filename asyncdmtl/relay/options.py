"""The options of a relay."""

from __future__ import annotations

from dataclasses import dataclass

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.server.records import MulticastOptions, RunOptions
from asyncdmtl.worker.options import WorkerOptions


@dataclass(frozen=True)
class RelayOptions:
    """The options of a relay.

    Attributes
    ----------
    upward : WorkerOptions
        The relay's name and its waits towards its parent, as of a worker.
    workers : int
        The relay joins the run once so many workers are here, those behind other relays included.
    join_timeout : float
        Seconds to wait for all of them.
    rejoin_timeout : float
        Seconds to wait for those that are missing after one was lost. The relay then goes on without them.
    multicast : MulticastOptions or None
        The multicast group of the site; without it, all rows go down over TCP.

    Raises
    ------
    UsageError
        An option breaks a rule.
    """

    upward: WorkerOptions
    workers: int
    join_timeout: float = 300.0
    rejoin_timeout: float = 5.0
    multicast: MulticastOptions | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError("--workers", "must be at least 1", self.workers)

    def downward(
        self, settings: Settings, strategy: str, workers: int, join_timeout: float, *, blind: bool = False
    ) -> RunOptions:
        """The relay's options as of a server for `workers` nodes, of the server's strategy and blindness."""
        return RunOptions(
            settings,
            strategy,
            workers,
            join_timeout=join_timeout,
            round_timeout=self.upward.round_timeout,
            silence_timeout=self.upward.silence_timeout,
            rejoin_timeout=self.rejoin_timeout,
            blind=blind,
        )
