"""How workers of a blind run confirm what they computed: as others do, but with sealed numbers.

Sealing is deterministic, so that workers with the same numbers send the same bytes, which the server compares
and confirms without reading them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from asyncdmtl.digests import Digest
from asyncdmtl.exchange.confirmation import NO_KEYS, SummedGroups
from asyncdmtl.exchange.sides import PENALTY_WORKERS
from asyncdmtl.exchange.upload import Layout, Upload
from asyncdmtl.plan.plan import Plan


class BlindGroups(SummedGroups):
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
    keys : mapping of int to bytes, optional
        As for `SummedGroups`.
    """

    def __init__(
        self, plan: Plan, digest: Digest, number_bytes: int, keys: Mapping[int, bytes] = NO_KEYS
    ) -> None:
        super().__init__(plan, digest, keys)
        self._number_bytes = number_bytes
        # Under `uncoded`, values in detail have digests of masked units, too (`BlindCheckingServerSide`).
        checked = plan.strategy == "uncoded"
        self._of_masked = tuple(len(held) if checked else 0 for held in plan.units.held)

    def layout(self, worker: int, dtype: np.dtype[np.floating[Any]], *, detailed: bool) -> Layout:
        """What `worker` tells; numbers are sealed."""
        layout = super().layout(worker, dtype, detailed=detailed)
        return replace(
            layout,
            digests=layout.digests + (self._of_masked[worker] if detailed else 0),
            losses=0,
            measures=False,
            sealed=layout.losses + 2 * layout.measures,
            sealed_bytes=self._number_bytes,
        )

    def _told_by(
        self, worker: int, upload: Upload, digests: tuple[bytes, ...], confirmation: bytes
    ) -> Upload:
        losses = dict(zip(self._stored[worker], upload.sealed, strict=False))
        told = tuple(losses[n] for n in self._table.losses_told[worker])
        state, measures = (b"", ()) if worker else (upload.state, upload.sealed[-2:])
        own = upload.rows, upload.size, digests, (), 0.0, 0.0, state, confirmation
        return Upload(*own, (*told, *measures))

    def _with_numbers(self, uploads: Sequence[Upload], states: Sequence[bytes]) -> list[Upload]:
        losses = dict[int, bytes]()
        penalty, residual = uploads[0].sealed[-2:]
        for k, upload in enumerate(uploads):
            losses |= zip(self._table.losses_told[k], upload.sealed, strict=False)
        return [
            replace(
                upload,
                sealed=(
                    *(losses[n] for n in self._stored[k]),
                    penalty if k < PENALTY_WORKERS else b"",
                    residual,
                ),
                state=states[k],
            )
            for k, upload in enumerate(uploads)
        ]

    def _numbers(self, upload: Upload) -> bytes:
        return b"".join(upload.sealed)
