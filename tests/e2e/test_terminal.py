"""On a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import termios
from collections.abc import Iterator

import pytest

from tests.e2e.instances import PATIENCE, Fleet, Instance, now
from tests.e2e.locks import Lock


class Screen:
    """A terminal, and all that was shown on it."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        self.shown = ""

    def start(self, fleet: Fleet, lock: Lock, *command: str) -> Instance:
        return fleet.start(
            "one",
            lock,
            command=command,
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            settings={"restart": {"policy": "never"}},
        )

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def shows(self, text: str) -> None:
        until = now() + PATIENCE
        while text not in self.shown:
            ready, _, _ = select.select([self.ours], [], [], max(0.0, until - now()))
            assert ready, f"{text!r} is not shown, but: {self.shown}"
            self.shown += os.read(self.ours, 65536).decode(errors="replace")


@pytest.fixture
def screen(fleet: Fleet) -> Iterator[Screen]:
    one = Screen()
    yield one
    fleet.end()
    os.close(one.theirs)
    os.close(one.ours)


def test_ctrl_c_on_a_loop_ends_with_130_at_once(fleet: Fleet, file_lock: Lock, screen: Screen) -> None:
    """P10: the command is the terminal's foreground, and its death by SIGINT is no crash to be answered."""
    one = screen.start(fleet, file_lock, "sh", "-c", "echo loop-is-on; while :; do sleep 0.05; done")
    screen.shows("loop-is-on")
    typed = now()
    screen.type("\x03")
    assert one.ends() == 128 + signal.SIGINT
    assert now() < typed + 2
    record = file_lock.record()
    assert record is not None and record.holder == ""


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
