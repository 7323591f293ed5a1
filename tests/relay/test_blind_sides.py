from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support.problems import make_partitions, make_settings
from support.trees import PLACEMENT

from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.blinding.masks import root_of
from asyncdmtl.blinding.sealed import SEALED_NUMBER_BYTES, opened_info, sealed_info
from asyncdmtl.digests import Digest
from asyncdmtl.errors import DisagreementError, IntegrityError, PlanError, RemoteProtocolError
from asyncdmtl.exchange.blind_server import BlindServerSide, blind_server_side
from asyncdmtl.exchange.sides import SideOptions, WorkerSide
from asyncdmtl.exchange.strategies import EXCHANGE_STRATEGIES
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.field.linalg import rank
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.training import make_trainer, train
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.parameters import Strategy
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.relay.blind_sides import BlindForwardingSide, make_blind_side

GROUP = GroupKey(b"a secret of the group", "run")
DIGEST = Digest("run")
PARTITIONS = make_partitions(6, "squared")
SETTINGS = make_settings(rounds=1, dtype="float64")
BEHIND = {"north": ["a", "b"], "south": ["c", "d"]}
TOPOLOGY = Topology(PLACEMENT, BEHIND)


def facts(settings: Settings) -> tuple[Problem, Problem]:
    """The problem as server and relays have it, and as workers do."""
    sealed = [sealed_info(GROUP, part.info(settings)) for part in PARTITIONS]
    return Problem(settings, sealed), Problem(settings, [opened_info(GROUP, info) for info in sealed])


class BlindTree:
    """All sides of one round of a blind run with two relays."""

    def __init__(self, strategy: Strategy, settings: Settings = SETTINGS, number: int = 3) -> None:
        seen, self.problem = facts(settings)
        top = TOPOLOGY.placement_of(TOPOLOGY.top)
        self.plan = make_plan(top, strategy, tasks=seen.task_of, units="updates", merge=False)
        self.server: BlindServerSide = blind_server_side(
            self.plan, seen, SideOptions(digest=DIGEST, blind=True)
        )
        self.root = root_of(number, self.plan.digest)
        self.relays: dict[str, BlindForwardingSide] = {}
        self.workers: dict[str, WorkerSide] = {}
        for relay, names in BEHIND.items():
            stored = {name: PLACEMENT.as_dict()[name] for name in names}
            side = make_blind_side(self.plan, relay, stored, seen, DIGEST, origin=self.root)
            self.relays[relay] = side
            self._add(side.below.plan, names, side.origin, 0)
        self._add(self.plan, ["e"], b"", number)

    def _add(self, plan: Plan, names: list[str], origin: bytes, number: int) -> None:
        options = SideOptions(digest=GROUP.digest, blind=True, group=GROUP, origin=origin)
        by_name = {part.id: part for part in PARTITIONS}
        for name in names:
            k = plan.placement.workers.index(name)
            own = {n: by_name[plan.placement.partitions[n]] for n in plan.placement.stored[k]}
            trainer = make_trainer(self.problem, own)
            side = EXCHANGE_STRATEGIES[plan.strategy].worker_side(plan, k, trainer, options)
            side.begin(number, 0)
            self.workers[name] = side

    def uploads(self, relay: str) -> list[Upload]:
        return [side.told(side.compute()) for side in (self.workers[name] for name in BEHIND[relay])]

    def make_round(self) -> None:
        """Make the round; there is one range."""
        up: dict[str, Upload] = {}
        for relay, side in self.relays.items():
            uploads = self.uploads(relay)
            told = side.agree(uploads)
            rows = side.put(0, [upload.rows[0] for upload in uploads])
            side.check_own()
            told = side.layout.unpack(side.layout.pack(told), (rows,), rows.nbytes)
            up[relay] = told
        up["e"] = self.workers["e"].told(self.workers["e"].compute())
        order = self.plan.placement.workers
        sent = [up[name] for name in order]
        for k, upload in enumerate(sent):
            self.server.check(k, upload)
        self.server.agree(sent)
        self.server.put(0, [upload.rows[0] for upload in sent])
        self.server.finish(False)
        for k, name in enumerate(order):
            down = np.concatenate([row.ravel() for row in self.server.rows(k, 0)])
            if name == "e":
                self._apply(self.workers["e"], down, self.server.told(k), self.server.digest(k))
                continue
            side = self.relays[name]
            side.take(self.server.told(k, relay=True))
            side.receive(0, down)
            side.finish()
            for j, node in enumerate(BEHIND[name]):
                rows = np.concatenate([row.ravel() for row in side.below.rows(j, 0)])
                self._apply(self.workers[node], rows, side.below.told(j), side.below.digest(j))

    def _apply(self, side: WorkerSide, rows: np.ndarray, told: bytes, digest: bytes) -> None:
        side.receive(0, rows)
        side.take_told(told)
        side.apply(digest)


