"""The descendants: who they are, and how to be rid of all of them.

As PID 1 or subreaper, the orphans of our descendants become our own children. So whoever kills and reaps every child
until none is left has got them all, free of races: a child's pid cannot be recycled before we have reaped it.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

BATCH = 200
"""Processes that are held by their pidfd at the same time."""
PASSES = 5
"""How often to look again for processes that were started while the others were signalled."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)
_held: tuple[int, int] | None = None
"""Our pid and the open list of our children; a fork has to open its own."""


def become_subreaper() -> bool:
    """Orphans of our descendants come to us from now on. False where the kernel refuses."""
    return os.getpid() == 1 or _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def resign_as_subreaper() -> None:
    """Undo that: it would outlive an exec."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def die_with_parent() -> None:
    """SIGKILL to us when our parent ends (prctl(2) PR_SET_PDEATHSIG). Raises OSError."""
    if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def children() -> set[int]:
    """The pids of our children, zombies included."""
    try:
        fd, listed = _children_file(), b""
        while part := os.pread(fd, 65536, len(listed)):
            listed += part
        return {int(pid) for pid in listed.split()}
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        import psutil

        return {child.pid for child in psutil.Process().children()}


def _children_file() -> int:
    """Held open: with no descriptor left, to know who is alive matters the most."""
    global _held
    if _held is None or _held[0] != os.getpid():
        _held = (os.getpid(), os.open("/proc/thread-self/children", os.O_RDONLY | os.O_CLOEXEC))
    return _held[1]


def kill(pids: set[int]) -> None:
    """SIGKILL to children of ours."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass  # of another user, by setuid: it is seen again, and reported as one that cannot be killed


def descendants(pids: set[int]) -> set[int]:
    """These processes, theirs, and so on. Nothing is read that another process could hold us up with."""
    found: set[int] = set()
    new = list(pids)
    while new:
        pid = new.pop()
        found.add(pid)
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:
                    new += {int(child) for child in file.read().split()} - found
        except OSError:
            pass  # it has ended: its children have come to us
    return found


def signal_all(members: Callable[[], set[int]], *numbers: int) -> None:
    """Send these signals, in order, to all of `members()`, and to those that they start meanwhile.

    A number that has gone to another process before it was held is seen by its being no member any more.
    """
    told: set[int] = set()
    for _ in range(PASSES):
        new = sorted(members() - told)
        if not new:
            return
        for at in range(0, len(new), BATCH):
            _signal_held(new[at : at + BATCH], members, numbers)
        told.update(new)


def _signal_held(pids: list[int], members: Callable[[], set[int]], numbers: tuple[int, ...]) -> None:
    held = {}
    try:
        for pid in pids:
            try:
                held[pid] = os.pidfd_open(pid)
            except OSError:
                pass  # it has ended
        still = members()
        for number in numbers:
            for pid in held.keys() & still:
                try:
                    signal.pidfd_send_signal(held[pid], number)
                except OSError:
                    pass  # it has ended, or is another user's: SIGKILL will fail too, and be reported then
    finally:
        for pidfd in held.values():
            os.close(pidfd)


def describe(pids: set[int]) -> str:
    """Names, pids and states of processes, for a log line."""
    named = [_describe(pid) for pid in sorted(pids)[:10]]
    return ", ".join(named) + (f" and {len(pids) - 10} more" if len(pids) > 10 else "")


def _describe(pid: int) -> str:
    """By /proc/PID/stat and /proc/PID/status: to read its command line, one would have to wait for a stuck process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            _, _, rest = file.read().partition("(")
        name, _, fields = rest.rpartition(")")
        return f"{name} (pid {pid}, state {fields.split()[0]}, uid {os.stat(f'/proc/{pid}').st_uid})"
    except (OSError, IndexError):
        return f"pid {pid}"
