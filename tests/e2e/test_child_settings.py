"""The command's user, groups, limits, priority, directory and variables; and starts that fail because of them."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.instances import LONG, Fleet, Instance, Watched, eventually, is_alive, kill, renews
from tests.e2e.locks import FileLock, Lock


def is_for_all(path: str) -> bool:
    """Every user may reach and execute it."""
    real = Path(path).resolve()
    return real.exists() and all(one.stat().st_mode & 0o001 for one in (real, *real.parents))


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the user")

NOBODY = pwd.getpwnam("nobody")
STRANGER = 54321
"""A user that nothing else runs as."""
PYTHON = next(
    (one for one in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3") if is_for_all(one)), sys.executable
)
"""An interpreter that every user may execute."""
QUICK = {"backoff": {"initial": "50ms", "factor": 1, "jitter": 0}}
GIVE_UP = {"restart": {**QUICK, "max_restarts": 2, "on_give_up": "exit"}}

REPORT = """
import ctypes, json, os, resource, sys
signal = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(signal))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
try:
    os.setresuid(-1, 0, -1)
    regained = True
except PermissionError:
    regained = False
umask = os.umask(0)
print(json.dumps({
    "uids": status["Uid"].split(), "gids": status["Gid"].split(), "groups": sorted(os.getgroups()),
    "capabilities": [status[name].strip() for name in ("CapPrm", "CapEff", "CapAmb")], "regained": regained,
    "death_signal": signal.value, "umask": umask, "directory": os.getcwd(), "environment": dict(os.environ),
    "nice": os.getpriority(os.PRIO_PROCESS, 0), "oom_score_adj": int(open("/proc/self/oom_score_adj").read()),
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE),
    "as": resource.getrlimit(resource.RLIMIT_AS), "fds": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
}))
"""
SETTINGS: dict[str, Any] = {
    "user": "nobody",
    "umask": "027",
    "working_dir": "/usr",
    "nice": 7,
    "oom_score_adj": 300,
    "ulimits": {"nofile": {"soft": 100, "hard": 200}, "core": 0, "as": {"soft": 2**33, "hard": "unlimited"}},
    "env": {"LOGNAME": "of env"},
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody may enter, unlike those of pytest."""
    path = Path(tempfile.mkdtemp(prefix="awaitelect-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def fleet(folder: Path) -> Iterator[Fleet]:
    """Whose commands may write their records as anybody."""
    with Fleet(folder) as one:
        one.records.chmod(0o666)
        yield one


@pytest.fixture
def lock(folder: Path) -> Lock:
    (folder / "lock").mkdir(mode=0o777)
    (folder / "lock").chmod(0o777)
    return FileLock(folder / "lock")


def anybodys(fleet: Fleet, name: str, *words: str) -> list[str]:
    """The command line of an actor that every user may execute."""
    return [PYTHON, *fleet.actor(name, *words)[1:]]


def report(fleet: Fleet, lock: Lock | None, settings: dict[str, Any], **options: Any) -> dict[str, Any]:
    """What a command finds that is started with these settings."""
    path = fleet.folder / "report"
    with open(path, "wb") as file:
        one = fleet.start(
            "one", lock, command=[PYTHON, "-I", "-S", "-c", REPORT], settings=settings, stdout=file, **options
        )
        assert one.ends() == 0, one.stderr
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("enabled", [True, False])
def test_the_command_runs_with_what_was_asked_for(fleet: Fleet, lock: Lock, enabled: bool) -> None:
    """S8: with an election and without one."""
    settings = {**SETTINGS, "election": {"enabled": enabled}}
    found = report(fleet, lock, settings, environment={"HOME": "/ours", "USER": "ours", "OTHER": "ours"})
    groups = sorted(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert found["uids"] == [str(NOBODY.pw_uid)] * 4 and found["gids"] == [str(NOBODY.pw_gid)] * 4
    assert found["groups"] == groups
    assert found["umask"] == 0o27 and found["directory"] == "/usr"
    assert found["nice"] == 7 and found["oom_score_adj"] == 300
    assert found["nofile"] == [100, 200] and found["core"] == [0, 0]
    assert found["as"] == [2**33, resource.RLIM_INFINITY]
    names = ("HOME", "USER", "LOGNAME", "OTHER")
    assert [found["environment"][name] for name in names] == [NOBODY.pw_dir, "nobody", "of env", "ours"]
    assert found["fds"] == [0, 1, 2], "nothing of ours is open in it"
    assert found["death_signal"] == (signal.SIGKILL if enabled else 0)


@pytest.mark.parametrize("enabled", [True, False])
def test_root_cannot_be_regained(fleet: Fleet, lock: Lock, enabled: bool) -> None:
    """By none of the three user ids, and by no capability."""
    found = report(fleet, lock, {"user": "nobody", "election": {"enabled": enabled}})
    assert found["regained"] is False
    assert {int(one, 16) for one in found["capabilities"]} == {0}


def test_numbers_and_groups_of_ones_own_choice(fleet: Fleet, lock: Lock) -> None:
    """S8: a user without an account, a main group, and further ones by name and number."""
    settings = {"user": STRANGER, "group": "daemon", "supplementary_groups": ["bin", 4711], "inherit_env": False}
    found = report(fleet, lock, settings)
    daemon, further = 1, [2, 4711]
    assert found["uids"] == [str(STRANGER)] * 4 and found["gids"] == [str(daemon)] * 4 and found["groups"] == further
    assert found["environment"]["HOME"] == "/" and found["environment"]["USER"] == str(STRANGER)


def test_a_group_alone_leaves_the_user(fleet: Fleet, lock: Lock) -> None:
    """And its further groups."""
    found = report(fleet, lock, {"group": "daemon"})
    assert found["uids"] == ["0"] * 4 and found["gids"] == ["1"] * 4
    assert found["groups"] == sorted(os.getgroups())


def test_without_settings_nothing_changes(fleet: Fleet, lock: Lock) -> None:
    """What awaitelect was started with is what the command gets."""

    def prepared() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 400))
        os.setpriority(os.PRIO_PROCESS, 0, 15)

    found = report(fleet, lock, {}, preexec_fn=prepared)
    assert found["nofile"] == [300, 400] and found["nice"] == 15
    assert found["uids"] == ["0"] * 4 and found["directory"] == os.getcwd()


def test_variables_come_from_awaitelect_the_user_files_and_env_in_this_order(fleet: Fleet, lock: Lock) -> None:
    """S8: the later, the more particular; a file that is not required may be missing."""
    path = fleet.folder / "variables"
    path.write_text("USER=file\nA='of file'\nB=file\n")
    settings = {
        "user": "nobody",
        "env_file": [{"path": str(fleet.folder / "none"), "required": False}, str(path)],
        "env": {"B": "env"},
    }
    ours = dict.fromkeys(("HOME", "USER", "A", "B", "C"), "ours")
    found = report(fleet, lock, settings, environment=ours)["environment"]
    assert [found[name] for name in ("HOME", "USER", "A", "B", "C")] == [
        NOBODY.pw_dir,
        "file",
        "of file",
        "env",
        "ours",
    ]
    alone = report(fleet, lock, {**settings, "inherit_env": False}, environment=ours)["environment"]
    assert alone.keys() - {"LC_CTYPE"} == {
        "HOME", "USER", "LOGNAME", "A", "B", "AWAITELECT_FENCING_TOKEN", "AWAITELECT_IDENTITY", "AWAITELECT_INSTANCE",
        "AWAITELECT_LEASE_TRANSITIONS", "AWAITELECT_LOCK",
    }  # fmt: skip


@pytest.mark.parametrize("enabled", [True, False])
def test_standard_error_can_be_opened_by_its_name(fleet: Fleet, lock: Lock, enabled: bool) -> None:
    """Daemons in containers log to /dev/stderr, which as a pipe of root's would be closed to another user."""
    read_fd, write_fd = os.pipe()
    settings = {"user": "nobody", "election": {"enabled": enabled}, **GIVE_UP}
    command = ["sh", "-c", "echo spoken > /dev/stderr"]
    one = fleet.start("one", lock, command=command, settings=settings, stderr=write_fd)
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        said = file.read()
    assert one.ends() == 0, said
    assert b"spoken" in said


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"user": "nobod"}, "user: found 'nobod', expected a user of this machine; did you mean 'nobody'?"),
        ({"working_dir": "/no/such"}, "working_dir: found '/no/such', expected a directory that awaitelect can enter"),
        ({"user": "nobody", "working_dir": "/root"}, "expected a directory that the user nobody can enter"),
        ({"ulimits": {"nofile": "unlimited"}}, "ulimits.nofile: found unlimited, expected at most"),
        ({"env_file": "/no/such"}, "env_file: /no/such: cannot read the env_file: no such file or directory"),
    ],
)
def test_what_cannot_be_had_is_told_before_anything_is_contended_for(
    fleet: Fleet, lock: Lock, settings: dict[str, Any], text: str
) -> None:
    """S8: exit 78, and another instance's lease is not touched."""
    if settings.get("working_dir") == "/root" and os.stat("/root").st_mode & 0o001:
        pytest.skip("everybody may enter /root here")
    one = fleet.start("one", lock, settings=settings)
    assert one.ends() == 78
    assert text in one.stderr
    assert lock.record() is None and one.entries() == []


