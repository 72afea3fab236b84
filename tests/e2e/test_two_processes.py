"""Keeper and elector: what becomes of the command when one of them, or both, are killed, stopped or continued."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from tests.e2e.instances import (
    DEADLINE,
    LEASE,
    MARGIN,
    RETRY,
    Fleet,
    Instance,
    Watched,
    children_of,
    command_line,
    eventually,
    is_alive,
    kill,
    now,
    renews,
    state_of,
)
from tests.e2e.locks import Lock

SLOW = {"lease_duration": 6, "renew_deadline": 4.5, "retry_period": 0.4, "kill_margin": 0.5}
"""Durations with room for a new elector on a machine that is busy with other things."""


def test_a_killed_elector_is_replaced_and_the_command_does_not_notice(fleet: Fleet, lock: Lock) -> None:
    """G1: the elector may die; its successor finds the lease its own and goes on."""
    one = fleet.start("one", lock, settings={"election": SLOW})
    other = fleet.start("other", lock, settings={"election": SLOW})
    leader = eventually(lambda: next((each for each in (one, other) if each.entries("start")), None), "one leads")
    start = leader.entries("start")[0]
    elector = leader.elector
    kill(elector)
    leader.other_elector(elector)
    renews(lock, 4)
    eventually(lambda: now() > start.at + SLOW["lease_duration"] + 1, "the first lease would be over")
    assert fleet_starts(fleet) == 1 and leader.signals() == [] and is_alive(start.pid)
    record = lock.record()
    assert record is not None and record.holder == leader.name and record.transitions == 0


def fleet_starts(fleet: Fleet) -> int:
    return sum(one.what == "start" for one in fleet.entries())


def test_a_stopped_elector_is_replaced_in_time(fleet: Fleet, file_lock: Lock) -> None:
    """G1: one that hangs is worse than one that is dead, as nothing tells of it."""
    election = {**SLOW, "lease_duration": 13, "renew_deadline": 12}
    one = fleet.start("one", file_lock, settings={"election": election})
    start = one.started()
    elector = one.elector
    kill(elector, signal.SIGSTOP)
    one.other_elector(elector)
    one.says("replacing it")
    renews(file_lock, 4)
    assert one.entries("start") == [start] and one.signals() == [] and is_alive(start.pid)


def test_without_any_elector_the_command_ends_between_the_two_dates(fleet: Fleet, file_lock: Lock) -> None:
    """G1: the dead-man guard. The keeper alone asks at `term_by` and has everything dead by `kill_by`."""
    one = fleet.start("one", file_lock, "ignore=SIGTERM", "daemons=1", settings={"stop": {"timeout": "20s"}})
    watched = [Watched(one.started().pid), *map(Watched, one.daemons(1))]
    other = fleet.start("other", file_lock, "daemons=1")
    other.follows()
    killed_at = end_each_elector(one, lambda: one.signals() != [])
    last_renewal_after = killed_at - 2 * RETRY - 0.3
    asked = next(each.at for each in one.entries("signal"))
    gone = max(each.wait() for each in watched)
    assert last_renewal_after + DEADLINE < asked < killed_at + DEADLINE + 0.5
    assert gone < killed_at + LEASE - MARGIN + 0.2
    other.started()


def end_each_elector(one: Instance, until: object) -> float:
    """Kill each elector as soon as there is one, until the question is answered; the instant of the first."""
    first = 0.0
    while not until():  # type: ignore[operator]
        for pid in children_of(one.pid):
            if "awaitelect.elector" in command_line(pid):
                kill(pid)
                first = first or now()
                eventually(lambda pid=pid: not is_alive(pid), "a killed elector is dead")
    return first


def test_a_killed_keeper_takes_its_whole_tree_with_it_before_the_next_starts(fleet: Fleet, lock: Lock) -> None:
    """G2: the elector acts for it, and gives the lease back when the last process has been seen to end."""
    first = fleet.start("first", lock, "ignore=SIGTERM", "daemons=2")
    watched = [Watched(first.started().pid), *map(Watched, first.daemons(2))]
    second = fleet.start("second", lock)
    second.follows()
    killed = now()
    kill(first.pid)
    gone = max(each.wait() for each in watched)
    started = second.started().at
    assert gone < killed + 1.5
    assert max(one.at for one in first.entries()) < started < killed + LEASE, "the lease was released"
    assert first.signals() == []


def test_a_killed_keeper_takes_its_tree_with_it_even_if_the_elector_is_stopped(fleet: Fleet, file_lock: Lock) -> None:
    """The third pair of eyes: the shim that waits sees the keeper's death too."""
    one = fleet.start("one", file_lock, "ignore=SIGTERM", "daemons=2")
    watched = [Watched(one.started().pid), *map(Watched, one.daemons(2))]
    eventually(lambda: one.shim, "the next shim waits")
    kill(one.elector, signal.SIGSTOP)
    kill(one.pid)
    for each in watched:
        each.wait()


