"""G5: faults at random, one after the other and some at once: never two commands at the same moment.

Here a minute of it in all, over files. `python -m tests.torture` goes on for as long as one likes.
"""

from __future__ import annotations

import random
import signal

import pytest

from tests.e2e.instances import LEASE, Fleet, Instance, eventually, is_alive, kill, now
from tests.e2e.locks import Lock

ROUNDS = 6
"""Faults, one after the other."""


def victims(one: Instance, whom: str) -> list[int]:
    """The processes of an instance that a fault befalls."""
    commands = [each.pid for each in one.entries("start") if is_alive(each.pid)]
    electors = [one.elector] if whom in ("elector", "both", "all") else []
    return [*([one.pid] if whom != "elector" else []), *electors, *(commands if whom == "all" else [])]


@pytest.mark.parametrize("seed", [1, 2])
def test_g5_faults_at_random_never_make_two(fleet: Fleet, file_lock: Lock, seed: int) -> None:
    """Killed, or stopped for less or more than the lease: keeper, elector, both, all; and somebody leads again."""
    chance = random.Random(seed)
    count = 0

    def begin() -> Instance:
        nonlocal count
        count += 1
        return fleet.start(f"one-{count}", file_lock, chance.choice(["daemons=1", "linger=0.2", "ignore=SIGTERM"]))

    living = [begin() for _ in range(3)]
    for _ in range(ROUNDS):
        leader = eventually(lambda living=living: next(filter(leads, living), None), "somebody leads", 60)
        struck = leader if chance.random() < 0.8 else chance.choice(living)
        whom = chance.choice(["keeper", "elector", "both", "all"])
        what = chance.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
        pids = [struck.pid] if what == signal.SIGTERM else victims(struck, whom)
        for pid in pids:
            strike(pid, what)
        until = now() + chance.uniform(0.2, 1.6) * LEASE
        print(f"{struck.name}: {what.name} to {whom}")
        eventually(lambda until=until: now() > until, "it goes on")
        for pid in pids if what == signal.SIGSTOP else ():
            strike(pid, signal.SIGCONT)
        living = [one if one.process.poll() is None else begin() for one in living]
    eventually(lambda: any(leads(one) for one in living), "somebody leads at the end", 60)


def leads(one: Instance) -> bool:
    return any(is_alive(each.pid) for each in one.entries("start"))


def strike(pid: int, number: int) -> None:
    try:
        kill(pid, number)
    except ProcessLookupError:
        pass
