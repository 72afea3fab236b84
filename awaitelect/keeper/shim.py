"""The exec shim: forked ahead of need, it waits, ready, for the order to become the command.

It is a fork of the keeper and not a new interpreter: it starts in a millisecond and shares the keeper's memory.
It waits in a session (or, on a terminal, a process group) of its own, so that what is meant for us does not reach it.
It enters the command's cgroup at once, too: that can take the kernel 20 ms.
While it waits it is the third pair of eyes: when the keeper dies, or lets pass the date by which everything must be
dead (a timer that the keeper moves on tells), it kills the keeper and every process that carries our mark or is in
another of our cgroups, then itself.

The order is one JSON object, up to the end of a line:
    argv, environment, attributes, start_by (nanoseconds)
The verdict is nothing (the exec went through), or one JSON object: reason, and the status, or null for too late.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from typing import Any, NoReturn

from awaitelect import clock
from awaitelect.attributes import Attributes
from awaitelect.cgroup import Cgroup
from awaitelect.errors import EXIT_NOT_EXECUTABLE
from awaitelect.keeper import execution, signals
from awaitelect.keeper.terminal import Terminal
from awaitelect.orphans import kill_left_behind
from awaitelect.values import Value, as_dict

PATIENCE = 0.3
"""Seconds that a keeper which has let its date pass has to notice it before it is taken for dead."""


class Shim(Value):
    """A shim that waits."""

    pid: int
    pidfd: int
    order_fd: int
    """To write the order to; the shim takes its closing for our death."""
    verdict_fd: int
    """To read the verdict from: empty once the command has been executed."""
    cgroup: Cgroup | None = None
    """Where it and all that it starts are, unless it could not enter."""


def fork(
    instance: str,
    caught: signals.Signals,
    terminal: Terminal,
    deadman: clock.Alarm,
    stderr_fd: int | None = None,
    cgroup: Cgroup | None = None,
) -> Shim:
    """A new shim. Raises OSError where no process can be had.

    `terminal`: the command gets its foreground, and a process group in place of a session of its own. `stderr_fd`:
    its standard error, None: ours. `cgroup`: made for this run alone, beside those of the other runs.
    """
    order_read, order_write = os.pipe2(os.O_CLOEXEC)
    try:
        verdict_read, verdict_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        _close(order_read, order_write)
        raise
    keeper = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            try:
                _close(order_write, verdict_read)  # first: with the last free descriptor gone, nothing could be opened
                if stderr_fd is not None:
                    os.dup2(stderr_fd, 2)
                _live(instance, caught, terminal, keeper, order_read, verdict_write, deadman.fileno(), cgroup)
            finally:
                os._exit(EXIT_NOT_EXECUTABLE)
    except OSError:
        _close(order_write, verdict_read)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _close(order_read, verdict_write)
    try:
        return Shim(pid, os.pidfd_open(pid), order_write, verdict_read, cgroup)
    except OSError:
        # It must be dead before its pipe is closed, which it would take for our death.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        _close(order_write, verdict_read)
        raise


def _live(
    instance: str,
    caught: signals.Signals,
    terminal: Terminal,
    keeper: int,
    order_fd: int,
    verdict_fd: int,
    deadman: int,
    cgroup: Cgroup | None,
) -> NoReturn:
    """From the fork to the exec, in the child."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - signals.UNCATCHABLE:
        try:
            signal.signal(number, signal.SIG_IGN)
        except OSError:
            pass
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if terminal.is_there:
        os.setpgid(0, 0)
    else:
        os.setsid()
    close_others({0, 1, 2, order_fd, verdict_fd, deadman})
    execution.enter(cgroup)
    line = _read_line(order_fd) if _is_told(order_fd, deadman) else b""
    if not line:
        if os.getppid() == keeper != 1:
            os.kill(keeper, signal.SIGKILL)
        while kill_left_behind(instance, cgroup.siblings() if cgroup else ()):
            time.sleep(0.005)  # what is not gone yet, or cannot be killed
        if cgroup:
            cgroup.leave()
        os._exit(0)
    failed = _become(json.loads(line), caught, terminal, keeper)
    os.write(verdict_fd, json.dumps(as_dict(failed)).encode())
    os._exit(EXIT_NOT_EXECUTABLE)


def _is_told(order_fd: int, deadman: int) -> bool:
    """Wait for the keeper's order or end. False: a date has passed that it should have moved on or obeyed."""
    poll = select.poll()
    poll.register(order_fd, select.POLLIN)
    poll.register(deadman, select.POLLIN)
    while True:
        if any(fd == order_fd for fd, _ in poll.poll()):
            return True
        # The whole machine may have slept, and the keeper be waking up beside us.
        poll.unregister(deadman)
        told = poll.poll(PATIENCE * 1000)
        poll.register(deadman, select.POLLIN)
        if not told and any(fd == deadman for fd, _ in poll.poll(0)):
            return False


def _become(order: dict[str, Any], caught: signals.Signals, terminal: Terminal, keeper: int) -> execution.NotExecuted:
    """Become the command. Returns only if that failed."""
    terminal.give_to(os.getpid())
    attributes, start_by = Attributes(**order["attributes"]), clock.from_ns(order["start_by"])
    return execution.execute(order["argv"], order["environment"], attributes, caught, keeper, start_by)


def _read_line(fd: int) -> bytes:
    """All up to the end of a line, or nothing if the other end was closed before it."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(fd, 65536)
        if not part:
            return b""
        line += part
    return line


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


def close_others(kept: set[int]) -> None:
    """Close all descriptors but these: among them may be the one by which another shim learns of the keeper's death."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass  # the one of the listing itself
