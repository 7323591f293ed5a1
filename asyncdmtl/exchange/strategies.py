"""One object for each strategy: it checks settings, makes plans, and makes both sides of a round.

Planners are imported inside functions, so that a worker, which only needs the sides, does not load SciPy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from asyncdmtl.digests import Digest
from asyncdmtl.errors import PlanError, UsageError
from asyncdmtl.exchange.blind_server import BlindStates, blind_server_side
from asyncdmtl.exchange.blind_worker import BlindUncodedWorkerSide, BlindWorkerSide
from asyncdmtl.exchange.coded_server import (
    CentralServerSide,
    CodedServerSide,
    PersonalServerSide,
    RelayServerSide,
)
from asyncdmtl.exchange.coded_worker import (
    CentralWorkerSide,
    CodedWorkerSide,
    PersonalWorkerSide,
    RelayWorkerSide,
    UncodedWorkerSide,
)
from asyncdmtl.exchange.linear import LinearServerSide, LinearWorkerSide
from asyncdmtl.exchange.rounding_growth import rounding_growth
from asyncdmtl.exchange.sides import DEFAULT_OPTIONS, ServerSide, SideOptions, WorkerSide
from asyncdmtl.exchange.states import ExactStates, RoundedStates, States
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.plan.linear.plan import LinearPlan
from asyncdmtl.plan.links import EQUAL_LINKS, Links
from asyncdmtl.plan.parameters import Strategy
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.serialization import AnyPlan
from asyncdmtl.plan.units import UnitKind

# If the smallest possible uplink load takes more packets than this, all partitions together, a plan may
# exceed it by `LOAD_OVERHEAD`: with more packets, matrices cost more time than the last percent of the load
# is worth.
MOST_PACKETS = 256

# The share by which the uplink load may exceed the smallest possible one if that takes too many packets.
LOAD_OVERHEAD = Fraction(1, 100)

# The shares by which the uplink's cost or time may exceed the minimum, tried in this order until few packets
# suffice. Prices and speeds may have any ratio, so that the last one permits what a single packet reaches.
LINK_OVERHEADS = (LOAD_OVERHEAD, Fraction(1, 10), Fraction(1), Fraction(1000))

# The shares by which the uplink load may exceed the smallest one if workers may stay silent, tried in this
# order until few packets suffice. The last one permits what a single packet reaches.
SILENT_OVERHEADS = (Fraction(1, 20), Fraction(1, 4), Fraction(1000))

# The most packets of a vector if workers may stay silent, unless there are more workers: rates of the least
# load take many, and matrices are made for each set of workers that respond.
MOST_SILENT_PACKETS = 8


def tolerant_overhead(
    placement: Placement,
    tasks: Sequence[int],
    strategy: Strategy,
    silent: int,
    least: Fraction,
    wishes: Mapping[str, Any],
) -> Fraction:
    """The first of `SILENT_OVERHEADS` with which a plan that tolerates silent workers takes few packets.

    Parameters
    ----------
    tasks, strategy, silent
        As for `make_plan`.
    least : Fraction
        The least share.
    wishes : mapping
        The arguments `units`, `wants`, `speeds` and `prices` of `make_plan`.
    """
    from asyncdmtl.plan.uplink_choice import UplinkWishes, choose_rates, choose_units
    from asyncdmtl.plan.validation import helpers_of

    helpers = helpers_of(placement, wishes["wants"])
    weights: dict[str, Any] = {name: wishes.get(name) for name in ("speeds", "prices")}
    wanted = UplinkWishes(units=wishes["units"], helpers=helpers, silent=silent, **weights)
    chosen = choose_units(placement, tasks, strategy, wanted)
    for share in SILENT_OVERHEADS:
        overhead = max(least, share)
        try:
            found = choose_rates(chosen, strategy, replace(wanted, max_overhead=overhead))[1]
        except PlanError:  # It would take more packets than a plan may have.
            continue
        if found.subpackets <= max(MOST_SILENT_PACKETS, len(placement.workers)):
            break
    return overhead


def affordable_overhead(
    placement: Placement,
    tasks: Sequence[int] | None = None,
    strategy: Strategy = "relay",
    *,
    units: UnitKind = "tasks",
    wants: Mapping[str, str] | None = None,
    links: Links = EQUAL_LINKS,
) -> Fraction:
    """The share by which a run's uplink load may exceed the minimum: 0 if that takes few packets, else 1 %.

    With cyclic placements on K workers, the minimum takes K − 1 packets for each vector: for 20 workers and
    61 partitions, matrices of 1,159 columns. A plan with two packets for each vector is within 1 % of it.

    Parameters
    ----------
    tasks, strategy, units, wants
        As for `make_plan`.
    links : Links, optional
        With prices or speeds, the share is that of the cost or the time, and the first of `LINK_OVERHEADS`
        that takes few packets. The share is at least `links.max_overhead`.
    """
    from asyncdmtl.plan.uplink_choice import UplinkWishes, choose_rates, choose_units
    from asyncdmtl.plan.validation import helpers_of

    least = links.max_overhead
    if strategy != "relay":
        return least
    weights = links.weights(placement)
    wishes = UplinkWishes(units=units, helpers=helpers_of(placement, wants), **weights)
    tasks = range(len(placement.partitions)) if tasks is None else tasks
    chosen = choose_units(placement, tasks, strategy, wishes)
    wider = [share for share in (LINK_OVERHEADS if weights else (LOAD_OVERHEAD,)) if share > least]
    for share in (least, *wider[:-1]):
        try:
            coded, rates = choose_rates(chosen, strategy, replace(wishes, max_overhead=share))
        except PlanError:  # It would take more packets than a plan may have.
            continue
        if rates.subpackets * len(coded.holders) // coded.merged <= MOST_PACKETS:
            return share
    return wider[-1] if wider else least


def codable_units(settings: Settings) -> UnitKind:
    """The units that workers may code: only updates if these are compressed, sums if they are averaged."""
    if settings.compression != "none":
        return "updates"
    return "sums" if settings.aggregate == "mean" else "tasks"


BLIND_SIDES: Mapping[str, type[BlindWorkerSide]] = MappingProxyType(
    {"relay": BlindWorkerSide, "uncoded": BlindUncodedWorkerSide}
)
"""The strategies whose server may be blind, since it aggregates nothing, with the workers' side of each."""

