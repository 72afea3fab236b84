"""How the command ends, and what awaitelect makes of it."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from awaitelect.core.election import GIVE_UP_PAUSE
from tests.e2e.instances import LASTING, Fleet, Watched, children_of, eventually, kill, now, state_of
from tests.e2e.locks import Lock

NEVER = {"restart": {"policy": "never"}}


@pytest.mark.parametrize("status", [0, 1, 3, 42, 255])
def test_the_exit_code_of_the_command_is_ours(fleet: Fleet, file_lock: Lock, status: int) -> None:
    """P1: whoever calls awaitelect in place of the command learns the same."""
    one = fleet.start("one", file_lock, command=["sh", "-c", f"exit {status}"], settings=NEVER)
    assert one.ends() == status
    record = file_lock.record()
    assert record is not None and record.holder == "", "the lease is released"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL])
def test_a_death_by_a_signal_is_told_as_a_shell_does(fleet: Fleet, file_lock: Lock, number: int) -> None:
    """P1: 128 + n, and we do not die by the signal ourselves."""
    one = fleet.start("one", file_lock, command=["sh", "-c", f"kill -{int(number)} $$"], settings=NEVER)
    assert one.ends() == 128 + number


def test_a_clean_end_ends_the_instance_and_the_next_leads(fleet: Fleet, lock: Lock) -> None:
    """A command that has done its work is not started again here."""
    first = fleet.start("first", lock, "after=0.5")
    first.started()
    second = fleet.start("second", lock)
    assert first.ends() == 0
    second.started()


def test_a_missing_command_is_told_before_anything_is_contended_for(fleet: Fleet, file_lock: Lock) -> None:
    """P2: 127, and the message names the command; another instance's lease is not touched."""
    one = fleet.start("one", file_lock, command=["no-such-program", "x"])
    assert one.ends() == 127
    assert "'no-such-program'" in one.stderr
    assert file_lock.record() is None


