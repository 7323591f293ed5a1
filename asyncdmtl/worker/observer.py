"""The interface by which a program observes a worker that runs in the same process."""

from __future__ import annotations

from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.settings import Settings


class WorkerObserver:
    """Gets calls at the steps of a worker. These methods do nothing: subclasses override those they need.

    The worker waits until a method returns. An error that a method raises ends the worker's part in the run.
    """

    def on_settings(self, settings: Settings) -> None:
        """Called whenever the worker has received the settings of the run from a server."""

    def before_compute(self, round_: int) -> None:
        """Called before the worker computes its updates of a round; perhaps in another thread."""

    def after_compute(self, round_: int, upload: Upload) -> None:
        """Called with the worker's upload. The next round overwrites the arrays of its rows."""
