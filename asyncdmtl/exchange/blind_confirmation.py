"""How workers of a blind run confirm what they computed: as others do, but with sealed numbers.

Sealing is deterministic, so that workers with the same numbers send the same bytes, which the server compares
and confirms without reading them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from asyncdmtl.exchange.confirmation import DigestGroups
from asyncdmtl.exchange.sides import PENALTY_WORKERS, Upload


class BlindGroups(DigestGroups):
    """The groups of a plan, and what each worker of a blind run sends.

    A whole upload has the sealed losses of all stored partitions, and after them penalty and residual. The
    penalty is empty at workers that do not compute it.
    """

    def numbers(self, worker: int, *, detailed: bool) -> int:
        """How many sealed numbers `worker` sends."""
        if detailed:
            return len(self._stored[worker]) + 2
        return len(self._losses_told[worker]) + (2 if worker == 0 else 0)

    def shortened(self, worker: int, upload: Upload) -> Upload:
        """What `worker` sends of its upload."""
        digests = dict(zip(self.held[worker], upload.digests, strict=True))
        losses = dict(zip(self._stored[worker], upload.sealed, strict=False))
        return replace(
            upload,
            digests=tuple(digests[g] for g in self._told[worker]),
            sealed=(
                *(losses[n] for n in self._losses_told[worker]),
                *(() if worker else upload.sealed[-2:]),
            ),
            state=b"" if worker else upload.state,
            confirmation=self._confirmation(upload),
        )

    def completed(
        self, workers: Sequence[str], uploads: Sequence[Upload], states: Sequence[bytes]
    ) -> tuple[Upload, ...]:
        """The uploads of all workers as they were before they were shortened; raises as `DigestGroups`."""
        digests, losses = dict[int, bytes](), dict[int, bytes]()
        penalty, residual = uploads[0].sealed[-2:]
        for k, upload in enumerate(uploads):
            digests |= zip(self._told[k], upload.digests, strict=True)
            losses |= zip(self._losses_told[k], upload.sealed, strict=False)
        whole = tuple(
            replace(
                upload,
                digests=tuple(digests[g] for g in self.held[k]),
                sealed=(
                    *(losses[n] for n in self._stored[k]),
                    penalty if k < PENALTY_WORKERS else b"",
                    residual,
                ),
                state=states[k],
            )
            for k, upload in enumerate(uploads)
        )
        self._check_confirmations(workers, whole)
        return whole

    def _confirmation(self, upload: Upload) -> bytes:
        return self._digest.combined([*upload.digests, *upload.sealed, upload.state])