def test_a_command_that_its_user_may_not_execute_is_told_before_anything_is_contended_for(
    fleet: Fleet, lock: Lock
) -> None:
    """P2: root could, which is beside the point."""
    path = fleet.folder / "program"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o744)
    one = fleet.start("one", lock, command=[str(path)], settings={"user": "nobody"})
    assert one.ends() == 126 and "is not executable" in one.stderr
    assert lock.record() is None
    path.chmod(0o755)
    path.parent.chmod(0o700)
    two = fleet.start("two", lock, command=[str(path)], settings={"user": "nobody"})
    assert two.ends() == 126 and "may not enter" in two.stderr
    path.parent.chmod(0o755)


def test_a_directory_that_has_vanished_is_a_failed_start(fleet: Fleet, lock: Lock) -> None:
    """S1: back-off, and the command starts when it is there again."""
    path = fleet.folder / "home"
    path.mkdir()
    settings = {"working_dir": str(path), "restart": {**QUICK, "max_restarts": 100_000}}
    one = fleet.start("one", lock, settings=settings)
    start = one.started()
    path.rename(path.with_name("away"))
    kill(start.pid)
    one.says(f"cannot enter the working directory '{path}': No such file or directory (errno 2)", times=2)
    path.with_name("away").rename(path)
    assert one.started(2).detail.split(",")[0] == start.detail.split(",")[0], "the same term"


