"""Who is told to stop, and that nobody gets away: not by forking, nor by a session or an environment of its own.

Where the command has a cgroup of its own (version 2) the kernel knows who belongs to it. Without one, only orphans that
come to the keeper are found, and, when the keeper is dead, what still carries the mark in its environment.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from awaitelect.cgroup import own_directory
from awaitelect.keeper.guard import STUCK_AFTER
from tests.e2e.instances import (
    LEASE,
    LONG,
    RETRY,
    Fleet,
    Instance,
    Watched,
    command_line,
    eventually,
    is_alive,
    kill,
    now,
    state_of,
)
from tests.e2e.locks import Lock

OWN = own_directory()
FREEZER = own_directory("freezer")

needs_cgroup = pytest.mark.skipif(not OWN or not os.access(OWN, os.W_OK), reason="needs a writable cgroup of version 2")
needs_freezer = pytest.mark.skipif(
    not FREEZER or not os.access(FREEZER, os.W_OK), reason="needs the freezer of cgroup version 1, and root"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ways = pytest.mark.parametrize("way", [pytest.param("auto", marks=needs_cgroup), "off"])
"""`stop.cgroup`: with a cgroup and without one."""

PATIENT = {"timeout": "60s"}
"""So long that a test fails if something is ended by it."""


def cgroup_of(pid: int) -> str:
    """Its path in version 2, as we see it."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::")
    return ""


def told(one: Instance, pids: list[int]) -> dict[int, float]:
    """When each of these processes first got SIGTERM."""
    first: dict[int, float] = {}
    for entry in one.entries("signal"):
        if entry.pid in pids and entry.detail == str(int(signal.SIGTERM)):
            first.setdefault(entry.pid, entry.at)
    return first


# ---------------------------------------------------------------- who is told


@ways
def test_mixed_tells_the_main_process_alone(fleet: Fleet, file_lock: Lock, way: str) -> None:
    """systemd's KillMode=mixed; what outlives the main process is then told too, as it would outlive the lease."""
    one = fleet.start("one", file_lock, "linger=0.4", "daemons=2", settings={"stop": {**PATIENT, "cgroup": way}})
    one.started()
    daemons = one.daemons(2)
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    (end,) = one.entries("end")
    assert all(at >= end.at for at in told(one, daemons).values())
    assert set(told(one, daemons)) == set(daemons)


@ways
def test_tree_tells_every_process_and_wakes_it_up(fleet: Fleet, file_lock: Lock, way: str) -> None:
    """Daemons in sessions of their own included, and one that is suspended: it ends at once, as SIGCONT follows.

    The main process ignores it, so that they are not told because it has ended.
    """
    settings = {"stop": {**PATIENT, "kill_mode": "tree", "cgroup": way}, "election": LONG}
    one = fleet.start("one", file_lock, "ignore=SIGTERM", "daemons_ignore=", "daemons=3", settings=settings)
    main = one.started()
    daemons = one.daemons(3)
    kill(daemons[0], signal.SIGSTOP)
    eventually(lambda: state_of(daemons[0]) == "T", "it is suspended")
    one.tell(signal.SIGTERM)
    eventually(lambda: set(told(one, daemons)) == set(daemons), "all are told")
    assert is_alive(main.pid)
    one.tell(signal.SIGINT)
    assert one.ends() == 0


@ways
def test_process_leaves_the_rest_alone_until_the_main_process_is_dead(fleet: Fleet, file_lock: Lock, way: str) -> None:
    """systemd's KillMode=process: at the time-out it is the main process that is killed, and the others are asked."""
    settings = {"stop": {"timeout": "2s", "kill_mode": "process", "cgroup": way}, "election": LONG}
    words = ("ignore=SIGTERM", "daemons_ignore=", "linger=0.2", "daemons=2")
    one = fleet.start("one", file_lock, *words, settings=settings)
    main = one.started()
    daemons = one.daemons(2)
    watched = Watched(main.pid)
    asked = now()
    one.tell(signal.SIGTERM)
    dead = watched.wait()
    assert one.ends() == 128 + signal.SIGKILL
    assert dead > asked + 2
    assert set(told(one, daemons)) == set(daemons)
    last_sign = max(each.at for each in one.entries() if each.pid == main.pid)
    assert all(at > last_sign for at in told(one, daemons).values())
    last = max(each.at for each in one.entries() if each.pid in daemons)
    assert last > min(told(one, daemons).values()) + 0.15, "they had time"


