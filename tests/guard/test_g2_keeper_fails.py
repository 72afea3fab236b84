"""G2: the keeper is stopped or killed.

The command's tree is dead before the lease runs out, and before another starts; nothing wakes up later.
"""

from __future__ import annotations

import signal

import pytest

from tests.e2e.instances import RETRY, Fleet, Watched, eventually, is_alive, kill, now, renews, stop
from tests.e2e.locks import Lock
from tests.guard.places import FIRM, places, start, watched_of


def test_g2_a_killed_keeper_takes_its_whole_tree_with_it_before_the_next_starts(fleet: Fleet, lock: Lock) -> None:
    """The elector acts for it, and gives the lease back when the last process has been seen to end."""
    election = {"election": {"lease_duration": 12, "renew_deadline": 8}}
    first = fleet.start("first", lock, "ignore=SIGTERM", "daemons=2", settings=election)
    watched = watched_of(first, 2)
    second = fleet.start("second", lock)
    second.follows()
    killed = now()
    kill(first.pid)
    for each in watched:
        each.wait()
    assert first.last_sign() < second.started().at < killed + 12 - 2 * RETRY, "the lease was released"
    assert first.signals() == []


def test_g2_a_killed_pid_1_takes_its_namespace_with_it_and_the_lease_runs_out(fleet: Fleet, file_lock: Lock) -> None:
    """The kernel ends all that is in the namespace, the elector too: nobody is left who could release."""
    first = start("init", fleet, "first", file_lock, "ignore=SIGTERM", "daemons=2", settings={"election": FIRM})
    watched = watched_of(first, 2)
    elector = Watched(first.elector)
    second = fleet.start("second", file_lock)
    second.follows()
    before = now()
    renews(file_lock, 1)
    kill(first.pid)
    for each in (*watched, elector):
        each.wait()
    assert second.started().at > max(first.last_sign(), before + FIRM["lease_duration"])


@places
def test_g2_a_keeper_stopped_for_longer_than_the_lease_starts_nothing_when_it_goes_on(
    fleet: Fleet, lock: Lock, place: str
) -> None:
    """Its elector sees no acknowledgement, ends the tree, and only then lets another lead."""
    first = start(place, fleet, "first", lock, "daemons=1", settings={"election": FIRM})
    begun = first.started()
    watched = watched_of(first, 1)
    second = fleet.start("second", lock)
    second.follows()
    stop(first.pid)
    stopped = now()
    gone = max(each.wait() for each in watched)
    assert gone < stopped + FIRM["lease_duration"]
    assert first.last_sign() < second.started().at
    over = stopped + FIRM["lease_duration"] + 0.1
    eventually(lambda: now() > over, "the lease would be over")
    try:
        kill(first.pid, signal.SIGCONT)
    except ProcessLookupError:
        pass
    status = first.ends()
    assert place == "init" or status == -signal.SIGKILL, "where it could, its elector has killed it"
    assert first.entries("start") == [begun]
    renews(lock, 2)


@pytest.mark.parametrize("also", ["elector", "elector and shim"])
def test_g2_an_instance_stopped_for_longer_than_the_lease_never_makes_two(
    fleet: Fleet, file_lock: Lock, also: str
) -> None:
    """The whole of it is frozen but for what stays dead: woken up after the others' wait, it runs nothing any more."""
    first = fleet.start("first", file_lock, settings={"election": FIRM})
    begun = first.started()
    watched = Watched(begun.pid)
    everyone = [begun.pid, first.pid, first.elector, *([first.shim] if "shim" in also else [])]
    second = fleet.start("second", file_lock)
    second.follows()
    before = now()
    renews(file_lock, 1)
    stop(*everyone)
    started = second.started().at
    if "shim" in also:  # else it ends the keeper, and the kernel continues the elector, which releases
        assert started > before + FIRM["lease_duration"]
    for pid in everyone[1:]:
        if is_alive(pid):
            kill(pid, signal.SIGCONT)
    watched.wait()
    assert first.entries("start") == [begun]
    second.tell(signal.SIGTERM)
    second.ends()
