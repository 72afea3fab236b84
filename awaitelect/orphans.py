"""Every process that carries our mark or is in our cgroups, whoever its parent is now.

The command and all that it starts have AWAITELECT_INSTANCE in their environment. Where the keeper is dead, that is how
what it left behind is found. A process that emptied its environment, or that belongs to another user, is not seen by
that: the cgroup that the command was started in has it too, where we may have one; else the PID namespace of a
container or the cgroup of a systemd service covers it.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterable

from awaitelect.cgroup import Cgroup
from awaitelect.protocol import MARK


def kill_left_behind(instance: str, cgroups: Iterable[Cgroup]) -> bool:
    """SIGKILL once to all that the instance has left behind; whether there was any. Call it until there is none."""
    left = kill_carriers(instance) > 0
    for one in cgroups:
        one.kill()
        left = one.is_populated() or left
    return left


def carriers(instance: str) -> list[int]:
    """The pids of the live processes that carry this instance's mark, ourselves left out."""
    mark = f"{MARK}={instance}".encode()
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and _carries(int(name), mark)]


def kill_carriers(instance: str) -> int:
    """SIGKILL every carrier once; returns how many there were. Call it until that is none."""
    mark = f"{MARK}={instance}".encode()
    found = carriers(instance)
    for pid in found:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if _carries(pid, mark):  # the number may have gone to another process before we held it
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except OSError:
            pass
        finally:
            os.close(pidfd)
    return len(found)


def _carries(pid: int, mark: bytes) -> bool:
    if pid == os.getpid():
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return mark in file.read().split(b"\0")
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # that is no answer
        return False
