"""Hooks: run beside the command, under its lease, in their order, and never longer than the lease allows."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from awaitelect import cgroup
from awaitelect.protocol import MARK
from tests.e2e.instances import LONG, Fleet, Instance, children_of, eventually, is_alive, kill, renews, stop
from tests.e2e.locks import Lock
from tests.guard.places import end_each_elector, inside


def carriers_of(keeper: int) -> list[int]:
    """The processes that carry the mark of the command of this keeper."""
    (mark,) = {variable for pid in children_of(keeper) for variable in environment_of(pid) if MARK in variable}
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and mark in environment_of(int(name))]


def environment_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except OSError:
        return []


ALL = ("pre_start", "post_start", "pre_stop", "post_stop")
VARIABLES = (
    "MAINPID SERVICE_RESULT EXIT_CODE EXIT_STATUS AWAITELECT_STOP_CAUSE AWAITELECT_IDENTITY AWAITELECT_FENCING_TOKEN"
)


def noting(path: Path, name: str, then: str = "") -> list[str]:
    """A hook that writes a line into the file: its name, and the variables that it finds."""
    shown = " ".join(f"{one}=${one}" for one in VARIABLES.split())
    return ["/bin/sh", "-c", f'echo "{name} {shown}" >> {path}; {then}']


def lines(path: Path) -> list[dict[str, str]]:
    """What the hooks have written, each with its name under `name`."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        name, *variables = line.split(" ")
        found.append({"name": name, **dict(one.split("=", 1) for one in variables)})
    return found


def names(path: Path) -> list[str]:
    return [line["name"] for line in lines(path)]


def told(one: Instance, path: Path, name: str) -> dict[str, str]:
    """Wait for the line of this hook."""
    eventually(lambda: name in names(path), f"{name} of {one.name}")
    return next(line for line in lines(path) if line["name"] == name)


def test_the_four_hooks_run_in_order_with_the_commands_variables_and_systemds(
    fleet: Fleet, file_lock: Lock, tmp_path: Path
) -> None:
    """S9."""
    notes = tmp_path / "notes"
    hooks = {name: noting(notes, name) for name in ALL}
    one = fleet.start("one", file_lock, settings={"hooks": hooks, "election": LONG})
    command = one.started()
    told(one, notes, "post_start")
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert names(notes) == list(ALL)
    pre_start, post_start, pre_stop, post_stop = lines(notes)
    assert [line["AWAITELECT_IDENTITY"] for line in lines(notes)] == ["one"] * 4
    assert len({line["AWAITELECT_FENCING_TOKEN"] for line in lines(notes)}) == 1
    assert pre_start["MAINPID"] == ""
    assert post_start["MAINPID"] == pre_stop["MAINPID"] == str(command.pid)
    assert pre_stop["AWAITELECT_STOP_CAUSE"] == post_stop["AWAITELECT_STOP_CAUSE"] == "shutdown"
    outcome = [post_stop[name] for name in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS")]
    assert outcome == ["success", "exited", "0"]


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (["after=0", "exit=3"], ["exit-code", "exited", "3"]),
        (["after=0", "end=SIGKILL"], ["signal", "killed", "KILL"]),
        (["after=0", "exit=0"], ["success", "exited", "0"]),
    ],
)
def test_the_last_hook_learns_how_the_command_has_ended(
    fleet: Fleet, file_lock: Lock, tmp_path: Path, end: list[str], outcome: list[str]
) -> None:
    notes = tmp_path / "notes"
    hooks = {"post_stop": noting(notes, "post_stop")}
    settings = {"hooks": hooks, "restart": {"policy": "never"}, "election": LONG}
    one = fleet.start("one", file_lock, *end, settings=settings)
    one.ends()
    (line,) = lines(notes)
    assert [line[name] for name in ("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS")] == outcome


