"""What the loop waits for: descriptors that come and go, and one instant."""

from __future__ import annotations

import select
from collections.abc import Mapping

from awaitelect import clock


class Waiting:
    """One poll and one alarm."""

    def __init__(self, fd: int) -> None:
        """`fd` is always waited for."""
        self.poll = select.poll()
        self._alarm = clock.Alarm()
        self._listening: set[int] = set()
        for always in (fd, self._alarm.fileno()):
            self.poll.register(always, select.POLLIN)

    def listen(self, wanted: Mapping[int, int]) -> None:
        """Wait for these descriptors from now on, each for these events of poll(2)."""
        for fd in self._listening - wanted.keys():
            try:
                self.poll.unregister(fd)
            except KeyError:
                pass
        for fd, events in wanted.items():
            self.poll.register(fd, events)
        self._listening = set(wanted)

    def until(self, at: float | None) -> set[int]:
        """Wait for a descriptor or a signal, until this instant in seconds at most; the descriptors that are ready."""
        self._alarm.set(at)
        ready = {fd for fd, _ in self.poll.poll()}
        if self._alarm.fileno() in ready:
            self._alarm.clear()
        return ready

    def pause(self, seconds: float) -> None:
        """Wait for nothing but time, or a signal."""
        self._alarm.set(clock.now() + seconds)
        select.select([self._alarm], [], [], 1.0)
        self._alarm.clear()
