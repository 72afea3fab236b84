"""Acting for a keeper that is dead or silent: kill it, so that nothing wakes up later, then all that it left behind."""

from __future__ import annotations

import asyncio
import os
import select
import signal

from awaitelect import clock
from awaitelect.cgroup import Cgroup
from awaitelect.logs import Log
from awaitelect.orphans import kill_left_behind

PACE = 0.005
"""Seconds between two looks at what has been killed and is not gone yet."""
LEAST_LOOKS = 100
"""Before it is given up: the time for it may pass while the machine sleeps."""


class TreeGuard:
    """Knows the keeper and the command by pidfd: numbers are recycled."""

    def __init__(self, instance: str, log: Log, keeper: int, place: str = "") -> None:
        """Take hold of the keeper, our parent as long as it lives. `place`: the cgroup of all its commands, if any."""
        self._instance = instance
        self._cgroups = [Cgroup(place)] if place else []
        self._log = log
        self._keeper = keeper
        self._keeper_fd: int | None = None
        try:
            self._keeper_fd = os.pidfd_open(self._keeper)
        except OSError:
            pass  # it has died already: the socket will say so
        if os.getppid() != self._keeper and self._keeper_fd is not None:
            os.close(self._keeper_fd)
            self._keeper_fd = None
        self._command_fd: int | None = None

    def know_command(self, pidfd: int) -> None:
        """The command runs: this is its pidfd, ours from now on."""
        if self._command_fd is not None:
            os.close(self._command_fd)
        self._command_fd = pidfd

    async def kill_tree(self, start_by: float, end_by: float) -> bool:
        """Kill the keeper, the command and all that is in our cgroup or carries our mark; True once all have ended.

        `start_by`: from this instant on a keeper that can't be killed (PID 1 of our namespace) starts nothing more.
        `end_by`: the instant at which to give up.
        """
        if self._keeper != 1:
            self._kill(self._keeper_fd)
        else:
            while clock.now() < start_by and not self._has_ended(self._keeper_fd):  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(min(0.2, max(PACE, start_by - clock.now())))
        looks = empty_looks = 0  # a process that forks and ends may pass between listing and reading: one is not enough
        while True:
            self._kill(self._command_fd)
            # First whether they have ended, then the look: whoever still lived might have started more behind it.
            ended = (self._keeper == 1 or self._has_ended(self._keeper_fd)) and self._has_ended(self._command_fd)
            empty_looks = 0 if kill_left_behind(self._instance, self._cgroups) or not ended else empty_looks + 1
            if empty_looks == 2:
                for one in self._cgroups if self._keeper != 1 else ():
                    one.remove()
                return True
            looks += 1
            if clock.now() >= end_by and looks >= LEAST_LOOKS:
                self._log.error("what the keeper left behind cannot be killed: the lease is left to run out")
                return False
            await asyncio.sleep(PACE)

    @staticmethod
    def _kill(pidfd: int | None) -> None:
        if pidfd is not None:
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except OSError:
                pass  # it has ended; or it is another user's, and is seen not to end

    @staticmethod
    def _has_ended(pidfd: int | None) -> bool:
        """All of its threads have ended; it may be a zombie."""
        if pidfd is None:
            return True
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(0))
