"""On a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.instances import (
    MARK,
    PATIENCE,
    PROGRAM,
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


class Screen:
    """A terminal, and all that was shown on it."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        self.shown = ""
        """What has not been looked for yet."""

    def start(self, fleet: Fleet, lock: Lock, *command: str, policy: str = "never") -> Instance:
        return fleet.start(
            "one",
            lock,
            command=command,
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=True,
            preexec_fn=take_terminal,
            settings={"restart": {"policy": policy}},
        )

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def shows(self, text: str) -> None:
        until = now() + PATIENCE
        while text not in self.shown:
            ready, _, _ = select.select([self.ours], [], [], max(0.0, until - now()))
            assert ready, f"{text!r} is not shown, but: {self.shown}"
            self.shown += os.read(self.ours, 65536).decode(errors="replace")
        self.shown = self.shown.partition(text)[2]

    @property
    def foreground(self) -> int:
        """The process group that gets what is typed."""
        return os.tcgetpgrp(self.ours)


def take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Shell(Screen):
    """An interactive shell on a terminal, and awaitelect as a job of it."""

    def open(self, fleet: Fleet, lock: Lock, **changes: Any) -> None:
        """Start the shell. `changes` are sections of the settings of the instance that it will start."""
        self.fleet = fleet
        self._settings = fleet.folder / "one.yaml"
        chosen = fleet.settings("one", lock, {"restart": {"policy": "never"}, "log": {"level": "warning"}, **changes})
        self._settings.write_text(yaml.safe_dump(chosen))
        self.process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "--noediting", "-i"],
            env={**os.environ, MARK: fleet.mark, "PS1": "ready> ", "TERM": "dumb"},
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        self.shows("ready> ")

    def run(self, *command: str, after: str = "") -> None:
        """Type a command line that starts awaitelect with this command."""
        words = " ".join(f"'{word}'" for word in command)
        self.type(f"{PROGRAM} -c {self._settings} -- {words} {after}\n")

    def run_actor(self, *words: str, after: str = "") -> int:
        """The same with the actor; its pid once it has started."""
        self.run(*self.fleet.actor("one", *words), after=after)
        found = eventually(lambda: self.entries("start"), "the command starts")
        return found[0].pid

    def entries(self, what: str) -> list[Any]:
        return [one for one in self.fleet.entries() if one.what == what]

    @property
    def job(self) -> int:
        """The pid of the job that the shell knows."""
        return eventually(
            lambda: next((one for one in children_of(self.process.pid) if PROGRAM in command_line(one)), 0),
            "the shell has a job",
        )

    @property
    def keeper(self) -> int:
        return eventually(
            lambda: next((one for one in children_of(self.job) if PROGRAM in command_line(one)), 0),
            "the job has a keeper",
        )

    def status(self, expected: int) -> None:
        """The exit status of the last job, once the prompt is back."""
        self.type("echo its-status:$?:\n")
        self.shows(f"its-status:{expected}:")
        self.shows("ready> ")


@pytest.fixture
def shell(fleet: Fleet) -> Iterator[Shell]:
    one = Shell()
    yield one
    print(one.shown)
    fleet.end()
    one.process.wait()
    os.close(one.theirs)
    os.close(one.ours)


@pytest.fixture
def screen(fleet: Fleet) -> Iterator[Screen]:
    one = Screen()
    yield one
    fleet.end()
    os.close(one.theirs)
    os.close(one.ours)


def test_ctrl_c_on_a_loop_ends_with_130_at_once(fleet: Fleet, file_lock: Lock, screen: Screen) -> None:
    """P10: the command is the terminal's foreground, and its death by SIGINT is no crash to be answered."""
    one = screen.start(fleet, file_lock, "sh", "-c", "echo loop-is-on; while :; do sleep 0.05; done", policy="always")
    screen.shows("loop-is-on")
    typed = now()
    screen.type("\x03")
    assert one.ends() == 128 + signal.SIGINT
    assert now() < typed + 9
    record = file_lock.record()
    assert record is not None and record.holder == ""


def test_ctrl_c_that_is_caught_and_reported_as_shells_do_ends_all_too(
    fleet: Fleet, file_lock: Lock, screen: Screen
) -> None:
    """Python, make and many others tidy up first: that they are started again is the last that their user wants."""
    script = "trap 'echo tidied; exit 130' INT; echo loop-is-on; while :; do sleep 0.05; done"
    one = screen.start(fleet, file_lock, "sh", "-c", script, policy="always")
    screen.shows("loop-is-on")
    screen.type("\x03")
    assert one.ends() == 128 + signal.SIGINT
    screen.shows("tidied")


