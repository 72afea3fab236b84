"""Who leads, and how leadership goes from one instance to the next."""

from __future__ import annotations

import os
import signal

import pytest

from awaitelect.errors import EXIT_LOST
from tests.e2e.instances import LEASE, Fleet, Watched, eventually, is_alive, now, renews
from tests.e2e.locks import Lock

LONG = {"lease_duration": 20, "renew_deadline": 18}
"""An election whose term a busy machine does not end. An instance that has missed a whole term of another's waits for
the lease to run out: there is patience for that.
"""
SLACK = 15.0
"""Seconds that a busy machine may add to what should take milliseconds: a lease of LONG has not been waited for, nor
the minute until a follower reads again without a cause.
"""


def test_the_first_starts_its_command_and_the_second_waits(fleet: Fleet, lock: Lock) -> None:
    """The promise itself: of two, one runs; and its record says so to everybody else."""
    first = fleet.start("first", lock)
    first.started()
    second = fleet.start("second", lock)
    second.follows()
    record = lock.record()
    assert record is not None and record.holder == "first"
    assert second.entries() == []


def test_sigterm_hands_over_at_once_and_only_when_the_command_is_gone(fleet: Fleet, lock: Lock) -> None:
    """A planned hand-over waits for no lease: the next starts in the moment in which the last process has ended."""
    first = fleet.start("first", lock, "exit=7", "linger=0.3", "daemons=1", settings={"election": LONG})
    start = first.started()
    first.daemons(1)
    second = fleet.start("second", lock)
    second.follows()
    first.tell(signal.SIGTERM)
    assert first.ends() == 7
    assert first.signals() == [signal.SIGTERM]
    next_start = second.started()
    last_sign = first.last_sign()
    assert last_sign < next_start.at < last_sign + SLACK
    assert not is_alive(start.pid)
    assert int(next_start.detail.split(",")[0]) > int(start.detail.split(",")[0]), "the fencing token grows"
    record = lock.record()
    assert record is not None and record.holder == "second" and record.transitions == 1


def test_without_a_successor_the_lease_is_left_empty_and_signed(fleet: Fleet, lock: Lock) -> None:
    """Whoever comes later must not wait for an instance that has ended in order."""
    only = fleet.start("only", lock)
    only.started()
    only.tell(signal.SIGTERM)
    assert only.ends() == 0
    record = lock.record()
    assert record is not None and record.holder == "" and record.released_by == record.instance != ""
    later = fleet.start("later", lock, settings={"election": LONG})
    begun = now()
    assert later.started().at < begun + SLACK


def test_after_a_crash_of_everything_the_next_waits_for_the_lease_and_not_longer(fleet: Fleet, lock: Lock) -> None:
    """Nobody is left who could release it: time alone gives it away."""
    first = fleet.start("first", lock)
    first.started()
    second = fleet.start("second", lock)
    second.follows()
    begun = now()
    renews(lock, 1)
    first.wipe_out()
    ended = now()
    assert begun + LEASE < second.started().at < ended + LEASE + SLACK


def test_a_lease_taken_by_another_ends_the_command_without_grace(fleet: Fleet, lock: Lock) -> None:
    """E24: the other may be starting this very moment. Afterwards it is a follower again, and leads again (E20)."""
    one = fleet.start("one", lock, "ignore=SIGTERM", "daemons=1", settings={"election": LONG})
    start = one.started()
    watched = [Watched(start.pid), *map(Watched, one.daemons(1))]
    edited = now()
    lock.take("intruder")
    assert max(each.wait() for each in watched) < edited + 5, "a grace lasts ten seconds"
    assert one.signals() == [], "it was not asked, it was killed"
    one.says("'intruder' has taken the lease from us")
    again = one.started(2)
    assert again.at > edited + 1.0, "the intruder's own duration was waited for"
    assert again.pid != start.pid


def test_a_lost_lease_ends_the_instance_where_that_is_asked_for(fleet: Fleet, lock: Lock) -> None:
    """`election.on_lost: exit`: the way of k8s-await-election, with a status of its own."""
    one = fleet.start("one", lock, settings={"election": {"on_lost": "exit"}})
    watched = Watched(one.started().pid)
    lock.take("intruder")
    assert one.ends() == EXIT_LOST
    watched.wait(0)
    record = lock.record()
    assert record is not None and record.holder == "intruder"


def test_a_deleted_lease_is_made_again_and_the_command_does_not_notice(fleet: Fleet, lock: Lock) -> None:
    """E13: a deletion is nobody's take-over. The follower must not use it either."""
    first = fleet.start("first", lock, settings={"election": LONG})
    start = first.started()
    second = fleet.start("second", lock, settings={"election": LONG})
    second.follows()
    for _ in range(3):
        lock.delete()
        eventually(
            lambda: (made := lock.record()) and made.holder == "first", "the lease is made again", pace=lock.pace
        )
    renews(lock, 1)
    assert first.entries("start") == [start] and is_alive(start.pid)
    assert second.entries() == []


@pytest.mark.parametrize("count", [4])
def test_of_many_that_start_together_one_leads_and_each_gets_its_turn(
    fleet: Fleet, file_lock: Lock, count: int
) -> None:
    """However they race for it, one after the other."""
    waiting = [fleet.start(f"one-{number}", file_lock, settings={"election": LONG}) for number in range(count)]
    while waiting:
        leader = eventually(lambda: next((one for one in waiting if one.entries("start")), None), "somebody leads")
        os.kill(leader.pid, signal.SIGTERM)
        assert leader.ends() == 0
        waiting.remove(leader)
    assert len({one.run for one in fleet.entries()}) == count