def test_a_keeper_stopped_for_longer_than_the_lease_runs_nothing_when_it_wakes_up(fleet: Fleet, lock: Lock) -> None:
    """G2: its elector sees no acknowledgement, kills it and its tree, and only then lets another lead."""
    first = fleet.start("first", lock, "daemons=1")
    watched = [Watched(first.started().pid), *map(Watched, first.daemons(1))]
    second = fleet.start("second", lock)
    second.follows()
    kill(first.pid, signal.SIGSTOP)
    gone = max(each.wait() for each in watched)
    started = second.started().at
    assert gone < started
    try:
        kill(first.pid, signal.SIGCONT)
    except ProcessLookupError:
        pass
    assert first.ends() == -signal.SIGKILL


def test_an_elector_killed_during_the_stop_is_replaced_and_the_lease_released(fleet: Fleet, file_lock: Lock) -> None:
    """The command is not hurried by it, and the next need not wait for the lease to run out."""
    first = fleet.start("first", file_lock, "linger=2.5", settings={"election": SLOW, "stop": {"timeout": "60s"}})
    first.started()
    second = fleet.start("second", file_lock, settings={"election": SLOW})
    second.follows()
    first.tell(signal.SIGTERM)
    eventually(lambda: first.signals() == [signal.SIGTERM], "it is asked to stop")
    kill(first.elector)
    assert first.ends() == 0
    assert first.signals() == [signal.SIGTERM]
    assert first.entries("end") != []
    record = file_lock.record()
    assert (record is not None and record.released_by == record.instance) or record.holder == "second"
    second.started()


def test_a_keeper_stopped_for_a_moment_changes_nothing(fleet: Fleet, file_lock: Lock) -> None:
    """No acknowledgement comes meanwhile; patience lasts until the grant's own date."""
    one = fleet.start("one", file_lock, settings={"election": {"lease_duration": 9, "renew_deadline": 8}})
    start = one.started()
    elector = one.elector
    for _ in range(3):
        kill(one.pid, signal.SIGSTOP)
        renews(file_lock, 2)
        kill(one.pid, signal.SIGCONT)
        renews(file_lock, 2)
    assert one.entries("start") == [start] and one.signals() == [] and one.elector == elector


def test_keeper_and_elector_stopped_for_longer_than_the_lease_never_make_two(fleet: Fleet, file_lock: Lock) -> None:
    """The whole instance frozen but for its command, which nobody can end: a stopped machine's cgroup freezes that too.

    Woken up after the others' wait, it must end its command before anything else, and lead no more by old grants.
    """
    first = fleet.start("first", file_lock)
    start = first.started()
    everyone = [first.pid, first.elector, first.shim, start.pid]
    second = fleet.start("second", file_lock)
    second.follows()
    for pid in everyone:
        kill(pid, signal.SIGSTOP)
    eventually(lambda: all(state_of(pid) == "T" for pid in everyone), "all are stopped")
    stopped = now()
    started = second.started().at
    assert started > stopped + LEASE - 2 * RETRY - 0.5
    watched = Watched(start.pid)
    for pid in everyone[:3]:
        kill(pid, signal.SIGCONT)
    watched.wait()
    second.tell(signal.SIGTERM)
    second.ends()