def test_a_shell_can_be_talked_to(fleet: Fleet, file_lock: Lock, screen: Screen) -> None:
    """P10: input, output and the exit status."""
    one = screen.start(fleet, file_lock, "sh", "-i")
    screen.type("echo $((20+3))$((2*2))x\n")
    screen.shows("234x")
    screen.type("exit 9\n")
    assert one.ends() == 9


def test_log_lines_on_a_terminal_are_text_in_colour(fleet: Fleet, file_lock: Lock, screen: Screen) -> None:
    """People read them there: local time, who speaks, no field names."""
    one = screen.start(fleet, file_lock, "sh", "-c", "exit 4")
    screen.shows("lease:\x1b[0m \x1b[31mthe command exited with 4")
    assert one.ends() == 4


def test_a_stop_in_the_middle_gives_the_terminal_back(fleet: Fleet, file_lock: Lock, screen: Screen) -> None:
    """Whoever started us from a shell reads from the terminal next."""
    one = screen.start(
        fleet, file_lock, "sh", "-c", "trap 'exit 3' TERM; echo up-and-running; while :; do sleep 0.05; done"
    )
    screen.shows("up-and-running")
    one.tell(signal.SIGTERM)
    assert one.ends() == 3


def test_ctrl_c_comes_once(fleet: Fleet, file_lock: Lock, screen: Screen) -> None:
    """P10: many programs take the second for: now. It must not come from the terminal and from us."""
    one = screen.start(fleet, file_lock, *fleet.actor("one", "linger=0.5", "exit=7"))
    one.started()
    screen.type("\x03")
    assert one.ends() == 7
    assert one.signals() == [signal.SIGINT]


def test_on_a_terminal_the_command_has_a_group_of_its_own_in_the_foreground(
    fleet: Fleet, file_lock: Lock, screen: Screen
) -> None:
    """In a session of its own it would have no terminal, in our group what is typed would come twice."""
    one = screen.start(fleet, file_lock, *fleet.actor("one"))
    pid = one.started().pid
    assert os.getpgid(pid) == pid == screen.foreground
    assert os.getsid(pid) == one.pid
    one.tell(signal.SIGTERM)
    one.ends()


def test_without_a_terminal_the_command_has_a_session_of_its_own(fleet: Fleet, file_lock: Lock) -> None:
    """What is meant for our group or session must not reach it but through us."""
    one = fleet.start("one", file_lock)
    pid = one.started().pid
    assert os.getsid(pid) == pid


def test_an_interactive_shell_has_job_control(fleet: Fleet, file_lock: Lock, screen: Screen) -> None:
    """P10: it suspends and continues jobs of its own, and has nothing to warn of."""
    one = screen.start(fleet, file_lock, "bash", "--norc", "--noprofile", "--noediting", "-i")
    screen.type("PS1='inner> '; echo talks:$((1+1))\n")
    screen.shows("talks:2")
    screen.type("sleep 1000\n")
    eventually(lambda: "sleep" in command_line(screen.foreground), "the inner job is in the foreground")
    screen.type("\x1a")
    screen.shows("Stopped")
    screen.type("jobs; fg\n")
    screen.shows("Stopped")
    eventually(lambda: "sleep" in command_line(screen.foreground), "it is again")
    screen.type("\x03")
    screen.shows("inner> ")
    screen.type("exit 9\n")
    assert one.ends() == 9
    assert "job control" not in one.stderr


def test_where_nobody_could_continue_it_ctrl_z_suspends_nothing(fleet: Fleet, file_lock: Lock, screen: Screen) -> None:
    """As the entry point of a container on a terminal there is no shell to type `fg` at."""
    one = screen.start(fleet, file_lock, *fleet.actor("one"))
    one.started()
    screen.type("\x1a")
    screen.shows("^Z")
    beats = len(one.entries("beat"))
    eventually(lambda: len(one.entries("beat")) > beats + 20, "it goes on")
    screen.type("\x03")
    assert one.ends() == 0
    assert one.signals() == [signal.SIGINT]


