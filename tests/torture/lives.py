"""Who is alive: the records of the commands, and a watcher that holds a pidfd of each of their processes.

Each process of each run is known by two kinds of evidence that cannot be wrong: a line in the records was begun by a
process that was alive at its time, as that was taken before the line was written; and a process whose pidfd does not
poll as readable was alive when the clock was read before the poll. The latest of them is when it was last known to be
alive. That it has ended is known later than it happened: what lies between the two is the judgement's own error, and is
measured for each process.
"""

from __future__ import annotations

import os
import select
import threading
import time
from pathlib import Path

from tests.e2e.instances import command_line

PACE = 0.004
"""Seconds between two looks; an end is seen at once."""


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Life:
    """One process of a run. Instants are nanoseconds of CLOCK_BOOTTIME."""

    def __init__(self, at: int, name: str, run: str, pid: int, role: str) -> None:
        self.name, self.run, self.pid, self.role = name, run, pid, role
        self.first = self.last_stamp = at
        self.alive_at = at
        """The last instant at which it was known to be alive by either evidence."""
        self.ended_by: int | None = None
        """An instant at which it was known to have ended; None: not seen."""
        self.instance = ""
        """The run of awaitelect that it belongs to, where it is the main process."""
        self.token = 0
        self.behaviour = ""
        self.signals: list[tuple[int, int]] = []
        """When it got which."""
        self.status: int | None = None
        """With which it was about to exit."""
        self.is_frozen = False
        """We have stopped it, and nobody but awaitelect continues it: until it stamps, it is as good as dead."""
        self.longest_pause = 0

    @property
    def error(self) -> int | None:
        """For so many nanoseconds it may have lived longer than is known; None where that means nothing."""
        return None if self.ended_by is None or self.is_frozen else max(0, self.ended_by - self.alive_at)


class Watcher:
    """Reads the records and looks at the processes, in a thread of its own, while it is entered."""

    def __init__(self, records: Path) -> None:
        self._records = records
        self.lives: dict[tuple[str, int, str], Life] = {}
        self.stamps = 0
        self.looks = 0
        self._open: dict[int, Life] = {}
        self._poll = select.poll()
        self._rest = b""
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watcher:
        self._fd = os.open(self._records, os.O_RDONLY)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._look()
        os.close(self._fd)
        for fd in self._open:
            os.close(fd)

    def living(self) -> list[Life]:
        """The processes that are alive, as far as is known."""
        with self._lock:
            return list(self._open.values())

    def mains(self) -> list[Life]:
        """The main process of each run that is alive, the newest last."""
        return sorted((one for one in self.living() if one.role == "main"), key=lambda one: one.first)

    def freeze(self, lives: list[Life]) -> None:
        """They are being stopped for good: that they exist is no sign of life any more."""
        for one in lives:
            one.is_frozen = True

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._look()
            self._poll.poll(PACE * 1000)  # only this thread adds to it

    def _look(self) -> None:
        with self._lock:
            at = now_ns()
            ended = {fd for fd, _ in self._poll.poll(0)}
            seen_at = now_ns()
            for fd, life in list(self._open.items()):
                if fd not in ended:
                    if not life.is_frozen:
                        life.alive_at = max(life.alive_at, at)
                    continue
                life.ended_by = seen_at
                self._poll.unregister(fd)
                os.close(fd)
                del self._open[fd]
            self._read()
            self.looks += 1

    def _read(self) -> None:
        while part := os.read(self._fd, 1 << 20):
            *lines, self._rest = (self._rest + part).split(b"\n")
            for line in lines:
                self._take(line.decode())

    def _take(self, line: str) -> None:
        at_text, name, run, pid_text, role, what, detail = line.split(" ")
        at, pid = int(at_text), int(pid_text)
        self.stamps += 1
        life = self.lives.get((run, pid, role))
        if life is None:
            life = self.lives[run, pid, role] = Life(at, name, run, pid, role)
            self._hold(life)
        life.longest_pause = max(life.longest_pause, at - life.last_stamp)
        life.last_stamp = max(life.last_stamp, at)
        life.alive_at = max(life.alive_at, at)
        if what == "start":
            life.instance, token, life.behaviour = detail.split(",")
            life.token = int(token)
        elif what == "signal":
            life.signals.append((at, int(detail)))
        elif what == "end":
            life.status = int(detail)

    def _hold(self, life: Life) -> None:
        try:
            fd = os.pidfd_open(life.pid)
        except OSError:
            life.ended_by = now_ns()
            return
        if os.fspath(self._records) not in command_line(life.pid):  # the number has gone to another
            os.close(fd)
            life.ended_by = now_ns()
            return
        self._poll.register(fd, select.POLLIN)
        self._open[fd] = life
