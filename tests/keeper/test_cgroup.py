"""Cgroups: where ours is, and what one does to those in it; on the real hierarchy where it may be written."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from awaitelect.cgroup import Cgroup, directory, own_directory, tidy

OWN = own_directory()
needs_cgroup = pytest.mark.skipif(not OWN or not os.access(OWN, os.W_OK), reason="needs a writable cgroup of version 2")

SYSTEMD = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


@pytest.mark.parametrize(
    ("memberships", "mounts", "controller", "expected"),
    [
        ("0::/system.slice/a.service", SYSTEMD, "", "/sys/fs/cgroup/system.slice/a.service"),
        ("0::/", SYSTEMD, "", "/sys/fs/cgroup"),
        ("4:memory:/job\\x2d1\n2:cpu,cpuacct:/\n0::/a", HYBRID, "", "/sys/fs/cgroup/unified/a"),
        ("4:memory:/job\n2:cpu,cpuacct:/\n0::/a", HYBRID, "memory", "/sys/fs/cgroup/memory/job"),
        ("4:memory:/job\n2:cpu,cpuacct:/b\n0::/a", HYBRID, "cpuacct", "/sys/fs/cgroup/cpu/b"),
        ("4:memory:/job", HYBRID, "", ""),
        ("0::/a", HYBRID, "memory", ""),
        ("0::/docker/c1", "30 23 0:26 /docker/c1 /sys/fs/cgroup ro - cgroup2 cgroup rw", "", "/sys/fs/cgroup"),
        ("0::/docker/c1/x", "30 23 0:26 /docker/c1 /sys/fs/cgroup ro - cgroup2 cgroup rw", "", "/sys/fs/cgroup/x"),
        ("0::/docker/c10", "30 23 0:26 /docker/c1 /sys/fs/cgroup ro - cgroup2 cgroup rw", "", ""),
        ("0::/../other", SYSTEMD, "", ""),
        ("0::/a:b", "30 23 0:26 / /mnt/c\\040d rw - cgroup2 none rw", "", "/mnt/c d/a:b"),
        ("0::/a", SYSTEMD + "40 30 0:26 / /mnt rw - cgroup2 none rw", "", "/mnt/a"),
        ("", "", "", ""),
    ],
)
def test_our_directory_is_found_in_each_way_of_mounting(
    memberships: str, mounts: str, controller: str, expected: str
) -> None:
    """systemd's unified and hybrid hierarchies, container runtimes' bind mounts, and what is out of our sight."""
    assert directory(memberships, mounts, controller) == expected


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    """One of the test's own, to be emptied after it."""
    one = Cgroup(f"{OWN}/test-awaitelect-{uuid.uuid4().hex[:8]}")
    one.create()
    yield one
    one.kill()
    while one.is_populated():
        select.select([], [], [], 0.005)
    one.remove()
    assert not Path(one.path).exists()


def started_in(cgroup: Cgroup, script: str = "sleep 1000") -> subprocess.Popen[bytes]:
    """A shell in it, once it is there."""
    line = f"echo 0 > {cgroup.path}/cgroup.procs; echo; {script}"
    one = subprocess.Popen(["sh", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert one.stdout is not None
    one.stdout.readline()
    return one


@needs_cgroup
@pytest.mark.parametrize("way", [Cgroup.kill, Cgroup.kill_one_by_one])
def test_killing_ends_everything_in_it_and_below(cgroup: Cgroup, way: object) -> None:
    """By cgroup.kill, and as on a kernel without it; a child cgroup such as a container engine's is part of it."""
    below = Cgroup(f"{cgroup.path}/below")
    below.create()
    with started_in(cgroup, "setsid sleep 1000 & exec cat") as one, started_in(below, "sleep 1000; :") as two:
        while len(cgroup.members()) < 4:
            select.select([], [], [], 0.005)
        assert cgroup.is_populated() and {one.pid, two.pid} < cgroup.members()
        way(cgroup)  # type: ignore[operator]
        assert (one.wait(10), two.wait(10)) == (-signal.SIGKILL, -signal.SIGKILL)
    ends_being_populated(cgroup)
    below.close()


def answers(cat: subprocess.Popen[bytes]) -> bool:
    """No SIGKILL is on its way."""
    assert cat.stdin is not None and cat.stdout is not None
    try:
        cat.stdin.write(b"still there\n")
        cat.stdin.flush()
    except BrokenPipeError:
        return False
    return cat.stdout.readline() == b"still there\n"


def ends_being_populated(cgroup: Cgroup) -> None:
    """By its descriptor, as the keeper waits for it."""
    poll = select.poll()
    poll.register(cgroup, select.POLLPRI)
    while cgroup.is_populated():
        assert poll.poll(10_000), "nobody tells"


@needs_cgroup
@pytest.mark.parametrize("way", [Cgroup.kill, Cgroup.kill_one_by_one])
def test_a_chain_of_successors_does_not_escape(cgroup: Cgroup, way: object) -> None:
    """Each process forks the next one and exits after 2 ms: whoever looks and then kills may come too late."""
    chain = "import os, time\nwhile True:\n time.sleep(0.002)\n if os.fork(): os._exit(0)"
    with started_in(cgroup, f"exec {sys.executable} -I -S -c '{chain}' >&-") as one:
        assert one.wait(10) == 0
    assert cgroup.is_populated()
    poll = select.poll()
    poll.register(cgroup, select.POLLPRI)
    for _ in range(400):
        way(cgroup)  # type: ignore[operator]
        if not cgroup.is_populated():
            break
        poll.poll(5)
    assert not cgroup.is_populated()


@needs_cgroup
def test_what_a_dead_instance_has_left_is_killed_and_removed(cgroup: Cgroup) -> None:
    """All its processes were killed in the same moment, so that nobody was left to do it."""
    left, run = Cgroup(f"{cgroup.path}/awaitelect-dead"), Cgroup(f"{cgroup.path}/awaitelect-dead/1")
    left.create()
    run.create()
    other = Cgroup(f"{cgroup.path}/not-ours")
    other.create()
    with started_in(run, "exec cat") as one:
        left.hold()
        tidy(cgroup.path)
        assert answers(one), "its instance is alive"
        with pytest.raises(BlockingIOError):
            Cgroup(left.path).hold()
        left.close()
        tidy(cgroup.path)
        assert one.wait(10) == -signal.SIGKILL
    ends_being_populated(run)
    tidy(cgroup.path)
    assert not Path(left.path).exists()
    with pytest.raises(FileNotFoundError):
        left.hold()
    assert Path(other.path).exists()
    for each in (run, other):
        each.close()


def test_one_that_does_not_exist_holds_nobody_and_can_be_killed_and_removed(tmp_path: Path) -> None:
    """Whoever acts for a dead keeper does not know whether there was one."""
    one = Cgroup(str(tmp_path / "none"))
    one.kill()
    one.remove()
    assert not one.is_populated() and one.members() == set() and one.siblings() == []


def test_a_folder_that_is_no_cgroup_is_refused(tmp_path: Path) -> None:
    """And not left behind."""
    with pytest.raises(PermissionError):
        Cgroup(str(tmp_path / "folder")).create()
    assert not (tmp_path / "folder").exists()


@needs_cgroup
def test_one_that_is_just_being_made_is_no_leftover(cgroup: Cgroup) -> None:
    """Else an instance that starts beside another one would have lost it before it could say that it is alive."""
    new = Cgroup(f"{cgroup.path}/awaitelect-new")
    new.create()
    tidy(cgroup.path)
    new.hold()
    new.close()
