"""A trained model as a file, with its encoding, its settings and the report of its run, without pickle.

The file is an `.npz` (a zip archive) of `coef_.npy`, `intercept_.npy` and `model.json`, which holds all the
rest. `np.load` reads it, and so does `unzip -p FILE model.json`. Equal models make equal files.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import struct
import tempfile
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from asyncdmtl._version import __version__
from asyncdmtl.data.coefficients import INTERCEPT, coefficient_table, in_original_units
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.onnx_models import onnx_of_table
from asyncdmtl.data.scikit_models import linear_model, pipeline
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.html_table import html_table
from asyncdmtl.learning.settings import DTYPES, Settings
from asyncdmtl.learning.tasks import TaskModels

FORMAT = "asyncdmtl model"
"""The word in `model.json` by which a model file is recognised."""

FORMAT_VERSION = 1
"""The version of the format. Files of a later version are refused."""

# The member of the archive with everything but the arrays.
_JSON = "model.json"

# The most bytes of that member, and the most values in it (commas, lists and objects, each of which takes up
# to 100 bytes in memory), so that no file takes more than 200 MB. A report with the longest ledger has 5 MB.
_MOST_JSON_BYTES = 32 << 20
_MOST_JSON_VALUES = 1_500_000

# The most tasks that a notebook shows, with a column each.
_SHOWN_TASKS = 6


def _versions() -> dict[str, str]:
    return {"asyncdmtl": __version__, "numpy": np.__version__}


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A trained model with all that predicting and reporting need.

    Attributes
    ----------
    models : TaskModels
    encoding : Encoding
        The encoding of the columns of a file; empty if the model was trained on numbers.
    settings : Settings or None
        The settings of its training, if they are known.
    task_column : str
        The column that names the task of a row.
    traffic : mapping or None
        The report of the run (`report.traffic`), with the ledger in it; plain JSON types.
    versions : mapping of package to version
        The versions of the packages by which the file was saved.

    Raises
    ------
    DataError
        The number of features of the models is not that of the encoding.
    """

    models: TaskModels
    encoding: Encoding
    settings: Settings | None
    task_column: str = "tasks"
    traffic: Mapping[str, Any] | None = None
    versions: Mapping[str, str] = field(default_factory=_versions)

    def __post_init__(self) -> None:
        if not self.encoding.is_empty and len(self.encoding.features) != self.models.features:
            rule = f"must have a coefficient for each of the {len(self.encoding.features)} features"
            raise DataError("models", rule, self.models.features)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features; `x0`, `x1`, … where the model was trained on numbers."""
        if self.encoding.is_empty:
            return tuple(f"x{f}" for f in range(self.models.features))
        return self.encoding.features

    def _repr_html_(self) -> str:
        tasks = self.models.tasks
        coef, intercept = in_original_units(self.models, self.encoding)
        numbers = np.column_stack([intercept, coef])[:_SHOWN_TASKS]
        rows = [
            (name, *(f"{value:.4g}" for value in column))
            for name, column in zip((INTERCEPT, *self.features), numbers.T, strict=True)
        ]
        shown = f", the first {_SHOWN_TASKS}" if len(tasks) > _SHOWN_TASKS else ""
        coupling = "" if self.settings is None else f", coupling {self.settings.coupling}"
        caption = f"Models of {len(tasks)} tasks{shown}: loss {self.models.loss}{coupling}; units of the data"
        return html_table(caption, ("", *tasks[:_SHOWN_TASKS]), rows)

    def coefficients(self) -> Any:
        """The coefficients in the units of the columns as they stand in the data, as a pandas DataFrame.

        Returns
        -------
        (1 + F, T) DataFrame
            A row for the intercept and for each feature, a column for each task.

        Raises
        ------
        UsageError
            pandas is not installed.
        """
        return coefficient_table(
            self.models.tasks, self.features, *in_original_units(self.models, self.encoding)
        )

    def to_sklearn(self, task: str) -> Any:
        """The model of one task as a fitted Pipeline of scikit-learn, which takes a DataFrame of the columns.

        A missing number is NaN, and a missing category None or NaN. Columns of categories that are all
        numbers are numbers. If the model was trained on numbers, it is a linear model without a Pipeline.

        Raises
        ------
        UsageError
            There is no model of this task, or pandas is not installed.
        """
        models, encoding = self.models, self.encoding
        if task not in models.tasks:
            raise UsageError("task", f"must be one of the {len(models.tasks)} tasks of the model", task)
        t = models.tasks.index(task)
        coef, intercept = models.coef_[t].astype(np.float64), float(models.intercept_[t])
        if encoding.is_empty:
            return linear_model(models.loss, coef, intercept, encoding.labels_of(models.loss))
        return pipeline(encoding, models.loss, coef, intercept + encoding.offset)

    def to_onnx(self, unknown: str = "error") -> Any:
        """The encoding and the models of all tasks as one model of ONNX, in float64.

        Inputs are (rows, 1): the column of tasks and columns of categories as text, with an empty text for a
        missing category, and columns of numbers as float64, with NaN for a missing number. If the model was
        trained on numbers, they are the input `X` (rows, F). Texts must be as `encoding` has them: ONNX does
        not know that `1.0` is `1`. Outputs are `prediction` (rows,) and, for a classification, `score`
        (rows,) and under logistic loss `probabilities` (rows, 2).

        Parameters
        ----------
        unknown : "error", "mean" or "empty"
            Rows of a task without a model: ONNX Runtime fails; the mean of all tasks' models predicts; or
            scores are NaN, and classes, which are then texts, are empty.

        Returns
        -------
        onnx.ModelProto

        Raises
        ------
        UsageError
            The package onnx is not installed, a category is an empty text, or a feature is called like the
            column of tasks.
        """
        return onnx_of_table(self.models, self.encoding, self.task_column, unknown)

    def save(self, path: str | Path) -> None:
        """Write the file under exactly this name.

        A regular file is replaced as a whole, or left as it was if writing fails. A device, a pipe, or a file
        that is a mount point cannot be replaced, and is written to in place.

        Raises
        ------
        DataError
            The file cannot be written.
        UsageError
            `traffic` is not of plain JSON types.
        """
        try:
            content = json.dumps(self._content(), allow_nan=False, indent=1)
        except (TypeError, ValueError) as error:
            raise UsageError("traffic", f"must be of plain JSON types ({error})", self.traffic) from error
        if len(content) > _MOST_JSON_BYTES:
            raise UsageError("traffic", f"must fit in {_MOST_JSON_BYTES} bytes of JSON", len(content))
        target = Path(path).resolve()
        try:
            if target.exists() and not target.is_file():
                return self._write_in_place(target, content)
            with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
                # Opened by name, for the user's usual permissions: temporary files have others.
                with (Path(folder) / target.name).open("wb") as file:
                    self._write(file, content)
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    (Path(folder) / target.name).replace(target)
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    self._write_in_place(target, content)
        except OSError as error:
            raise DataError("model file", f"must be writable ({error.strerror})", str(path)) from error

    @classmethod
    def load(cls, path: str | Path) -> SavedModel:
        """Read what `save` wrote, on any machine; nothing in the file is trusted or run.

        Raises
        ------
        DataError
            The file cannot be read, has other content, is damaged, or is of a later format.
        """
        try:
            # Opened here, since NumPy would leave a malformed file open.
            with Path(path).open("rb") as raw, zipfile.ZipFile(raw) as archive:
                content = json.loads(_read_json(archive))
                _check_format(content)
                arrays = {name: _read_array(archive, name) for name in ("coef_", "intercept_")}
            return cls._made(content, arrays)
        except UsageError as error:
            raise DataError(f"model file {path}: {error.argument}", error.rule, error.value) from error
        except OSError as error:
            raise DataError("model file", f"must be readable ({error.strerror})", str(path)) from error
        # Malformed archives, JSON and arrays raise different exceptions.
        except (
            ValueError, TypeError, KeyError, AttributeError, EOFError, RuntimeError, RecursionError,
            NotImplementedError, MemoryError, OverflowError, SyntaxError, struct.error, tokenize.TokenError,
            zipfile.BadZipFile, zlib.error,
        ) as error:  # fmt: skip
            raise DataError("model file", "must be as asyncdmtl saved it, undamaged", str(path)) from error

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "versions": dict(self.versions),
            "task_column": self.task_column,
            "tasks": list(self.models.tasks),
            "loss": self.models.loss,
            "encoding": self.encoding.as_dict(),
            "settings": None if self.settings is None else self.settings.as_dict(),
            "traffic": self.traffic,
        }

    def _write_in_place(self, target: Path, content: str) -> None:
        # The archive is first written to memory: zipfile seeks back and forth, which a pipe does not permit.
        buffer = io.BytesIO()
        self._write(buffer, content)
        with target.open("wb") as file:
            file.write(buffer.getvalue())

    def _write(self, file: IO[bytes], content: str) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            # A fresh ZipInfo has no date, so that equal models make equal files.
            for name, array in (("coef_", self.models.coef_), ("intercept_", self.models.intercept_)):
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(_JSON), content, zipfile.ZIP_DEFLATED)

    @classmethod
    def _made(cls, content: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> SavedModel:
        settings, traffic = content["settings"], content["traffic"]
        names = [*content["tasks"], content["task_column"], *content["versions"].values()]
        if not all(isinstance(name, str) for name in names) or not isinstance(traffic, dict | None):
            raise TypeError
        return cls(
            TaskModels(tuple(content["tasks"]), arrays["coef_"], arrays["intercept_"], content["loss"]),
            Encoding.from_dict(content["encoding"]),
            # Settings that are missing, because an earlier version wrote the file, get their defaults.
            # Plug-ins of a model that is trained need not have the same code.
            None
            if settings is None
            else Settings(**{key: value for key, value in settings.items() if key != "extensions"}),
            content["task_column"],
            traffic,
            dict(content["versions"]),
        )


def _check_format(content: Any) -> None:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError
    if content["format_version"] > FORMAT_VERSION:
        rule = f"must be at most {FORMAT_VERSION} for asyncdmtl {__version__}; the file is from a later one"
        raise DataError("format version", rule, content["format_version"])


def _read_json(archive: zipfile.ZipFile) -> bytes:
    """The member with everything but the arrays, whose size is checked before memory is taken for it."""
    told = archive.getinfo(_JSON).file_size
    if told > _MOST_JSON_BYTES:
        raise DataError(_JSON, f"must have at most {_MOST_JSON_BYTES} bytes", told)
    with archive.open(_JSON) as member:
        content = member.read(_MOST_JSON_BYTES)
    if sum(content.count(sign) for sign in (b",", b"[", b"{")) > _MOST_JSON_VALUES:
        raise DataError(_JSON, f"must have at most {_MOST_JSON_VALUES} values; bytes", told)
    return content


def _read_array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """An array, which must be stored without compression, so that it is as large as its part of the file."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise DataError(name, "must not be compressed; bytes", info.file_size)
    with archive.open(info) as member, warnings.catch_warnings():
        # NumPy warns of headers that Python 2 has written, and Python of odd numbers in them. No version of
        # this package has written either.
        warnings.simplefilter("error")
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        try:
            shape, _, dtype = read[version](member)
        except Warning as error:
            raise DataError(name, "must have a header as NumPy writes it", str(error)) from error
        _check_dtype(name, dtype)
        if math.prod(shape) * dtype.itemsize != info.file_size - member.tell():
            raise DataError(name, "must have as many bytes as its shape says", shape)
        member.seek(0)
        array = np.lib.format.read_array(member, allow_pickle=False)
    if not np.isfinite(array).all():
        raise DataError(name, "must be finite numbers", array.dtype)
    return array


def _check_dtype(name: str, dtype: np.dtype[Any]) -> None:
    if dtype not in tuple(map(np.dtype, DTYPES)):
        raise DataError(name, f"must be numbers of {' or '.join(DTYPES)}", dtype)
