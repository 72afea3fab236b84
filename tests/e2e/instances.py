"""Real instances of awaitelect, what their commands have written down, and who is who among their processes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import yaml

from tests.e2e.locks import Lock

T = TypeVar("T")

PROGRAM = str(Path(sys.executable).parent / "awaitelect")
ACTOR = str(Path(__file__).parent / "actor.py")
PATIENCE = 30.0
"""Seconds until a test gives up on something that has to happen; the machine may be busy."""
LEASE, DEADLINE, RETRY, MARGIN = 3.0, 2.0, 0.4, 0.5
"""The durations of the instances' elections, in seconds."""
LONG = {"lease_duration": 25, "renew_deadline": 20}
"""An election whose term a busy machine does not end."""
LASTING = {"lease_duration": 45, "renew_deadline": 40}
"""One in which an elector's successor has time to start, too, and a stop has more of it than it may take."""
MARK = "E2E_TEST"
"""A variable in the environment of all that a test starts, so that nothing is left behind."""
LOOKS = 3
"""So many looks at /proc must show nothing before nothing is left."""
PACE = 0.004
"""Seconds between two looks at something that nobody tells of."""


def now() -> float:
    """This instant, on the clock of the records."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def eventually(question: Callable[[], T], what: str, patience: float = PATIENCE, pace: float = PACE) -> T:
    """The first answer that is true. `pace`: seconds between two questions."""
    until = now() + patience
    while True:
        answer = question()
        if answer:
            return answer
        assert now() < until, f"not within {patience:g}s: {what}"
        time.sleep(pace)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)


def stop(*pids: int) -> None:
    """SIGSTOP, and wait until all are stopped."""
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    eventually(lambda: all(state_of(pid) == "T" for pid in pids), "all are stopped")


def is_alive(pid: int) -> bool:
    """It exists and is no zombie."""
    return state_of(pid) not in ("", "Z", "X")


def state_of(pid: int | str) -> str:
    """The letter of ps(1), empty for no such process; also of one of its threads, `PID/task/TID`."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return ""


