"""Control groups: where we are in them, and one of our own for each run of the command (version 2).

A process leaves its parents, its session and its environment as it likes, but not its cgroup unless it may write
there. So whoever kills a cgroup has got them all. See https://docs.kernel.org/admin-guide/cgroup-v2.html.

Boundary: only this module and keeper/oom.py know the files below /sys/fs/cgroup.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal

PREFIX = "awaitelect-"


def own_directory(controller: str = "") -> str:
    """The directory of the cgroup that we are in, of version 2 or of a controller of version 1; empty for none."""
    try:
        with open("/proc/self/cgroup") as memberships, open("/proc/self/mountinfo") as mounts:
            return directory(memberships.read(), mounts.read(), controller)
    except OSError:
        return ""


def directory(memberships: str, mounts: str, controller: str = "") -> str:
    """The same from the texts of /proc/self/cgroup and /proc/self/mountinfo."""
    lines = (line.split(":", 2) for line in memberships.splitlines())
    ours = next((path for _, names, path in lines if controller in names.split(",")), "")
    found = ""  # of several mounts the last one hides the others
    for line in mounts.splitlines() if ours else ():
        mount, _, system = line.partition(" - ")
        root, point = (re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), one) for one in mount.split()[3:5])
        kind, _, *options = system.split()
        if kind != ("cgroup" if controller else "cgroup2") or controller not in (",".join(options) + ",").split(","):
            continue
        below = ours if root == "/" else ours.removeprefix(root) if f"{ours}/".startswith(f"{root}/") else None
        if below is not None and "/.." not in f"{root}{ours}":  # outside of our cgroup namespace
            found = point + below.rstrip("/")
    return found


def place(instance: str) -> str:
    """Where the cgroups of this instance's runs are, should it be allowed to have any; empty where there can be none.

    Below our own cgroup: what is delegated to us. The name is this instance's alone, so that nothing that a dead one
    has left is in the way.
    """
    own = own_directory()
    return f"{own}/{PREFIX}{instance}" if own else ""


def tidy(above: str) -> None:
    """Kill and remove what dead instances have left in cgroups below this directory.

    Where an instance's processes were all killed in the same moment nobody was left to do it, and what had emptied its
    environment may run still.
    """
    try:
        found = [one.path for one in os.scandir(above) if one.name.startswith(PREFIX)]
    except OSError:
        return
    for path in found:
        one = Cgroup(path)
        try:
            if not [below for below in os.scandir(path) if below.is_dir()]:
                continue  # it is just being made: its instance holds it before the first run gets one below it
            one.hold()
        except OSError:
            continue  # its instance is alive
        one.kill()
        one.remove()  # where something is still dying, by whoever comes next


class Cgroup:
    """A cgroup of version 2 with all below it, by its directory; it need not exist."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._events = self._held = -1

    def create(self) -> None:
        """Make it, unless it is there. Raises OSError where we may not, or could not enter it."""
        try:
            os.mkdir(self.path)
        except FileExistsError:
            pass
        try:
            if not os.access(f"{os.path.dirname(self.path)}/cgroup.procs", os.W_OK, effective_ids=True):
                raise PermissionError(errno.EACCES, "not delegated: cgroup.procs cannot be written")
            with open(f"{self.path}/cgroup.type") as file:
                kind = file.read().strip()
            if kind != "domain":
                raise OSError(errno.EOPNOTSUPP, f"a cgroup of the type {kind!r} takes no process")
            self._events = os.open(f"{self.path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.remove()
            raise

    def hold(self) -> None:
        """Say that its instance is alive, as long as we are.

        Raises BlockingIOError where somebody else holds it, FileNotFoundError where it has been removed.
        """
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.stat(self.path)
        except OSError:
            os.close(fd)
            raise
        self._held = fd

    def fileno(self) -> int:
        """A descriptor that polls as POLLPRI when `is_populated` may have changed; -1 unless we have created it."""
        return self._events

    def enter(self) -> None:
        """Move ourselves into it: all of our threads, and what we start from now on. Raises OSError."""
        # "0" is whoever writes: a number would have to be that of the right PID namespace.
        _write(f"{self.path}/cgroup.procs", b"0")

    def is_populated(self) -> bool:
        """A process in it is alive, zombies left out."""
        try:
            if self._events >= 0:
                return b"populated 0" not in os.pread(self._events, 4096, 0)
            with open(f"{self.path}/cgroup.events", "rb", buffering=0) as file:
                return b"populated 0" not in file.read()
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.ENODEV, errno.ENOTDIR)

    def members(self) -> set[int]:
        """The pids in it."""
        found: set[int] = set()
        for path, _, _ in os.walk(self.path):
            try:
                with open(f"{path}/cgroup.procs") as file:
                    found |= {int(pid) for pid in file.read().split()}
            except OSError:
                pass  # it is gone, or a threaded one, whose processes are told of above it
        return found - {0}  # those outside of our PID namespace

    def kill(self) -> None:
        """SIGKILL to all in it, those included that are being forked. Call it until it is not populated."""
        try:
            _write(f"{self.path}/cgroup.kill", b"1")
        except OSError:
            self.kill_one_by_one()

    def kill_one_by_one(self) -> None:
        """The same for kernels before 5.14, without cgroup.kill: what is forked meanwhile is for the next call."""
        for pid in self.members():
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                continue
            try:
                if pid in self.members():  # the number may have gone to another process before we held it
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except OSError:
                pass  # another user's, or it has ended
            finally:
                os.close(pidfd)

    def siblings(self) -> list[Cgroup]:
        """The others directly below the one above it."""
        try:
            found = [entry.path for entry in os.scandir(os.path.dirname(self.path)) if entry.is_dir()]
        except OSError:
            return []
        return [Cgroup(path) for path in found if path != self.path]

    def leave(self) -> None:
        """Move ourselves out of it and of the one above it, and remove that, as far as nothing is alive there."""
        above = os.path.dirname(self.path)
        try:
            _write(f"{os.path.dirname(above)}/cgroup.procs", b"0")
        except OSError:
            return  # it is removed with the container, or by systemd
        Cgroup(above).remove()

    def close(self) -> None:
        """Give the descriptors back."""
        for fd in {self._events, self._held} - {-1}:
            os.close(fd)
        self._events = self._held = -1

    def remove(self) -> None:
        """Remove it and all below it, as far as nothing is alive in them."""
        self.close()
        for path, _, _ in os.walk(self.path, topdown=False):
            try:
                os.rmdir(path)
            except OSError:
                pass  # somebody is in there


def _write(path: str, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)