def test_a_failing_first_hook_is_a_failed_start(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    """The command never starts; the restarts are counted, and the lease goes to another."""
    notes = tmp_path / "notes"
    settings = {
        "hooks": {"pre_start": noting(notes, "pre_start", "exit 3"), "post_stop": noting(notes, "post_stop")},
        "restart": {"max_restarts": 1, "backoff": {"initial": "10ms"}},
    }
    one = fleet.start("one", file_lock, settings=settings)
    one.says("2 failures in a row: giving up")
    assert one.entries("start") == []
    assert names(notes) == ["pre_start", "post_stop"] * 2
    assert "hooks.pre_start exited with 3" in one.stderr
    other = fleet.start("other", file_lock)
    other.started()


def test_a_hook_that_hangs_before_the_start_ends_in_time(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    settings = {
        "hooks": {"pre_start": ["/bin/sleep", "1000"], "timeout": "200ms"},
        "restart": {"policy": "never"},
    }
    one = fleet.start("one", file_lock, settings=settings)
    assert one.ends() == 1
    assert "hooks.pre_start has not ended in time" in one.stderr


def test_a_stop_ends_a_hook_that_runs_before_the_start(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    settings = {"hooks": {"pre_start": noting(notes, "pre_start", "exec sleep 1000")}}
    one = fleet.start("one", file_lock, settings=settings)
    told(one, notes, "pre_start")
    began = time.monotonic()
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert time.monotonic() - began < 8, "it is told, not killed when its time is over"
    assert one.entries("start") == []


def test_a_hook_that_fails_after_the_start_makes_the_command_a_failed_one(fleet: Fleet, file_lock: Lock) -> None:
    settings = {
        "hooks": {"post_start": ["/bin/sh", "-c", "exit 7"]},
        "restart": {"max_restarts": 1, "backoff": {"initial": "10ms"}, "on_give_up": "exit"},
    }
    one = fleet.start("one", file_lock, settings=settings)
    assert one.ends() == 1
    assert one.stderr.count("command started") == 2
    assert "hooks.post_start exited with 7" in one.stderr


def test_the_stop_signal_waits_for_the_hook_before_it(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    """Half of the time is the hook's: a hanging one leaves the other half to the command."""
    settings = {"hooks": {"pre_stop": ["/bin/sleep", "1000"]}, "stop": {"timeout": "5s"}, "election": LONG}
    one = fleet.start("one", file_lock, "linger=0.1", settings=settings)
    one.started()
    began = time.monotonic()
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert 2.5 <= time.monotonic() - began < 5
    assert one.signals() == [signal.SIGTERM]
    assert "hooks.pre_stop has not ended in time" in one.stderr


def test_no_hook_outlives_the_lease(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    """S9: no elector lives to renew it; hooks that hang delay neither deadline, and another one leads in time."""
    notes = tmp_path / "notes"
    hang = "trap '' TERM; while :; do sleep 1000; done"
    hooks = {name: noting(notes, f"{name} MYPID=$$", hang) for name in ("pre_stop", "post_stop")}
    settings = {
        "election": {"lease_duration": 8},  # what is left after the deadline is enough for a hook to begin
        "hooks": {**hooks, "timeout": "60s"},
        "stop": {"timeout": "60s"},
    }
    one = fleet.start("one", file_lock, "ignore=SIGTERM", settings=settings, environment=inside(fleet.folder))
    command = one.started()
    other = fleet.start("other", file_lock)
    other.follows()
    end_each_elector(one, lambda: other.entries("start"))
    pid = int(told(one, notes, "pre_stop")["MYPID"])
    assert not is_alive(command.pid)
    assert not is_alive(pid)


def test_a_program_of_ones_own_can_ask_the_command_to_stop(fleet: Fleet, file_lock: Lock) -> None:
    """It finds the pid, and the signal is left out."""
    settings = {"stop": {"command": ["/bin/sh", "-c", "kill -QUIT $MAINPID"]}, "election": LONG}
    one = fleet.start("one", file_lock, "linger=0.2", settings=settings)
    one.started()
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert one.signals()[0] == signal.SIGQUIT


def test_a_stop_that_comes_with_the_news_of_the_start_is_done_in_the_commands_own_way(
    fleet: Fleet, file_lock: Lock
) -> None:
    """A keeper that was late finds both at once: the command runs, and no hook and no program of its is left out."""
    settings = {"stop": {"command": ["/bin/sh", "-c", "kill -QUIT $MAINPID"]}, "election": LONG}
    first = fleet.start("first", file_lock)
    first.started()
    one = fleet.start("one", file_lock, "linger=0.2", settings=settings)
    one.follows()
    shim = eventually(lambda: one.shim, "it is prepared")
    stop(shim)
    first.tell(signal.SIGTERM)
    one.says("leading")
    renews(file_lock, 2)
    stop(one.pid)
    kill(shim, signal.SIGCONT)
    one.started()
    one.tell(signal.SIGTERM)
    kill(one.pid, signal.SIGCONT)
    assert one.ends() == 0
    assert one.signals()[0] == signal.SIGQUIT


def test_a_command_that_outlives_its_stop_program_gets_the_signal(fleet: Fleet, file_lock: Lock) -> None:
    one = fleet.start("one", file_lock, settings={"stop": {"command": ["/bin/true"]}})
    one.started()
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert one.signals() == [signal.SIGTERM]


def test_a_missing_hook_is_told_before_anything_is_contended_for(fleet: Fleet, file_lock: Lock) -> None:
    one = fleet.start("one", file_lock, settings={"hooks": {"pre_stop": ["/no/such/hook"]}})
    assert one.ends() == 127
    assert "hooks.pre_stop: cannot execute '/no/such/hook': no such file" in one.stderr


def test_what_a_hook_leaves_behind_ends_with_the_command(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    """A daemon started by a hook is a part of the command."""
    notes = tmp_path / "pid"
    daemon = f"setsid sh -c 'echo $$ > {notes}; exec sleep 1000' > /dev/null 2>&1 &"
    one = fleet.start("one", file_lock, settings={"hooks": {"pre_start": ["/bin/sh", "-c", daemon]}})
    one.started()
    pid = int(eventually(lambda: notes.exists() and notes.read_text(), "the daemon"))
    assert is_alive(pid)
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert not is_alive(pid)


@pytest.mark.parametrize("hook", ["pre_start", "post_stop"])
def test_a_killed_keeper_leaves_no_hook_behind(fleet: Fleet, file_lock: Lock, tmp_path: Path, hook: str) -> None:
    """A hook is a part of the command: nothing of it runs when another instance begins."""
    notes = tmp_path / "notes"
    hang = (
        "trap '' TERM; (setsid sh -c 'trap \"\" TERM; while :; do sleep 1000; done' &) ; while :; do sleep 1000; done"
    )
    settings = {"hooks": {hook: noting(notes, f"{hook} MYPID=$$", hang), "timeout": "60s"}, "election": LONG}
    one = fleet.start("one", file_lock, "after=0.1", settings=settings)
    pid = int(told(one, notes, hook)["MYPID"])
    marked = carriers_of(one.pid)
    assert pid in marked
    os.kill(one.pid, signal.SIGKILL)
    other = fleet.start("other", file_lock)
    other.started()
    assert not any(is_alive(each) for each in marked)


def test_an_elector_that_is_killed_during_a_hook_is_replaced_and_the_start_goes_on(
    fleet: Fleet, file_lock: Lock, tmp_path: Path
) -> None:
    notes, go = tmp_path / "notes", tmp_path / "go"
    wait = f"while ! test -e {go}; do sleep 0.01; done"
    settings = {
        "election": LONG,  # time for another elector
        "hooks": {"pre_start": noting(notes, "pre_start", wait), "timeout": "60s"},
    }
    one = fleet.start("one", file_lock, settings=settings)
    told(one, notes, "pre_start")
    first = one.elector
    os.kill(first, signal.SIGKILL)
    one.other_elector(first)
    one.says("leading", times=2)
    go.touch()
    one.started()
    assert names(notes) == ["pre_start"]


@pytest.mark.skipif(not cgroup.place("x"), reason="no cgroup of version 2 is in sight")
@pytest.mark.parametrize("who", ["hook", "probe"])
def test_what_a_hook_or_a_probe_hides_is_found_in_its_cgroup(
    fleet: Fleet, file_lock: Lock, tmp_path: Path, who: str
) -> None:
    """A daemon without our mark, in a session of its own, and no keeper that could have been its parent."""
    notes = tmp_path / "pid"
    hidden = f"setsid env -i /bin/sh -c 'echo $$ > {notes}; exec sleep 1000' > /dev/null 2>&1 < /dev/null &"
    program = ["/bin/sh", "-c", hidden]
    settings: dict[str, Any] = {"hooks": {"pre_start": program}}
    if who == "probe":
        settings = {"start": {"ready": "probe", "probe": {"exec": {"command": program}}}}
    one = fleet.start("one", file_lock, settings=settings)
    one.started()
    pid = int(eventually(lambda: notes.exists() and notes.read_text(), "the daemon"))
    os.kill(one.pid, signal.SIGKILL)
    other = fleet.start("other", file_lock)
    other.started()
    assert not is_alive(pid)