def children_of(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


def renews(lock: Lock, times: int = 2) -> None:
    """Wait for so many renewals."""
    for _ in range(times):
        known = lock.record()
        eventually(lambda known=known: lock.record() != known, "the lease is renewed", pace=lock.pace)


class Watched:
    """A process whose end is seen at once, and not mistaken for another's."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def wait(self, patience: float = PATIENCE) -> float:
        """The instant at which we saw that it had ended."""
        ready, _, _ = select.select([self._fd], [], [], patience)
        seen = now()
        assert ready, f"process {self.pid} is alive after {patience:g}s"
        os.close(self._fd)
        return seen


class Entry(NamedTuple):
    """What one process of a command has written down."""

    at: float
    """In seconds."""
    name: str
    run: str
    """Which run of a command it belongs to, its daemons included."""
    pid: int
    what: str
    detail: str


class Instance:
    """One awaitelect with its command."""

    def __init__(self, fleet: Fleet, name: str, process: subprocess.Popen[bytes], stderr: Path) -> None:
        self.fleet, self.name, self.process, self._stderr = fleet, name, process, stderr
        self.pid = process.pid
        """The keeper's."""

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(errors="replace")

    def entries(self, what: str = "") -> list[Entry]:
        return [one for one in self.fleet.entries() if one.name == self.name and what in ("", one.what)]

    def started(self, times: int = 1, patience: float = PATIENCE) -> Entry:
        """Wait until the command has been started so many times; its last start."""
        found: list[Entry] = eventually(
            lambda: (seen := self.entries("start")) and len(seen) >= times and seen,
            f"{self.name}'s command starts {times} times",
            patience,
        )
        return found[-1]

    def daemons(self, count: int) -> list[int]:
        """Wait for the command's daemons; their pids."""
        eventually(lambda: len(self.entries("daemon")) >= count, f"{count} daemons of {self.name}")
        return [one.pid for one in self.entries("daemon")]

    def signals(self) -> list[int]:
        """The signals that the command's main process has got, in order; without SIGCONT, which follows each stop."""
        main = {one.pid for one in self.entries("start")}
        found = [int(one.detail) for one in self.entries("signal") if one.pid in main]
        return [number for number in found if number != signal.SIGCONT]

    def last_sign(self, run: str = "") -> float:
        """Of a run of its command, the first unless named, which has ended, and of that one's daemons: an instant on
        the clock of the records.
        """
        entries = self.entries()
        run = run or next(each.run for each in entries if each.what == "start")
        return max(each.at for each in entries if each.run == run)

    def follows(self) -> None:
        """Wait until it has said that it follows somebody."""
        self.says("following")

    def says(self, text: str, times: int = 1, patience: float = PATIENCE) -> None:
        eventually(lambda: self.stderr.count(text) >= times, f"{self.name} says {text!r}", patience)

    @property
    def elector(self) -> int:
        """The pid of the elector that it has now."""

        def found() -> int:
            return next((one for one in children_of(self.pid) if "awaitelect.elector" in command_line(one)), 0)

        return eventually(found, f"{self.name} has an elector")

    def other_elector(self, than: int) -> int:
        """Wait for the elector's successor."""

        def found() -> int:
            return next(
                (one for one in children_of(self.pid) if one != than and "awaitelect.elector" in command_line(one)), 0
            )

        return eventually(found, f"{self.name} replaces its elector")

    @property
    def shim(self) -> int:
        """The pid of the shim that waits for the next start."""

        def found() -> int:
            commands = {one.pid for one in self.entries("start")}
            ours = command_line(self.pid)
            return next((one for one in children_of(self.pid) if one not in commands and command_line(one) == ours), 0)

        return eventually(found, f"{self.name} has a shim")

    def tell(self, number: int) -> None:
        self.process.send_signal(number)

    def ends(self, patience: float = PATIENCE) -> int:
        """Wait for its end; its exit status, or minus the number of a signal."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} has not ended in {patience:g}s; it said:\n{self.stderr}") from None

    def wipe_out(self) -> None:
        """SIGKILL to all of it at once, as at its machine's end: stopped first, none acts on another's end."""
        everyone = [self.pid, self.elector, self.shim, *(one.pid for one in self.entries("start"))]
        alive = [pid for pid in everyone if is_alive(pid)]
        stop(*alive)
        for pid in reversed(alive):  # the keeper last: its end would make the kernel continue its group
            kill(pid)
        self.ends()


class Fleet:
    """The instances of one test. Leaving it ends all that they started, and holds them to the promise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = folder / "records"
        self.records.touch()
        self.mark = uuid.uuid4().hex
        self.instances: list[Instance] = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for one in self.instances:  # pytest shows it where a test has failed
            print(f"--- {one.name} said:\n{one.stderr[-6000:]}")
        self.check()

    def start(
        self,
        name: str,
        lock: Lock | None = None,
        *actor: str,
        command: Sequence[str] | None = None,
        settings: dict[str, Any] | None = None,
        prefix: Sequence[str] = (),
        options: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = subprocess.DEVNULL,
        stderr: int | None = None,
        **popen: Any,
    ) -> Instance:
        """An instance whose command is the actor with the words `actor`, or `command`.

        `settings` go over those of a short election; `prefix` is what awaitelect is started by.
        """
        chosen = self.settings(name, lock, settings or {})
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(chosen))
        said = self.folder / f"{name}.stderr"
        run = list(command) if command is not None else self.actor(name, *actor)
        with open(said, "ab") as file:
            process = subprocess.Popen(
                [*prefix, PROGRAM, "-c", str(path), *options, "--", *run],
                env={**os.environ, MARK: self.mark, **(environment or {})},
                stdin=stdin,
                stdout=stdout,
                stderr=file if stderr is None else stderr,
                **popen,
            )
        instance = Instance(self, name, process, said)
        self.instances.append(instance)
        return instance

    def actor(self, name: str, *words: str) -> list[str]:
        """The command line of an actor."""
        return [sys.executable, "-I", "-S", ACTOR, str(self.records), name, *words]

    def settings(self, name: str, lock: Lock | None, changes: dict[str, Any]) -> dict[str, Any]:
        election = {
            "identity": name,
            "lease_duration": LEASE,
            "renew_deadline": DEADLINE,
            "retry_period": RETRY,
            "kill_margin": MARGIN,
        }
        chosen: dict[str, Any] = {"election": election, "log": {"level": "debug", "format": "text"}}
        if lock:
            chosen["lock"] = lock.section()
        for key, value in changes.items():
            chosen[key] = {**chosen.get(key, {}), **value} if isinstance(value, dict) else value
        return chosen

    def entries(self) -> list[Entry]:
        """All that the commands have written down so far, in order of time."""
        found = []
        written, _, _ = self.records.read_text().rpartition("\n")  # a line over two pages can be seen half written
        for line in written.splitlines():
            at, name, run, pid, what, detail = line.split(" ")
            found.append(Entry(int(at) / 1e9, name, run, int(pid), what, detail))
        return sorted(found)

    def check(self) -> None:
        """Never two runs at the same moment, their daemons included."""
        assert overlaps(self.entries()) == []

    @staticmethod
    def child_running(pid: int, program: str) -> int:
        """The child of `pid` that runs the program, 0 for none: one that has not executed it yet is called as `pid`."""
        ours = command_line(pid)
        found = {one: command_line(one) for one in children_of(pid)}
        return next((one for one, line in found.items() if program in line and line != ours), 0)

    def left_behind(self) -> list[int]:
        """The processes of this test that are alive."""
        mark = f"{MARK}={self.mark}".encode()
        records = os.fsencode(self.records)  # an actor whose environment is empty has it on its command line
        found = []
        for one in os.listdir("/proc"):
            if one.isdecimal() and int(one) != os.getpid() and is_alive(int(one)):
                try:
                    carried = [Path(f"/proc/{one}/{each}").read_bytes().split(b"\0") for each in ("environ", "cmdline")]
                    if mark in carried[0] or records in carried[1]:
                        found.append(int(one))
                except OSError:
                    continue
        return found

    def end(self) -> None:
        """SIGKILL to all that is left, until nothing is.

        A chain of processes that live for milliseconds is not in every look at /proc, but its group is that of all.
        """
        looks = 0
        while looks < LOOKS:
            looks += 1
            for pid in self.left_behind():
                looks = 0
                with suppress(ProcessLookupError):
                    group = os.getpgid(pid)
                    kill(pid)
                    if group != os.getpgid(0):
                        os.killpg(group, signal.SIGKILL)
        for one in self.instances:
            one.process.wait()


def overlaps(entries: list[Entry]) -> list[str]:
    """The runs that were seen alive while another one was."""
    spans: dict[str, tuple[float, float]] = {}
    for one in entries:
        first, last = spans.get(one.run, (one.at, one.at))
        spans[one.run] = (min(first, one.at), max(last, one.at))
    ordered = sorted(spans.items(), key=lambda item: item[1])
    found = []
    latest, end = "", float("-inf")
    for run, (first, last) in ordered:
        if first <= end:
            found.append(f"{run} began {end - first:.3f}s before the last sign of {latest}")
        if last > end:
            latest, end = run, last
    return found
