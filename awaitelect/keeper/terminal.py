"""The terminal on standard input: whose foreground it is, and the modes that it is left in."""

from __future__ import annotations

import os
import signal
from typing import Any


class Terminal:
    """Our controlling terminal on standard input, or none; then nothing here does anything."""

    def __init__(self, job: int | None = None) -> None:
        """`job`: the pid of the process that a shell suspends and resumes in our place."""
        self.job = job
        self.is_suspended = False
        """The command was stopped on it, and the shell's job with it."""
        self._own = os.getpgrp()
        self._home = os.getpgid(job) if job else self._own
        self._modes: list[Any] | None = None
        try:
            os.tcgetpgrp(0)
            self.is_there = True
        except OSError:
            self.is_there = False

    @property
    def has_gone(self) -> bool:
        """It was there, and has hung up."""
        if self.is_there:
            try:
                os.tcgetpgrp(0)
            except OSError:
                return True
        return False

    @property
    def _is_ours(self) -> bool:
        try:
            return self.is_there and os.tcgetpgrp(0) in (self._home, self._own)
        except OSError:
            return False

    def give_to(self, group: int) -> bool:
        """Make the process group the foreground; False where the foreground is not ours to give.

        The shell's is not: while we are in the background, what is typed is for others.
        """
        if not self._is_ours:
            return False
        try:
            os.tcsetpgrp(0, group)
        except OSError:
            return False
        return True

    def take_from(self, group: int) -> None:
        """That group is gone: what is typed comes to us again."""
        self.is_suspended = False
        try:
            if self.is_there and os.tcgetpgrp(0) == group:
                os.tcsetpgrp(0, self._home)
        except OSError:
            pass  # the terminal is gone

    def save_modes(self) -> None:
        """Remember echo, line editing and the like as they are now, unless the terminal is somebody else's now."""
        self._modes = None
        if self._is_ours:
            import termios

            try:
                self._modes = termios.tcgetattr(0)
            except termios.error:
                pass

    def restore_modes(self) -> None:
        """Undo what a command that died of a signal had no time to undo; a shell sees no more than our exit status."""
        if self._modes and self._is_ours:
            import termios

            try:
                termios.tcsetattr(0, termios.TCSANOW, self._modes)  # nothing here waits for a terminal that is held
            except termios.error:
                pass

    def suspend_job(self) -> bool:
        """Have the shell's job stop, so that the shell shows its prompt. False where there is no such job."""
        if self.job is None:
            return False
        try:
            os.kill(self.job, signal.SIGTSTP)
        except ProcessLookupError:
            return False
        return True

    def resume_job(self) -> None:
        """Let the job go on: a stopped one could not end with us."""
        if self.job is not None:
            try:
                os.kill(self.job, signal.SIGCONT)
            except ProcessLookupError:
                pass
