"""A worker's part in the agreement on the key of a blind run, over one connection to the server."""

from __future__ import annotations

import asyncio
import secrets

from asyncdmtl.blinding.agreement import Agreement, MemberProofs, Offer
from asyncdmtl.blinding.group_key import SECRET_BYTES, GroupKey
from asyncdmtl.errors import AuthenticationError, RemoteProtocolError, WaitError
from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.messages.keys import (
    GroupKeys,
    KeyControl,
    KeyOrder,
    KeyRequest,
    KeysGiven,
    RenewedKeys,
)
from asyncdmtl.worker.state import WorkerState


class KeyAgreement:
    """Gets the key of the group for a worker, and gives it to others.

    Parameters
    ----------
    connection : Connection
    state : WorkerState
        Has the worker's name, the run, and the key that the worker has.
    proofs : MemberProofs
        The proofs by which the workers know each other.
    """

    def __init__(self, connection: Connection, state: WorkerState, proofs: MemberProofs) -> None:
        assert state.run is not None
        self._connection = connection
        self._state = state
        self._run = state.run
        self._agreement = Agreement(state.run, state.name, proofs)
        self._answered = False
        # The key that replaces the present one, as soon as the server passes it on to all.
        self._next: GroupKey | None = None

    async def agree(self, seconds: float) -> None:
        """Ask for the key of the group, which this worker keeps if it has it, or if it is the first.

        Parameters
        ----------
        seconds : float
            The most seconds to wait for another worker that has it, as --start-timeout sets.

        Raises
        ------
        AuthenticationError
            The worker that gave it did not prove that it is a member of the group.
        WaitError, LinkError, PeerError, RemoteProtocolError
            The connection failed.
        """
        connection, group = self._connection, self._key
        connection.on_keys = self._act_on
        request = KeyRequest(self._agreement.offer, group.name, group.epoch, not self._state.agreed)
        await connection.send(request, seconds, "--start-timeout")
        try:
            async with asyncio.timeout(seconds):
                while not self._answered:
                    if connection.failure is not None:
                        raise connection.failure
                    await connection.inbox.changed()
        except TimeoutError:
            told = f"no key of the group came from {connection.peer}"
            raise WaitError(told, seconds=seconds, option="--start-timeout") from None

    @property
    def _key(self) -> GroupKey:
        assert self._state.group is not None
        return self._state.group

    def _act_on(self, message: KeyControl) -> None:
        """Act on a message of the server about keys."""
        if isinstance(message, GroupKeys):
            # At once, since orders to give the key to others may follow.
            given = message.giver
            self._state.adopt(self._key if given is None else self._agreement.taken(given, message.gift))
            self._answered = True
            self._connection.inbox.wake()
        elif isinstance(message, KeyOrder):
            self._connection.write(KeysGiven(message.order, self._gifts(message)))
        elif isinstance(message, RenewedKeys):
            self._renew(message)

    def _gifts(self, order: KeyOrder) -> tuple[bytes, ...]:
        """The keys of the group for other workers; none for one that is no member."""
        if not self._answered or order.epoch not in (self._key.epoch, self._key.epoch + 1):
            raise RemoteProtocolError(f"key {order.epoch} is asked of a worker that cannot give it")
        group = self._key
        if order.epoch > group.epoch:
            if self._next is None or self._next.epoch != order.epoch:
                self._next = GroupKey(secrets.token_bytes(SECRET_BYTES), self._run, group)
            group = self._next
        return tuple(self._gift(group, taker) for taker in order.takers)

    def _gift(self, group: GroupKey, taker: Offer) -> bytes:
        try:
            return self._agreement.gift(group, taker)
        except AuthenticationError:
            return b""

    def _renew(self, message: RenewedKeys) -> None:
        """Take a new key. It replaces the present one, so that none is taken twice, and no older one."""
        group, own = self._agreement.taken(message.giver, message.gift), self._key.secrets
        if group.epoch <= self._key.epoch or group.secrets[: len(own)] != own:
            raise RemoteProtocolError(f"key {group.epoch} does not follow key {self._key.epoch}")
        self._state.adopt(group)
