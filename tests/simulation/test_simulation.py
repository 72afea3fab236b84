"""The simulation itself: it can be repeated, it tells what it has seen, and its clocks matter."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import Violation, simulate
from tests.simulation.attempts import hunt
from tests.simulation.faults import MILD, NETWORK, PROCESSES, STORE
from tests.simulation.schedule import THEMES, TIMINGS

ROOT = Path(__file__).parents[2]


def run(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command that begins with `python`, from the root of the repository."""
    words = [sys.executable, *shlex.split(command)[1:]]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_a_seed_is_one_schedule() -> None:
    """A failure can be repeated."""
    assert simulate(5) == simulate(5)


def test_a_failure_tells_what_led_to_it_and_how_to_see_it_again() -> None:
    """Who did what and when, the promise, and at last the command, which shows the same."""
    found = hunt("unconditional")
    assert found
    seed, _, violation = found
    lines = str(violation).splitlines()
    assert lines[-2] == f"seed {seed}: {violation.what}"
    assert lines[-1] == f"again: python -m tests.simulation --seed {seed} --mutation unconditional"
    assert len(lines) > 20
    assert any("STARTS" in line for line in lines)
    shown = run(lines[-1].removeprefix("again: "))
    assert shown.returncode == 1
    assert lines[-2] in shown.stdout


def test_many_seeds_are_tried_by_one_command_which_counts_what_it_did() -> None:
    """How fast it is, and how often each fault has struck: a fault that never does tests nothing."""
    shown = run("python -m tests.simulation --seeds 60")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert re.search(r"^60 schedules in .*: [\d.]+ schedules a second$", shown.stdout, re.MULTILINE)
    assert re.search(r"^ +\d+ elector killed$", shown.stdout, re.MULTILINE)
    assert shown.stdout.endswith("none failed\n")


def test_every_fault_strikes() -> None:
    """Within the first schedules of the normal run, each under a name of its own."""
    struck: set[str] = set()
    for seed in range(1, 81):
        struck |= simulate(seed).struck.keys()
    kinds = {*PROCESSES, *NETWORK, *STORE, *MILD}
    assert set().union(*THEMES.values()) == kinds
    assert struck >= {
        "lease deleted",
        "lease emptied by hand",
        "lease given to a stranger",
        "request lost",
        "request late",
        "request duplicated",
        "reply lost",
        "command crashes",
        "hook or question hangs",
        "machine suspended",
        "wall clock jumps",
    }
    assert len(struck) >= len(kinds)


def test_the_timings_of_the_simulation_are_allowed_ones() -> None:
    """What awaitelect refuses needs no promise."""
    assert [problem for timing in TIMINGS for problem in timing.problems()] == []


@pytest.mark.parametrize("nodes", [1, 5])
def test_few_and_many_instances_keep_the_promise_too(nodes: int) -> None:
    """One alone has nobody to take over from it; five have many."""
    for seed in range(1, 11):
        simulate(seed, nodes=nodes)


def test_clocks_that_drift_beyond_the_kill_margin_break_the_promise_and_the_fencing_token_still_orders() -> None:
    """What `kill_margin` is for: with clocks that are fast and slow by a seventh it isn't enough. Even then nothing is
    released too early or started too late by its own clock, and whoever starts later has the higher token.
    """
    broken = set()
    for seed in range(1, 121):
        try:
            simulate(seed, drift=0.14)
        except Violation as violation:
            broken.add(violation.what.split(": ")[1])
    assert broken & {"two commands", "lived on"}
    assert not broken & {"released too early", "late start", "late grant", "fencing token", "two requests at once"}