@ways
def test_process_does_not_let_the_rest_outlive_the_instance(fleet: Fleet, file_lock: Lock, way: str) -> None:
    """Unlike systemd's: somebody else may start the same command next."""
    settings = {"stop": {"timeout": "2s", "kill_mode": "process", "cgroup": way}}
    one = fleet.start("one", file_lock, "daemons_ignore=SIGTERM", "daemons=2", settings=settings)
    one.started()
    daemons = one.daemons(2)
    second = fleet.start("second", file_lock)
    second.follows()
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert not any(is_alive(pid) for pid in daemons)
    second.started()


# ---------------------------------------------------------------- nobody gets away


@needs_cgroup
def test_the_command_runs_in_a_cgroup_of_its_own_which_is_removed_at_the_end(fleet: Fleet, file_lock: Lock) -> None:
    """Each run in another one: the shim that waits for the next must not be killed with the last."""
    one = fleet.start("one", file_lock, settings={"restart": {"backoff": {"initial": "50ms"}}})
    first = one.started()
    place = cgroup_of(first.pid)
    assert os.path.dirname(os.path.dirname(place)) == cgroup_of(one.pid)
    eventually(lambda: cgroup_of(one.shim) not in (place, cgroup_of(one.pid)), "the next shim is in another one")
    kill(first.pid)
    again = cgroup_of(one.started(2).pid)
    assert again != place and os.path.dirname(again) == os.path.dirname(place)
    eventually(lambda: not Path(OWN + place).exists(), "the first run's is removed")
    one.tell(signal.SIGTERM)
    one.ends()
    assert not Path(OWN + os.path.dirname(place)).exists()


@ways
@pytest.mark.parametrize("chain", ["0", "0.003"])
def test_a_daemon_that_hides_is_gone_before_another_leads(fleet: Fleet, file_lock: Lock, way: str, chain: str) -> None:
    """P14: `env -i setsid`, forked twice; and a chain of processes that fork a successor and exit every 3 ms."""
    words = ("daemons=2", "bare=1", f"chain={chain}", "daemons_ignore=SIGTERM")
    one = fleet.start("one", file_lock, *words, settings={"stop": {"timeout": "2s", "cgroup": way}})
    one.started()
    one.daemons(2)
    second = fleet.start("second", file_lock)
    second.follows()
    begun = now()
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert now() < begun + 10
    second.started()
    eventually(lambda: len(second.entries("beat")) > 20, "the next one has run beside what might be left")
    assert [pid for pid in fleet.left_behind() if "one" in command_line(pid)] == []


@needs_cgroup
@pytest.mark.parametrize("chain", ["0", "0.003"])
def test_a_daemon_that_hides_dies_with_the_keeper_before_another_leads(
    fleet: Fleet, file_lock: Lock, chain: str
) -> None:
    """G2 for what carries no mark: the elector, which acts for the dead keeper, has the cgroup."""
    words = ("daemons=2", "bare=1", f"chain={chain}", "daemons_ignore=SIGTERM")
    one = fleet.start("one", file_lock, *words, settings={"election": LONG})
    place = OWN + os.path.dirname(cgroup_of(one.started().pid))
    one.daemons(2)
    second = fleet.start("second", file_lock)
    second.follows()
    kill(one.shim, signal.SIGSTOP)  # it would do the same
    killed = now()
    kill(one.pid)
    started = second.started().at
    assert started < killed + 20, "the lease was released"
    assert one.last_sign() < started
    eventually(lambda: not Path(place).exists(), "its cgroup is removed")