# The factor of `rounding_growth` up to which a linear plan is taken: a run whose plan doubled the differences
# between workers' models in a round ended at round 45.
LITTLE_GROWTH = 1.05

# The most linear plans that are made until one has little growth.
LINEAR_SEEDS = 8

# The same with more than `MANY_COPIES` copies of partitions, all workers together: a plan then takes seconds.
FEW_SEEDS = 2
MANY_COPIES = 100


class ExchangeStrategy(ABC):
    """One strategy: its checks of settings, its plans, and its sides of a round.

    Attributes
    ----------
    name : str
    server_trains : bool
        Whether the server has the models and takes the steps.
    exact : bool
        Whether all workers end with the same bits as the one-process twin.
    """

    name: str
    server_trains: bool = False
    exact: bool = True

    def checking(self, *, blind: bool) -> ExchangeStrategy:
        """A strategy with the same models whose server, which may be blind, finds who sends wrong rows."""
        return EXCHANGE_STRATEGIES["uncoded" if blind else "central"] if self.name in BLIND_SIDES else self

    @abstractmethod
    def check(self, settings: Settings) -> None:
        """Raise UsageError if the strategy cannot serve these settings."""

    @abstractmethod
    def make_plan(
        self,
        placement: Placement,
        problem: Problem,
        wants: Mapping[str, str] | None = None,
        links: Links = EQUAL_LINKS,
        silent: int = 0,
        *,
        relayed: bool = False,
    ) -> AnyPlan:
        """A plan for this placement, for what workers want as for `asyncdmtl.make_plan`, and for their links.

        With `silent`, this number of workers may stay silent. With `relayed`, some of the workers are relays,
        which can follow plans of single updates only.

        Raises
        ------
        PlanError
            There is no plan.
        """

    @abstractmethod
    def worker_side(
        self,
        plan: AnyPlan,
        worker: int,
        trainer: Trainer,
        options: SideOptions = DEFAULT_OPTIONS,
    ) -> WorkerSide:
        """The side of one worker under a plan of this strategy.

        Parameters
        ----------
        plan : Plan or LinearPlan
        worker : int
        trainer : Trainer
            The current models and the worker's partitions.
        options : SideOptions, optional
        """

    @abstractmethod
    def server_side(
        self,
        plan: AnyPlan,
        problem: Problem,
        trainer: Trainer | None = None,
        options: SideOptions = DEFAULT_OPTIONS,
    ) -> ServerSide:
        """The server's side under a plan of this strategy.

        Parameters
        ----------
        plan : Plan or LinearPlan
        problem : Problem
        trainer : Trainer, optional
            Holds the models so far, if `server_trains`; default: the initial models.
        options : SideOptions, optional
        """

    def states(self, problem: Problem, digest: Digest, *, blind: bool = False) -> States:
        """The comparison of the states that workers hold."""
        return BlindStates(problem, digest) if blind else ExactStates(problem, digest)


