"""Whether the kernel has killed for want of memory: by the counters of the memory cgroup that the command is in.

Boundary: this module and cgroup.py alone know the files below /sys/fs/cgroup.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from awaitelect import cgroup

FILES = ("memory.events.local", "memory.events", "memory.oom_control")
"""Version 2, version 2 before Linux 5.2, version 1. Kills below the cgroup are counted by the second one alone."""


class OomCounter:
    """How often the kernel's OOM killer has struck in a cgroup, from one start of the command to its end."""

    def __init__(self) -> None:
        self._file = ""
        self._before = 0

    def mark(self, directory: str = "") -> None:
        """The command is about to start. `directory`: its own cgroup; without a memory controller there, ours counts.

        That is so where the controller is delegated to nobody below us, as in a container.
        """
        places = (directory, cgroup.own_directory(), cgroup.own_directory("memory"))
        self.mark_in(place for place in places if place)

    def mark_in(self, directories: Iterable[str]) -> None:
        """The same with the first of these directories that has a counter."""
        for path in (os.path.join(one, name) for one in directories for name in FILES):
            count = read(path)
            if count is not None:
                self._file, self._before = path, count
                return
        self._file = ""

    def has_struck(self) -> bool:
        """Since the mark. False where nothing can be known."""
        count = read(self._file) if self._file else None
        return count is not None and count > self._before


def read(path: str) -> int | None:
    """The count of processes killed; None where there is none."""
    try:
        with open(path) as file:
            found = re.search(r"^oom_kill (\d+)$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