def test_a_failed_start_is_given_up_by_policy(fleet: Fleet, lock: Lock) -> None:
    """S1: the lease is released, and the status is that of what cannot be executed."""
    path = fleet.folder / "home"
    path.mkdir()
    path.chmod(0o755)
    settings = {"working_dir": str(path), "user": "nobody", **GIVE_UP}
    one = fleet.start("one", lock, command=anybodys(fleet, "one"), settings=settings)
    start = one.started()
    path.chmod(0o700)
    kill(start.pid)
    assert one.ends() == 126
    assert "Permission denied (errno 13)" in one.stderr and "giving up" in one.stderr
    record = lock.record()
    assert record is not None and record.holder == ""


def test_a_vanished_directory_does_not_end_a_command_whose_elector_is_replaced(fleet: Fleet, lock: Lock) -> None:
    """It is the next start that needs it."""
    path = fleet.folder / "home"
    path.mkdir()
    one = fleet.start("one", lock, settings={"working_dir": str(path), "election": LONG})
    start = one.started()
    path.rmdir()
    elector = one.elector
    kill(elector)
    one.other_elector(elector)
    before = lock.record()
    eventually(lambda: lock.record() != before, "its successor renews")
    assert one.signals() == [] and is_alive(start.pid) and len(one.entries("start")) == 1