class _Coded(ExchangeStrategy):
    """A strategy whose plans combine bytes over GF(2^8)."""

    def __init__(
        self,
        name: Strategy,
        worker_side: type[CodedWorkerSide],
        server_side: type[CodedServerSide],
    ) -> None:
        self.name = self._strategy = name
        self._worker_side = worker_side
        self._server_side = server_side

    def check(self, settings: Settings) -> None:
        """Refuse compression unless workers aggregate, since a server would have to unpack the updates."""
        if settings.compression != "none" and not self._server_side.streams:
            rule = "is for strategies by which workers aggregate: relay, uncoded"
            raise UsageError(f"--compression {settings.compression}", rule, self.name)
        if settings.chooses and self.name == "personal" and settings.loss != "squared":
            rule = (
                "must be given for --strategy personal, by which workers do not see all candidates' updates"
            )
            raise UsageError("--strength", rule, "auto")

    def make_plan(
        self,
        placement: Placement,
        problem: Problem,
        wants: Mapping[str, str] | None = None,
        links: Links = EQUAL_LINKS,
        silent: int = 0,
        *,
        relayed: bool = False,
    ) -> Plan:
        """A plan whose uplink exceeds the minimum by at most the share `affordable_overhead`."""
        from asyncdmtl.plan.planner import make_plan

        tasks = problem.task_of
        units: UnitKind = "updates" if relayed else codable_units(problem.settings)
        wishes: dict[str, Any] = {"units": units, "wants": wants}
        matrices = problem.settings.matrices
        if silent:
            if self.name == "relay" or links.prices:
                wishes |= links.weights(placement)
            overhead = tolerant_overhead(placement, tasks, self._strategy, silent, links.max_overhead, wishes)
            wishes |= {"tasks": tasks, "matrices": matrices, "silent": silent, "max_overhead": overhead}
            return make_plan(placement, self._strategy, **wishes)
        overhead = affordable_overhead(placement, tasks, self._strategy, links=links, **wishes)
        # While the server checks updates, a run with speeds has a plan of `central`, which cannot use them.
        weights = {} if links.speeds and self.name != "relay" else links.weights(placement)
        wishes |= {"tasks": tasks, "max_overhead": overhead, "matrices": matrices, "merge": not relayed}
        return make_plan(placement, self._strategy, **wishes, **weights)

    def worker_side(
        self,
        plan: AnyPlan,
        worker: int,
        trainer: Trainer,
        options: SideOptions = DEFAULT_OPTIONS,
    ) -> WorkerSide:
        """The side of one worker under a plan of this strategy."""
        assert isinstance(plan, Plan)
        made = BLIND_SIDES[self.name] if options.blind else self._worker_side
        return made(plan, worker, trainer, options)

    def server_side(
        self,
        plan: AnyPlan,
        problem: Problem,
        trainer: Trainer | None = None,
        options: SideOptions = DEFAULT_OPTIONS,
    ) -> ServerSide:
        """The server's side under a plan of this strategy."""
        assert isinstance(plan, Plan)
        made = blind_server_side if options.blind else self._server_side
        return made(plan, problem, options)


