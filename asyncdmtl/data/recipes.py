"""Data sets by specification: a recipe that ships or a recipe file, with parameters.

::

    NAME                      a recipe that ships, such as digits
    NAME:key=value,key=value  the same with other parameters
    FILE.toml[:key=value…]    a recipe in a file of the user's (datasets/README.md shows the format)

A recipe is a TOML file that names a source (`sources`), its parameters, and settings that suit the data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

from asyncdmtl.data.sources import SOURCES, NumberRows, Source
from asyncdmtl.documents import read_toml
from asyncdmtl.errors import DataError
from asyncdmtl.learning.tasks import Partition


class Suggested(TypedDict):
    """Default settings of a data set. They are used for options that the user does not give."""

    coupling: str
    strength: float
    rounds: int


@dataclass(frozen=True)
class Dataset:
    """Partitions, test rows and suggested settings.

    Attributes
    ----------
    name : str
        The specification it was made from.
    loss : str
        A name in `asyncdmtl.learning.losses.LOSSES`.
    metric : str
        The metric of test rows: "ROC AUC" or "RMSE".
    partitions : tuple of Partition
        The partitions that were asked for, in the order of `ids`.
    ids : tuple of str
        Names of all partitions of the data set: `p0`, `p1`, …, task after task.
    test : mapping of task to `X` (rows, features) and `y` (rows,)
        Test rows; empty if they were not asked for.
    suggested : mapping
        `coupling`, `strength` and `rounds`.
    intercept : bool
        Whether models should have one.
    """

    name: str
    loss: str
    metric: str
    partitions: tuple[Partition, ...]
    ids: tuple[str, ...]
    test: Mapping[str, NumberRows]
    suggested: Suggested
    intercept: bool


def load(spec: str, *, seed: int, only: Collection[str] | None = None, test: bool = True) -> Dataset:
    """Make the data set that `spec` describes, in the grammar that the module documents.

    Parameters
    ----------
    spec : str
    seed : int
        Equal specification and seed give equal partitions everywhere.
    only : collection of str, optional
        Names of the partitions to make; default all. Other partitions take no memory.
    test : bool
        Whether to make the test rows.

    Raises
    ------
    DataError
        There is no such recipe, file, parameter or partition, or a value has the wrong type or size.
    """
    if seed < 0:
        raise DataError("seed", "must be at least 0", seed)
    name, overrides = _parse(spec)
    content = _read(_recipe_path(name), name)
    source = _make_source(name, content, overrides)
    ids = tuple(f"p{n}" for n in range(len(source.names) * source.parts))
    if only is not None and (unknown := sorted(set(only) - set(ids))):
        raise DataError(f"data {spec}", f"has the partitions {ids[0]} to {ids[-1]}; unknown", unknown)
    partitions = tuple(
        Partition(ids[n], source.names[n // source.parts], *source.partition(*divmod(n, source.parts), seed))
        for n in range(len(ids))
        if only is None or ids[n] in only
    )
    rows = {task: source.test(t, seed) for t, task in enumerate(source.names)} if test else {}
    suggested = _suggested(name, content, source)
    return Dataset(spec, source.loss, source.metric, partitions, ids, rows, suggested, source.intercept)


def list_recipes() -> dict[str, str]:
    """The recipes that ship, as a mapping of name to one-line description."""
    return {
        path.stem: str(_read(path, path.stem)["description"]) for path in sorted(_folder().glob("*.toml"))
    }


def _parse(spec: str) -> tuple[str, dict[str, str]]:
    """The name or file of a specification, and its parameters."""
    # A path may contain a colon, so files are recognised by their ending.
    if spec.endswith(".toml"):
        return spec, {}
    if ".toml:" in spec:
        head, _, tail = spec.rpartition(".toml:")
        name = f"{head}.toml"
    else:
        name, _, tail = spec.partition(":")
    overrides: dict[str, str] = {}
    for pair in filter(None, tail.split(",")):
        key, equals, value = (piece.strip() for piece in pair.partition("="))
        if not (key and equals and value) or key in overrides:
            raise DataError(f"data {spec}", "must be NAME:key=value,key=value with each key once", pair)
        overrides[key] = value
    return name, overrides


def _folder() -> Path:
    """The folder `datasets/`: inside the package once installed, next to the package in a checkout."""
    here = Path(__file__).resolve().parent.parent
    return next((f for f in (here / "datasets", here.parent / "datasets") if f.is_dir()), here / "datasets")


def _recipe_path(name: str) -> Path:
    if name.endswith(".toml"):
        return Path(name)
    path = _folder() / f"{name}.toml"
    if name not in (known := sorted(p.stem for p in _folder().glob("*.toml"))):
        raise DataError("data", f"must be one of {', '.join(known)} or a recipe FILE.toml", name)
    return path


def _read(path: Path, name: str) -> dict[str, Any]:
    """The content of a recipe file, with keys and types checked."""
    try:
        content: dict[str, Any] = read_toml(path)
    except OSError as error:
        raise DataError(f"data recipe {name}", f"must be readable ({error.strerror})", str(path)) from error
    except ValueError as error:
        raise DataError(f"data recipe {name}", f"must be TOML ({error})", str(path)) from error
    known = {"source": str, "description": str, "parameters": dict, "suggested": dict}
    for key, value in content.items():
        if key not in known or not isinstance(value, known[key]):
            shape = ", ".join(f"{k} ({t.__name__})" for k, t in known.items())
            raise DataError(f"data recipe {name}", f"may have {shape}; not", {key: value})
    if content.get("source") not in SOURCES:
        raise DataError(
            f"data recipe {name}: source", f"must be one of {', '.join(SOURCES)}", content.get("source")
        )
    return content


def _make_source(name: str, content: Mapping[str, Any], overrides: Mapping[str, str]) -> Source:
    kind: Callable[..., Source] = SOURCES[content["source"]]
    types = {field.name: field.type for field in fields(SOURCES[content["source"]])}
    given = content.get("parameters", {}) | overrides
    values: dict[str, int | float] = {}
    for key, value in given.items():
        if key not in types:
            raise DataError(f"data {name}", f"has the parameters {', '.join(types)}; unknown", key)
        try:
            # The value is converted by way of text, so that 2.5 in a file is refused for a whole number.
            values[key] = float(str(value)) if types[key] == "float" else int(str(value))
        except ValueError as error:
            wanted = "a number" if types[key] == "float" else "a whole number"
            raise DataError(f"data {name}: {key}", f"must be {wanted}", value) from error
    try:
        return kind(**values)
    except DataError as error:
        raise DataError(f"data {name}: {error.argument}", error.rule, error.value) from error


def _suggested(name: str, content: Mapping[str, Any], source: Source) -> Suggested:
    table = {"strength": source.strength} | content.get("suggested", {})
    try:
        if set(table) != set(Suggested.__annotations__):
            raise ValueError
        return Suggested(
            coupling=str(table["coupling"]), strength=float(table["strength"]), rounds=int(table["rounds"])
        )
    except (TypeError, ValueError) as error:
        raise DataError(
            f"data recipe {name}: suggested", "needs a coupling, rounds, and perhaps a strength", table
        ) from error
