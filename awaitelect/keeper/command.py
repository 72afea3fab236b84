"""The command: started through a shim, signalled, and ended with all its descendants."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
from collections.abc import Set

from awaitelect import cgroup, clock
from awaitelect.attributes import attributes_of
from awaitelect.cgroup import Cgroup
from awaitelect.keeper import shim, tree
from awaitelect.keeper.execution import NotExecuted
from awaitelect.keeper.shim import Shim
from awaitelect.keeper.signals import Signals
from awaitelect.keeper.terminal import Terminal
from awaitelect.protocol import MARK, CommandSettings, Grant
from awaitelect.values import as_dict

SERVICE_MANAGERS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Variables by which a service manager speaks with the process that it has started."""


def _made(path: str) -> Cgroup:
    one = Cgroup(path)
    one.create()
    return one


class Command:
    """One command, run after run; at most one run at a time."""

    def __init__(self, instance: str, caught: Signals, deadman: clock.Alarm, terminal: Terminal) -> None:
        """`deadman` rings for the waiting shim when the keeper has let pass the date by which all must be dead."""
        self._instance = instance
        self._deadman = deadman
        self._start_by = 0.0
        self.foreign: set[int] = set()
        """Children that we had before we began, by an exec: not the command's."""
        self._caught = caught
        self._terminal = terminal
        self._waiting: Shim | None = None
        self.main: Shim | None = None
        """The shim that became, or is about to become, the command; None when nothing was started."""
        self.stderr_fd: int | None = None
        """The command's standard error in the shims to come; None: ours."""
        self.main_reaped = True
        self.is_pending = False
        """The order to start is given, and whether it was executed is not known yet."""
        self._held_back: list[tuple[int, bool, bool]] = []
        self.notify_socket = ""
        """Where the command can say that it is ready; empty: nobody listens."""
        self.place = cgroup.place(instance)
        """The directory of the cgroup below which each run has one of its own; empty where there can be none."""
        self._base: Cgroup | None = None
        self._is_enclosed = False
        self._runs = 0
        self._used: list[Cgroup] = []
        self._beside: Cgroup | None = None

    @property
    def waiting_pid(self) -> int | None:
        """The pid of the shim that waits for the next start."""
        return self._waiting.pid if self._waiting else None

    def enclose(self, wanted: bool) -> str:
        """Have each run from the next one on in a cgroup of its own, or not. Why that cannot be, or nothing."""
        self._is_enclosed = False
        if not wanted:
            return ""
        if not self.place:
            return "no cgroup of version 2 is in sight"
        try:
            if self._base is None:
                base = _made(self.place)
                base.hold()
                self._base = base
                cgroup.tidy(os.path.dirname(self.place))
        except OSError as error:
            return f"{os.path.dirname(self.place)}: {error.strerror}"
        self._is_enclosed = True
        return ""

    def _next_cgroup(self) -> Cgroup | None:
        while self._used:
            self._used.pop().remove()
        if not self._is_enclosed:
            return None
        self._runs += 1
        try:
            if self._base and not os.path.isdir(self.place):  # somebody has acted for us while we were stopped
                self._base.close()
                self._base = None
                self.enclose(True)
            return _made(f"{self.place}/{self._runs}")
        except OSError:
            return None

    def beside(self) -> Cgroup | None:
        """The cgroup of what runs beside the command, where that has one."""
        if self._is_enclosed and (self._beside is None or not os.path.isdir(self._beside.path)):
            try:
                self._beside = _made(f"{self.place}/beside")
            except OSError:
                self._beside = None
        return self._beside if self._is_enclosed else None

    def prepare(self) -> None:
        """Have a shim waiting. Raises OSError where no process can be had."""
        if self._waiting is None:
            own = self._next_cgroup()
            self._waiting = shim.fork(self._instance, self._caught, self._terminal, self._deadman, self.stderr_fd, own)

    def start(self, settings: CommandSettings, grant: Grant) -> None:
        """Give the order to start. Raises OSError where no process can be had; the rest comes as the verdict."""
        self.forget()
        self.prepare()
        assert self._waiting is not None
        self.main, self._waiting, self.main_reaped = self._waiting, None, False
        order = {
            "argv": settings.argv,
            "environment": self.environment(settings, grant),
            "attributes": as_dict(attributes_of(settings)),
            "start_by": clock.to_ns(grant.term_by),
        }
        line = json.dumps(order).encode() + b"\n"
        self._terminal.save_modes()
        self.is_pending, self._start_by = True, grant.term_by
        try:
            # All of it must go into the pipe: a shim that somebody has stopped reads nothing.
            if len(line) > 65536:
                fcntl.fcntl(self.main.order_fd, fcntl.F_SETPIPE_SZ, len(line))
            os.set_blocking(self.main.order_fd, False)
            if os.write(self.main.order_fd, line) < len(line):
                raise OSError(errno.E2BIG, "command and environment are too large for a pipe")
        except OSError:
            tree.kill({self.main.pid})
            self.forget()
            raise

    def environment(self, settings: CommandSettings, grant: Grant) -> dict[str, str]:
        """The variables of the command, and of all that runs beside it."""
        environment = dict(os.environ) if settings.inherit_env else {}
        for name in SERVICE_MANAGERS:  # meant for us
            environment.pop(name, None)
        if self.notify_socket:
            environment["NOTIFY_SOCKET"] = self.notify_socket
        return environment | settings.environment | grant.environment | {MARK: self._instance}

    def expire(self, now: float) -> None:
        """End a shim that has not followed its order while it may: somebody has stopped it."""
        if self.is_pending and self.main and now >= self._start_by:
            tree.kill({self.main.pid})

    def read_verdict(self) -> NotExecuted | None:
        """Why the order could not be followed; None if the command runs, or if that `is_pending` still."""
        assert self.main is not None
        try:
            said = os.read(self.main.verdict_fd, 65536)
        except BlockingIOError:
            return None
        self.is_pending = False
        held_back, self._held_back = self._held_back, []
        for number, group, wake in held_back:
            self.signal(number, group=group, wake=wake)
        return NotExecuted(**json.loads(said)) if said else None

    def forget(self) -> None:
        """Close what belonged to the last run."""
        if self.main:
            self._close(self.main)
            self.main = None
            self.is_pending, self._held_back = False, []

    def shim_ended(self) -> None:
        """The waiting shim was killed by somebody."""
        if self._waiting:
            self._close(self._waiting)
            self._waiting = None

    def _close(self, one: Shim) -> None:
        for fd in (one.pidfd, one.order_fd, one.verdict_fd):
            os.close(fd)
        if one.cgroup:
            one.cgroup.close()
            self._used.append(one.cgroup)  # removed before the next is made: that another may lead does not wait for it

    # ------------------------------------------------------------------ ending it

    def signal(self, number: int, *, group: bool, wake: bool = False) -> None:
        """Send a signal to the main process or to its group. `wake`: and SIGCONT to the group, if suspended."""
        if self.main is None:
            return
        if self.is_pending and number != signal.SIGKILL:
            self._held_back.append((number, group, wake))  # before its exec the shim would not hear it
            return
        for sent in (number, signal.SIGCONT) if wake else (number,):
            try:
                if not group and sent == number:
                    if not self.main_reaped:
                        signal.pidfd_send_signal(self.main.pidfd, sent)
                elif not self.main_reaped or self._has_group():
                    os.killpg(self.main.pid, sent)
            except ProcessLookupError:
                pass
            except PermissionError:
                pass  # it has become another user's; SIGKILL from our side will fail too, and be reported then

    def _has_group(self) -> bool:
        """Somebody of the command's group is there; else its number may be another's by now."""
        for pid in tree.children():
            try:
                if self.main and os.getpgid(pid) == self.main.pid:
                    return True
            except ProcessLookupError:
                pass
        return False

    def signal_tree(self, number: int, elector: int | None) -> None:
        """Send a signal, and SIGCONT after it, to every process of the command, whatever its parent or group is."""
        if self.is_pending:
            self.signal(number, group=False, wake=True)  # the shim is all there is
        else:
            tree.signal_all(lambda: self._members(elector), number, signal.SIGCONT)

    def _members(self, elector: int | None) -> set[int]:
        """Every process of the command: we are a subreaper, so those that are in no cgroup of ours descend from us."""
        inside = self.main.cgroup.members() if self.main and self.main.cgroup else set()
        return inside | tree.descendants(self.survivors(elector))

    def survivors(self, elector: int | None) -> set[int]:
        """Our children that belong to the command, zombies included."""
        ours = {elector, self.waiting_pid, *self.foreign}
        return {pid for pid in tree.children() if pid not in ours}

    def is_empty(self, elector: int | None, besides: Set[int] = frozenset()) -> bool:
        """Nothing of the command is alive, `besides` these: no child of ours, and nothing in its cgroup."""
        inside = self.main is not None and self.main.cgroup is not None and self.main.cgroup.is_populated()
        return not inside and not self.survivors(elector) - besides

    @property
    def directory(self) -> str:
        """The directory of the cgroup of this run; empty for none."""
        return self.main.cgroup.path if self.main and self.main.cgroup else ""

    @property
    def populated_fd(self) -> int:
        """A descriptor that polls as POLLPRI when `is_empty` may have changed without an end of a child of ours; or -1.

        It polls so until `is_empty` is asked again.
        """
        return self.main.cgroup.fileno() if self.main and self.main.cgroup else -1

    def kill(self, elector: int | None) -> None:
        """SIGKILL to the cgroup, the group and each child of ours; their children come to us, for the next call."""
        if self.main and self.main.cgroup:
            self.main.cgroup.kill()
        self.signal(signal.SIGKILL, group=True)
        tree.kill(self.survivors(elector))

    def tell_survivors(self, elector: int | None, spared: Set[int] = frozenset()) -> None:
        """SIGTERM to what the main process has left behind: its group, and those of other groups that are ours now."""
        self.signal(signal.SIGTERM, group=True, wake=True)
        tree.signal_all(
            lambda: (self.survivors(elector) or self._members(elector)) - spared, signal.SIGTERM, signal.SIGCONT
        )

    def describe(self, elector: int | None) -> str:
        """Names, pids and states of what is alive of the command, for a log line."""
        return tree.describe(self._members(elector))

    def remove_cgroups(self) -> None:
        """At our end."""
        if self._base:
            self._base.remove()

    def take_terminal(self, status: int = 0) -> None:
        """The main process has ended: what is typed comes to us again. `status`: minus the signal it has died of."""
        if self.main:
            self._terminal.take_from(self.main.pid)
        if status < 0:
            self._terminal.restore_modes()

    def dismiss_shim(self) -> None:
        """End the waiting shim."""
        if self._waiting:
            tree.kill({self._waiting.pid})
