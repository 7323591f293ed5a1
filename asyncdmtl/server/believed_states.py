"""The states of the training that the server believes its members to hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asyncdmtl.errors import StateError
from asyncdmtl.exchange.states import Majority
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.server.member import Member
from asyncdmtl.server.training_progress import TrainingProgress
from asyncdmtl.server.training_state import TrainingState

# The number of last rounds whose checks are kept, so that long runs take no more memory. A worker that comes
# back with an older state is given a later one.
KEPT_ROUNDS = 64


class BelievedStates:
    """Compares the states that members hold, and remembers those of the last rounds.

    A state is believed if more than half of the members hold it. The server takes no worker's word for a
    round that it has not made.

    Parameters
    ----------
    progress : TrainingProgress

    Attributes
    ----------
    unconfirmed : set of str
        Workers that were given a state which no majority has confirmed yet. They have no vote about it.
    """

    def __init__(self, progress: TrainingProgress) -> None:
        self.unconfirmed: set[str] = set()
        self._progress = progress
        self._checks: dict[int, bytes] = {}
        if progress.saved is not None:
            self._checks[progress.saved.round] = progress.saved.check
        if progress.ending is not None and progress.ending.check:
            self._checks[progress.round] = progress.ending.check

    def check(self, round_: int) -> bytes | None:
        """The check of the believed state at the beginning of a round; None if it is not known."""
        return self._checks.get(round_)

    def confirm(self, told: Mapping[str, bytes], expected: Sequence[bytes] | None) -> None:
        """Compare the checks that members sent for the current round.

        Parameters
        ----------
        told : mapping of worker to check
        expected : sequence of bytes, optional
            The checks that they must send, in the same order, if the server has the state itself.

        Raises
        ------
        StateError
            Some members hold another state than most, or no state has a majority.
        """
        number, states = self._progress.round, self._progress.states
        if expected is not None:
            pairs = zip(told.items(), expected, strict=True)
            odd, right = tuple(worker for (worker, check), right in pairs if check != right), b""
        elif told:
            majority = self._majority(told)
            self._checks[number] = majority.check
            self._checks = {n: check for n, check in self._checks.items() if n > number - KEPT_ROUNDS}
            self.unconfirmed.clear()
            odd, right = majority.odd, majority.check
        if told and odd:
            near = [worker for worker in odd if states.near(told[worker], right)]
            raise _odd_states(odd, number, near)

    def compare(self, worker: str, check: bytes, round_: int) -> None:
        """Compare the check that a late worker sent for an earlier round, if that round's is known.

        Raises
        ------
        StateError
            The worker holds another state than most did.
        """
        known, states = self._checks.get(round_), self._progress.states
        if known is not None and not states.same(check, known):
            raise _odd_states([worker], round_, [worker] if states.near(check, known) else [])

    def latest(self, members: Sequence[Member]) -> TrainingState:
        """The state to continue from: that of the current round if a member has it, else the farthest one."""
        progress = self._progress
        # A worker that wants no models has only the state of round 0, with which all workers begin.
        current = tuple(m for m in members if m.current and not (m.helps and progress.round))
        if progress.trainer is not None:
            state = progress.trainer.state()
            return TrainingState(progress.round, progress.over, current, state, progress.states.check(state))
        if current:
            known = self._checks.get(progress.round, b"")
            return TrainingState(progress.round, progress.over, current, None, known)
        return self._farthest(members)

    def _majority(self, told: Mapping[str, bytes]) -> Majority:
        """The state of the current round that is known, or that most members hold."""
        states, number = self._progress.states, self._progress.round
        if (known := self._checks.get(number)) is not None:
            return Majority(known, tuple(w for w, check in told.items() if not states.same(check, known)))
        voters = {worker: check for worker, check in told.items() if worker not in self.unconfirmed} or told
        majority = states.majority(voters)
        if majority is None:
            names = ", ".join(map(repr, sorted(voters, key=natural_key)))
            raise StateError(
                f"workers {names} hold different states of the training in round {number}, and no state "
                "has a majority: a number in memory was corrupted, or a worker is dishonest; compare what "
                "`python -m asyncdmtl.arithmetic` prints on their machines, or test their memory",
                workers=sorted(voters, key=natural_key),
                mendable=False,
            )
        odd = tuple(w for w, check in told.items() if not states.same(check, majority.check))
        return Majority(majority.check, odd)

    def _farthest(self, members: Sequence[Member]) -> TrainingState:
        """The farthest state that is believed, of those that were declared, saved, or are the initial one."""
        progress, states = self._progress, self._progress.states
        found = [self._initial(members)]
        if (saved := progress.saved) is not None:
            place = saved.round, saved.over
            same = (
                m for m in members if (m.round, self._over(m)) == place and states.same(m.state, saved.check)
            )
            found.append(TrainingState(*place, tuple(same), saved.state, saved.check))
        groups: dict[tuple[int, bool], list[Member]] = {}
        for member in members:
            if member.helps:
                continue
            groups.setdefault((member.round, self._over(member)), []).append(member)
        for (round_, over), group in groups.items():
            if not self._possible(round_, over):
                continue
            check = self._checks.get(round_) or self._voted(group)
            holders = tuple(m for m in group if check is not None and states.same(m.state, check))
            if check is not None and holders:
                found.append(TrainingState(round_, over, holders, None, check))
        return max(found, key=TrainingState.rank)

    def _over(self, member: Member) -> bool:
        """Whether training was over at a member. A blind server learns that from the last messages only."""
        progress = self._progress
        if not progress.blind:
            return member.over
        return progress.over and member.round == progress.round

    def _possible(self, round_: int, over: bool) -> bool:
        """Whether a worker can have the state of this round; that of round 0 is known to all."""
        progress = self._progress
        if progress.resumed:
            return 0 < round_ <= progress.problem.rounds
        return 0 < round_ <= progress.round and over == (progress.over and round_ == progress.round)

    def _voted(self, members: Sequence[Member]) -> bytes | None:
        """The check that more than half of the workers under the last plan declared, if there is one."""
        electorate = self._progress.electorate
        told = {member.name: member.state for member in members if member.name in electorate}
        majority = self._progress.states.majority(told, len(electorate))
        return None if majority is None else majority.check

    def _initial(self, members: Sequence[Member]) -> TrainingState:
        """The state before the first round, which the server makes itself if some members have another."""
        # A worker that wants no models, and has made the round, must be told to begin anew.
        begun = [m for m in members if m.helps and m.current]
        new = tuple(m for m in members if (m.round, m.over, m.state) == (0, False, b"") and m not in begun)
        if len(new) == len(members):
            return TrainingState(0, False, new)
        state, check = self._progress.states.initial()
        same = (
            m
            for m in members
            if m in new or (m.round == 0 and not m.over and m.state == check != b"" and m not in begun)
        )
        return TrainingState(0, False, tuple(same), state, check)


def _odd_states(odd: Sequence[str], round_: int, near: Sequence[str]) -> StateError:
    """The error that workers hold another state of the training than most; for `near` see `StateError`."""
    names = ", ".join(map(repr, odd))
    drifted = "rounding errors have grown under this plan, or " if near else ""
    return StateError(
        f"the state of the training at {names} in round {round_} is not that of most workers: "
        f"{drifted}a number in memory was corrupted, or the worker is dishonest",
        workers=odd,
        mendable=True,
        near=near,
    )
