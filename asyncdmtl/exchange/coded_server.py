"""The server's side of a round under a plan over GF(2^8), for each strategy."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain, repeat

import numpy as np

from asyncdmtl.arrays import Bytes, Vectors
from asyncdmtl.errors import DisagreementError, IntegrityError, RemoteProtocolError, StateError
from asyncdmtl.exchange.confirmation import SummedGroups
from asyncdmtl.exchange.sides import (
    DEFAULT_OPTIONS,
    NOBODY,
    ServerSide,
    SideOptions,
    UnconfirmedError,
    absentees,
    arrived,
    measured,
)
from asyncdmtl.exchange.states import ExactStates
from asyncdmtl.exchange.upload import Layout, Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.learning.training import make_trainer
from asyncdmtl.plan.codes.codec import VectorFormat
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.units import sum_name, summed_partitions

# The workers that have sent the same digest and loss of a partition or task, by these. A blind server has
# sealed losses.
Claims = dict[tuple[bytes, float | bytes], list[str]]


class CodedServerSide(ServerSide):
    """The server's work in every round under one plan: compare digests, and combine rows.

    Parameters
    ----------
    plan : Plan
    problem : Problem
    options : SideOptions, optional

    Attributes
    ----------
    grouped : bool
        As in `SideOptions`.
    """

    plan: Plan
    _groups: SummedGroups

    def __init__(
        self,
        plan: Plan,
        problem: Problem,
        options: SideOptions = DEFAULT_OPTIONS,
    ) -> None:
        super().__init__(plan, problem)
        self._digest = options.digest
        self._detailed = options.detailed
        self._uplink_rows = plan.uplink_rows if options.carried else (0,) * len(plan.uplink_rows)
        self._groups = self._make_groups(options)
        workers = range(len(plan.placement.workers))
        self._layouts = [self._groups.layout(k, problem.dtype, detailed=options.detailed) for k in workers]
        self.group_plan = plan
        self.grouped = options.grouped
        self._format = plan.vector_format(problem.wire.length, problem.wire.dtype, grouped=options.grouped)
        self._down_format = self._format_of_results(options.grouped)
        self.ranges, self.down_ranges = self._format.ranges, self._down_format.ranges
        self._recombine = plan.coders.recombiner
        widths = [int(cols.stop - cols.start) for cols in self.down_ranges]
        count = len(plan.downlink_matrix) if options.carried else 0
        self._down = [np.empty((count, n), np.uint8) for n in widths]
        # The agreed digests: of all units or, if not `detailed`, of groups; later, of what is broadcast.
        self._digests: list[bytes] = []

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector of the uplink, padding included: the unit of the uplink's load."""
        return self._format.padded_bytes

    @property
    def down_vector_bytes(self) -> int:
        """Bytes of a vector of the downlink, padding included: the unit of the downlink's loads."""
        return self._down_format.padded_bytes

    @property
    def broadcast_bytes(self) -> int:
        """Bytes of the downlink of a round, with each row counted once."""
        return len(self.plan.downlink_matrix) * self._down_format.packet_bytes

    def uplink_bytes(self, worker: int) -> int:
        """Bytes of the rows that `worker` sends in a round."""
        return self._uplink_rows[worker] * self._format.packet_bytes

    def uplink_range(self, worker: int, i: int) -> tuple[int, int]:
        """The shape of the rows that `worker` sends in range `i`: their number, and bytes of each."""
        cols = self.ranges[i]
        return self._uplink_rows[worker], cols.stop - cols.start

    def layout(self, worker: int) -> Layout:
        """What `worker` tells beside its rows."""
        return self._layouts[worker]

    def downlink_bytes(self, worker: int) -> int:
        """Bytes of the rows that `worker` is sent in a round."""
        return len(self.plan.deliveries[worker].rows) * self._down_format.packet_bytes

    def check(self, worker: int, upload: Upload) -> None:
        """Compare what `worker` sent with the plan."""
        layout = self.layout(worker)
        counts = {
            "bytes of rows": (upload.size, self.uplink_bytes(worker)),
            "digests": (len(upload.digests), layout.digests),
            "losses": (len(upload.losses), layout.losses),
            "sealed numbers": (len(upload.sealed), layout.sealed),
        }
        for what, (got, expected) in counts.items():
            if got != expected:
                name = self.plan.placement.workers[worker]
                raise RemoteProtocolError(f"worker {name!r} sent {got} {what}, the plan says {expected}")

    def completed(self, uploads: Sequence[Upload | None]) -> Sequence[Upload | None]:
        """The uploads with all values that other workers told for them."""
        if self._detailed:
            return uploads
        workers, told = self.plan.placement.workers, [upload for _, upload in arrived(uploads)]
        states = self.expected_checks(final=False) or [told[0].state] * len(workers)
        return self._groups.completed(workers, told, states)

    def agree(self, uploads: Sequence[Upload | None], established: Mapping[str, int] = NOBODY) -> None:
        """Begin a round: compare the uploads of all workers, in their order."""
        if self.plan.silent:
            # A late worker may be sent the rows of a round while the next ones are combined.
            self._down = [np.empty_like(rows) for rows in self._down]
        if self._detailed:
            claims = self._compared(uploads, established)
            self._digests = [next(iter(claims[what]))[0] for what in self._groups.of_units]
            return
        # All workers have confirmed the values (`completed`).
        self._digests = self._groups.agreed([upload for _, upload in arrived(uploads)])

    def compare(self, uploads: Sequence[Upload | None], established: Mapping[str, int] = NOBODY) -> None:
        """Compare the uploads of all workers, in their order, if they have all values."""
        if self._detailed:
            self._compared(uploads, established)

    def _compared(self, uploads: Sequence[Upload | None], established: Mapping[str, int]) -> list[Claims]:
        """The claims about each digest that a worker can compute, in all of which holders agree."""
        workers, N = self.plan.placement.workers, len(self.plan.placement.partitions)
        count = N + len(self.problem.tasks) + len(self.plan.sums)
        claims: list[Claims] = [{} for _ in range(count)]
        for k, upload in arrived(uploads):
            worker, told = workers[k], self._groups.digests_of[k]
            # Each update has a loss; aggregates of tasks and sums, which come after the updates, have none.
            losses: Iterable[float | bytes] = chain(upload.sealed[:-2] or upload.losses, repeat(0.0))
            for what, digest, loss in zip(told, upload.digests, losses, strict=False):
                claims[what].setdefault((digest, loss), []).append(worker)
        # If updates differ, so do their aggregates. Aggregates are compared only once all updates agree.
        refuse_disagreement(claims[:N], self._partitions_told(), established)
        refuse_disagreement(claims[N:], [*self._tasks_told(), *self._sums_told()], established)
        self._agree_on_measures(uploads)
        return claims

    def _agree_on_measures(self, uploads: Sequence[Upload | None]) -> None:
        """Raise StateError unless all workers have sent the same penalty and residual."""
        workers = self.plan.placement.workers
        for what in ("penalty", "residual"):
            values = {workers[k]: float(getattr(upload, what)) for k, upload in arrived(uploads)}
            told = {worker: struct.pack("<d", value) for worker, value in values.items()}
            majority = ExactStates(self.problem, self._digest).majority(told)
            odd = tuple(told) if majority is None else majority.odd
            if odd:
                names, known = ", ".join(map(repr, odd)), "" if majority is None else " than most workers"
                raise StateError(
                    f"{names} told different values of the {what}{known}: {values}",
                    workers=odd,
                    mendable=majority is not None,
                )

    def _partitions_told(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(name, (name,)) for name in self.plan.placement.partitions]

    def _tasks_told(self) -> list[tuple[str, tuple[str, ...]]]:
        """The tasks, each with the names of its partitions."""
        names = self.plan.placement.partitions
        return [
            (task, tuple(names[n] for n in parts))
            for task, parts in zip(self.problem.tasks, self.problem.partitions_of, strict=True)
        ]

    def _sums_told(self) -> list[tuple[str, tuple[str, ...]]]:
        """The sums that are units, each with the names of its partitions."""
        each = summed_partitions(self.plan.placement, self.plan.tasks, self.plan.sums)
        return [(sum_name(names), tuple(names)) for names in each]

    def digest(self, worker: int) -> bytes:
        """The combined digest of the vectors that `worker` will decode."""
        wanted = self.plan.packed_order(self.plan.deliveries[worker].wanted)
        return self._digest.combined([self._digests[column] for column in wanted])

    def told(self, worker: int, *, relay: bool = False) -> bytes:
        """The digests of all vectors that a relay decodes, in ascending order; known in detail only."""
        wanted = self.plan.deliveries[worker].wanted if relay else ()
        return b"".join(self._digests[column] for column in wanted)

    def block(self, i: int) -> Bytes:
        """Range `i` of all rows of the downlink, (R_down·P, bytes), valid until the next round."""
        return self._down[i]

    def rows(self, worker: int, i: int) -> tuple[Bytes, ...]:
        """Range `i` of the rows that `worker` is sent: contiguous arrays, valid until the next round."""
        rows, down = self.plan.deliveries[worker].rows, self._down[i]
        if rows == tuple(range(len(rows))):
            return (down[: len(rows)].reshape(-1),)
        return tuple(down[row] for row in rows)

    def _collect(self, i: int, rows: Sequence[Bytes | None], units: Bytes) -> None:
        """Decode range `i` of all units from the rows that have arrived."""
        chosen, collect = self.plan.coders.collector([k for k, _ in arrived(rows)])
        firsts = list(accumulate(self.plan.uplink_rows, initial=0))
        each = {firsts[k] + r: row for k, part in arrived(rows) for r, row in enumerate(part)}
        collect([each[r] for r in chosen], (), units[:, self.ranges[i]])

    def _make_groups(self, options: SideOptions) -> SummedGroups:
        """The groups of digests under the plan."""
        return SummedGroups(self.plan, options.digest, options.keys)

    def _format_of_results(self, grouped: bool) -> VectorFormat:
        """The format of the vectors of the downlink; here the same as that of the uplink."""
        return self._format

    def _unit_names(self) -> list[str]:
        return self.plan.units.names(self.plan.placement, self.problem.tasks, self.plan.tasks)

    def _wrong_units(self, units: Sequence[int], what: str) -> IntegrityError:
        """The error that names units that came wrong, and their senders, unless they went up combined."""
        plan, names = self.plan, self._unit_names()
        workers = {plan.placement.workers[plan.senders[u]] for u in units} if plan.senders else ()
        odd, senders = [names[u] for u in units], sorted(workers, key=natural_key)
        origin = f" from {', '.join(map(repr, senders))}" if senders else ""
        return IntegrityError(
            f"{what} of {odd} than their holders computed: bytes were corrupted on their way{origin}",
            partitions=odd,
            workers=senders,
        )


