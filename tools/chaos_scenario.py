"""The scenario of a seed of `tools/chaos.py`: a small problem, a placement, and faults with their times."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asyncdmtl.data import loading
from asyncdmtl.data.held_back import hold_back
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.training import Trained, train
from asyncdmtl.plan.placement import natural_key

STRATEGIES = ("relay", "central", "personal", "uncoded")

# Kinds of faults, with the weight of each in the draw.
WORKER = {"kill": 4, "stop": 3, "terminate": 2}
LINK = {
    "reset": 3, "finish": 2, "half-close": 1, "unplug": 3, "lose track": 2, "delay": 1, "throttle": 1,
    "flip": 3, "repeat": 2,
}  # fmt: skip
SERVER = {"kill server": 3, "terminate server": 1, "stop server": 1}
OTHERS = {"stranger": 1, "late": 2}
# Kinds of faults of runs whose rows go to a group.
GROUP = {"forge": 3}
# Kinds of faults that happen at most once in a run.
FOR_GOOD, LIE = "kill for good", "lie"

# The interface of datagrams, which no other host receives.
LOOPBACK = "127.0.0.1"

# Events at which faults happen, with the weight of each in the draw. Most events are rounds; at the others,
# the server and its workers change their state.
MOMENTS = {"round": 12, "planned": 3, "joined": 3, "incident": 2, "checkpointed": 1, "resumed": 1}


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes
    ----------
    kind : str
    who : str
        The worker; "" for the server.
    event, count : str, int
        The fault happens at the `count`-th event of this kind; for "round", in that round.
    delay, seconds : float
        Seconds from the event to the fault, and seconds that it lasts.
    up : bool
        Whether the fault is in the direction to the server, if there are two directions.
    place : int
        Bytes before the changed one; for a late worker, the seed of its partitions.
    """

    kind: str
    who: str
    event: str
    count: int
    delay: float = 0.0
    seconds: float = 0.5
    up: bool = True
    place: int = 0

    def __str__(self) -> str:
        moment = f"{self.event} {self.count} + {self.delay * 1e3:.0f} ms"
        return f"{self.kind}{' of ' + self.who if self.who else ''} at {moment} ({self.seconds:.2f} s)"


def settings_options(settings: Settings) -> list[str]:
    """The training options by which a server gets just these settings, which have no edges."""
    assert not settings.edges
    words = []
    for name, value in settings.as_dict().items():
        if name == "accelerated":
            words.append("--accelerated" if value else "--plain")
        elif name == "standardise":
            words.append("--standardise" if value else "--raw")
        elif name != "edges":
            option = f"--{name.replace('_', '-')}"
            text = "auto" if value is None else repr(value) if isinstance(value, float) else str(value)
            words += [option, text]
    return words