@pytest.mark.parametrize("strategy", ["relay", "uncoded"])
@pytest.mark.parametrize("tolerance", [0.0, 1e-12])
def test_a_round_ends_as_that_of_the_twin(strategy: Strategy, tolerance: float) -> None:
    settings = replace(SETTINGS, tolerance=tolerance, coupling="mean")
    tree, twin = BlindTree(strategy, settings), train(PARTITIONS, settings).models
    tree.make_round()
    for side in tree.workers.values():
        assert side.models().coef_.tobytes() == twin.coef_.tobytes()


def test_all_holders_mask_a_unit_alike_and_another_plan_has_other_masks() -> None:
    rows = {}
    for number in (3, 4):
        tree = BlindTree("relay", number=number)
        north, south = tree.relays["north"], tree.relays["south"]
        for relay, side in (("north", north), ("south", south)):
            uploads = tree.uploads(relay)
            side.agree(uploads)
            side.put(0, [upload.rows[0] for upload in uploads])
        # Both sites store p2.
        at = {side: side.stored.index(2) for side in (north, south)}
        masked = [side._own.reshape(len(side.stored), -1)[at[side]] for side in (north, south)]
        assert masked[0].tobytes() == masked[1].tobytes()
        rows[number] = masked[0].copy()
    assert np.count_nonzero(rows[3] ^ rows[4]) > 0.9 * rows[3].size


def test_what_one_relay_sees_is_a_regular_matrix_times_the_masks_whoever_sent_it() -> None:
    """Units that several workers hold may differ at each: the masks still hide all of them."""
    tree = BlindTree("relay")
    for relay, side in tree.relays.items():
        k = tree.plan.placement.workers.index(relay)
        G = tree.plan.combined[list(tree.plan.deliveries[k].rows)]
        own = tree.plan.units.columns(side.stored, tree.plan.subpackets)
        seen = np.concatenate([np.eye(G.shape[1], dtype=np.uint8)[own], G])
        assert seen.shape[0] == seen.shape[1] == rank(seen)


def test_what_a_relay_is_sent_looks_like_noise() -> None:
    tree = BlindTree("uncoded")
    told = [upload for relay in BEHIND for upload in tree.uploads(relay)]
    digests = dict.fromkeys(digest for each in told for digest in each.digests)
    opaque = b"".join([*(part.tobytes() for each in told for part in each.rows), *digests])
    assert stats.chisquare(np.bincount(np.frombuffer(opaque, np.uint8), minlength=256)).pvalue > 1e-6


def test_a_relay_names_the_node_of_wrong_rows_under_uncoded_only() -> None:
    for strategy in ("relay", "uncoded"):
        tree = BlindTree(strategy)
        side, uploads = tree.relays["north"], tree.uploads("north")
        side.agree(uploads)
        rows = [upload.rows[0].copy() for upload in uploads]
        rows[1][-1, 0] ^= 1
        side.put(0, rows)
        if strategy == "relay":
            side.check_own()
        else:
            with pytest.raises(IntegrityError, match=r"'b' sent other updates of \['p2'\]"):
                side.check_own()


def test_nodes_that_tell_other_digests_of_masked_updates_are_named() -> None:
    tree = BlindTree("uncoded")
    one, other = tree.uploads("north")
    digests = list(other.digests)
    # Its MACs are those of p1 and p2; the digests of the masked updates follow.
    digests[2] = bytes(16)
    with pytest.raises(DisagreementError, match="'p1': a against b"):
        tree.relays["north"].agree([one, replace(other, digests=tuple(digests))])


def test_numbers_must_be_as_many_as_the_plan_says() -> None:
    side = BlindTree("relay").relays["north"]
    side.agree(BlindTree("relay").uploads("north"))
    with pytest.raises(RemoteProtocolError, match="24 bytes of sealed numbers came, the plan says 0"):
        side.take(bytes(3 * 16 + SEALED_NUMBER_BYTES))


def test_a_plan_whose_server_is_not_blind_is_refused() -> None:
    seen, _ = facts(SETTINGS)
    plan = make_plan(TOPOLOGY.placement_of(TOPOLOGY.top), "central", tasks=seen.task_of, units="updates")
    stored = {name: PLACEMENT.as_dict()[name] for name in "ab"}
    with pytest.raises(PlanError, match="a relay of a blind run cannot follow a plan of central"):
        make_blind_side(plan, "north", stored, seen, DIGEST, origin=b"")