@needs_cgroup
def test_a_daemon_that_hides_dies_even_if_keeper_and_elector_are_killed(fleet: Fleet, file_lock: Lock) -> None:
    """G3 for what carries no mark: the shim that waits has the cgroup too."""
    one = fleet.start("one", file_lock, "daemons=2", "bare=1", "daemons_ignore=SIGTERM")
    place = OWN + os.path.dirname(cgroup_of(one.started().pid))
    watched = [Watched(pid) for pid in one.daemons(2)]
    elector = one.elector
    eventually(lambda: one.shim, "the next shim waits")
    killed = now()
    kill(one.pid, signal.SIGSTOP)  # so that neither sees the other die
    kill(elector)
    kill(one.pid)
    assert max(each.wait() for each in watched) < killed + 10  # nobody else is left who could do it
    eventually(lambda: not Path(place).exists(), "its cgroup is removed")


@needs_cgroup
def test_a_stopped_keeper_leaves_no_daemon_that_hides(fleet: Fleet, file_lock: Lock) -> None:
    """G2: it is alive, but silent for longer than the lease."""
    one = fleet.start("one", file_lock, "daemons=1", "bare=1", "daemons_ignore=SIGTERM")
    one.started()
    watched = [Watched(pid) for pid in one.daemons(1)]
    second = fleet.start("second", file_lock)
    second.follows()
    kill(one.pid, signal.SIGSTOP)
    for each in watched:
        each.wait()
    assert one.last_sign() < second.started().at
    assert one.ends() == -signal.SIGKILL


@needs_cgroup
@pytest.mark.parametrize(("trap", "timeout"), [("exit", "60s"), ("", "2s")])
def test_whoever_is_in_the_cgroup_counts_whatever_its_parent_is(
    fleet: Fleet, file_lock: Lock, trap: str, timeout: str
) -> None:
    """Such as what somebody has moved there: no end of a child tells of its own.

    It is asked, waited for and, if need be, killed like the others.
    """
    election = {"lease_duration": 60, "renew_deadline": 40, "retry_period": 20}  # no renewal wakes the keeper
    one = fleet.start("one", file_lock, settings={"stop": {"timeout": timeout}, "election": election})
    procs = Path(OWN + cgroup_of(one.started().pid)) / "cgroup.procs"
    script = f"trap '{trap}' TERM; echo 0 > {procs}; echo; while :; do sleep 0.01; done"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        begun = now()
        one.tell(signal.SIGTERM)
        watched = Watched(other.pid)
        assert one.ends() == 0
        assert now() < begun + 15, "no renewal was needed"
        assert watched.wait(0) <= now()


@needs_root
@needs_cgroup
def test_in_a_container_the_cgroup_is_below_that_of_the_container(fleet: Fleet, file_lock: Lock) -> None:
    """PID 1 in a PID namespace, with a cgroup namespace whose root is all that it sees."""
    container = Path(OWN) / f"test-{uuid.uuid4().hex[:8]}"
    container.mkdir()
    mount = fleet.folder / "cgroup"
    mount.mkdir()
    inside = f'umount -a -t cgroup2; mount -t cgroup2 none {mount} && exec "$@"'
    outside = (
        f"echo $$ > {container}/cgroup.procs; exec unshare -C -m -p --fork --mount-proc sh -c '{inside}' sh \"$@\""
    )
    try:
        one = fleet.start("one", file_lock, "daemons=2", "bare=1", prefix=["sh", "-c", outside, "sh"])
        one.started()
        one.daemons(2)
        cgroups = "there is the command's, and that of the shim that waits"
        eventually(lambda: len(list(container.glob("awaitelect-*/*/"))) == 2, cgroups)
        (keeper,) = (int(pid) for pid in Path(container, "cgroup.procs").read_text().split() if is_keeper(int(pid)))
        kill(keeper, signal.SIGTERM)
        assert one.ends() == 0
        assert list(container.glob("awaitelect-*/")) == []
    finally:
        fleet.end()
        eventually(lambda: "populated 0" in Path(container, "cgroup.events").read_text(), "it is empty")
        container.rmdir()


