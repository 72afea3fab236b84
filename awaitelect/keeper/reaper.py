"""Reaping: every child that has ended, ours or adopted; and seeing that one was stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator


def reap() -> Iterator[tuple[int, int]]:
    """Pid and status of each child that has ended by now: its exit code, or minus the number of a signal."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def stopped_by(pid: int) -> int | None:
    """The signal that has stopped this child since the last call; None if none has."""
    try:
        seen = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
    except ChildProcessError:
        return None
    return seen.si_status if seen else None
