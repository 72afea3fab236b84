"""G3: keeper and elector are killed at once, or one while the other cannot act.

The command dies with them, and what has escaped from it too; the next leader starts when the lease runs out.
"""

from __future__ import annotations

import signal
from pathlib import Path

from tests.e2e.instances import Fleet, eventually, is_alive, kill, now, renews, state_of, stop
from tests.e2e.locks import Lock
from tests.e2e.test_kill_modes import needs_freezer, ways
from tests.guard.places import FIRM, places, start, watched_of


@places
@ways
def test_g3_both_killed_at_once_leave_no_escaped_daemon(fleet: Fleet, lock: Lock, way: str, place: str) -> None:
    """The command dies with its parent; what left its session and its parents, by the shim that waits, or by the
    kernel with the namespace.
    """
    settings = {"election": FIRM, "stop": {"cgroup": way}}
    first = start(place, fleet, "first", lock, "ignore=SIGTERM", "daemons=2", settings=settings)
    watched = watched_of(first, 2)
    second = fleet.start("second", lock)
    second.follows()
    elector = first.elector
    assert first.shim
    before = now()
    renews(lock, 1)
    stop(first.pid)  # so that neither sees the other die
    kill(elector)
    kill(first.pid)
    for each in watched:
        each.wait()
    assert second.started().at > max(first.last_sign(), before + FIRM["lease_duration"])
    eventually(lambda: not is_alive(elector), "the elector is dead")


@places
def test_g3_an_elector_killed_while_the_keeper_is_stopped_leaves_nothing_running(
    fleet: Fleet, file_lock: Lock, place: str
) -> None:
    """Neither of the two can act: the waiting shim does, before another may start."""
    one = start(place, fleet, "one", file_lock, "daemons=1", settings={"election": FIRM})
    begun = one.started()
    watched = watched_of(one, 1)
    other = fleet.start("other", file_lock)
    other.follows()
    elector = one.elector
    assert one.shim
    stop(one.pid)
    killed = now()
    kill(elector)
    gone = max(each.wait() for each in watched)
    assert gone < killed + FIRM["lease_duration"]
    assert one.last_sign() < other.started().at
    if place == "init":
        kill(one.pid, signal.SIGCONT)
        one.says("another")
        assert one.entries("start") == [begun]
    else:
        assert one.ends() == -signal.SIGKILL


# Not as PID 1: nothing in a namespace outlives that one, frozen or not.
@needs_freezer
def test_g3_a_killed_keeper_whose_elector_is_frozen_leaves_nothing_running(
    fleet: Fleet, file_lock: Lock, frozen: Path
) -> None:
    """The elector would act, and cannot: again it is the shim's turn, and at once."""
    settings = {"election": FIRM, "stop": {"cgroup": "off"}}
    one = fleet.start("one", file_lock, "ignore=SIGTERM", "daemons=2", settings=settings)
    watched = watched_of(one, 2)
    other = fleet.start("other", file_lock)
    other.follows()
    assert one.shim
    elector = one.elector
    (frozen / "cgroup.procs").write_text(str(elector))  # one that is stopped would be continued with its keeper's death
    eventually(lambda: state_of(elector) == "D", "it is frozen")
    kill(one.pid)
    for each in watched:
        each.wait()
    assert one.last_sign() < other.started().at
