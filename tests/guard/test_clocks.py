"""Which clock counts: CLOCK_BOOTTIME alone, and one machine's has nothing to do with another's.

Time namespaces have clocks with an offset. A machine that has slept has CLOCK_BOOTTIME ahead of CLOCK_MONOTONIC: so
have these. What cannot be shown here is that the kernel rings an alarm which was set before it slept when it wakes up.
"""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.e2e.instances import LEASE, RETRY, Fleet, Instance, eventually, is_alive, kill, now, renews, stop
from tests.e2e.locks import Lock
from tests.e2e.test_init import keeper_of, prefix_of
from tests.guard.places import FIRM, end_each_elector, inside, next_start, places, start, watched_of

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


def start_in(
    offset: str, fleet: Fleet, name: str, lock: Lock, *words: str, place: str = "child", **settings: object
) -> Instance:
    """An instance whose clocks have this offset; its commands write down the time of the test's own clock."""
    also = prefix_of(place)[1:] or ["--fork", "--kill-child"]
    prefix = ["unshare", "--time", *OFFSETS[offset], *also]
    chosen = {"election": FIRM, **settings}
    one = fleet.start(name, lock, *words, prefix=prefix, settings=chosen, environment=inside(fleet.folder))
    one.pid = keeper_of(one.pid)
    return one


@places
@pytest.mark.parametrize("offset", OFFSETS)
def test_an_offset_between_the_clocks_changes_no_date(fleet: Fleet, file_lock: Lock, offset: str, place: str) -> None:
    """A date on one of them and a timer on the other would fire at once, or never."""
    one = start_in(offset, fleet, "one", file_lock, "ignore=SIGTERM", place=place, stop={"timeout": "60s"})
    (command,) = watched_of(one, 0)
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


@places
def test_a_clock_that_has_jumped_ends_the_term_at_once(fleet: Fleet, file_lock: Lock, place: str) -> None:
    """As after a sleep of hours: all dates have passed, and the command is killed, not asked. Then it follows again."""
    folder = fleet.folder
    ahead = subprocess.Popen(
        ["unshare", "--time", *OFFSETS["slept for long"], "--fork", "--kill-child", "sleep", "1000"]
    )
    try:
        sleeper = eventually(lambda: Fleet.child_running(ahead.pid, "sleep"), "its namespace is there")
        later = folder / "later"
        later.touch()
        # Bound to a file, which another PID namespace sees too; with the mounts of the instance this goes away.
        bind = 'mount --bind "$0" "$1" && shift && exec "$@"'
        prefix = ["unshare", "--mount", "sh", "-c", bind, f"/proc/{sleeper}/ns/time", str(later), *prefix_of(place)]
        environment = {**inside(folder), "E2E_JUMPS": "1"}
        settings = {"election": FIRM}
        one = fleet.start("one", file_lock, "ignore=SIGTERM", prefix=prefix, settings=settings, environment=environment)
        if place == "init":
            one.pid = keeper_of(one.pid)
        begun = one.started()
        (command,) = watched_of(one, 0)
        renews(file_lock, 2)
        assert os.readlink(f"/proc/{sleeper}/ns/time") != os.readlink(f"/proc/{one.pid}/ns/time")
        (folder / "jump").symlink_to(later)
        command.wait()
        assert one.signals() == [] and "stopping the command with" not in one.stderr
        again = one.started(2)
        assert again.detail.split(",")[0] != begun.detail.split(",")[0], "another term"
        assert one.process.poll() is None
    finally:
        ahead.kill()
        ahead.wait()


@places
def test_an_instance_that_was_stopped_as_a_whole_goes_on(fleet: Fleet, file_lock: Lock, place: str) -> None:
    """A paused container or a suspended machine: the term is over, and the instance is a follower again."""
    one = start(place, fleet, "one", file_lock)
    begun = one.started()
    (command,) = watched_of(one, 0)
    others = [one.elector, one.shim]
    stop(command.pid, *others, one.pid)
    over = now() + LEASE + 1
    eventually(lambda: now() >= over, "the lease is over")
    kill(one.pid, signal.SIGCONT)  # first: the others would take it for dead if it came late
    command.wait()
    for pid in others:
        kill(pid, signal.SIGCONT)
    assert one.started(2).pid != begun.pid
    assert is_alive(one.pid)