def test_ctrl_z_suspends_the_job_and_keeps_the_lease(fleet: Fleet, file_lock: Lock, shell: Shell) -> None:
    """P9: the shell has its prompt back, for longer than the lease lasts; `fg` goes on where it was."""
    election = {"lease_duration": 6, "renew_deadline": 5}
    shell.open(fleet, file_lock, election=election)
    pid = shell.run_actor()
    other = fleet.start("other", file_lock)
    other.follows()
    for lasting in (election["lease_duration"] + 0.5, 0.5):
        shell.type("\x1a")
        shell.shows("Stopped")
        shell.shows("ready> ")
        assert state_of(pid) == "T" and state_of(shell.job) == "T"
        beats = len(shell.entries("beat"))
        until = now() + lasting
        eventually(lambda until=until: now() > until, "the lease would be over, the first time")
        assert len(shell.entries("beat")) == beats
        shell.type("fg\n")
        eventually(lambda beats=beats: len(shell.entries("beat")) > beats, "it goes on")
        eventually(lambda: shell.foreground == pid, "it has the terminal")
    shell.type("\x03")
    shell.shows("ready> ")
    shell.status(0)
    assert other.started().at > shell.entries("end")[0].at
    assert [int(one.detail) for one in shell.entries("signal") if one.name == "one"].count(signal.SIGINT) == 1


def test_bg_lets_it_go_on_without_the_terminal(fleet: Fleet, file_lock: Lock, shell: Shell) -> None:
    """What is typed is the shell's meanwhile; a restart of the command does not take the terminal from it either."""
    shell.open(fleet, file_lock, restart={"policy": "always", "backoff": {"initial": "10ms"}})
    pid = shell.run_actor()
    shell.type("\x1a")
    shell.shows("ready> ")
    shell.type("bg\n")
    shell.shows("ready> ")
    eventually(lambda: state_of(pid) == "S", "it goes on")
    assert shell.foreground == shell.process.pid
    kill(pid, signal.SIGKILL)
    again = eventually(lambda: len(found := shell.entries("start")) == 2 and found[1].pid, "it is started again")
    eventually(lambda: any(one.pid == again for one in shell.entries("beat")), "it lives")
    assert shell.foreground == shell.process.pid
    shell.status(0)
    shell.type("fg\n")
    eventually(lambda: shell.foreground != shell.process.pid, "the shell has let go of the terminal")
    shell.type("\x03")
    shell.shows("ready> ")
    shell.status(0)
    assert not is_alive(again)


def test_a_signal_suspends_and_resumes_both(fleet: Fleet, file_lock: Lock, shell: Shell) -> None:
    """P9: `kill -TSTP` and `kill -CONT` of the job from elsewhere, as Ctrl-Z and `bg`."""
    shell.open(fleet, file_lock)
    pid = shell.run_actor()
    job = shell.job
    for _ in range(2):
        kill(job, signal.SIGTSTP)
        eventually(lambda: state_of(pid) == state_of(job) == "T", "both are suspended")
        renews(file_lock, 3)
        kill(job, signal.SIGCONT)
        eventually(lambda: state_of(pid) == state_of(job) == "S", "both go on")
    watched = Watched(job)
    kill(job, signal.SIGTERM)
    watched.wait()
    record = file_lock.record()
    assert record is not None and record.holder == ""


def test_all_of_a_suspended_pipeline_goes_on(fleet: Fleet, file_lock: Lock, shell: Shell) -> None:
    """The terminal stops the whole group of the command, so all of it has to be continued."""
    shell.open(fleet, file_lock)
    shell.run("sh", "-c", "yes up | while read x; do echo $x-$x; sleep 0.05; done")
    shell.shows("up-up")
    shell.type("\x1a")
    shell.shows("ready> ")
    shell.type("fg\n")
    for _ in range(5):
        shell.shows("up-up")
    shell.type("\x03")
    shell.shows("ready> ")
    shell.status(130)


def test_a_follower_can_be_suspended_too(fleet: Fleet, file_lock: Lock, shell: Shell) -> None:
    """With nothing to stop but the shell's job; Ctrl-C ends it."""
    leader = fleet.start("leader", file_lock)
    leader.started()
    shell.open(fleet, file_lock, log={"level": "info"})
    shell.run("cat")
    shell.shows("following")
    shell.type("\x1a")
    shell.shows("Stopped")
    shell.shows("ready> ")
    shell.type("fg\n")
    eventually(lambda: state_of(shell.job) == "S", "it goes on")
    shell.type("\x03")
    shell.shows("ready> ")
    shell.status(0)