@dataclass(frozen=True)
class Scenario:
    """A run.

    Attributes
    ----------
    settings, strategy
        Those of the training.
    stored : mapping of worker to tuple of str
        The partitions of each worker, or its files.
    data : str
        The recipe; "" if the data are tables.
    cover : bool
        Whether the server waits for a holder of each partition rather than for all workers.
    tls, secret, fresh : bool
        Whether links use TLS and a secret, and whether each process starts an interpreter of its own.
    latency, silence, rejoin : float
        Seconds of latency, of the silence timeouts, and of the server's wait for missing holders.
    every : int
        Rounds between checkpoints.
    group : str
        The address and port of the group for rows; "" for TCP.
    loss : float
        The share of datagrams that each worker loses, besides those of some outages.
    downlink : str
        "peers" if workers take rows from each other; else "".
    blind : bool
        Whether the server sees no rows and losses.
    silent : int
        The number of workers for which a round does not wait.
    faults : tuple of Fault
    patience : float
        The factor by which all limits are longer than on an idle machine.
    """

    seed: int
    settings: Settings
    strategy: str
    stored: Mapping[str, tuple[str, ...]]
    data: str
    cover: bool = False
    tls: bool = False
    secret: bool = False
    fresh: bool = False
    latency: float = 0.001
    silence: float = 1.0
    rejoin: float = 8.0
    every: int = 10
    group: str = ""
    loss: float = 0.0
    downlink: str = ""
    blind: bool = False
    silent: int = 0
    faults: tuple[Fault, ...] = ()
    holders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    patience: float = 1.0

    def slowed(self, patience: float) -> Scenario:
        """The same, with limits and faults that last so many times as long."""
        return replace(
            self, silence=self.silence * patience, rejoin=self.rejoin * patience, patience=patience,
            faults=tuple(replace(fault, seconds=fault.seconds * patience) for fault in self.faults),
        )  # fmt: skip

    def __str__(self) -> str:
        s = self.settings
        kind = f"{s.dtype} {s.update}{' accelerated' if s.accelerated else ''} {s.coupling} {s.aggregate}"
        guards = "".join(f" {name}" for name in ("tls", "secret", "fresh") if getattr(self, name))
        guards += "".join(f", {name}" for name in (self.downlink, "blind" * self.blind) if name)
        guards += f", silent {self.silent}" if self.silent else ""
        guards += f", multicast of which {self.loss:.0%} is lost" if self.group else ""
        data = self.data or "tables"
        return f"{self.strategy} {kind}, {s.rounds} rounds, {len(self.stored)} workers, {data}{guards}"

    @property
    def units(self) -> tuple[str, ...]:
        """All stored units: partitions, or files."""
        return tuple(self.holders)

    def write(self, folder: Path) -> None:
        """Write the files that processes read."""
        table = {w: list(units) for w, units in self.stored.items()}
        lines = [f"{name} = {units}" for name, units in table.items()]
        (folder / "placement.toml").write_text("[workers]\n" + "\n".join(lines).replace("'", '"') + "\n")
        # Workers that come late may store anything.
        late = [f"late{n} = {list(self.units)}" for n in range(len(table), len(table) + len(self.faults))]
        lines += late
        (folder / "cover.toml").write_text("[workers]\n" + "\n".join(lines).replace("'", '"') + "\n")
        if not self.data:
            for unit in self.units:
                _write_table(folder / f"{unit}.csv", random.Random(f"{self.seed} {unit}"))

    def server_words(self, folder: Path) -> list[str]:
        """The options of the server, which are the same at every start."""
        words = [*settings_options(self.settings), "--strategy", self.strategy]
        words += ["--data", self.data] if self.data else []
        if self.cover:
            words += ["--cover", str(folder / "cover.toml")]
        else:
            words += ["--workers", str(len(self.stored))]
        if self.tls:
            words += ["--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key")]
        if self.group:
            words += ["--downlink=multicast", f"--group={self.group}", "--multicast-rate=1000"]
        words += [f"--downlink={self.downlink}"] if self.downlink else []
        words += ["--blind"] if self.blind else []
        words += [f"--silent={self.silent}"] if self.silent else []
        words += ["--checkpoint", str(folder / "checkpoints"), f"--checkpoint-every={self.every}", "--resume"]
        words += [
            "--listen=127.0.0.1:0",
            f"--join-timeout={40 * self.patience}",
            f"--rejoin-timeout={self.rejoin}",
        ]
        return [*words, *self._limits()]

    def worker_words(self, units: Sequence[str], folder: Path) -> list[str]:
        """The options of a worker that stores these partitions or files, except for name and addresses."""
        words = [
            *self._limits(),
            f"--max-wait={30 * self.patience}",
            *(["--tls-ca", str(folder / "ca.pem")] if self.tls else []),
        ]
        if self.data:
            return [*words, "--data", self.data, "--seed=0", "--partitions", ",".join(units)]
        files = ",".join(str(folder / f"{unit}.csv") for unit in units)
        return [*words, "--data", files, "--task=clinic", "--target=score"]

    def _limits(self) -> list[str]:
        return [
            *([f"--interface={LOOPBACK}"] if self.group else []),
            f"--silence-timeout={self.silence}",
            f"--round-timeout={30 * self.patience}",
            "--format=json",
            "--log-level=info",
        ]

    def twin(self, folder: Path) -> Trained:
        """The result that the run must have."""
        files = ",".join(str(folder / f"{unit}.csv") for unit in self.units)
        none = dict.fromkeys(("task", "target", "features", "weight"))
        given: dict[str, Any] = {**none, "data": self.data or files, "seed": 0}
        if not self.data:
            given |= {"task": "clinic", "target": "score"}
        share, seed = self.settings.test_fraction, self.settings.seed
        stored = tuple(hold_back(each, share, seed)[0] for each in loading.load_stored(given, None))
        prepared = loading.Loaded("", stored, {}, {}).prepared(self.settings)
        # Sorted in the order in which a server numbers them.
        return train(sorted(prepared.partitions, key=lambda p: natural_key(p.id)), self.settings)


