"""Which clock counts: CLOCK_BOOTTIME alone, and one machine's has nothing to do with another's.

Time namespaces have clocks with an offset. A machine that has slept has CLOCK_BOOTTIME ahead of CLOCK_MONOTONIC: so
have these. What cannot be shown here is that the kernel rings an alarm which was set before it slept when it wakes up.
"""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.e2e.instances import LEASE, RETRY, Fleet, Instance, Watched, eventually, is_alive, kill, now, renews, stop
from tests.e2e.locks import Lock
from tests.e2e.test_init import keeper_of
from tests.guard.places import FIRM, end_each_elector, inside, next_start

needs_time_namespace = pytest.mark.skipif(
    subprocess.run(["unshare", "--time", "--boottime", "1", "true"], capture_output=True).returncode != 0,
    reason="needs a time namespace, and root",
)
AHEAD, BEHIND = 50_000, -10
"""Seconds; no clock may begin before zero, so that of the test's own machine says how far behind one can be."""
OFFSETS = {
    "slept for long": ["--boottime", str(AHEAD)],
    "monotonic ahead": ["--monotonic", str(AHEAD)],
    "monotonic behind": ["--monotonic", str(BEHIND)],
}

pytestmark = needs_time_namespace


def start_in(offset: str, fleet: Fleet, name: str, lock: Lock, *words: str, **settings: object) -> Instance:
    """An instance whose clocks have this offset; its commands write down the time of the test's own clock."""
    prefix = ["unshare", "--time", *OFFSETS[offset], "--fork", "--kill-child"]
    chosen = {"election": FIRM, **settings}
    one = fleet.start(name, lock, *words, prefix=prefix, settings=chosen, environment=inside(fleet.folder))
    one.pid = keeper_of(one.pid)
    return one


@pytest.mark.parametrize("offset", OFFSETS)
def test_an_offset_between_the_clocks_changes_no_date(fleet: Fleet, file_lock: Lock, offset: str) -> None:
    """A date on one of them and a timer on the other would fire at once, or never."""
    one = start_in(offset, fleet, "one", file_lock, "ignore=SIGTERM", stop={"timeout": "60s"})
    command = Watched(one.started().pid)
    other = fleet.start("other", file_lock)
    other.follows()
    renews(file_lock, 8)
    assert one.signals() == [] and other.entries() == []
    failed = now()
    end_each_elector(one, lambda: not is_alive(command.pid))
    gone = command.wait()
    assert failed + FIRM["renew_deadline"] - 2 * RETRY - 0.5 < one.entries("signal")[0].at
    assert gone < failed + FIRM["lease_duration"]
    assert next_start(one, other).at > one.last_sign()


def test_instances_whose_clocks_differ_by_hours_take_turns(fleet: Fleet, file_lock: Lock) -> None:
    """No instant of one machine means anything on another: planned, and after a crash of everything."""
    ahead = start_in("slept for long", fleet, "ahead", file_lock)
    ahead.started()
    here = fleet.start("here", file_lock, settings={"election": FIRM})
    here.follows()
    kill(ahead.pid, signal.SIGTERM)
    assert ahead.ends() == 0
    here.started()
    again = start_in("slept for long", fleet, "again", file_lock)
    again.follows()
    before = now()
    renews(file_lock, 1)
    here.wipe_out()
    assert again.started().at > before + FIRM["lease_duration"]


def test_a_clock_that_has_jumped_ends_the_term_at_once(fleet: Fleet, file_lock: Lock) -> None:
    """As after a sleep of hours: all dates have passed, and the command is killed, not asked. Then it follows again."""
    folder = fleet.folder
    ahead = subprocess.Popen(
        ["unshare", "--time", *OFFSETS["slept for long"], "--fork", "--kill-child", "sleep", "1000"]
    )
    try:
        environment = {**inside(folder), "E2E_JUMPS": "1"}
        one = fleet.start("one", file_lock, "ignore=SIGTERM", settings={"election": FIRM}, environment=environment)
        begun = one.started()
        command = Watched(begun.pid)
        renews(file_lock, 2)
        sleeper = eventually(lambda: Fleet.child_running(ahead.pid, "sleep"), "its namespace is there")
        assert os.readlink(f"/proc/{sleeper}/ns/time") != os.readlink(f"/proc/{one.pid}/ns/time")
        (folder / "jump").symlink_to(f"/proc/{sleeper}/ns/time")
        command.wait()
        assert one.signals() == [] and "stopping the command with" not in one.stderr
        again = one.started(2)
        assert again.detail.split(",")[0] != begun.detail.split(",")[0], "another term"
        assert one.process.poll() is None
    finally:
        ahead.kill()
        ahead.wait()


def test_an_instance_that_was_stopped_as_a_whole_goes_on(fleet: Fleet, file_lock: Lock) -> None:
    """A paused container or a suspended machine: the term is over, and the instance is a follower again."""
    one = fleet.start("one", file_lock)
    begun = one.started()
    command = Watched(begun.pid)
    others = [one.elector, one.shim]
    stop(begun.pid, *others, one.pid)
    over = now() + LEASE + 1
    eventually(lambda: now() >= over, "the lease is over")
    kill(one.pid, signal.SIGCONT)  # first: the others would take it for dead if it came late
    command.wait()
    for pid in others:
        kill(pid, signal.SIGCONT)
    assert one.started(2).pid != begun.pid
    assert is_alive(one.pid)
