"""The fork server of `tools/chaos.py`: an interpreter that has imported the package and forks each process.

A new interpreter takes half a second to import the package, a fork some milliseconds. So hundreds of runs can
have real processes, which can be killed, frozen and started again.

Reads jobs from standard input, one JSON object a line: `id`, `module` ("server", "relay" or "worker"),
`words` (its options), `out` and `err` (files), `environment`, `fresh` (start an interpreter of its own),
`lie` (the round and the partition in whose update a number changes its sign; or null), `loss` (the share of
datagrams that it loses) and `attack` (the one of `attacks.ATTACKS` that it carries out, or null); the last
three need a process that is not `fresh`. The fork server reports `ready`, answers each job with `id` and
`pid`, and reports `id` and `code` when a process has ended. It ends, with all processes, when its standard
input ends.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import select
import signal
import sys
import time
import warnings
from typing import Any

import numpy as np
from attacks import ATTACKS

from asyncdmtl.cli import relay, server, worker
from asyncdmtl.cli.failure import execute
from asyncdmtl.learning.local_updates import LocalUpdates
from asyncdmtl.net.udp import GroupReceiver

COMMANDS = {"relay": relay.main, "server": server.main, "worker": worker.main}


def main() -> None:
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    waiting = b""
    _say({"ready": True})
    while True:
        readable, _, _ = select.select([0, woken], [], [])
        if woken in readable:
            os.read(woken, 1 << 10)
            _reap(running)
        if 0 in readable:
            data = os.read(0, 1 << 16)
            if not data:
                break
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                job = json.loads(line)
                pid = os.fork()
                if not pid:
                    os.close(woken)
                    os.close(waker)
                    _become(job)
                    return
                running[pid] = job["id"]
                _say({"id": job["id"], "pid": pid})
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _reap(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        _say({"id": running.pop(pid), "code": os.waitstatus_to_exitcode(status)})


def _say(answer: dict[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


def _become(job: dict[str, Any]) -> None:
    """Become the server or worker of a job; called in the forked process."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for number, (path, flags) in enumerate(
        [
            (os.devnull, os.O_RDONLY),
            (job["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
            (job["err"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        ]
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.update(job["environment"])
    if job["fresh"]:
        command = [sys.executable, "-W", "default", "-m", f"asyncdmtl.{job['module']}", *job["words"]]
        os.execv(sys.executable, command)
    warnings.simplefilter("default")
    if job["lie"] is not None:
        _plant(*job["lie"])
    if job["loss"]:
        _lose(job["loss"], f"{job['id']} {job['out']}")
    if job["attack"] is not None:
        ATTACKS[job["attack"]].plant()
    sys.argv = [job["module"], *job["words"]]
    execute(COMMANDS[job["module"]])


def _plant(round_: int, partition: str) -> None:
    """Make one number of one update wrong, once: it changes its sign."""
    honest, rounds = LocalUpdates.pack, itertools.count()

    def pack(updates: LocalUpdates, out: np.ndarray[Any, Any]) -> Any:
        losses = honest(updates, out)
        own = [updates._problem.infos[n].id for n in updates.own]
        if next(rounds) == round_:
            row = out[own.index(partition)].view(np.uint8)
            row[7 if out.dtype == np.uint8 else out.dtype.itemsize - 1] ^= 0x80
        return losses

    LocalUpdates.pack = pack  # type: ignore[assignment, method-assign]


def _lose(share: float, seed: str) -> None:
    """Lose a share of all datagrams, and sometimes all datagrams for up to two seconds."""
    hear, rng, deaf_until = GroupReceiver._hand_over, random.Random(seed), 0.0

    def hand_over(receiver: GroupReceiver, datagram: memoryview) -> None:
        nonlocal deaf_until
        now = time.monotonic()
        if rng.random() < 2e-4:
            deaf_until = now + rng.random() * 2
        if now > deaf_until and rng.random() > share:
            hear(receiver, datagram)

    GroupReceiver._hand_over = hand_over  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    main()