def test_a_user_with_too_many_processes_is_a_failed_start(fleet: Fleet, lock: Lock) -> None:
    """S1: EAGAIN, which only the exec finds out."""
    settings = {"user": STRANGER, "group": STRANGER, "ulimits": {"nproc": 0}, **GIVE_UP}
    with subprocess.Popen(["sleep", "infinity"], user=STRANGER) as other:
        try:
            one = fleet.start("one", lock, command=anybodys(fleet, "one"), settings=settings)
            assert one.ends() == 126
        finally:
            other.kill()
    assert "Resource temporarily unavailable (errno 11)" in one.stderr and one.entries() == []


@pytest.mark.parametrize("limit", ["as", "data"])
def test_a_command_without_memory_is_no_crash_of_ours(fleet: Fleet, lock: Lock, limit: str) -> None:
    """S1: whoever runs out of it, the shim or the program, it ends by policy and with an error."""
    one = fleet.start("one", lock, settings={"ulimits": {limit: 4096}, **GIVE_UP})
    assert one.ends() not in (0, 70, 78)
    assert "giving up" in one.stderr and "Traceback" not in one.stderr and one.entries() == []


def test_without_descriptors_the_start_fails_and_succeeds_when_there_are_some(fleet: Fleet, lock: Lock) -> None:
    """S1: EMFILE in the keeper; the lease is kept through the back-off and nothing is leaked by the attempts."""
    settings = {"restart": {**QUICK, "max_restarts": 100_000}, "stop": {"cgroup": "off"}}
    one = fleet.start("one", lock, settings=settings)
    start = one.started()
    eventually(lambda: one.shim, "the next shim waits")
    renews(lock, 2)  # and the keeper is done with forking it
    before = descriptors(one)
    starve_and_recover(one, "Too many open files", "nofile", lowest_of_a_shim(one))
    again = one.started(3)
    eventually(lambda: one.shim and descriptors(one) <= before, "no more descriptors are open than before", 5)
    assert again.detail.split(",")[0] == start.detail.split(",")[0], "the same term"


def test_without_processes_the_start_fails_and_succeeds_when_there_are_some(fleet: Fleet, lock: Lock) -> None:
    """S1: EAGAIN in the fork, which root is never refused."""
    settings = {"restart": {**QUICK, "max_restarts": 100_000}}
    one = fleet.start("one", lock, command=anybodys(fleet, "one"), settings=settings, prefix=without_root(STRANGER))
    one.started()
    eventually(lambda: one.shim, "the next shim waits")
    starve_and_recover(one, "Resource temporarily unavailable", "nproc", 0)


def lowest_of_a_shim(one: Instance) -> int:
    """The lowest of the keeper's descriptors that belongs to a shim: with that as the limit, none can be opened."""
    folder = Path(f"/proc/{one.pid}/fd")
    return min(int(each.name) for each in folder.iterdir() if "pidfd" in os.readlink(each))


def without_root(user: int) -> list[str]:
    """What awaitelect is started by to run as this user, who may read all that is needed for it, wherever it is."""
    capabilities = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *capabilities]


def descriptors(one: Instance) -> int:
    return len(os.listdir(f"/proc/{one.pid}/fd"))


def starve_and_recover(one: Instance, reason: str, setting: str, few: int) -> None:
    """Take from the keeper what a start needs until one has failed; then wait for the next that succeeds."""
    starts = len(one.entries("start"))
    plenty = limit_keeper(one, setting, few)
    # The shim that waits needs nothing any more: it is the start after the next one that fails.
    kill(one.entries("start")[-1].pid)
    one.started(starts + 1)
    kill(one.entries("start")[-1].pid)
    one.says(f"cannot start the command: {reason}", times=2)
    assert one.process.poll() is None
    limit_keeper(one, setting, plenty)
    one.started(starts + 2)


def limit_keeper(one: Instance, setting: str, soft: int) -> int:
    """Set a limit of the keeper, as its own user, who may do so without a capability; what it was."""
    ids = os.stat(f"/proc/{one.pid}")
    program = ["setpriv", f"--reuid={ids.st_uid}", f"--regid={ids.st_gid}", "--clear-groups", "prlimit"]
    ask = [*program, f"--pid={one.pid}", f"--{setting}"]
    before = subprocess.run([*ask, "--raw", "--noheadings", "--output=SOFT"], capture_output=True, check=True).stdout
    subprocess.run([*ask[:-1], f"--{setting}={soft}:"], check=True)
    return int(before)