def draw(seed: int, *, rounds: int | None = None, every: int | None = None) -> Scenario:
    """The scenario of a seed: some faults at any moment, or one after `every` rounds, none of them fatal."""
    rng = random.Random(f"chaos {seed}")
    made = _draw_wire(random.Random(f"wire {seed}"), _draw_problem(rng, seed, rounds))
    if every is not None:
        # No partition may have a single holder, so that long runs do not wait for one.
        faults = tuple(
            _draw_fault(rng, made, "round", count) for count in range(every, made.settings.rounds, every)
        )
        return replace(made, faults=faults)
    if rng.random() < 0.08 and not (made.blind or made.silent) and (lie := _draw_lie(rng, made)):
        # The majority depends on the workers that are there, so no other worker may be missing.
        calm = [_draw_fault(rng, made, kinds={"delay": 1, "throttle": 1}) for _ in range(rng.randint(0, 2))]
        return replace(made, faults=(lie, *calm), fresh=False, cover=False)
    faults = tuple(_draw_fault(rng, made) for _ in range(rng.randint(1, 8)))
    if rng.random() < 0.12:
        faults += _draw_deaths(rng, made)
    return replace(made, faults=faults)


def trial(fault: Fault) -> Scenario:
    """A run with default limits and this one fault."""
    units = [f"p{n}" for n in range(8)]
    workers = [f"w{k}" for k in range(4)]
    holders = {f"p{n}": tuple(sorted(workers[(n + i) % 4] for i in range(3))) for n in range(8)}
    return Scenario(
        0, Settings(loss="squared", coupling="nuclear", strength=0.1, rounds=300), "relay",
        {worker: tuple(unit for unit in units if worker in holders[unit]) for worker in workers},
        "synthetic:tasks=4,rows=40,features=1000,rank=2,parts=2,test_rows=0",
        fresh=fault.kind in SERVER, silence=10.0, faults=(fault,), holders=holders,
    )  # fmt: skip


def _draw_problem(rng: random.Random, seed: int, rounds: int | None) -> Scenario:
    workers = [f"w{k}" for k in range(rng.randint(3, 6))]
    tables = rng.random() < 0.25
    if tables:
        data, units = "", [f"site{n}" for n in range(rng.randint(2, 4))]
    else:
        tasks, parts = rng.choice([(2, 2), (2, 3), (2, 4), (3, 2), (3, 3), (4, 1), (4, 2), (5, 2), (6, 2)])
        rows, features = parts * rng.randint(2, 6), rng.choice([3, 8, 40, 200])
        data = f"synthetic:tasks={tasks},rows={rows},features={features},rank=2,parts={parts},test_rows=0"
        units = [f"p{n}" for n in range(tasks * parts)]
    least = 2 if rounds is not None or rng.random() < 0.5 else 1
    holders = {unit: _sample(rng, workers, least) for unit in units}
    # Every worker stores something.
    for worker in workers:
        if not any(worker in held for held in holders.values()):
            unit = rng.choice(units)
            holders[unit] = tuple(sorted({*holders[unit], worker}))
    update = rng.choice((*("gradient",) * 3, "model", "statistics", "newton", "quasi-newton"))
    few = update != "gradient"
    if few:
        # A round of these is a problem to solve.
        data = data.replace("features=200", "features=8")
    fresh = rng.random() < 0.1
    coupling = rng.choice(("none", "nuclear", "l21", "mean-regularised", "chain"))
    chosen = update == "statistics" and coupling != "none" and rng.random() < 0.5
    settings = Settings(
        loss="squared" if update == "statistics" else rng.choice(("squared", "huber")),
        coupling=coupling,
        strength=None if chosen else rng.choice((0.01, 0.1)),
        rounds=rounds or rng.choice((5, 10, 15) if few else (5, 40, 120, 250)),
        aggregate="mean" if few else rng.choice(("mean", "mean", "median")),
        tolerance=rng.choice((0.0, 0.0, 1e-4)) if rounds is None else 0.0,
        update=update,
        epochs=2 if update == "model" else 1,
        accelerated=few or rng.random() < 0.7,
        dtype=rng.choice(("float32", "float64")),
        intercept="free",
        standardise=tables,
        folds=rng.choice((2, 5)),
        test_fraction=rng.choice((0.0, 0.0, 0.2)),
    )
    return Scenario(
        seed, settings, rng.choice(STRATEGIES),
        {worker: tuple(unit for unit in units if worker in holders[unit]) for worker in workers}, data,
        cover=not tables and rng.random() < 0.3, tls=rng.random() < 0.25, secret=rng.random() < 0.3,
        # A worker takes longer to come back if it must start an interpreter.
        fresh=fresh, rejoin=25.0 if fresh else 8.0,
        latency=rng.choice((0.0, 0.001, 0.003)), every=rng.choice((1, 5, 10, 50)), holders=holders,
    )  # fmt: skip