def test_who_reads_in_the_background_waits_for_the_foreground(fleet: Fleet, file_lock: Lock, shell: Shell) -> None:
    """Started with `&`: it must not read what is typed for the shell."""
    shell.open(fleet, file_lock)
    shell.run("sh", "-c", "read line; echo got:$line; exit 5", after="&")
    job = shell.job
    eventually(lambda: state_of(job) == "T", "it is suspended for its reading")
    shell.status(0)
    shell.type("fg\n")
    shell.shows("read line")
    shell.type("a line\n")
    shell.shows("got:a line")
    shell.shows("ready> ")
    shell.status(5)


def test_a_running_job_that_is_brought_to_the_foreground_can_read(fleet: Fleet, file_lock: Lock, shell: Shell) -> None:
    """Nobody is told when the shell does that, so the command finds out by being stopped, and goes on at once."""
    shell.open(fleet, file_lock)
    go = fleet.folder / "go"
    script = f"echo up-and-running; until test -e {go}; do sleep 0.02; done; read line; echo got:$line"
    shell.run("sh", "-c", script, after="&")
    shell.shows("up-and-running\r\n")
    shell.type("fg\n")
    eventually(lambda: shell.foreground == shell.job, "it is in the foreground")
    go.touch()
    shell.type("a line\n")
    shell.shows("got:a line")
    shell.shows("ready> ")
    shell.status(0)


def test_a_suspended_job_whose_lease_is_lost_ends_for_the_shell_too(
    fleet: Fleet, file_lock: Lock, shell: Shell
) -> None:
    """The command must be gone at once, suspended or not; the shell is told how it ended."""
    # No renewal comes in time to find out, but the lease is watched.
    election = {"on_lost": "exit", "lease_duration": 60, "renew_deadline": 40, "retry_period": 20}
    shell.open(fleet, file_lock, election=election)
    watched = Watched(shell.run_actor())
    shell.type("\x1a")
    shell.shows("ready> ")
    job = Watched(shell.job)
    taken = now()
    file_lock.take("intruder")
    assert watched.wait() < taken + 9
    job.wait()
    shell.type("\n")
    shell.shows("Exit 75")


def test_a_killed_job_leaves_nothing_behind(fleet: Fleet, file_lock: Lock, shell: Shell) -> None:
    """`kill -9 %1`: the keeper dies with the job, and the others see to the rest."""
    shell.open(fleet, file_lock)
    pid = shell.run_actor("daemons=1")
    daemon = eventually(lambda: shell.entries("daemon"), "its daemon runs")[0].pid
    watched = [Watched(one) for one in (pid, daemon, shell.keeper)]
    kill(shell.job)
    for one in watched:
        one.wait()
    shell.shows("ready> ")
    shell.status(137)


def test_a_stopped_keeper_stops_the_job_and_goes_on_with_it(fleet: Fleet, file_lock: Lock, shell: Shell) -> None:
    """The shell sees one job; half of it asleep must not look like all of it awake."""
    shell.open(fleet, file_lock, election={"lease_duration": 30, "renew_deadline": 20})
    shell.run_actor()
    keeper = shell.keeper
    kill(keeper, signal.SIGSTOP)
    shell.shows("Stopped")
    shell.shows("ready> ")
    shell.type("fg\n")
    eventually(lambda: state_of(keeper) == "S", "it goes on")
    renews(file_lock, 3)
    shell.type("\x03")
    shell.shows("ready> ")
    shell.status(0)


def test_the_modes_of_the_terminal_outlive_a_command_that_was_killed(
    fleet: Fleet, file_lock: Lock, shell: Shell
) -> None:
    """P10: the shell takes our exit status for an orderly end, and would leave its user without echo."""
    shell.open(fleet, file_lock)
    before = termios.tcgetattr(shell.theirs)
    shell.run("sh", "-c", "stty raw -echo; kill -9 $$")
    shell.shows("ready> ")
    assert termios.tcgetattr(shell.theirs)[:4] == before[:4]
    shell.status(137)


def test_what_a_command_chooses_for_the_terminal_stays(fleet: Fleet, file_lock: Lock, shell: Shell) -> None:
    """`awaitelect -- stty -echo` does what it says."""
    shell.open(fleet, file_lock)
    shell.run("stty", "-echo")
    shell.shows("ready> ")
    assert not termios.tcgetattr(shell.theirs)[3] & termios.ECHO