class RelayServerSide(CodedServerSide):
    """The server under `relay` and `uncoded`: it combines rows as they come, and decodes nothing."""

    streams = True

    def digest(self, worker: int) -> bytes:
        """The combined digest of the groups that `worker` will decode."""
        if not self._detailed:
            return self._groups.expected(worker, self._digests)
        return self._groups.received(worker, dict(zip(self._groups.of_units, self._digests, strict=True)))

    def put(self, i: int, rows: Sequence[Bytes | None]) -> None:
        """Combine range `i` of the rows of all workers into range `i` of the downlink."""
        if not len(self._down[i]):
            return
        recombine = self.plan.coders.recombiner_without(absentees(rows))
        recombine([part for _, part in arrived(rows)], self._down[i])

    def finish(self, last: bool) -> None:
        """Do nothing: `put` has done all."""


class CentralServerSide(CodedServerSide):
    """The server under `central`: it decodes all units, and aggregates updates by task."""

    def __init__(
        self,
        plan: Plan,
        problem: Problem,
        options: SideOptions = DEFAULT_OPTIONS,
    ) -> None:
        super().__init__(plan, problem, options)
        self._units = self._format.allocate(len(plan.units.holders))
        self._coded = plan.units.coded_spans(problem.partitions_of)
        self._results = self._down_format.allocate(len(problem.tasks))

    def put(self, i: int, rows: Sequence[Bytes | None]) -> None:
        """Decode range `i` of all units."""
        self._collect(i, rows, self._units)

    def finish(self, last: bool) -> None:
        """Check the digests of the decoded units, aggregate updates by task, and combine the results."""
        units: Vectors = self._format.vectors(self._units)
        self._check_decoded(units)
        results: Vectors = self._down_format.vectors(self._results)
        aggregates = [
            self.problem.aggregate(t, units[list(coded.values())], tuple(coded))
            for t, coded in enumerate(self._coded)
        ]
        self._use(aggregates, results, last)
        self._digests = [self._digest(result) for result in results]
        for cols, down in zip(self.down_ranges, self._down, strict=True):
            self._recombine(self._results[:, cols], down)

    def _use(self, aggregates: Sequence[Vectors], results: Vectors, last: bool) -> None:
        """Write the vectors of the downlink, a row for each task; here these are the aggregates."""
        for result, aggregate in zip(results, aggregates, strict=True):
            result[:] = aggregate

    def _check_decoded(self, units: Vectors) -> None:
        groups, made = self._groups, [self._digest(unit) for unit in units]
        if not self._detailed:
            if not groups.match(dict(zip(groups.of_units, made, strict=True)), self._digests):
                raise UnconfirmedError("the server decoded other updates than their holders computed")
            return
        pairs = enumerate(zip(made, self._digests, strict=True))
        if wrong := [unit for unit, (digest, claim) in pairs if digest != claim]:
            raise self._wrong_units(wrong, "the server decoded other updates")


