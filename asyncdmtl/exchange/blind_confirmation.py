"""How workers of a blind run confirm what they computed: as others do, but with sealed numbers.

Sealing is deterministic, so that workers with the same numbers send the same bytes, which the server compares
and confirms without reading them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from asyncdmtl.digests import Digest
from asyncdmtl.exchange.confirmation import DigestGroups
from asyncdmtl.exchange.sides import PENALTY_WORKERS, UnconfirmedError
from asyncdmtl.exchange.upload import Layout, Upload
from asyncdmtl.plan.plan import Plan


class BlindGroups(DigestGroups):
    """The groups of a plan, and what each worker of a blind run sends.

    A whole upload has the sealed losses of all stored partitions, and after them penalty and residual. The
    penalty is empty at workers that do not compute it.

    Parameters
    ----------
    plan : Plan
    digest : Digest
        The digests of the run.
    number_bytes : int
        Bytes of each sealed number.
    """

    def __init__(self, plan: Plan, digest: Digest, number_bytes: int) -> None:
        super().__init__(plan, digest)
        self._number_bytes = number_bytes

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
        odd = [
            name for name, upload in zip(workers, whole, strict=True)
            if self._confirmation(upload) != upload.confirmation
        ]  # fmt: skip
        if odd:
            names = ", ".join(map(repr, odd))
            raise UnconfirmedError(f"{names} did not compute the values that were told for all workers")
        return whole

    def agreed(self, uploads: Sequence[Upload]) -> list[bytes]:
        """The digests of all groups."""
        found = {
            g: digest for k, upload in enumerate(uploads)
            for g, digest in zip(self.held[k], upload.digests, strict=True)
        }  # fmt: skip
        return [found[g] for g in range(len(self.groups))]

    def expected(self, worker: int, agreed: Sequence[bytes]) -> bytes:
        """The digest of the groups that `worker` decodes."""
        return self._digest.combined(self.received_digests(worker, agreed))

    def layout(self, worker: int, dtype: np.dtype[np.floating[Any]], *, detailed: bool) -> Layout:
        """What `worker` tells; numbers are sealed."""
        layout = super().layout(worker, dtype, detailed=detailed)
        sealed = self.numbers(worker, detailed=detailed)
        return replace(layout, losses=0, measures=False, sealed=sealed, sealed_bytes=self._number_bytes)

    def _confirmation(self, upload: Upload) -> bytes:
        return self._digest.combined([*upload.digests, *upload.sealed, upload.state])