@pytest.mark.parametrize("cgroup", ["auto", "off"])
def test_a_killed_keeper_takes_the_tree_of_another_user_with_it_before_the_next_starts(
    fleet: Fleet, lock: Lock, cgroup: str
) -> None:
    """G2: by the cgroup, or without one by the mark, which root may read in everybody's environment."""
    settings = {"user": "nobody", "stop": {"cgroup": cgroup}}
    command = anybodys(fleet, "first", "ignore=SIGTERM", "daemons=2")
    first = fleet.start("first", lock, command=command, settings=settings)
    start = first.started()
    assert os.stat(f"/proc/{start.pid}").st_uid == NOBODY.pw_uid
    watched = [Watched(start.pid), *map(Watched, first.daemons(2))]
    second = fleet.start("second", lock, command=anybodys(fleet, "second"), settings=settings)
    second.follows()
    kill(first.pid)
    for each in watched:
        each.wait()
    assert first.last_sign() < second.started().at


def test_a_command_of_another_user_dies_with_its_keeper_even_if_nobody_else_can_act(fleet: Fleet, lock: Lock) -> None:
    """PR_SET_PDEATHSIG, which a change of user undoes: so it has to come after it."""
    settings = {"user": "nobody", "stop": {"cgroup": "off"}}
    one = fleet.start("one", lock, command=anybodys(fleet, "one", "ignore=SIGTERM"), settings=settings)
    watched = Watched(one.started().pid)
    for pid in (one.elector, eventually(lambda: one.shim, "the next shim waits")):
        kill(pid, signal.SIGSTOP)
    kill(one.pid)
    watched.wait(5)


def test_a_command_of_another_user_is_stopped_and_its_daemons_swept(fleet: Fleet, lock: Lock) -> None:
    """P14: all of the stop ladder reaches it."""
    settings = {"user": "nobody", "stop": {"cgroup": "off"}}
    one = fleet.start("one", lock, command=anybodys(fleet, "one", "daemons=2"), settings=settings)
    watched = [Watched(one.started().pid), *map(Watched, one.daemons(2))]
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    for each in watched:
        each.wait(0)
    assert one.signals() == [signal.SIGTERM]


def test_as_pid_1_the_command_of_another_user_is_reaped_and_stopped(fleet: Fleet, lock: Lock) -> None:
    """P17: in a PID namespace of its own, without the capability to look into other users' processes."""
    prefix = ["unshare", "--pid", "--fork", "--mount-proc", "setpriv", "--bounding-set=-sys_ptrace"]
    command = anybodys(fleet, "one", "daemons=1")
    one = fleet.start("one", lock, command=command, settings={"user": "nobody"}, prefix=prefix)
    one.started()
    one.daemons(1)
    inner = eventually(lambda: next(iter(children(one.pid)), 0), "unshare has a child")
    kill(inner, signal.SIGTERM)
    assert one.ends() == 0
    assert one.signals() == [signal.SIGTERM]
    assert "SYS_PTRACE" not in one.stderr, "the end of PID 1 ends all"


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def test_without_root_and_without_a_change_of_user_all_works(fleet: Fleet, lock: Lock) -> None:
    """P17: naming one's own user is no change."""
    settings = {"user": "nobody", "nice": 19, "ulimits": {"core": 0}}
    found = report(fleet, lock, settings, prefix=without_root(NOBODY.pw_uid))
    assert found["uids"] == [str(NOBODY.pw_uid)] * 4 and found["nice"] == 19 and found["core"] == [0, 0]


def test_check_tells_the_same(fleet: Fleet, lock: Lock) -> None:
    """Without starting anything."""
    path = fleet.folder / "a.yaml"
    path.write_text("lock: {backend: file, path: /x}\nuser: nobod\nnice: -21\n")
    program = str(Path(sys.executable).parent / "awaitelect")
    done = subprocess.run([program, "-c", str(path), "--check", "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert "a.yaml:2: user: found 'nobod'" in done.stderr and "a.yaml:3: nice: found the number -21" in done.stderr
