from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from asyncdmtl.cli import main
from asyncdmtl.cli.relay_options import make_topology
from asyncdmtl.data import recipes
from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.errors import UsageError
from asyncdmtl.launch.relays import spread_workers
from asyncdmtl.learning.training import train
from asyncdmtl.plan.links import EQUAL_LINKS, Links
from asyncdmtl.plan.placement import Placement

PLACEMENT = Placement.cyclic(4, 4, 2)
GIVEN = {
    "relays": 2,
    "strategy": "relay",
    "links": EQUAL_LINKS,
    "blind": False,
    "silent": 0,
    "downlink": "tcp",
    "jobs_file": None,
}


@pytest.mark.parametrize(
    ("own", "complaint"),
    [
        ({"strategy": "linear"}, "--relays cannot be given with --strategy linear, got 2"),
        ({"silent": 1}, "cannot be given with --silent 1, got 2"),
        ({"downlink": "multicast"}, "cannot be given with --downlink multicast"),
        ({"downlink": "peers"}, "cannot be given with --downlink peers"),
        ({"links": Links({}, {"w0": Fraction(1)})}, "cannot be given with --speeds"),
        ({"links": Links({"w0": Fraction(1)})}, "cannot be given with --prices"),
        ({"jobs_file": Path("jobs.toml")}, "cannot be given with --jobs"),
        ({"relays": 5}, "--relays must be from 1 to 4, the number of workers, got 5"),
    ],
)
def test_what_relays_cannot_do_is_refused_by_name(own: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError) as refused:
        make_topology(GIVEN | own, PLACEMENT, None)
    assert complaint in str(refused.value)


def test_relays_come_from_the_option_or_from_the_placement_file() -> None:
    listed = spread_workers(PLACEMENT, 3)
    assert make_topology(GIVEN | {"relays": None}, PLACEMENT, None) is None
    assert make_topology(GIVEN | {"relays": None}, PLACEMENT, listed) == listed
    assert make_topology(GIVEN, PLACEMENT, None) == spread_workers(PLACEMENT, 2)
    with pytest.raises(UsageError, match="cannot be given with the relays of --placement"):
        make_topology(GIVEN, PLACEMENT, listed)
    with pytest.raises(UsageError, match="the table relays of --placement cannot be given with --silent 1"):
        make_topology(GIVEN | {"relays": None, "silent": 1}, PLACEMENT, listed)


def test_a_run_with_relays_has_the_models_of_its_twin(tmp_path: Path) -> None:
    placement, file = tmp_path / "placement.toml", tmp_path / "model.npz"
    placement.write_text('[workers]\na = ["p0"]\nb = ["p1"]\n[relays]\nr = ["a"]\n', encoding="utf-8")
    spec = "synthetic:tasks=2,parts=1"
    words = [f"--data={spec}", f"--placement={placement}", "--rounds=2", "--strength=1", f"--save={file}"]
    done = CliRunner().invoke(main.main, ["run", *words])
    assert done.exit_code == 0, done.output
    saved = SavedModel.load(file)
    assert saved.settings is not None
    twin = train(recipes.load(spec, seed=0).partitions, saved.settings).models
    assert saved.models.coef_.tobytes() == twin.coef_.tobytes()
