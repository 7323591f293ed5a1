"""Aliases for the kinds of arrays in this package, each defined once."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# Numbers in full precision: rows, targets, statistics, and everything else that is not exchanged.
Floats: TypeAlias = NDArray[np.float64]

# Numbers of a run's dtype, float32 or float64: models, and the updates that are exchanged.
Vectors: TypeAlias = NDArray[np.floating[Any]]

# Raw bytes: coded rows, packets, and states of the training.
Bytes: TypeAlias = NDArray[np.uint8]

# Positions in other arrays.
Indices: TypeAlias = NDArray[np.int64]