def is_keeper(pid: int) -> bool:
    """PID 1 of a namespace of its own that runs awaitelect."""
    status = Path(f"/proc/{pid}/status").read_text()
    inner = next(line for line in status.splitlines() if line.startswith("NSpid")).split()
    return len(inner) == 3 and inner[2] == "1"


@needs_root
@needs_cgroup
@pytest.mark.parametrize("is_delegated", [True, False])
def test_a_cgroup_that_is_delegated_to_a_user_is_used(fleet: Fleet, file_lock: Lock, is_delegated: bool) -> None:
    """As by systemd's `User=` with `Delegate=yes`, which gives the user these files; without it the sweep has to do."""
    service = Path(OWN) / f"test-{uuid.uuid4().hex[:8]}"
    service.mkdir()
    user = 65534
    for one in (service, service / "cgroup.procs", service / "cgroup.subtree_control") if is_delegated else ():
        os.chown(one, user, user)
    os.chown(fleet.folder, user, user)
    os.chown(fleet.records, user, user)
    caps = "-all,+dac_read_search"  # the tests' folders are root's: it may pass through them, and write nothing
    enter = f'echo $$ > {service}/cgroup.procs; exec "$@"'
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    prefix = ["sh", "-c", enter, "sh", *become, f"--inh-caps={caps}", f"--ambient-caps={caps}"]
    try:
        one = fleet.start("one", file_lock, "daemons=2", "bare=1", prefix=prefix)
        place = OWN + cgroup_of(one.started().pid)
        daemons = one.daemons(2)
        assert (Path(place) != service) == is_delegated
        assert ("no cgroup for the command" in one.stderr) != is_delegated
        one.tell(signal.SIGTERM)
        assert one.ends() == 0
        assert not any(is_alive(pid) for pid in daemons)
        assert list(service.glob("awaitelect-*")) == []
    finally:
        fleet.end()
        eventually(lambda: "populated 0" in Path(service, "cgroup.events").read_text(), "it is empty")
        service.rmdir()


@needs_root
@needs_cgroup
def test_where_no_cgroup_may_be_made_the_command_runs_without(fleet: Fleet, file_lock: Lock) -> None:
    """The usual unprivileged container: the hierarchy is mounted read-only. P14 holds by the sweep."""
    mount = Path(OWN)
    while not os.path.ismount(mount):
        mount = mount.parent
    prefix = ["unshare", "-m", "sh", "-c", f'mount -o remount,bind,ro {mount}; exec "$@"', "sh"]
    one = fleet.start("one", file_lock, "daemons=1", "bare=1", prefix=prefix)
    start = one.started()
    assert cgroup_of(start.pid) == cgroup_of(one.pid)
    one.says("no cgroup for the command")
    daemon = one.daemons(1)[0]
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert not is_alive(daemon)


# ---------------------------------------------------------------- what cannot be killed


@pytest.fixture
def frozen() -> Iterator[Path]:
    """A cgroup of version 1 whose processes are in state D for as long as the test likes: SIGKILL has to wait."""
    folder = Path(FREEZER) / f"awaitelect-test-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    (folder / "freezer.state").write_text("FROZEN")
    try:
        yield folder
    finally:
        (folder / "freezer.state").write_text("THAWED")

        def is_empty() -> bool:
            for pid in (folder / "cgroup.procs").read_text().split():
                try:
                    kill(int(pid))
                except ProcessLookupError:
                    pass
            return (folder / "cgroup.procs").read_text() == ""

        eventually(is_empty, "what was frozen is dead")
        folder.rmdir()


