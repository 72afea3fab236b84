"""The attributes of a process: its limits, priority, user and groups, working directory and umask.

Whoever is about to execute a program applies them to itself: the shim before the command, the keeper before it becomes
the command, a child forked for a hook or a probe. `in_child` asks beforehand whether that would go through.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import stat
from collections.abc import Callable, Iterator
from typing import Any

from awaitelect.values import Value

UNLIMITED = -1
"""In place of a limit: none."""

LIMITS = {
    "as": resource.RLIMIT_AS,
    "core": resource.RLIMIT_CORE,
    "cpu": resource.RLIMIT_CPU,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "locks": 10,  # RLIMIT_LOCKS, which the resource module leaves out
    "memlock": resource.RLIMIT_MEMLOCK,
    "msgqueue": resource.RLIMIT_MSGQUEUE,
    "nice": resource.RLIMIT_NICE,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "rss": resource.RLIMIT_RSS,
    "rtprio": resource.RLIMIT_RTPRIO,
    "rttime": resource.RLIMIT_RTTIME,
    "sigpending": resource.RLIMIT_SIGPENDING,
    "stack": resource.RLIMIT_STACK,
}
"""The resource limits by the names that docker gives them."""

_OF_MEMORY = {"as", "data"}


class Attributes(Value):
    """What a process is given before its exec; None or empty: it keeps what it inherits.

    All are numbers: to look up names may block.
    """

    uid: int | None = None
    gid: int | None = None
    groups: list[int] | None = None
    """The supplementary groups, and no others."""
    limits: dict[str, list[int]] = {}
    """By their names in LIMITS: soft and hard limit in the unit of setrlimit(2), or UNLIMITED."""
    nice: int | None = None
    """-20 to 19."""
    oom_score_adj: int | None = None
    """-1000 to 1000."""
    working_dir: str | None = None
    umask: int | None = None


class NotApplied(Exception):
    """An attribute could not be had. `setting`: the key of the configuration that stands for it; `error`: why."""

    def __init__(self, setting: str, what: str, error: OSError) -> None:
        super().__init__(f"cannot {what}: {error.strerror} (errno {error.errno})")
        self.setting, self.what, self.error = setting, what, error


def attributes_of(wider: Attributes) -> Attributes:
    """The attributes alone, of settings that have more."""
    return Attributes(**{name: getattr(wider, name) for name in Attributes.FIELDS})


def apply(attributes: Attributes) -> None:
    """Take these attributes on: for good, so in a forked child or right before an exec.

    In systemd's order: what root alone may do, then the groups and the user, then the working directory with the rights
    of that user (who may be the only one to have them on a network file system). Afterwards root cannot be regained.
    A change of user undoes PR_SET_PDEATHSIG, so that is to be set after this. Raises NotApplied; and MemoryError, here
    or in what follows, where a limit leaves too little memory.
    """
    for setting, what, step in _steps(attributes):
        try:
            step()
        except OSError as error:
            raise NotApplied(setting, what, error) from error


def give_pipes(attributes: Attributes) -> None:
    """Let the user open standard input, output and error by their names where they are pipes. Before `apply`.

    Pipes belong to who made them, so that /dev/stderr would be closed to any other user.
    """
    for fd in (0, 1, 2):
        try:
            if attributes.uid is not None and stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.fchown(fd, attributes.uid, -1)
        except OSError:
            pass  # what is open already can be used all the same


def refusals(attributes: Attributes) -> list[tuple[str, int]]:
    """The settings that `apply` would fail on, each with the errno; as many as can be known at once.

    Changes the process as `apply` does: to be asked `in_child`.
    """
    found = []
    for setting, _, step in _steps(attributes):
        try:
            step()
        except OSError as error:
            found.append((setting, error.errno or 0))
            if setting in ("user", "group", "supplementary_groups"):
                break  # whatever follows is about that user
        except MemoryError:
            break
    return found


def in_child(question: Callable[[], Any]) -> Any:
    """The answer (whatever JSON can say) to a question that is asked in a forked child, which it may change.

    Blocks until it is answered. Raises OSError where no process can be had or it ends without an answer.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            try:
                os.write(write_fd, json.dumps(question()).encode())
            finally:
                os._exit(0)
    except OSError:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
    said = b""
    while part := os.read(read_fd, 65536):
        said += part
    os.close(read_fd)
    os.waitpid(pid, 0)
    if not said:
        raise ChildProcessError(errno.ECHILD, "the child that was asked has ended without an answer")
    return json.loads(said)


