"""The options of a worker."""

from __future__ import annotations

from dataclasses import dataclass, field

from asyncdmtl.blinding.agreement import MemberProofs
from asyncdmtl.errors import UsageError
from asyncdmtl.net.addresses import parse_address
from asyncdmtl.net.transport import LONGEST_WAIT, check_positive
from asyncdmtl.plan.validation import WANTS
from asyncdmtl.worker.jobs import ALONE, JobPlace

# The value of `peer_listen` by which a worker accepts no connections of other workers.
NO_PEERS = "none"

# The most characters of a worker's name, as in the protocol.
LONGEST_WORKER_NAME = 200

# A worker waits for the server's reply this number of times `--round-timeout`. Both ends may have the same
# timeout: the server then gives a silent worker up first, and has half of it to hand out a new plan.
REPLY_TIMEOUTS = 1.5


@dataclass(frozen=True)
class WorkerOptions:
    """The options of a worker.

    Attributes
    ----------
    name : str
        The worker's name, unique in the run.
    max_wait : float
        Seconds to wait for a server that is not up yet, or whose connection was lost.
    start_timeout : float
        Seconds to wait for the first plan.
    round_timeout : float
        Seconds until the server has received a message. Its rows are waited for half as long again
        (`reply_limit`).
    silence_timeout : float
        Seconds after which a server that sends nothing counts as lost.
    interface : str
        The interface on which datagrams of a multicast group arrive: its name, or an address of this host.
        If empty, the interface of the connection.
    test_fraction : float or None
        The share of test rows of each partition; None for the server's setting.
    least_rows : int
        The worker does not take part if a partition has fewer training rows than this, or a fold has, if the
        run chooses λ.
    peer_listen : str
        Where other workers may take rows from this one: HOST:PORT, or `NO_PEERS`; if empty, a free port at
        the address of the connection to the server.
    group_secret : bytes or None
        The secret that the workers of a blind run share, and the server does not know.
    group_proofs : MemberProofs or None
        The proofs by which the workers of a blind run know each other, to agree on a key; not both with
        `group_secret`.
    wants : str
        The models that the worker wants: "all", "own" (of the tasks that it stores data of) or "none"; if
        empty, those that the strategy of the run gives.
    place : JobPlace
        The place of the run in a stream of jobs.

    Raises
    ------
    UsageError
        An option breaks a rule.
    """

    name: str
    max_wait: float = 60.0
    start_timeout: float = 3600.0
    round_timeout: float = 600.0
    silence_timeout: float = 10.0
    interface: str = ""
    test_fraction: float | None = None
    least_rows: int = 1
    wants: str = ""
    place: JobPlace = ALONE
    peer_listen: str = ""
    group_secret: bytes | None = field(default=None, repr=False)
    group_proofs: MemberProofs | None = field(default=None, repr=False)

    @property
    def reply_limit(self) -> tuple[float, str]:
        """Seconds to wait for the server in a round, while it may give up another worker; and the option."""
        return REPLY_TIMEOUTS * self.round_timeout, "--round-timeout"

    @property
    def blind(self) -> bool:
        """Whether the server must learn nothing of the data."""
        return self.group_secret is not None or self.group_proofs is not None

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= LONGEST_WORKER_NAME or not self.name.isprintable():
            rule = f"must be 1 to {LONGEST_WORKER_NAME} printable characters"
            raise UsageError("--name", rule, self.name)
        if not 0 <= self.max_wait <= LONGEST_WAIT:
            raise UsageError("--max-wait", f"must lie between 0 and {LONGEST_WAIT:g} seconds", self.max_wait)
        if self.test_fraction is not None and not 0.0 <= self.test_fraction < 1.0:
            raise UsageError("--test-fraction", "must be at least 0 and below 1", self.test_fraction)
        if self.wants and self.wants not in WANTS:
            raise UsageError("--wants", f"must be one of {', '.join(WANTS)}", self.wants)
        if self.peer_listen not in ("", NO_PEERS):
            parse_address(self.peer_listen, "--peer-listen")
        if self.least_rows < 1:
            raise UsageError("--least-rows", "must be at least 1", self.least_rows)
        check_positive(
            start_timeout=self.start_timeout,
            round_timeout=self.round_timeout,
            silence_timeout=self.silence_timeout,
        )