@needs_freezer
@ways
def test_a_process_in_state_d_is_never_called_gone(fleet: Fleet, file_lock: Lock, frozen: Path, way: str) -> None:
    """Issue of every supervisor on a dead NFS mount. It is named, more than once; the lease is not released."""
    script = f"sleep 1000 & echo $! > {frozen}/cgroup.procs; wait"
    settings = {"stop": {"timeout": "300ms", "cgroup": way}}
    one = fleet.start("one", file_lock, command=["sh", "-c", script], settings=settings)
    pid = eventually(lambda: (frozen / "cgroup.procs").read_text().split(), "it is frozen")[0]
    eventually(lambda: state_of(int(pid)) == "D", "it sleeps where nothing wakes it")
    second = fleet.start("second", file_lock)
    second.follows()
    asked = now()
    one.tell(signal.SIGTERM)
    one.says(f"(pid {pid}, state D", times=3)
    assert one.ends() == 1
    assert "the command cannot be killed: the lease is not released" in one.stderr
    assert "lease released" not in one.stderr
    record = file_lock.record()
    assert record is not None and record.holder == "one" and record.released_by != record.instance
    assert second.started().at > asked + STUCK_AFTER + LEASE - 2 * RETRY - 0.5
    assert is_alive(int(pid))


@needs_freezer
@ways
def test_a_process_in_state_d_keeps_the_elector_of_a_dead_keeper_from_releasing(
    fleet: Fleet, file_lock: Lock, frozen: Path, way: str
) -> None:
    """Protocol rule 5: it has not been seen to end."""
    script = f"sleep 1000 & echo $! > {frozen}/cgroup.procs; wait"
    one = fleet.start("one", file_lock, command=["sh", "-c", script], settings={"stop": {"cgroup": way}})
    pid = eventually(lambda: (frozen / "cgroup.procs").read_text().split(), "it is frozen")[0]
    eventually(lambda: state_of(int(pid)) == "D", "it sleeps where nothing wakes it")
    second = fleet.start("second", file_lock)
    second.follows()
    killed = now()
    kill(one.pid)
    assert second.started().at > killed + LEASE - 2 * RETRY - 0.5
    one.says("cannot be killed: the lease is left to run out")
    assert "lease released" not in one.stderr


@pytest.fixture
def become_root() -> Iterator[Path]:
    """A set-user-id copy of setpriv(1) that everybody may execute."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        program = Path(folder) / "become-root"
        shutil.copy("/usr/bin/setpriv", program)
        program.chmod(0o4755)
        yield program


@needs_root
@ways
def test_a_process_that_has_become_another_users(fleet: Fleet, file_lock: Lock, become_root: Path, way: str) -> None:
    """By a set-user-id program, under an awaitelect that is not root's: only the cgroup can kill it."""
    # Not root, and without CAP_KILL; files are open to it, as they are to whom a cgroup is delegated.
    caps = "-all,+dac_override"
    prefix = ["setpriv", "--reuid=65534", f"--inh-caps={caps}", f"--ambient-caps={caps}"]
    command = [str(become_root), "--reuid=0", "--inh-caps=-all", "sleep", "1000"]
    settings = {"stop": {"timeout": "300ms", "cgroup": way}}
    one = fleet.start("one", file_lock, command=command, settings=settings, prefix=prefix)

    def command() -> int:
        found = fleet.child_running(one.pid, "sleep")
        return found if command_line(found)[:1] == ["sleep"] else 0

    pid = eventually(command, "the command is another user's")
    second = fleet.start("second", file_lock)
    second.follows()
    one.tell(signal.SIGTERM)
    if way == "auto":
        assert one.ends() == 128 + signal.SIGKILL
        assert not is_alive(pid)
    else:
        one.says(f"sleep (pid {pid}, state S, uid 0)")
        assert one.ends() == 1
        assert is_alive(pid)
    second.started()
