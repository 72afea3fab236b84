"""The descendants: who they are, and how to be rid of all of them.

As PID 1 or subreaper, the orphans of our descendants become our own children. So whoever kills and reaps every child
until none is left has got them all, free of races: a child's pid cannot be recycled before we have reaped it.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


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
        with open("/proc/thread-self/children", "rb", buffering=0) as file:
            return {int(pid) for pid in file.read().split()}
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        import psutil

        return {child.pid for child in psutil.Process().children()}


def kill(pids: set[int]) -> None:
    """SIGKILL to children of ours."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass  # of another user, by setuid: it is seen again, and reported as one that cannot be killed


def describe(pids: set[int]) -> str:
    """Names and pids of children, for a log line."""
    import psutil

    named = []
    for pid in sorted(pids)[:10]:
        try:
            named.append(f"{psutil.Process(pid).name()} ({pid})")
        except psutil.Error:
            named.append(str(pid))
    return ", ".join(named) + (f" and {len(pids) - 10} more" if len(pids) > 10 else "")
