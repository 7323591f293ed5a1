from __future__ import annotations

import errno
import io
import json
import os
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.exported import saved_model
from support.problems import make_settings

from asyncdmtl._version import __version__
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.features import CategoryColumn, NumberColumn
from asyncdmtl.data.model_file import FORMAT_VERSION, SavedModel
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.tasks import TaskModels

ENCODING = Encoding(
    (NumberColumn("age", 40.0, 39.5, 12.25), CategoryColumn("ward", ("A", "B", "é"), True)),
    {"site": "it is constant: 'north' in every row"},
    "ill",
    ("no", "yes"),
)
COEF = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
MODELS = TaskModels(("north\0", "süd"), COEF, COEF[:, 0], "logistic")
MODEL = SavedModel(
    MODELS,
    ENCODING,
    make_settings(loss="logistic", coupling="graph", edges=(("a", "b", 0.5),)),
    "clinic",
    {"rounds": [{"up_bytes": 12, "residual": None}], "ledger": []},
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_that_is_saved_is_read(tmp_path: Path, dtype: str) -> None:
    models = replace(MODELS, coef_=COEF.astype(dtype), intercept_=COEF[:, 0].astype(dtype))
    replace(MODEL, models=models).save(tmp_path / "model.npz")
    read = SavedModel.load(tmp_path / "model.npz")
    assert (read.models.tasks, read.models.loss) == (MODELS.tasks, "logistic")
    for name in ("coef_", "intercept_"):
        ours, theirs = getattr(read.models, name), getattr(models, name)
        assert (ours.dtype, ours.tobytes()) == (theirs.dtype, theirs.tobytes())
    assert read.encoding == ENCODING
    assert read.settings == MODEL.settings
    assert (read.task_column, read.traffic) == ("clinic", MODEL.traffic)
    assert read.versions == {"asyncdmtl": __version__, "numpy": np.__version__}
    assert read.features == ("age", "ward=A", "ward=B", "ward=é", "ward missing")


def test_a_model_of_numbers_needs_no_encoding_settings_or_traffic(tmp_path: Path) -> None:
    SavedModel(MODELS, Encoding.empty(), None).save(tmp_path / "model.npz")
    read = SavedModel.load(tmp_path / "model.npz")
    assert (read.encoding.is_empty, read.settings, read.traffic) == (True, None, None)
    assert read.features == ("x0", "x1", "x2", "x3", "x4")


def test_a_file_is_plain_arrays_and_json(tmp_path: Path) -> None:
    MODEL.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz", allow_pickle=False) as file:
        assert file["coef_"].tobytes() == COEF.tobytes()
        content = json.loads(file["model.json"])
    assert content["format_version"] == FORMAT_VERSION
    assert content["settings"]["edges"] == [["a", "b", 0.5]]


def test_equal_models_make_equal_files_under_just_the_name_given(tmp_path: Path) -> None:
    for name in ("one", "two"):
        MODEL.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_file_is_replaced_at_once_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, link = tmp_path / "model.npz", tmp_path / "latest.npz"
    MODEL.save(path)
    link.symlink_to(path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array", full)
        with pytest.raises(DataError, match=r"must be writable .No space left"):
            MODEL.save(link)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest.npz", "model.npz"]
    replace(MODEL, task_column="other").save(link)
    assert link.is_symlink()
    assert SavedModel.load(path).task_column == "other"
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_models_fit_their_encoding() -> None:
    with pytest.raises(DataError, match="models must have a coefficient for each of the 5 features, got 4"):
        replace(MODEL, models=replace(MODELS, coef_=COEF[:, :4]))


@pytest.mark.parametrize("traffic", [{"a": float("nan")}, {"a": float("inf")}, {"a": b"bytes"}])
def test_traffic_is_plain(tmp_path: Path, traffic: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="traffic must be of plain JSON types"):
        replace(MODEL, traffic=traffic).save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


def changed(**changes: Any) -> bytes:
    """The file of `MODEL` with changed entries; `...` removes an entry."""
    content = {**MODEL._content(), **changes}
    arrays = {name: content.pop(name, getattr(MODELS, name)) for name in ("coef_", "intercept_")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            raw = io.BytesIO()
            np.lib.format.write_array(raw, array, allow_pickle=True)
            archive.writestr(f"{name}.npy", raw.getvalue())
        archive.writestr("model.json", json.dumps({k: v for k, v in content.items() if v is not ...}))
    return buffer.getvalue()


def archive(
    content: bytes, packed: int = zipfile.ZIP_STORED, header: str = "", arrays: int = zipfile.ZIP_STORED
) -> bytes:
    """A file with this model.json, and with this header of both arrays, if one is given."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name in ("coef_", "intercept_"):
            raw = io.BytesIO()
            np.lib.format.write_array(raw, np.zeros(1000), allow_pickle=False)
            if header:
                text = header.encode().ljust(117) + b"\n"
                raw = io.BytesIO(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
            made.writestr(f"{name}.npy", raw.getvalue(), arrays)
        made.writestr("model.json", content, packed)
    return buffer.getvalue()


TEXT = json.dumps(MODEL._content()).encode()

# Headers of arrays by which NumPy raises errors of its parser.
HEADERS = (
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), ",
    "  {",
    "(" * 60,
    "{'descr': '<f8', 'fortran_order': False, 'shape': (L,), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1or 2,), }",
)
OLD = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000L,), }"
HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999999,), }"


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


WHOLE = changed()


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "as asyncdmtl saved it"),
        (b"a,b\n1,2\n", "as asyncdmtl saved it"),
        (WHOLE[:-30], "as asyncdmtl saved it"),
        (WHOLE[: len(WHOLE) // 2], "as asyncdmtl saved it"),
        (npz(coef_=COEF), "as asyncdmtl saved it"),
        (changed(format="other"), "as asyncdmtl saved it"),
        (changed(format=...), "as asyncdmtl saved it"),
        (changed(format_version=FORMAT_VERSION + 1), "the file is from a later one"),
        (changed(format_version="1"), "as asyncdmtl saved it"),
        (changed(tasks=["a"]), "need 1 rows of coef_"),
        (changed(tasks=[1, 2]), "as asyncdmtl saved it"),
        (changed(tasks=...), "as asyncdmtl saved it"),
        (changed(loss="cubic"), "loss of models must be one of"),
        (changed(task_column=3), "as asyncdmtl saved it"),
        (changed(traffic=[1]), "as asyncdmtl saved it"),
        (changed(settings={"loss": "squared"}), "as asyncdmtl saved it"),
        (changed(settings={**make_settings().as_dict(), "rounds": 0}), "rounds must be"),
        (changed(settings={**make_settings().as_dict(), "magic": 0}), "as asyncdmtl saved it"),
        (changed(encoding={"columns": []}), "encoding"),
        (changed(encoding={**ENCODING.as_dict(), "columns": [["age", {"impute": 1.0}]]}), "of column 'age'"),
        (changed(coef_=COEF[:, :4]), "a coefficient for each of the 5 features"),
        (changed(coef_=COEF[0]), "need 2 rows of coef_"),
        (changed(coef_=COEF.astype(int)), "must be numbers of float32 or float64"),
        (changed(coef_=np.full((2, 5), np.nan)), "must be finite numbers"),
        (changed(coef_=np.array([print, print], dtype=object)), "must be numbers of float32 or float64"),
        (archive(b"[" * 100_000), "as asyncdmtl saved it"),
        (archive(b"9" * 5000), "as asyncdmtl saved it"),
        (archive(b" " * (33 << 20), zipfile.ZIP_DEFLATED), "model.json must have at most 33554432 bytes"),
        (archive(b"[" + b"0," * 2_000_000, zipfile.ZIP_DEFLATED), "at most 1500000 values"),
        *((archive(TEXT, header=header), "as asyncdmtl saved it") for header in HEADERS),
        (archive(TEXT, header=OLD), "coef_ must have a header as NumPy writes it"),
        (archive(TEXT, header=HUGE), "coef_ must have as many bytes as its shape says"),
        (archive(TEXT, zipfile.ZIP_DEFLATED, arrays=zipfile.ZIP_DEFLATED), "coef_ must not be compressed"),
    ],
)  # fmt: skip
def test_foreign_and_damaged_files_are_refused(tmp_path: Path, content: bytes, rule: str) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rule) as caught:
        SavedModel.load(path)
    assert str(path) in str(caught.value)


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_noticed_or_does_no_harm(tmp_path_factory: Any, at: int, by: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[at] ^= by
    path = tmp_path_factory.mktemp("damaged") / "model.npz"
    path.write_bytes(damaged)
    try:
        read = SavedModel.load(path)
    except DataError:
        return
    assert read.models.coef_.tobytes() == COEF.tobytes()
    assert read.encoding == ENCODING


def test_settings_that_came_later_have_their_defaults(tmp_path: Path) -> None:
    older = make_settings().as_dict()
    del older["tolerance"], older["standardise"]
    (tmp_path / "model.npz").write_bytes(changed(settings=older))
    assert SavedModel.load(tmp_path / "model.npz").settings == make_settings()


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be readable .*missing\.npz"):
        SavedModel.load(tmp_path / "missing.npz")
    with pytest.raises(DataError, match=r"must be writable .*nowhere"):
        MODEL.save(tmp_path / "nowhere" / "model.npz")


def test_devices_and_pipes_are_written_to_and_not_replaced(tmp_path: Path) -> None:
    before = Path(os.devnull).stat()
    MODEL.save(os.devnull)
    assert Path(os.devnull).stat().st_rdev == before.st_rdev
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_bytes)
        MODEL.save(pipe)
        (tmp_path / "model").write_bytes(read.result(timeout=60))
    assert SavedModel.load(tmp_path / "model").models.tasks == MODEL.models.tasks


def test_a_mount_point_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(b"")
    inode = path.stat().st_ino

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)
    MODEL.save(path)
    assert path.stat().st_ino == inode
    assert SavedModel.load(path).models.tasks == MODEL.models.tasks


def test_models_go_through_joblib_and_skops() -> None:
    saved, file = saved_model("logistic"), io.BytesIO()
    joblib.dump(saved, file)
    file.seek(0)
    copies = [joblib.load(file)]
    if find_spec("skops") is not None:
        from skops import io as skops

        dumped = skops.dumps(saved)
        types = skops.get_untrusted_types(data=dumped)
        assert all(name.startswith("asyncdmtl.") for name in types)
        copies.append(skops.loads(dumped, trusted=types))
    for copied in copies:
        assert copied.encoding == saved.encoding
        assert copied.models.coef_.tobytes() == saved.models.coef_.tobytes()


def test_coefficients_have_the_names_of_features() -> None:
    saved = saved_model("squared")
    table = saved.coefficients()
    assert table.index.tolist() == ["(intercept)", *saved.features]
    assert table.columns.tolist() == ["a", "b"]
    age = next(column for column in saved.encoding.columns if column.name == "age")
    assert isinstance(age, NumberColumn)
    assert table.loc["age", "a"] == saved.models.coef_[0, saved.features.index("age")] / age.scale


def test_notebooks_show_coefficients() -> None:
    made = saved_model("squared")._repr_html_()
    assert "Models of 2 tasks: loss squared" in made
    assert "<td>age</td>" in made
    models = TaskModels(tuple(f"<t{t}>" for t in range(9)), np.ones((9, 1)), np.zeros(9), "squared")
    many = SavedModel(models, Encoding.empty(), None)._repr_html_()
    assert "Models of 9 tasks, the first 6: loss squared" in many
    assert "&lt;t5&gt;" in many
    assert "t6" not in many
