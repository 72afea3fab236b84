"""Where an instance stands: when it has ended another one takes its place, as a kubelet would see to it."""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tests.e2e.instances import Fleet, Instance, children_of, state_of
from tests.misbehaving import Wire
from tests.torture.leases import Lease
from tests.torture.lives import now_ns

SECOND = 1_000_000_000
SEEN = (b"following ", b"leading", b"holds the lease", b"there is no lease")
"""What an elector says of the lease, the first time that it has seen it."""
GROWN_UP = 20 * SECOND
"""After so long an elector has seen it, whatever it says."""


class Exit(NamedTuple):
    """An instance has ended."""

    name: str
    at: int
    status: int
    """Minus the number of a signal."""
    deeds: tuple[str, ...]
    """What was done to it, and to the whole, since it was started."""
    told_at: int | None
    """When it was told to end."""
    command_status: int | None
    """The status that its command has given, as far as is written down; minus the number of a signal."""
    ran: bool
    """Its command ran when it was told to end."""
    command_last: int | None = None
    """The last sign of life of that command, the newest that has given any."""


class Held:
    """Processes by pidfd, so that nobody else is ever hit."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._fds = []
        for pid in pids:
            try:
                self._fds.append(os.pidfd_open(pid))
            except OSError:
                continue  # it has ended

    def __bool__(self) -> bool:
        return bool(self._fds)

    @property
    def any_ended(self) -> bool:
        """At least one of them has."""
        look = select.poll()
        for fd in self._fds:
            look.register(fd, select.POLLIN)
        return bool(look.poll(0))

    def send(self, number: int) -> None:
        for fd in self._fds:
            try:
                signal.pidfd_send_signal(fd, number)
            except OSError:
                continue

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []


class Seat:
    """One instance after the other."""

    def __init__(
        self,
        fleet: Fleet,
        name: str,
        lease: Lease,
        wire: Wire | None,
        command: list[str],
        settings: dict[str, Any],
        chance: random.Random,
    ) -> None:
        self.name, self.wire = name, wire
        self._fleet, self._lease, self._command, self._settings, self._chance = fleet, lease, command, settings, chance
        self.instance: Instance | None = None
        self.deeds: list[str] = []
        self.told_at: int | None = None
        self.ran_when_told = False
        self.troubles = 0
        """So many faults are in force on it."""
        self.instances: set[str] = set()
        self.is_settled = False
        """It runs, its elector too, and that has seen the lease."""
        self.settled: list[tuple[int, int]] = []
        """The spans in which it was sound: settled, and without a fault in force on it."""
        self._sound_since: int | None = None
        self._elector = 0
        self._elector_since = 0
        self._read = 0
        self._restart_at = 0
        self.starts = 0

    def section(self) -> dict[str, Any]:
        return self._lease.section(self.wire)

    # ------------------------------------------------------------------ its processes

    @property
    def keeper(self) -> int:
        return self.instance.pid if self.instance else 0

    @property
    def elector(self) -> int:
        """Its pid; 0 where there is none now."""
        return Fleet.child_running(self.keeper, "awaitelect.elector") if self.instance else 0

    @property
    def children(self) -> list[int]:
        """Elector, shim, the command's main process and its orphans."""
        return children_of(self.keeper) if self.instance else []

    @property
    def said(self) -> Path:
        return self._fleet.folder / f"{self.name}.stderr"

    def descriptors(self) -> dict[str, int]:
        """How many files its two processes have open."""
        found = {}
        for role, pid in (("keeper", self.keeper), ("elector", self.elector)):
            try:
                found[role] = len(os.listdir(f"/proc/{pid}/fd")) if pid else 0
            except OSError:
                continue
        return found

    def zombies(self) -> list[int]:
        """Children that nobody has reaped for seconds."""
        found = [pid for pid in self.children if state_of(pid) == "Z"]
        until = now_ns() + 10 * SECOND
        while now_ns() < until and any(state_of(pid) == "Z" for pid in found):
            time.sleep(0.05)
        return [pid for pid in found if state_of(pid) == "Z"]

    # ------------------------------------------------------------------ its life

    def start(self) -> None:
        self.deeds, self.told_at = [], None
        self._elector, self._read = 0, self.said.stat().st_size if self.said.exists() else 0
        environment = {"TMPDIR": str(self._fleet.folder / "tmp")}
        self.instance = self._fleet.start(
            self.name,
            self,  # type: ignore[arg-type]  # its section is all that is asked for
            command=self._command,
            settings=self._settings,
            environment=environment,
            start_new_session=True,
        )
        self.starts += 1

    def tell(self, number: int, ran: bool) -> None:
        """SIGTERM, say. `ran`: its command runs."""
        if self.told_at is None:
            self.told_at, self.ran_when_told = now_ns(), ran
        if self.instance:
            self.instance.tell(number)

    def ended(self) -> tuple[int, int] | None:
        """When it was seen to have ended, and how; once."""
        if self.instance is None:
            return None
        status = self.instance.process.poll()
        if status is None:
            return None
        self._fleet.instances.remove(self.instance)
        self.instance = None
        self._restart_at = now_ns() + round(self._chance.uniform(0.05, 0.8) * SECOND)
        return now_ns(), status

    def look(self, may_start: bool) -> None:
        """See how it does; start it where nobody stands."""
        now = now_ns()
        if self.instance is None and may_start and now >= self._restart_at:
            self.start()
        elector = self.elector
        if elector != self._elector:
            if self._elector:  # a successor: what was said before it is not its word
                self._read = self.said.stat().st_size
            self._elector, self._elector_since, self.is_settled = elector or self._elector, now, False
        if elector == 0 or self.instance is None:
            self.is_settled = False
        elif not self.is_settled:
            self.is_settled = now - self._elector_since > GROWN_UP or self._has_seen_lease()
        is_sound = self.is_settled and not self.troubles
        if is_sound and self._sound_since is None:
            self._sound_since = now
        elif not is_sound and self._sound_since is not None:
            self.settled.append((self._sound_since, now))
            self._sound_since = None

    def finish(self) -> None:
        """No more looks come."""
        if self._sound_since is not None:
            self.settled.append((self._sound_since, now_ns()))
            self._sound_since = None

    def _has_seen_lease(self) -> bool:
        with open(self.said, "rb") as file:
            file.seek(self._read)
            new = file.read()
        return any(words in new for words in SEEN)