def test_a_missing_path_is_told_as_well(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    """P2: 127 for a path too."""
    one = fleet.start("one", file_lock, command=[str(tmp_path / "nothing")])
    assert one.ends() == 127
    assert str(tmp_path / "nothing") in one.stderr
    assert file_lock.record() is None


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_what_cannot_be_executed_is_126(fleet: Fleet, file_lock: Lock, tmp_path: Path, kind: str) -> None:
    """P2: a directory, and a file that nobody may execute."""
    path = tmp_path / "command"
    if kind == "directory":
        path.mkdir()
    else:
        path.write_text("#!/bin/sh\n")
        path.chmod(0o644)
    one = fleet.start("one", file_lock, command=[str(path)])
    assert one.ends() == 126
    assert str(path) in one.stderr
    assert file_lock.record() is None


def test_what_only_the_exec_finds_out_is_no_crash_of_ours(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    """P2, S1: an interpreter that is missing shows at the exec; the lease is released, the status is the shell's."""
    path = tmp_path / "command"
    path.write_text("#!/no/such/interpreter\n")
    path.chmod(0o755)
    one = fleet.start("one", file_lock, command=[str(path)], settings=NEVER)
    assert one.ends() == 127
    assert str(path) in one.stderr and "errno 2" in one.stderr
    record = file_lock.record()
    assert record is not None and record.holder == ""


def test_crashes_are_answered_by_restarts_with_longer_and_longer_pauses(fleet: Fleet, file_lock: Lock) -> None:
    """S2: leadership is kept meanwhile: same holder, same term, no transition, and renewals go on."""
    back = {"initial": "100ms", "factor": 2, "jitter": 0}
    settings = {"restart": {"backoff": back, "max_restarts": 10}, "election": LASTING}
    one = fleet.start("one", file_lock, "after=0.02", "exit=3", settings=settings)
    two = fleet.start("two", file_lock, settings={"election": LASTING})
    leader = eventually(lambda: one if one.entries("start") else two if two.entries("start") else None, "one leads")
    if leader is two:  # it was faster, which is not what this is about
        two.tell(signal.SIGTERM)
        two.ends()
    one.started(5)
    starts = [each.at for each in one.entries("start")]
    ends = [each.at for each in one.entries("end")]
    pauses = [start - end for end, start in zip(ends, starts[1:], strict=False)]
    meant = [float(each) for each in re.findall(r"starting it again in ([0-9.]+)s", one.stderr)]
    assert meant[:4] == [0.1, 0.2, 0.4, 0.8]
    assert all(least <= pause < least + 20 for least, pause in zip(meant, pauses, strict=False))
    assert len({each.detail.split(",")[0] for each in one.entries("start")}) == 1, "one term"
    record = file_lock.record()
    assert record is not None and record.holder == "one"


def test_a_crash_loop_gives_another_instance_its_turn(fleet: Fleet, lock: Lock) -> None:
    """S7: it may be this machine that is broken."""
    back = {"initial": "50ms", "factor": 1, "jitter": 0}
    first = fleet.start(
        "first", lock, "after=0.01", "exit=3", settings={"restart": {"backoff": back, "max_restarts": 2}}
    )
    first.started()
    second = fleet.start("second", lock)
    second.started()
    assert len(first.entries("start")) == 3
    assert first.process.poll() is None, "it is a follower again"
    first.says("giving up")


def test_after_giving_up_an_instance_that_is_alone_leads_again_after_a_pause(fleet: Fleet, file_lock: Lock) -> None:
    """Others get their chance first; but where there is none the lease does not stay empty for ever."""
    settings = {"restart": {"backoff": {"initial": "10ms"}, "max_restarts": 0}}
    one = fleet.start("one", file_lock, "after=0.01", "exit=3", settings=settings)
    first = one.started()
    second = one.started(2)
    assert GIVE_UP_PAUSE <= second.at - first.at < GIVE_UP_PAUSE * 1.2 + 20
    tokens = [int(each.detail.split(",")[0]) for each in one.entries("start")]
    assert tokens[0] < tokens[1], "a new term"


def test_giving_up_can_end_the_instance(fleet: Fleet, file_lock: Lock) -> None:
    """`restart.on_give_up: exit`: with the status of the last run."""
    settings = {"restart": {"backoff": {"initial": "10ms"}, "max_restarts": 1, "on_give_up": "exit"}}
    one = fleet.start("one", file_lock, command=["sh", "-c", "exit 9"], settings=settings)
    assert one.ends() == 9


def test_giving_up_can_hold_the_lease_with_nothing_running(fleet: Fleet, file_lock: Lock) -> None:
    """`restart.on_give_up: hold`: for people who want to look at it first."""
    settings = {
        "restart": {"backoff": {"initial": "10ms"}, "max_restarts": 1, "on_give_up": "hold"},
        "election": LASTING,
    }
    one = fleet.start("one", file_lock, "after=0.01", "exit=9", settings=settings)
    one.says("the lease is held with nothing running")
    known = file_lock.record()
    eventually(lambda: file_lock.record() != known, "renewals go on")
    assert len(one.entries("start")) == 2
    one.tell(signal.SIGTERM)
    assert one.ends() == 9


def test_a_stop_during_the_pause_before_a_restart_is_immediate(fleet: Fleet, file_lock: Lock) -> None:
    """S3: nothing runs, so nothing is waited for."""
    settings = {"restart": {"backoff": {"initial": "60s", "max": "60s"}}, "election": LASTING}
    one = fleet.start("one", file_lock, "after=0.01", "exit=3", settings=settings)
    one.says("starting it again in")
    begun = now()
    one.tell(signal.SIGTERM)
    assert one.ends() == 3
    assert now() < begun + 20
    assert len(one.entries("start")) == 1


@pytest.mark.parametrize(("policy", "status", "again"), [("always", 0, True), ("on-abnormal", 3, False)])
def test_the_policy_decides_which_ends_are_followed_by_a_start(
    fleet: Fleet, file_lock: Lock, policy: str, status: int, again: bool
) -> None:
    """As systemd's Restart= of the same names."""
    settings = {"restart": {"policy": policy, "backoff": {"initial": "10ms"}}}
    one = fleet.start("one", file_lock, "after=0.01", f"exit={status}", settings=settings)
    if again:
        one.started(2)
    else:
        assert one.ends() == status
        assert len(one.entries("start")) == 1


def test_a_success_code_of_ones_own_is_a_success(fleet: Fleet, file_lock: Lock) -> None:
    """S6: no restart, no error; the code is passed on all the same."""
    one = fleet.start("one", file_lock, "after=0.01", "exit=143", settings={"success_exit_codes": [0, 143]})
    assert one.ends() == 143
    assert len(one.entries("start")) == 1 and "ERROR" not in one.stderr


def test_what_the_main_process_leaves_behind_ends_before_anything_else_happens(fleet: Fleet, file_lock: Lock) -> None:
    """P8: survivors are told (SIGTERM), waited for and then killed, and only then is there a restart."""
    settings = {"restart": {"backoff": {"initial": "10ms"}}, "stop": {"timeout": "2s"}}
    one = fleet.start("one", file_lock, "daemons=2", "ignore=SIGTERM", settings=settings)
    daemons = [Watched(pid) for pid in one.daemons(2)]
    kill(one.started().pid)
    for each in daemons:
        each.wait()
    again, left = one.started(2), {each.pid for each in daemons}
    assert again.at > max(each.at for each in one.entries() if each.pid in left), "their last signs of life"
    told = {each.pid for each in one.entries("signal") if int(each.detail) == signal.SIGTERM}
    assert {each.pid for each in daemons} <= told


def test_output_held_by_an_orphan_does_not_delay_the_end(fleet: Fleet, file_lock: Lock) -> None:
    """P15: whoever waits for our output's end is not us."""
    script = f"{sys.executable} -c 'import time; time.sleep(60)' & exit 4"
    one = fleet.start("one", file_lock, command=["sh", "-c", script], settings=NEVER)
    begun = now()
    assert one.ends() == 4
    assert now() < begun + 5


def test_hundreds_of_restarts_leave_no_open_file_and_no_zombie(fleet: Fleet, file_lock: Lock) -> None:
    """P19: what is lost with each run adds up in a supervisor that runs for months."""
    back = {"initial": "1ms", "factor": 1, "jitter": 0}
    settings = {"restart": {"backoff": back, "max_restarts": 100_000}, "log": {"level": "warning"}}
    one = fleet.start("one", file_lock, command=["false"], settings=settings)
    one.says("starting it again", 20)
    before = open_files(one.pid)
    one.says("starting it again", 320, patience=120)
    assert open_files(one.pid) <= before + 6, "a run in flight has a few"
    eventually(lambda: not any(state_of(pid) == "Z" for pid in children_of(one.pid)), "no zombie is left")
    assert len(children_of(one.pid)) <= 4
    one.tell(signal.SIGTERM)
    assert one.ends() in (1, 128 + signal.SIGTERM), "a run in flight may get it"


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
