"""Keeper, elector, shim and command: what becomes of the others when one of them is ended.

What they owe each other, and what holds when they fail, is in tests/guard.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.e2e.instances import (
    Fleet,
    eventually,
    is_alive,
    kill,
)
from tests.e2e.locks import Lock


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
