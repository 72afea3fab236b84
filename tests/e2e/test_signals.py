"""Signals to the instance, and how it stops its command."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.instances import LONG, PROGRAM, Fleet, Watched, eventually, is_alive, kill, now, renews, state_of
from tests.e2e.locks import Lock

STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
BEFORE = (
    "import os, signal, sys; signal.signal(signal.SIGUSR1, signal.SIG_IGN); "
    "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); os.execvp(sys.argv[1], sys.argv[1:])"
)
"""Starts the rest of its command line with SIGUSR1 ignored and SIGUSR2 blocked."""


@pytest.mark.parametrize("number", STOPS)
def test_each_stop_signal_stops_with_itself(fleet: Fleet, file_lock: Lock, number: int) -> None:
    """What was typed or sent is what the command gets, so that it can tell them apart."""
    one = fleet.start("one", file_lock, "exit=5")
    one.started()
    one.tell(number)
    assert one.ends() == 5
    assert one.signals() == [number]


def test_sigterm_is_translated_to_the_stop_signal(fleet: Fleet, file_lock: Lock) -> None:
    """`stop.signal`: many servers end in order on another one."""
    one = fleet.start("one", file_lock, settings={"stop": {"signal": "SIGQUIT"}})
    one.started()
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert one.signals() == [signal.SIGQUIT]


def test_a_second_stop_signal_is_forwarded_at_once(fleet: Fleet, file_lock: Lock) -> None:
    """Many programs take the second Ctrl-C for: now."""
    one = fleet.start("one", file_lock, "ignore=SIGINT", settings={"stop": {"timeout": "60s"}})
    one.started()
    one.tell(signal.SIGINT)
    eventually(lambda: one.signals() == [signal.SIGINT], "the first arrives")
    one.tell(signal.SIGINT)
    eventually(lambda: one.signals() == [signal.SIGINT] * 2, "the second arrives")
    one.tell(signal.SIGTERM)
    assert one.ends() == 0


def test_every_other_signal_is_forwarded_in_order(fleet: Fleet, file_lock: Lock) -> None:
    """P5: each that can be caught, but those with a meaning for us or for the terminal."""
    one = fleet.start("one", file_lock)
    one.started()
    left_out = {*STOPS, signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGCONT}
    left_out |= {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
    sent = [number for number in range(1, 32) if number not in left_out]
    for count, number in enumerate(sent, 1):
        one.tell(number)
        eventually(lambda count=count: len(one.signals()) == count, f"signal {number} arrives")
    assert one.signals() == sent


def test_a_rewritten_signal_arrives_as_the_other_one_and_a_dropped_one_not_at_all(
    fleet: Fleet, file_lock: Lock
) -> None:
    """P6: `signals.rewrite`."""
    rewrite = {"rewrite": {"SIGHUP": "SIGUSR1", "SIGUSR1": "SIGHUP", "SIGUSR2": "none"}}
    one = fleet.start("one", file_lock, settings={"signals": rewrite})
    one.started()
    for count, number in enumerate((signal.SIGHUP, signal.SIGUSR1), 1):
        one.tell(number)
        eventually(lambda count=count: len(one.signals()) == count, "it arrives")
    one.tell(signal.SIGUSR2)
    one.tell(signal.SIGWINCH)
    eventually(lambda: len(one.signals()) == 3, "the last arrives")
    assert one.signals() == [signal.SIGUSR1, signal.SIGHUP, signal.SIGWINCH]


@pytest.mark.parametrize("target", ["main", "group"])
def test_the_target_says_who_gets_what_is_forwarded(fleet: Fleet, file_lock: Lock, target: str) -> None:
    """P7: main: exactly the main process; group: everybody in its group."""
    script = "trap 'echo shell >> $0' USR1; \"$@\" & while :; do wait; done"
    said = fleet.folder / "shell"
    child = fleet.actor("child")
    one = fleet.start(
        "one", file_lock, command=["sh", "-c", script, str(said), *child], settings={"signals": {"target": target}}
    )
    eventually(lambda: any(each.what == "start" for each in fleet.entries()), "the child starts")
    one.tell(signal.SIGUSR1)
    eventually(said.exists, "the main process gets it")
    got = [each for each in fleet.entries() if each.what == "signal" and int(each.detail) == signal.SIGUSR1]
    if target == "group":
        eventually(lambda: any(each.what == "signal" for each in fleet.entries()), "the child gets it")
    else:
        assert got == []


def test_a_pipeline_is_gone_after_the_stop(fleet: Fleet, file_lock: Lock) -> None:
    """P7: `stop.kill_mode: group` tells all four processes at once."""
    one = fleet.start(
        "one",
        file_lock,
        command=["sh", "-c", "echo up >&2; yes | cat | cat | cat > /dev/null"],
        settings={"stop": {"kill_mode": "group", "timeout": "60s"}},
    )
    one.says("up\n")
    one.tell(signal.SIGTERM)
    assert one.ends() == 128 + signal.SIGTERM
    assert fleet.left_behind() == []


def test_a_command_that_ignores_the_stop_is_killed_at_the_timeout_and_not_before(fleet: Fleet, file_lock: Lock) -> None:
    """S4: renewals go on meanwhile, so the command has all of its time even if the lease is shorter."""
    settings = {"stop": {"timeout": "5s"}, "election": {"lease_duration": 5, "renew_deadline": 4}}
    one = fleet.start("one", file_lock, "ignore=SIGTERM", settings=settings)
    watched = Watched(one.started().pid)
    told = now()
    one.tell(signal.SIGTERM)
    gone = watched.wait()
    assert told + 5 <= gone < told + 9
    assert one.ends() == 128 + signal.SIGKILL
    one.says("it has not ended in time")


def test_a_suspended_command_ends_in_order(fleet: Fleet, file_lock: Lock) -> None:
    """P16: SIGCONT comes after the stop signal, else it would sleep through it until SIGKILL."""
    one = fleet.start("one", file_lock, "exit=6", settings={"stop": {"timeout": "60s"}})
    pid = one.started().pid
    kill(pid, signal.SIGSTOP)
    eventually(lambda: state_of(pid) == "T", "it is suspended")
    one.tell(signal.SIGTERM)
    assert one.ends() == 6


def test_a_suspended_instance_suspends_its_command_and_keeps_the_lease(fleet: Fleet, file_lock: Lock) -> None:
    """P9: SIGTSTP and SIGCONT. The keeper stays awake: it has grants to acknowledge."""
    one = fleet.start("one", file_lock, settings={"election": LONG})
    pid = one.started().pid
    for _ in range(2):
        one.tell(signal.SIGTSTP)
        eventually(lambda: state_of(pid) == "T", "it is suspended")
        renews(file_lock, 3)
        one.tell(signal.SIGCONT)
        eventually(lambda: state_of(pid) != "T", "it goes on")
    assert len(one.entries("start")) == 1


def test_escaped_daemons_are_dead_before_the_end_and_before_the_release(fleet: Fleet, lock: Lock) -> None:
    """P14: a daemon that ignores SIGTERM, in a session of its own, whose parents are gone."""
    words = ("daemons=3", "daemons_ignore=SIGTERM")
    first = fleet.start("first", lock, *words, settings={"stop": {"timeout": "2s"}})
    first.started()
    daemons = first.daemons(3)
    second = fleet.start("second", lock)
    second.follows()
    first.tell(signal.SIGTERM)
    assert first.ends() == 0
    assert not any(is_alive(pid) for pid in daemons)
    second.started()
    signs = [each.at for each in first.entries()]
    assert max(signs) < second.entries("start")[0].at


def test_no_stop_is_lost_in_a_flood(fleet: Fleet, file_lock: Lock) -> None:
    """P13: three thousand signals overflow what wakes us; what is remembered does not depend on that."""
    one = fleet.start("one", file_lock)
    one.started()
    for _ in range(3000):
        one.tell(signal.SIGUSR1)
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert one.signals()[-1] == signal.SIGTERM


@pytest.mark.parametrize("first", ["child", "init"])
def test_a_hundred_orphans_leave_no_zombie(fleet: Fleet, file_lock: Lock, first: str) -> None:
    """P3, P4: as PID 1 and as a subreaper."""
    litter = [sys.executable, "-I", "-S", str(Path(__file__).parent / "litter.py")]
    prefix = ["unshare", "--pid", "--fork", "--mount-proc"] if first == "init" else []
    if prefix and subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("no PID namespace is to be had here")
    one = fleet.start("one", file_lock, command=litter, settings={"restart": {"policy": "never"}}, prefix=prefix)
    assert one.ends() == 0, one.stderr


def test_as_init_the_daemons_die_before_the_release_too(fleet: Fleet, file_lock: Lock) -> None:
    """P14 as PID 1, where the keeper is who the kernel gives orphans to."""
    prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("no PID namespace is to be had here")
    one = fleet.start("one", file_lock, "daemons=2", "exit=8", prefix=prefix)
    one.started()
    one.daemons(2)
    keeper = eventually(lambda: fleet.child_running(one.pid, PROGRAM), "the keeper runs")
    kill(keeper, signal.SIGTERM)
    assert one.ends() == 8
    record = file_lock.record()
    assert record is not None and record.holder == ""


def test_the_command_finds_its_signals_as_we_found_them(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    """P11: what was blocked or ignored stays so, and nothing else is."""
    with open(tmp_path / "status", "wb") as file:
        one = fleet.start(
            "one",
            file_lock,
            command=["cat", "/proc/self/status"],
            prefix=[sys.executable, "-c", BEFORE],
            stdout=file,
        )
        assert one.ends() == 0
    status = (tmp_path / "status").read_text()
    sets = {name: int(value, 16) for name, value in re.findall(r"(Sig\w+):\s*([0-9a-f]+)", status)}
    assert sets["SigBlk"] == 1 << (signal.SIGUSR2 - 1)
    assert sets["SigIgn"] == 1 << (signal.SIGUSR1 - 1)


def test_the_command_gets_no_open_file_of_ours(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    """P11: neither the first nor a restarted one; the fourth is of the listing itself."""
    script = "ls /proc/self/fd | tr '\\n' ' '; echo; test -e $0 || { touch $0; exit 1; }"
    settings = {"restart": {"backoff": {"initial": "10ms"}}}
    with open(tmp_path / "listing", "wb") as file:
        one = fleet.start(
            "one", file_lock, command=["sh", "-c", script, str(tmp_path / "again")], stdout=file, settings=settings
        )
        assert one.ends() == 0
    assert (tmp_path / "listing").read_text().splitlines() == ["0 1 2 3 "] * 2


def test_standard_input_is_handed_over(fleet: Fleet, file_lock: Lock) -> None:
    """P12: as in a shell's pipe."""
    one = fleet.start(
        "one", file_lock, command=["sh"], stdin=subprocess.PIPE, settings={"restart": {"policy": "never"}}
    )
    assert one.process.stdin is not None
    with one.process.stdin as pipe:
        pipe.write(b"exit 3\n")
    assert one.ends() == 3


def test_a_lost_lease_cuts_the_stop_short(fleet: Fleet, file_lock: Lock) -> None:
    """A stop that is under way leaves no time either when another holds the lease.

    No renewal comes in time to find out: somebody watches the lease.
    """
    election = {"lease_duration": 60, "renew_deadline": 40, "retry_period": 20}
    settings = {"stop": {"timeout": "60s"}, "election": election}
    one = fleet.start("one", file_lock, "ignore=SIGTERM", settings=settings)
    watched = Watched(one.started().pid)
    one.tell(signal.SIGTERM)
    eventually(lambda: one.signals() == [signal.SIGTERM], "it is asked")
    taken = now()
    file_lock.take("intruder")
    assert watched.wait() < taken + 10
    one.ends()
    record = file_lock.record()
    assert record is not None and record.holder == "intruder"