class _Personal(_Coded):
    """The strategy "personal", whose server takes the steps."""

    server_trains = True

    def server_side(
        self,
        plan: AnyPlan,
        problem: Problem,
        trainer: Trainer | None = None,
        options: SideOptions = DEFAULT_OPTIONS,
    ) -> ServerSide:
        """The server's side, which goes on with the models of `trainer`."""
        assert isinstance(plan, Plan)
        return PersonalServerSide(plan, problem, trainer, options)


class _Linear(ExchangeStrategy):
    """The strategy "linear", whose plans combine real numbers."""

    name = "linear"
    exact = False

    def check(self, settings: Settings) -> None:
        """Refuse aggregates that are not linear in the updates, and updates that are not plain numbers."""
        if settings.aggregate != "mean":
            raise UsageError(
                "--strategy linear", "needs --aggregate mean, which is linear", settings.aggregate
            )
        if settings.update != "gradient":
            rule = "needs --update gradient, whose steps rounding errors do not change much"
            raise UsageError("--strategy linear", rule, settings.update)
        if settings.compression != "none":
            rule = "is for strategies by which workers aggregate: relay, uncoded"
            raise UsageError(f"--compression {settings.compression}", rule, self.name)
        if settings.matrices != "random":
            raise UsageError(f"--matrices {settings.matrices}", "is for codes over GF(2^8)", self.name)

    def make_plan(
        self,
        placement: Placement,
        problem: Problem,
        wants: Mapping[str, str] | None = None,
        links: Links = EQUAL_LINKS,
        silent: int = 0,
        *,
        relayed: bool = False,
    ) -> LinearPlan:
        """A plan for the problem's linear target, which every worker but not the server needs in a round.

        Of a few seeds, the first one is taken with which rounding errors grow little; else the best.
        """
        from asyncdmtl.plan.linear.planning import make_linear_plan, redrawn_plan

        first = make_linear_plan(placement, problem.linear_target, silent=silent, at_server=False)
        many = sum(map(len, placement.stored)) > MANY_COPIES
        plans = {}
        for seed in range(FEW_SEEDS if many else LINEAR_SEEDS):
            plan = redrawn_plan(first, seed) if seed else first
            if plan is None:
                continue
            growth = rounding_growth(plan, problem)
            if growth <= LITTLE_GROWTH:
                return plan
            plans[growth] = plan
        return plans[min(plans)]

    def worker_side(
        self,
        plan: AnyPlan,
        worker: int,
        trainer: Trainer,
        options: SideOptions = DEFAULT_OPTIONS,
    ) -> WorkerSide:
        """The side of one worker; its rows never come from a group."""
        assert isinstance(plan, LinearPlan)
        return LinearWorkerSide(plan, worker, trainer, digest=options.digest)

    def server_side(
        self,
        plan: AnyPlan,
        problem: Problem,
        trainer: Trainer | None = None,
        options: SideOptions = DEFAULT_OPTIONS,
    ) -> ServerSide:
        """The server's side, whose rows never go to a group."""
        assert isinstance(plan, LinearPlan)
        return LinearServerSide(plan, problem, digest=options.digest)

    def states(self, problem: Problem, digest: Digest, *, blind: bool = False) -> States:
        """The comparison of states that differ by rounding."""
        return RoundedStates(problem)


# All strategies by name, as in the option --strategy and in plan recipes.
EXCHANGE_STRATEGIES: Mapping[str, ExchangeStrategy] = MappingProxyType(
    {
        strategy.name: strategy
        for strategy in (
            _Coded("relay", RelayWorkerSide, RelayServerSide),
            _Coded("uncoded", UncodedWorkerSide, RelayServerSide),
            _Coded("central", CentralWorkerSide, CentralServerSide),
            _Personal("personal", PersonalWorkerSide, PersonalServerSide),
            _Linear(),
        )
    }
)


def strategy_of(plan: AnyPlan) -> ExchangeStrategy:
    """The strategy of a plan."""
    return EXCHANGE_STRATEGIES[plan.strategy if isinstance(plan, Plan) else "linear"]