class PersonalServerSide(CentralServerSide):
    """The server under `personal`: it takes the steps itself, and sends each worker its tasks' models.

    Parameters
    ----------
    plan : Plan
    problem : Problem
    trainer : Trainer, optional
        The models so far; default: the initial models.
    options : SideOptions, optional
    """

    trainer: Trainer

    def __init__(
        self,
        plan: Plan,
        problem: Problem,
        trainer: Trainer | None = None,
        options: SideOptions = DEFAULT_OPTIONS,
    ) -> None:
        super().__init__(plan, problem, options)
        self.trainer = trainer or make_trainer(problem, {})
        self._measured = measured(self.trainer, 0)

    def expected_checks(self, *, final: bool) -> list[bytes]:
        """The checks of the models of each worker's tasks: the final ones, or those of the next updates."""
        trainer = self.trainer
        # Workers have 0 where the server has −0 (`Trainer.told`).
        checks = [self._digest(row) for row in (trainer.W if final else trainer.Y + 0.0)]
        return [self._digest.combined([checks[t] for t in to.wanted]) for to in self.plan.deliveries]

    def _agree_on_measures(self, uploads: Sequence[Upload | None]) -> None:
        """Do nothing: the server measures both itself."""

    def _penalty_and_residual(self, uploads: Sequence[Upload | None]) -> tuple[float, float]:
        """The server's own penalty and residual, measured after the last step."""
        return self._measured

    def _use(self, aggregates: Sequence[Vectors], results: Vectors, last: bool) -> None:
        self.trainer.step(aggregates)
        self._measured = measured(self.trainer, 0)
        # Workers compute their next updates at the vectors that they are sent: `Y`, and in the end the models
        # `W`.
        results.view(np.uint8)[:] = self.trainer.told(last=last)

    def _format_of_results(self, grouped: bool) -> VectorFormat:
        return self.plan.vector_format(*self.problem.told, grouped=grouped)


