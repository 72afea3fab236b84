"""Signals to the keeper: none is lost, and nothing of our set-up leaks into the command.

All are blocked by the first instruction of the program (cli.py) and let in once the pipe and the flags stand. The pipe
tells which have come, in order and how often; the flags, which of them when a flood has overflowed the pipe.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterable
from types import FrameType

UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}
SHUTDOWN = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
SUSPENSION = {signal.SIGTSTP, signal.SIGSTOP, signal.SIGCONT}
"""Meant for all of a job, never for one process of it."""
JOB_CONTROL = {signal.SIGTTIN, signal.SIGTTOU}
HIDDEN = {signal.SIGPIPE, signal.SIGXFSZ}
"""The interpreter ignores these at its start, so that nobody knows how we got them: the command gets the default."""


class Signals:
    """The signals that have come, in order, and how the command is to find them set."""

    def __init__(self, original_mask: Iterable[int]) -> None:
        """Catch everything, and let in what was blocked. `original_mask`: the signals blocked when we were started."""
        self.original_mask = set(original_mask)
        self._flags: set[int] = set()
        self.read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # Half of it: a page that is read in part counts as full. (A user with many pipes gets small ones.)
        self._plenty = fcntl.fcntl(self.read_fd, fcntl.F_GETPIPE_SZ) // 2
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        catchable = signal.valid_signals() - UNCATCHABLE
        self.ignored = {n for n in catchable - HIDDEN if signal.getsignal(n) == signal.SIG_IGN}
        for number in catchable - JOB_CONTROL:
            try:
                signal.signal(number, self._note)
            except OSError:
                pass  # the C library keeps two real-time signals to itself
        for number in JOB_CONTROL:  # a keeper in the background must not be stopped by a log line
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._flags.add(number)

    def take(self) -> list[int]:
        """The signals that have come since the last call, in order; real-time ones as often as they were sent.

        Of a flood of many thousands each number is there at least once.
        """
        flags, self._flags = self._flags, set()
        come = self._read()
        if len(come) < self._plenty:
            return come
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        come += self._read()
        come += (flags | self._flags).difference(come)
        self._flags = set()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return come

    def _read(self) -> list[int]:
        come = b""
        try:
            while True:
                come += os.read(self.read_fd, 65536)
        except BlockingIOError:
            return list(come)

    def restore(self) -> None:
        """Set everything as we found it: the last thing before an exec."""
        signal.set_wakeup_fd(-1)
        set_for_command(self.ignored, self.original_mask)


def set_for_command(ignored: Iterable[int], mask: Iterable[int]) -> None:
    """The default dispositions but for those that were ignored, and the mask."""
    ignored = set(ignored)
    for number in signal.valid_signals() - UNCATCHABLE:
        try:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
        except OSError:
            pass
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def name(number: int) -> str:
    """`SIGTERM` for 15."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
