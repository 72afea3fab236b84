"""G5: faults at random, one after the other and some at once: never two commands at the same moment.

Here each kind once, over files. `python -m tests.torture` has more of them, and goes on for as long as one likes.
"""

from __future__ import annotations

import random
import signal

import pytest

from tests.e2e.instances import Fleet, Instance, eventually, is_alive, kill, now
from tests.e2e.locks import Lock
from tests.guard.places import electors_of

FAULTS = [
    *((what, whom) for what in (signal.SIGKILL, signal.SIGSTOP) for whom in ("keeper", "elector", "both", "all")),
    (signal.SIGTERM, "keeper"),
]
random.Random(5).shuffle(FAULTS)
ELECTION = {"lease_duration": 4, "kill_margin": 1.5}
COMMANDS = ["linger=0.2", "ignore=SIGTERM", "linger=0"]


def victims(one: Instance, whom: str) -> list[int]:
    """The processes of an instance that a fault befalls."""
    commands = [each.pid for each in one.entries("start") if is_alive(each.pid)]
    electors = electors_of(one) if whom != "keeper" else []
    return [*([one.pid] if whom != "elector" else []), *electors, *(commands if whom == "all" else [])]


@pytest.mark.parametrize("faults", [FAULTS[:5], FAULTS[5:]], ids=["first", "second"])
def test_g5_faults_at_random_never_make_two(
    fleet: Fleet, file_lock: Lock, faults: list[tuple[signal.Signals, str]]
) -> None:
    """The leader's keeper, elector, both or all are killed, or stopped for less or more than the lease."""
    chance = random.Random(len(faults))
    count = 0

    def begin() -> Instance:
        nonlocal count
        count += 1
        words = (chance.choice(COMMANDS), "daemons=1")
        return fleet.start(f"one-{count}", file_lock, *words, settings={"election": ELECTION})

    living = [begin() for _ in range(3)]
    for what, whom in faults:
        leader = eventually(lambda living=living: next(filter(leads, living), None), "somebody leads", 60)
        leader.daemons(1)
        pids = victims(leader, whom)
        for pid in pids:
            strike(pid, what)
        until = now() + chance.uniform(0.2, 1.6) * ELECTION["lease_duration"]
        print(f"{leader.name}: {what.name} to {whom}")
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
