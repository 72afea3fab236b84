"""Instances as a child of the test's and as PID 1 of a namespace, and what goes wrong inside of their electors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from awaitelect.cgroup import own_directory
from tests.e2e.instances import (
    Entry,
    Fleet,
    Instance,
    Watched,
    children_of,
    command_line,
    eventually,
    is_alive,
    kill,
    state_of,
    stop,
)
from tests.e2e.locks import Lock
from tests.e2e.test_init import keeper_of, prefix_of

INSIDE = str(Path(__file__).parent / "inside")
MEMORY = own_directory("memory")
LIMIT = 64 * 2**20
"""Bytes of new memory that a starved elector may have."""
FIRM = {"lease_duration": 8, "renew_deadline": 4.5, "retry_period": 0.4, "kill_margin": 2}
"""Durations with room between the kill and the end of the lease, on a machine that is busy with other things."""
LONG = {"lease_duration": 22, "renew_deadline": 20, "retry_period": 0.4, "kill_margin": 0.5}
"""Durations in which a hung elector is noticed, and its successor renews, with seconds to spare."""

places = pytest.mark.parametrize("place", ["child", "init"])
"""As somebody's child, where the elector can kill the keeper, and as PID 1, where it can't."""


def start(place: str, fleet: Fleet, name: str, lock: Lock, *words: str, **rest: Any) -> Instance:
    """An instance in that place; `pid` is its keeper's, as seen from here."""
    one = fleet.start(name, lock, *words, prefix=prefix_of(place), **rest)
    if place == "init":
        one.pid = keeper_of(one.pid)
    return one


def seen_from_here(one: Instance, pid: int) -> int:
    """The number here of a process that has the number `pid` where the instance lives."""
    namespace = os.readlink(f"/proc/{one.pid}/ns/pid")
    if namespace == os.readlink("/proc/self/ns/pid"):
        return pid
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            numbers = next(line for line in Path(f"/proc/{name}/status").read_text().splitlines() if "NSpid" in line)
            if numbers.split()[2:] == [str(pid)] and os.readlink(f"/proc/{name}/ns/pid") == namespace:
                return int(name)
        except (OSError, StopIteration):
            continue
    raise AssertionError(f"{one.name} has no process {pid}")


def watched_of(one: Instance, daemons: int) -> list[Watched]:
    """All that its command consists of, so many daemons among it, once they have begun."""
    return [Watched(seen_from_here(one, pid)) for pid in (one.started().pid, *one.daemons(daemons))]


def inside(folder: Path) -> dict[str, str]:
    """The variables by which files in `folder` say what goes wrong inside of the instance."""
    path = os.pathsep.join(filter(None, [INSIDE, os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "E2E_FOLDER": str(folder)}


def ask(folder: Path, what: str) -> None:
    """Have it go wrong, and wait until it has begun to."""
    (folder / what).touch()
    eventually(lambda: (folder / f"{what}.taken").exists(), f"{what} has begun")


def starved(pid: int) -> None:
    """A limit of its own for the memory of this process."""
    if not os.access(f"{MEMORY}/memory.limit_in_bytes", os.W_OK):
        pytest.skip("needs the memory controller of cgroup version 1")
    folder = Path(MEMORY) / f"awaitelect-starved-{pid}"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(str(LIMIT))
    (folder / "cgroup.procs").write_text(str(pid))


@contextmanager
def end_of_starved(pid: int) -> Iterator[None]:
    """At the end the limit of that process is taken away."""
    try:
        yield
    finally:
        folder = Path(MEMORY) / f"awaitelect-starved-{pid}"
        if folder.exists():
            eventually(lambda: not is_alive(pid), "it is dead")
            eventually(lambda: (folder / "cgroup.procs").read_text() == "", "it is empty")
            folder.rmdir()


def fail_killed(pid: int, folder: Path) -> None:
    kill(pid)
    eventually(lambda: not is_alive(pid), "it is dead")


def fail_stopped(pid: int, folder: Path) -> None:
    stop(pid)


def fail_busy(pid: int, folder: Path) -> None:
    ask(folder, "busy")
    threads = Path(f"/proc/{pid}/task")
    eventually(lambda: any(state_of(f"{pid}/task/{one}") == "R" for one in os.listdir(threads)), "it is busy")


def fail_starved(pid: int, folder: Path) -> None:
    starved(pid)
    ask(folder, "grow")
    control = Path(MEMORY) / f"awaitelect-starved-{pid}" / "memory.oom_control"
    eventually(lambda: "oom_kill 1" in control.read_text(), "the kernel has killed it for want of memory")


FAILURES: dict[str, Callable[[int, Path], None]] = {
    "killed": fail_killed,
    "stopped": fail_stopped,
    "in a busy loop": fail_busy,
    "out of memory": fail_starved,
}
"""What becomes of an elector, given its number; each returns when it has begun."""


def electors_of(one: Instance) -> list[int]:
    """Those that are alive."""
    return [pid for pid in children_of(one.pid) if "awaitelect.elector" in command_line(pid) and is_alive(pid)]


def end_each_elector(one: Instance, until: Callable[[], object], but: int = 0) -> None:
    """Have no elector but this one live, until the question is answered. `inside` has to be in its environment."""
    (one.fleet.folder / "no elector").touch()  # else one that we see late might renew
    for pid in electors_of(one):
        if pid != but:
            kill(pid)
    eventually(until, "the electors' end has its effect", 60)
    (one.fleet.folder / "no elector").unlink()


def next_start(one: Instance, other: Instance) -> Entry:
    """The first start after the one that `one` had: after its elector's failure either of the two may lead again."""
    return eventually(lambda: other.entries("start") or one.entries("start")[1:], "somebody leads again")[0]


def fill(fd: int) -> None:
    """Write to a pipe or socket, without waiting, until nothing more goes in."""
    filler = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        for size in (4096, 1):
            try:
                while True:
                    os.write(filler, b"x" * size)
            except BlockingIOError:
                continue
    finally:
        os.close(filler)


def can_have_time_namespaces() -> bool:
    """Clocks with an offset can be had."""
    return os.geteuid() == 0 and os.path.exists("/proc/self/timens_offsets") and shutil.which("unshare") is not None
