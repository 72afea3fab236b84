"""G1: the elector is killed, stopped, in a busy loop or out of memory.

The command ends gracefully by `kill_by`, unless a new elector renews first; then the command never notices.
"""

from __future__ import annotations

import signal

import pytest

from tests.e2e.instances import Fleet, Watched, eventually, is_alive, kill, now, renews, stop
from tests.e2e.locks import Lock
from tests.guard.places import (
    FAILURES,
    FIRM,
    LONG,
    end_each_elector,
    end_of_starved,
    inside,
    next_start,
    places,
    seen_from_here,
    start,
    watched_of,
)

ways = pytest.mark.parametrize("way", FAILURES)


@places
@ways
def test_g1_a_failing_elector_is_replaced_and_the_command_never_notices(
    fleet: Fleet, file_lock: Lock, way: str, place: str
) -> None:
    """One that hangs is worse than one that is dead, as nothing tells of it: the keeper notices by its silence."""
    one = start(place, fleet, "one", file_lock, settings={"election": LONG}, environment=inside(fleet.folder))
    begun = one.started()
    command = seen_from_here(one, begun.pid)
    renews(file_lock, 2)
    elector = one.elector
    with end_of_starved(elector):
        FAILURES[way](elector, fleet.folder)
        one.other_elector(elector)
    assert not is_alive(elector), "there are never two of them"
    renews(file_lock, 4)
    assert one.entries("start") == [begun] and one.signals() == [] and is_alive(command)
    record = file_lock.record()
    assert record is not None and record.holder == "one" and record.transitions == 0


@places
@ways
def test_g1_without_a_new_elector_the_command_ends_gracefully_by_kill_by(
    fleet: Fleet, file_lock: Lock, way: str, place: str
) -> None:
    """The dead-man guard: the keeper alone asks, gives the command its time, and the next starts after its end."""
    settings = {"election": FIRM, "stop": {"timeout": "60s"}}
    one = start(place, fleet, "one", file_lock, "linger=0.3", settings=settings, environment=inside(fleet.folder))
    command = Watched(seen_from_here(one, one.started().pid))
    other = fleet.start("other", file_lock, settings={"election": FIRM})
    other.follows()
    renews(file_lock, 2)
    elector = one.elector
    with end_of_starved(elector):
        FAILURES[way](elector, fleet.folder)
        failed = now()
        end_each_elector(one, lambda: not is_alive(command.pid), but=elector)
        gone = command.wait()
    assert one.signals() == [signal.SIGTERM] and one.entries("end"), "it was asked, and has ended by itself"
    assert gone < failed + FIRM["lease_duration"]
    assert next_start(one, other).at > one.last_sign()


@places
def test_g1_a_command_that_will_not_end_is_killed_by_kill_by(fleet: Fleet, file_lock: Lock, place: str) -> None:
    """What the elector would not say any more, the last grant has said: both of its dates are kept."""
    settings = {"election": FIRM, "stop": {"timeout": "60s"}}
    words = ("ignore=SIGTERM", "daemons=1")
    one = start(place, fleet, "one", file_lock, *words, settings=settings, environment=inside(fleet.folder))
    watched = watched_of(one, 1)
    other = fleet.start("other", file_lock)
    other.follows()
    renews(file_lock, 2)
    failed = now()
    end_each_elector(one, lambda: not any(is_alive(each.pid) for each in watched))
    gone = max(each.wait() for each in watched)
    assert one.signals()[0] == signal.SIGTERM and not one.entries("end")
    assert gone < failed + FIRM["lease_duration"]
    assert next_start(one, other).at > one.last_sign()


@places
def test_g1_an_elector_that_hangs_when_it_is_new_is_replaced_as_soon_as_the_command_was_stopped(
    fleet: Fleet, file_lock: Lock, place: str
) -> None:
    """It has led: that nothing depends on it any more does not make it a follower, which may be silent for long."""
    election = {"lease_duration": 5, "renew_deadline": 2, "kill_margin": 1}
    one = start(place, fleet, "one", file_lock, settings={"election": election})
    one.started()
    elector = one.elector
    stop(elector)
    one.other_elector(elector)
    assert one.started(2).at > one.last_sign()


def test_g1_an_elector_killed_on_a_cluster_is_replaced_too(fleet: Fleet, lock: Lock) -> None:
    """Its successor finds the lease its own by what is written in it, whatever the lease is kept in."""
    one = fleet.start("one", lock, settings={"election": LONG})
    other = fleet.start("other", lock, settings={"election": LONG})
    leader = eventually(lambda: next((each for each in (one, other) if each.entries("start")), None), "one leads")
    begun = leader.entries("start")[0]
    renews(lock, 2)
    elector = leader.elector
    kill(elector)
    leader.other_elector(elector)
    renews(lock, 4)
    assert leader.signals() == [] and is_alive(begun.pid)
    assert [each.what for each in fleet.entries()].count("start") == 1
    record = lock.record()
    assert record is not None and record.holder == leader.name and record.transitions == 0


def test_g1_an_elector_killed_during_the_stop_is_replaced_and_the_lease_released(fleet: Fleet, file_lock: Lock) -> None:
    """The command is not hurried by it, and the next need not wait for the lease to run out."""
    settings = {"election": LONG, "stop": {"timeout": "60s"}}
    first = fleet.start("first", file_lock, "linger=2.5", settings=settings)
    first.started()
    second = fleet.start("second", file_lock, settings={"election": LONG})
    second.follows()
    first.tell(signal.SIGTERM)
    eventually(lambda: first.signals() == [signal.SIGTERM], "it is asked to stop")
    kill(first.elector)
    assert first.ends() == 0
    assert first.signals() == [signal.SIGTERM]
    assert first.entries("end") != []
    record = file_lock.record()
    assert record is not None and (record.released_by == record.instance or record.holder == "second")
    second.started()
