"""What somebody who runs a worker in the same process may watch of it."""

from __future__ import annotations

from asyncdmtl.exchange.sides import Upload
from asyncdmtl.learning.settings import Settings


class WorkerObserver:
    """Is told what a worker learns and computes. These methods do nothing: override those of interest.

    The worker waits until a method returns. An error that a method raises ends the worker's part in the run.
    """

    def on_settings(self, settings: Settings) -> None:
        """Called whenever a server has told the worker the settings of the run."""

    def before_compute(self, round_: int) -> None:
        """Called before the worker computes its updates of a round; perhaps in another thread."""

    def after_compute(self, round_: int, upload: Upload) -> None:
        """Called with what the worker has computed. The next round overwrites the arrays of the rows."""