def _steps(attributes: Attributes) -> Iterator[tuple[str, str, Callable[[], None]]]:
    """What is to be done, in order: the setting, the deed in words, and the deed."""
    one = attributes
    if one.oom_score_adj is not None:  # before the limits: it needs to open a file
        score = one.oom_score_adj
        yield "oom_score_adj", f"set oom_score_adj to {score}", lambda: _set_oom_score_adj(score)
    late = {name for name, (_, hard) in one.limits.items() if name in _OF_MEMORY and not exceeds_ours(name, hard)}
    yield from _limiting({name: pair for name, pair in one.limits.items() if name not in late})
    if one.nice is not None:  # after the limits: that of the same name may allow it
        nice = one.nice
        yield "nice", f"set the niceness {nice}", lambda: os.setpriority(os.PRIO_PROCESS, 0, nice)
    if one.groups is not None:
        groups = one.groups
        yield "supplementary_groups", f"take on the groups {_listed(groups)}", lambda: _set_groups(groups)
    if one.gid is not None:
        gid = one.gid
        yield "group", f"take on the group {gid}", lambda: _set_gid(gid)
    if one.uid is not None:
        uid = one.uid
        yield "user", f"become the user {uid}", lambda: _set_uid(uid)
    if one.working_dir:
        path = one.working_dir
        yield "working_dir", f"enter the working directory {path!r}", lambda: os.chdir(path)
    if one.umask is not None:
        umask = one.umask
        yield "umask", f"set the umask {umask:03o}", lambda: _set_umask(umask)
    # Last: we need memory ourselves. To lower a limit takes no rights.
    yield from _limiting({name: one.limits[name] for name in sorted(late)})


def _limiting(limits: dict[str, list[int]]) -> Iterator[tuple[str, str, Callable[[], None]]]:
    for name, (soft, hard) in limits.items():
        what = f"set the limit {name} to {limit_text(soft)} (hard limit {limit_text(hard)})"
        yield f"ulimits.{name}", what, lambda name=name, soft=soft, hard=hard: _set_limit(name, soft, hard)  # type: ignore[misc]


def our_limits(name: str) -> tuple[int, int]:
    """This process's own soft and hard limit, by a name of LIMITS."""
    soft, hard = resource.getrlimit(LIMITS[name])
    return tuple(UNLIMITED if one == resource.RLIM_INFINITY else one for one in (soft, hard))  # type: ignore[return-value]


def exceeds(one: int, other: int) -> bool:
    """The first of two limits is the higher one."""
    return other != UNLIMITED and (one == UNLIMITED or one > other)


def exceeds_ours(name: str, hard: int) -> bool:
    """A hard limit is above this process's own."""
    return exceeds(hard, our_limits(name)[1])


def limit_text(limit: int) -> str:
    """A limit as people write it."""
    return "unlimited" if limit == UNLIMITED else str(limit)


def _set_limit(name: str, soft: int, hard: int) -> None:
    pair = tuple(resource.RLIM_INFINITY if one == UNLIMITED else one for one in (soft, hard))
    try:
        resource.prlimit(0, LIMITS[name], pair)  # type: ignore[arg-type]
    except (ValueError, OverflowError) as error:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from error


def _set_oom_score_adj(score: int) -> None:
    # Unbuffered: the error is that of the write.
    with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(str(score).encode())


def _set_groups(groups: list[int]) -> None:
    if set(os.getgroups()) != set(groups):  # without rights what is so already is no failure
        os.setgroups(groups)


def _set_gid(gid: int) -> None:
    if os.getresgid() != (gid, gid, gid):
        os.setresgid(gid, gid, gid)


def _set_uid(uid: int) -> None:
    if os.getresuid() == (uid, uid, uid):
        return
    os.setresuid(uid, uid, uid)
    if uid == 0:
        return
    try:
        os.setresuid(-1, 0, -1)
    except OSError:  # EPERM; in a user namespace without a root EINVAL
        return
    # A capability, or a bit of capabilities(7)'s securebits, has outlived the change.
    raise PermissionError(errno.EPERM, "root could be regained")


def _set_umask(umask: int) -> None:
    os.umask(umask)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "(none)"
