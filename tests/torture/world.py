"""The instances, what they share, and the time that goes by: strikes as the plan says, and keeps what has happened."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from awaitelect.cgroup import own_directory, place
from awaitelect.core.lease import Timing
from tests.e2e.instances import Fleet
from tests.misbehaving import Wire
from tests.torture.faults import Blow, Carried
from tests.torture.leases import FileLease, Lease
from tests.torture.lives import Life, Watcher, now_ns
from tests.torture.plan import Episode
from tests.torture.seats import SECOND, Exit, Seat

PACE = 0.015
"""Seconds between two looks at the instances."""
STOP_TIME = 2.0
"""Seconds that a command is given to stop: more than a lease that runs out leaves."""
NAMES = ("ada", "bob", "cyd", "dan", "eve", "fay", "gus")
COMMAND = str(Path(__file__).parent / "command.py")
_PATIENCE = 200.0
"""Seconds after which what has not come will not come."""


class World:
    """Entered, the instances run; left, all of it has ended."""

    def __init__(self, folder: Path, lease: Lease, count: int, seed: int, timing: Timing, wires: list[Wire]) -> None:
        (folder / "tmp").mkdir()
        self.folder, self.lease, self.timing, self.seed = folder, lease, timing, seed
        own = own_directory()
        self.can_hide = own != "" and os.access(own, os.W_OK)
        """A daemon that empties its environment is found by its cgroup alone, and by nobody where there can be none."""
        self.fleet = Fleet(folder)
        self.watcher = Watcher(self.fleet.records)
        self.history = lease.history()
        self.blows: list[Blow] = []
        self.exits: list[Exit] = []
        self.broken: list[str] = []
        """What went wrong with the torture itself, or never came."""
        self.lasting = ThreadPoolExecutor(max_workers=1)
        """A thread that lives as long as this."""
        self.cut_off: list[Seat] = []
        self.stilled: list[Seat] = []
        """Instances whose command some fault has stopped."""
        self.holds_starts = 0
        """While it is not 0 no instance is started."""
        self.is_over = False
        self.samples: list[tuple[int, str, str, int, int]] = []
        """At rest: when, whose, keeper or elector, its pid, how many files it has open."""
        self.zombies: list[str] = []
        self.episodes = 0
        self.began_at = self.ended_at = 0
        self.seats = [
            Seat(
                self.fleet,
                name,
                lease,
                wires[number] if wires else None,
                self._command(name),
                self._settings(),
                random.Random(f"{seed}/{name}"),
            )
            for number, name in enumerate(NAMES[:count])
        ]
        self._stack = ExitStack()

    def _command(self, name: str) -> list[str]:
        counter = str(self.folder / f"{name}.count")
        words = [str(self.fleet.records), str(self.seed), name, counter, *(["hiding"] if self.can_hide else [])]
        return [sys.executable, "-I", "-S", COMMAND, *words]

    def _settings(self) -> dict[str, Any]:
        return {
            "election": {
                "lease_duration": self.timing.lease_duration,
                "renew_deadline": self.timing.renew_deadline,
                "retry_period": self.timing.retry_period,
                "kill_margin": self.timing.kill_margin,
            },
            "restart": {"backoff": {"initial": "100ms", "max": "1s", "reset_after": "3s"}},
            "stop": {"timeout": f"{STOP_TIME:g}s"},
            "log": {"level": "debug", "format": "json"},
        }

    def __enter__(self) -> World:
        self._stack.enter_context(self.watcher)
        self._stack.enter_context(self.history)
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        self.fleet.end()
        for one in self.seats:
            one.finish()
        self.lasting.shutdown()
        self._stack.close()

    # ------------------------------------------------------------------ how it stands

    @property
    def mains(self) -> list[Life]:
        return self.watcher.mains()

    @property
    def leader(self) -> str:
        """The name of the instance whose command runs; empty for none."""
        mains = self.mains
        return mains[-1].name if mains else ""

    @property
    def instances(self) -> set[str]:
        """The runs of awaitelect whose command was seen."""
        return {one.instance for one in self.watcher.lives.values() if one.instance}

    @property
    def holder(self) -> str:
        """The run of awaitelect that holds the lease, as last seen; empty for none."""
        versions = self.history.versions
        record = versions[-1].record if versions else None
        return record.holder_instance if record else ""

    @property
    def is_well(self) -> bool:
        # One that was told to end, and still waits for its command, would have its change put down to the next fault.
        all_are = all(one.is_settled and not one.troubles and one.told_at is None for one in self.seats)
        return self.leader != "" and all_are

    def pause(self, seconds: float, is_enough: Callable[[], bool] = lambda: False) -> None:
        """For a fault's thread: let the time go by, or until it is enough."""
        until = now_ns() + round(seconds * SECOND)
        while now_ns() < until and not self.is_over and not is_enough():
            time.sleep(min(PACE, max(0.0, (until - now_ns()) / SECOND)))

    # ------------------------------------------------------------------ time

    def run(self, plan: Iterator[Episode], seconds: float) -> None:
        """Strike for so long, then end all of it in peace."""
        for seat in self.seats:
            seat.start()
        self._go_on(lambda: self.is_well, "all are well at the begin")
        self.began_at = now_ns()
        end = self.began_at + round(seconds * SECOND)
        while now_ns() < end and not self.broken:
            self._suffer(next(plan))
        self.ended_at = now_ns()
        for seat in self.seats:
            seat.finish()
        self._end_in_peace()

    def _suffer(self, episode: Episode) -> None:
        self.episodes += 1
        carried = [Carried(self, Blow(strike, self.episodes)) for strike in episode.strikes]
        self.blows += [one.blow for one in carried]
        for one in carried:
            one.thread.start()
        self._go_on(lambda: not any(one.thread.is_alive() for one in carried), "the faults are over")
        self._go_on(lambda: self.is_well, f"all are well after episode {self.episodes}")
        rest = now_ns() + round(episode.quiet * SECOND)
        self._go_on(lambda: now_ns() >= rest, "the quiet is over")
        self._sample()

    def _go_on(self, is_enough: Callable[[], bool], what: str) -> None:
        until = now_ns() + round(_PATIENCE * SECOND)
        while not is_enough():
            self._turn()
            if now_ns() > until:
                self.broken.append(f"not within {_PATIENCE:g}s: {what}")
                return

    def _turn(self, may_start: bool = True) -> None:
        for seat in self.seats:
            told_at, ran, deeds = seat.told_at, seat.ran_when_told, tuple(seat.deeds)
            ended = seat.ended()
            if ended:
                seen = self.watcher.looks
                while self.watcher.looks < seen + 2:  # for what the command has written
                    time.sleep(PACE)
                last = self._last_of(seat.name)
                status, alive_at = (last.status, last.alive_at) if last else (None, None)
                self.exits.append(Exit(seat.name, *ended, deeds, told_at, status, ran, alive_at))
            seat.look(may_start and not self.holds_starts)
        time.sleep(PACE)

    def _last_of(self, name: str) -> Life | None:
        """The main process of its last command."""
        lives = [one for one in self.watcher.lives.values() if one.name == name and one.role == "main"]
        return max(lives, key=lambda one: one.first, default=None)

    def _sample(self) -> None:
        for seat in self.seats:
            for role, count in seat.descriptors().items():
                pid = seat.keeper if role == "keeper" else seat.elector
                self.samples.append((now_ns(), seat.name, role, pid, count))
            self.zombies += [f"child {pid} of {seat.name}" for pid in seat.zombies()]

    def _end_in_peace(self) -> None:
        """Everybody is told to end; then one more comes and goes: a start tidies up what the killed have left."""
        for seat in self.seats:
            if seat.instance:
                seat.deeds.append("SIGTERM at the end")
                seat.tell(15, any(one.name == seat.name for one in self.mains))
        self._wait_for_end()
        last = self.seats[0]
        last.start()
        self._turn(may_start=False)
        until = now_ns() + round(_PATIENCE * SECOND)
        while last.instance and self.leader != last.name and now_ns() < until:
            self._turn(may_start=False)
        last.deeds.append("SIGTERM at the end")
        last.tell(15, self.leader == last.name)
        self._wait_for_end()

    def _wait_for_end(self) -> None:
        until = now_ns() + round(_PATIENCE * SECOND)
        while any(one.instance for one in self.seats):
            self._turn(may_start=False)
            if now_ns() > until:
                left = ", ".join(one.name for one in self.seats if one.instance)
                self.broken.append(f"not ended {_PATIENCE:g}s after SIGTERM: {left}")
                return

    # ------------------------------------------------------------------ what is left

    def left_behind(self) -> list[str]:
        """Processes, cgroups and files that nobody has taken away; to be asked after the end."""
        found = [f"process {pid}" for pid in self.fleet.left_behind()]
        directories = [place(one) for one in sorted(self.instances)]
        found += [f"cgroup {one}" for one in directories if one and Path(one).exists()]
        found += [f"temporary file {one.name}" for one in (self.folder / "tmp").iterdir()]
        if isinstance(self.lease, FileLease):
            found += [f"{len(drafts)} unfinished files of the lease" for drafts in [self._old_drafts()] if drafts]
        found += self.zombies
        return found

    def _old_drafts(self) -> list[str]:
        """Those of writers that were killed are taken away a minute later, by whoever writes then."""
        assert isinstance(self.lease, FileLease)
        limit = time.time() - 90
        folder = self.lease.path
        return [one for one in self.lease.drafts() if (folder / one).stat().st_mtime < limit]

    def tracebacks(self) -> list[str]:
        """Instances that have said that something is wrong with themselves."""
        return [one.name for one in self.seats if b"Traceback" in one.said.read_bytes()]


def go_on_in_own_mounts(arguments: list[str]) -> NoReturn:
    """Begin again in a mount namespace of our own, so that no mount outlives us."""
    words = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.torture", *arguments]
    os.execvp(words[0], words)


def can_unshare() -> bool:
    return shutil.which("unshare") is not None and (
        subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
    )