def _draw_wire(rng: random.Random, made: Scenario) -> Scenario:
    """Draw the group, if any, and in some runs vectors that take several ranges."""
    long = made.settings.update == "gradient"
    if long and made.data and made.settings.rounds <= 40 and rng.random() < 0.5:
        settings, data = replace(made.settings, rounds=min(made.settings.rounds, 25)), made.data.split(",")
        data = [f"features={rng.choice((20_000, 70_000))}" if w.startswith("features") else w for w in data]
        made = replace(made, settings=settings, data=",".join(data))
    if rng.random() < 0.5:
        return _draw_option(rng, made)
    # Ports below the kernel's ephemeral range, different for each concurrent run.
    group = f"239.192.77.77:{20_000 + made.seed % 10_000}"
    return replace(made, group=group, loss=rng.choice((0.0, 0.01, 0.1, 0.3)))


def _draw_option(rng: random.Random, made: Scenario) -> Scenario:
    """Draw rows between workers, a blind server, rounds that do not wait for one worker, or none of these."""
    kind = rng.choice(("", "peers", "blind", "silent"))
    if kind == "silent":
        held_twice = all(len(held) > 1 for held in made.holders.values())
        return replace(made, silent=1, strategy=rng.choice(("relay", "central"))) if held_twice else made
    if kind:
        made = replace(made, strategy=rng.choice(("relay", "uncoded")))
    if kind == "peers":
        return replace(made, downlink=kind)
    if kind == "blind":
        strength = 0.1 if made.settings.strength is None else made.settings.strength
        return replace(
            made, blind=True, settings=replace(made.settings, strength=strength, test_fraction=0.0)
        )
    return made


def _sample(rng: random.Random, workers: Sequence[str], least: int) -> tuple[str, ...]:
    return tuple(sorted(rng.sample(workers, rng.randint(least, len(workers)))))


def _draw_fault(
    rng: random.Random,
    scenario: Scenario,
    event: str = "",
    count: int = 0,
    kinds: Mapping[str, int] | None = None,
) -> Fault:
    kind = _choose(rng, kinds or WORKER | LINK | SERVER | OTHERS | (GROUP if scenario.group else {}))
    if not event:
        event = _choose(rng, MOMENTS)
        count = rng.randrange(scenario.settings.rounds) if event == "round" else rng.randint(1, 4)
    who = "" if kind in SERVER else rng.choice(list(scenario.stored))
    return Fault(
        kind, who, event, count, delay=rng.choice((0.0, rng.random() * 0.02, rng.random() * 0.3)),
        seconds=rng.choice((0.0, 0.1, 0.5, 1.0, 2.5)) * (0.5 + rng.random()), up=rng.random() < 0.5,
        place=rng.choice((rng.randrange(64), rng.randrange(4096))),
    )  # fmt: skip


def _draw_deaths(rng: random.Random, scenario: Scenario) -> tuple[Fault, ...]:
    """Kill some workers for good, once training has begun."""
    chosen = rng.sample(list(scenario.stored), rng.randint(1, len(scenario.stored) - 1))
    last = max(2, scenario.settings.rounds - 3)
    return tuple(Fault(FOR_GOOD, who, "round", rng.randrange(1, last), rng.random() * 0.05) for who in chosen)


def _draw_lie(rng: random.Random, scenario: Scenario) -> Fault | None:
    """Let one of several holders, but not the first, compute a wrong update."""
    shared = [unit for unit, held in scenario.holders.items() if len(held) > 1]
    if not shared or not scenario.data:
        return None
    unit = rng.choice(shared)
    who = rng.choice(scenario.holders[unit][1:])
    return Fault(LIE, who, "round", rng.randrange(min(20, scenario.settings.rounds)), place=int(unit[1:]))


def _choose(rng: random.Random, weights: Mapping[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def _write_table(path: Path, rng: random.Random) -> None:
    """Write a table of rows of some clinics, with numbers, categories and missing values."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["clinic", "age", "pressure", "ward", "score"])
        for clinic in sorted(rng.sample(range(5), rng.randint(1, 3))):
            for _ in range(rng.randint(1, 9)):
                age, pressure = rng.gauss(50, 20), rng.choice(["", rng.gauss(120, 15)])
                ward = rng.choice(["a", "b", "c", ""])
                writer.writerow([f"clinic {clinic}", age, pressure, ward, 0.1 * age + rng.gauss(0, 1)])
