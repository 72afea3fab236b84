"""Forking a shim where there is not enough of what that takes."""

from __future__ import annotations

import os
import resource
import signal
from typing import Any

from awaitelect import clock
from awaitelect.attributes import in_child
from awaitelect.keeper import shim
from awaitelect.keeper.signals import Signals
from awaitelect.keeper.terminal import Terminal

TAKES = 4
"""Descriptors that a fork needs for a moment: both ends of two pipes."""


def fork_with(free: int) -> dict[str, Any]:
    """Fork a shim with so many descriptors left: the errno, or 0, and which descriptors there are more than before."""
    caught, terminal, deadman = Signals(()), Terminal(), clock.Alarm()
    before = descriptors()
    taken = [os.dup(0) for _ in range(max(before) + 1 - len(before))]  # the gaps
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    failed = 0
    try:
        waiting = shim.fork("c0ffee", caught, terminal, deadman)
    except OSError as error:
        failed = error.errno or 0
    else:
        os.kill(waiting.pid, signal.SIGKILL)
        os.waitpid(waiting.pid, 0)
        for fd in (waiting.pidfd, waiting.order_fd, waiting.verdict_fd):
            os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 10, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    left = descriptors() - before - set(taken)
    try:
        os.waitpid(-1, os.WNOHANG)
        orphan = True
    except ChildProcessError:
        orphan = False
    return {"failed": failed, "left": sorted(left), "orphan": orphan}


def descriptors() -> set[int]:
    folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    found = {int(name) for name in os.listdir(folder)}
    os.close(folder)
    return {fd for fd in found if exists(fd)}


def exists(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_whatever_a_fork_fails_for_it_leaves_nothing_open_and_nobody_alive() -> None:
    """S1: it is tried again and again; what one attempt leaves open would soon be all there is."""
    for free in range(TAKES):
        assert in_child(lambda free=free: fork_with(free)) == {"failed": 24, "left": [], "orphan": False}
    assert in_child(lambda: fork_with(TAKES)) == {"failed": 0, "left": [], "orphan": False}