def test_without_an_election_the_command_is_a_job_like_any_other(fleet: Fleet, file_lock: Lock, shell: Shell) -> None:
    """Switched off in the file: it takes the keeper's place, and is suspended and resumed by the same keys."""
    shell.open(fleet, file_lock, election={"enabled": False})
    shell.run("sh", "-c", "echo up-and-running; cat; exit 6")
    shell.shows("up-and-running\r\n")
    eventually(lambda: Fleet.child_running(shell.foreground, "cat"), "a shell that is just forking hears nothing")
    shell.type("\x1a")
    shell.shows("Stopped")
    shell.shows("ready> ")
    shell.type("fg\n")
    eventually(lambda: shell.foreground != shell.process.pid and state_of(shell.job) == "S", "it goes on")
    shell.type("a line\n")
    shell.shows("a line\r\na line")
    shell.type("\x04")
    shell.shows("ready> ")
    shell.status(6)
    shell.run("cat")
    eventually(lambda: command_line(shell.foreground)[:1] == ["cat"], "it is in the foreground")
    shell.type("\x03")
    shell.shows("ready> ")
    shell.status(130)


@pytest.mark.parametrize("policy", ["never", "always"])
def test_a_terminal_that_hangs_up_ends_it(fleet: Fleet, file_lock: Lock, shell: Shell, policy: str) -> None:
    """A lost connection: nobody would ever see it again. The command's death is no crash either."""
    shell.open(fleet, file_lock, restart={"policy": policy, "backoff": {"initial": "10ms"}})
    shell.run("sh", "-c", "echo up-and-running; while :; do sleep 0.05; done")
    shell.shows("up-and-running\r\n")
    watched = [Watched(one) for one in (shell.job, shell.keeper)]
    kill(shell.process.pid)
    for one in watched:
        one.wait()
    record = file_lock.record()
    assert record is not None and record.holder == ""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_what_was_ignored_at_the_start_stops_nothing(
    fleet: Fleet, file_lock: Lock, shell: Shell, number: signal.Signals
) -> None:
    """`nohup`, and `&` in a script: whoever ignores a signal for us means all of us."""
    shell.open(fleet, file_lock, stop={"timeout": "100ms"})
    shell.type(f"trap '' {number.name}\n")
    shell.shows("ready> ")
    pid = shell.run_actor(f"ignore={number.name}")
    job = shell.job
    kill(job, number)
    eventually(lambda: any(int(one.detail) == number for one in shell.entries("signal")), "the command may decide")
    renews(file_lock, 3)
    assert is_alive(pid)
    kill(job, signal.SIGTERM)
    shell.shows("ready> ")


def test_a_make_like_parent_is_suspended_with_it(fleet: Fleet, file_lock: Lock, shell: Shell) -> None:
    """The shell's job may be a script that runs awaitelect: its process group is what stops."""
    shell.open(fleet, file_lock)
    script = fleet.folder / "script"
    words = " ".join(f"'{word}'" for word in fleet.actor("one"))
    script.write_text(f"{PROGRAM} -c {fleet.folder / 'one.yaml'} -- {words}\necho script-has:$?:\n")
    shell.type(f"sh {script}\n")
    pid = eventually(lambda: shell.entries("start"), "the command starts")[0].pid
    shell.type("\x1a")
    shell.shows("Stopped")
    shell.shows("ready> ")
    assert state_of(pid) == "T"
    renews(file_lock, 3)
    shell.type("fg\n")
    eventually(lambda: shell.foreground == pid, "it has the terminal")
    shell.type("\x03")
    shell.shows("script-has:0:")


def test_started_as_init_on_a_terminal_there_is_no_second_process(
    fleet: Fleet, file_lock: Lock, screen: Screen, tmp_path: Path
) -> None:
    """PID 1 must be the keeper: orphans go to it, and its end ends the container."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no PID namespace is to be had here: it needs root")
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump(fleet.settings("one", file_lock, {"restart": {"policy": "never"}})))
    process = subprocess.Popen(
        [*unshare, PROGRAM, "-c", str(path), "--", "sh", "-c", "echo parent:$PPID; cat /proc/1/cmdline; cat"],
        env={**os.environ, MARK: fleet.mark},
        stdin=screen.theirs,
        stdout=screen.theirs,
        stderr=screen.theirs,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    screen.shows("parent:1\r\n")
    screen.type("\x03")
    assert process.wait(PATIENCE) == 128 + signal.SIGINT