def refuse_disagreement(
    claims: Sequence[Claims],
    about: Sequence[tuple[str, tuple[str, ...]]],
    established: Mapping[str, int],
) -> None:
    """Raise DisagreementError if holders of a partition or task have sent different digests of it."""
    odd: dict[str, list[str]] = {}
    told, undecided = [], False

    def rank(group: Sequence[str]) -> tuple[int, float]:
        """The size of a group, and then how long one of it has taken part."""
        return len(group), -min(established.get(worker, math.inf) for worker in group)

    for groups, (name, partitions) in zip(claims, about, strict=True):
        if len(groups) > 1:
            trusted, second, *_ = ranked = sorted(groups.values(), key=rank, reverse=True)
            tied = rank(trusted) == rank(second)
            undecided = undecided or tied
            for worker in chain.from_iterable(ranked[0 if tied else 1 :]):
                odd.setdefault(worker, []).extend(partitions)
            told.append(f"{name!r}: " + " against ".join(", ".join(group) for group in groups.values()))
    if odd:
        doubt = ", and no group has a majority" if undecided else ""
        raise DisagreementError(
            f"holders computed other bits from the same partition: {'; '.join(told)}{doubt}"
            " (python -m asyncdmtl.arithmetic shows whether their machines are to blame)",
            odd=odd,
            undecided=undecided,
        )