def test_both_killed_at_once_leave_nothing_behind(fleet: Fleet, lock: Lock) -> None:
    """G3: the command dies with its parent, what it had started by the shim that waits; the lease runs out."""
    first = fleet.start("first", lock, "ignore=SIGTERM", "daemons=2")
    watched = [Watched(first.started().pid), *map(Watched, first.daemons(2))]
    second = fleet.start("second", lock)
    second.follows()
    elector = first.elector
    eventually(lambda: first.shim, "the next shim waits")
    killed = now()
    kill(first.pid, signal.SIGSTOP)  # so that neither sees the other die
    kill(elector)
    kill(first.pid)
    assert max(each.wait() for each in watched) < killed + 1.5
    assert second.started().at > killed + LEASE - 2 * RETRY - 0.5
    eventually(lambda: not is_alive(elector), "the elector is dead")


def test_a_killed_command_is_started_again_under_the_same_term(fleet: Fleet, lock: Lock) -> None:
    """A crash of the command is no loss of leadership."""
    settings = {"restart": {"backoff": {"initial": "100ms"}}}
    one = fleet.start("one", lock, settings=settings)
    start = one.started()
    kill(start.pid)
    again = one.started(2)
    assert again.detail.split(",")[0] == start.detail.split(",")[0], "the same fencing token"
    record = lock.record()
    assert record is not None and record.holder == "one" and record.transitions == 0


def test_a_killed_shim_is_no_obstacle_to_the_next_start(fleet: Fleet, file_lock: Lock) -> None:
    """The shim that waits is a convenience: without it, another is forked."""
    one = fleet.start("one", file_lock, settings={"restart": {"backoff": {"initial": "100ms"}}})
    start = one.started()
    kill(one.shim)
    kill(start.pid)
    one.started(2)


def test_sigterm_before_the_settings_have_come_ends_at_once(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    """Nothing is held before, so nothing needs to be waited for; the configuration is a pipe that nobody writes to."""
    pipe = tmp_path / "never.yaml"
    os.mkfifo(pipe)
    one = fleet.start("one", file_lock, options=["-c", str(pipe)])
    elector = one.elector
    begun = now()
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert now() < begun + 3
    assert not is_alive(elector)
    assert one.entries() == []


@pytest.mark.parametrize("seed", range(3))
def test_sigterm_at_any_moment_of_the_start_ends_it_and_leaves_nothing(
    fleet: Fleet, file_lock: Lock, seed: int
) -> None:
    """P13: whatever is under way (import, settings, acquiring, the exec), it ends, and takes all with it."""
    chance = random.Random(seed)
    for number in range(8):
        one = fleet.start(f"one-{number}", file_lock)
        delay = chance.uniform(0.03, 0.6)
        # A moment is what is meant here: there is no condition to wait for.
        signal.sigtimedwait({signal.SIGUSR2}, delay)
        eventually(lambda one=one: catches(one.pid, signal.SIGTERM), "the program has begun")
        one.tell(signal.SIGTERM)
        assert one.ends() in (0, 128 + signal.SIGTERM)
        eventually(lambda: not fleet.left_behind(), "nothing is left")
        record = file_lock.record()
        assert record is None or record.holder == "", "the lease is released"


def catches(pid: int, number: int) -> bool:
    """The signal is blocked or caught by the process: from its first instruction on (or it is over)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return True
    sets = [int(line.split()[1], 16) for line in lines if line.startswith(("SigBlk", "SigCgt"))]
    return any(one >> (number - 1) & 1 for one in sets) or not is_alive(pid)
