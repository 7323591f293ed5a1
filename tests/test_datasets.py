from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from sklearn.datasets import load_digits

from asyncdmtl.data.recipes import list_recipes, load
from asyncdmtl.plan.placement import Placement

DATASETS = Path(__file__).resolve().parent.parent / "datasets"
README = (DATASETS / "README.md").read_text(encoding="utf-8")
PLACEMENTS = sorted((DATASETS / "placements").glob("*.toml"))


def test_checksums_are_those_of_the_files() -> None:
    lines = (DATASETS / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    listed = {name: checksum for checksum, name in (line.split(maxsplit=1) for line in lines)}
    shipped = {path.relative_to(DATASETS).as_posix(): path for path in DATASETS.rglob("*.toml")}
    assert listed == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in shipped.items()}


def test_digits_are_those_of_the_readme() -> None:
    X, y = load_digits(return_X_y=True)
    checksum = hashlib.sha256(X.astype("<f8").tobytes() + y.astype("<i8").tobytes()).hexdigest()
    assert re.findall(r"\b[0-9a-f]{64}\b", README) == [checksum]


def test_readme_tells_of_all_that_ships() -> None:
    for name in [*list_recipes(), *(path.name for path in PLACEMENTS)]:
        assert f"| `{name}` |" in README
    for name in list_recipes():
        (row,) = (
            line for line in README.splitlines() if line.startswith(f"| `{name}` | ") and "`parts=" in line
        )
        stated = ",".join(re.findall(r"`([a-z_]+=[0-9.]+)`", row))
        given, default = load(f"{name}:{stated}", seed=0), load(name, seed=0)
        assert [p.digest() for p in given.partitions] == [p.digest() for p in default.partitions]


@pytest.mark.parametrize("path", PLACEMENTS, ids=lambda path: path.stem)
def test_placements_are_what_their_names_say(path: Path) -> None:
    placement = Placement.read(path)
    sizes = [int(number) for number in re.findall(r"\d+", path.stem)]
    assert [len(placement.workers), len(placement.partitions)] == sizes[:2]
    spec = "synthetic:tasks=3" if len(placement.partitions) == 6 else "digits"
    assert placement.partitions == load(spec, seed=0, only=(), test=False).ids
    if path.stem.startswith("cyclic"):
        assert placement == Placement.cyclic(*sizes)
    else:
        assert len({len(stored) for stored in placement.stored}) > 1
