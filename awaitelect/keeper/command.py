"""The command: started through a shim, signalled, and ended with all its descendants."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal

from awaitelect import clock
from awaitelect.errors import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND
from awaitelect.keeper import shim, tree
from awaitelect.keeper.shim import Shim
from awaitelect.keeper.signals import Signals
from awaitelect.protocol import MARK, CommandSettings, Grant


def on_terminal() -> bool:
    """Standard input is a terminal, and we are in its foreground."""
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def look_up(argv0: str, settings: CommandSettings) -> tuple[str, int] | None:
    """Why this command could not be executed if it were tried now, and the exit status for it; None if it could.

    A first look, before any lease is contended for: what counts is the exec itself.
    """
    path = settings.environment.get("PATH") or (os.environ.get("PATH") if settings.inherit_env else None)
    folders = [""] if "/" in argv0 else os.get_exec_path({"PATH": path} if path else {})
    found = None
    for folder in folders:
        file = os.path.join(settings.working_dir or "", folder, argv0)
        if os.path.isdir(file):
            found = found or f"cannot execute {argv0!r}: {file} is a directory"
        elif os.path.exists(file):
            if os.access(file, os.X_OK):
                return None
            found = found or f"cannot execute {argv0!r}: {file} is not executable"
    if (found and "/" in argv0) or (found and "directory" not in found):
        return found, EXIT_NOT_EXECUTABLE
    where = "no such file" if "/" in argv0 else f"not found in PATH ({path or os.defpath})"
    return f"cannot execute {argv0!r}: {where}", EXIT_NOT_FOUND


class Command:
    """One command, run after run; at most one run at a time."""

    def __init__(self, instance: str, caught: Signals, deadman: clock.Alarm) -> None:
        """`deadman` rings for the waiting shim when the keeper has let pass the date by which all must be dead."""
        self._instance = instance
        self._deadman = deadman
        self._start_by = 0.0
        self.foreign: set[int] = set()
        """Children that we had before we began, by an exec: not the command's."""
        self._caught = caught
        self._foreground = on_terminal()
        self._waiting: Shim | None = None
        self.main: Shim | None = None
        """The shim that became, or is about to become, the command; None when nothing was started."""
        self.main_reaped = True
        self.is_pending = False
        """The order to start is given, and whether it was executed is not known yet."""
        self._held_back: list[tuple[int, bool, bool]] = []

    @property
    def has_terminal(self) -> bool:
        return self._foreground

    @property
    def waiting_pid(self) -> int | None:
        """The pid of the shim that waits for the next start."""
        return self._waiting.pid if self._waiting else None

    def prepare(self) -> None:
        """Have a shim waiting. Raises OSError where no process can be had."""
        if self._waiting is None:
            self._waiting = shim.fork(self._instance, self._caught, self._foreground, self._deadman)

    def start(self, settings: CommandSettings, grant: Grant) -> None:
        """Give the order to start. Raises OSError where no process can be had; the rest comes as the verdict."""
        self.forget()
        self.prepare()
        assert self._waiting is not None
        self.main, self._waiting, self.main_reaped = self._waiting, None, False
        environment = dict(os.environ) if settings.inherit_env else {}
        environment |= settings.environment | grant.environment | {MARK: self._instance}
        order = {
            "argv": settings.argv,
            "environment": environment,
            "working_dir": settings.working_dir,
            "umask": settings.umask,
            "start_by": clock.to_ns(grant.term_by),
        }
        line = json.dumps(order).encode() + b"\n"
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

    def expire(self, now: float) -> None:
        """End a shim that has not followed its order while it may: somebody has stopped it."""
        if self.is_pending and self.main and now >= self._start_by:
            tree.kill({self.main.pid})

    def read_verdict(self) -> dict[str, str | int] | None:
        """What became of the order: {} if the command runs, why not otherwise, None if it is not known yet."""
        assert self.main is not None
        try:
            said = os.read(self.main.verdict_fd, 65536)
        except BlockingIOError:
            return None
        verdict: dict[str, str | int] = json.loads(said) if said else {}
        self.is_pending = False
        held_back, self._held_back = self._held_back, []
        for number, group, wake in held_back:
            self.signal(number, group=group, wake=wake)
        return verdict

    def forget(self) -> None:
        """Close what belonged to the last run."""
        if self.main:
            for fd in (self.main.pidfd, self.main.order_fd, self.main.verdict_fd):
                os.close(fd)
            self.main = None
            self.is_pending, self._held_back = False, []

    def shim_ended(self) -> None:
        """The waiting shim was killed by somebody."""
        if self._waiting:
            for fd in (self._waiting.pidfd, self._waiting.order_fd, self._waiting.verdict_fd):
                os.close(fd)
            self._waiting = None

    # ------------------------------------------------------------------ ending it

    def signal(self, number: int, *, group: bool, wake: bool = False) -> None:
        """Send a signal to the main process or to its group. `wake`: and SIGCONT after it, as it may be suspended."""
        if self.main is None:
            return
        if self.is_pending and number != signal.SIGKILL:
            self._held_back.append((number, group, wake))  # before its exec the shim would not hear it
            return
        for sent in (number, signal.SIGCONT) if wake else (number,):
            try:
                if not group:
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

    def survivors(self, elector: int | None) -> set[int]:
        """Our children that belong to the command, zombies included: empty means that nothing of it is alive."""
        ours = {elector, self.waiting_pid, *self.foreign}
        return {pid for pid in tree.children() if pid not in ours}

    def kill(self, elector: int | None) -> None:
        """SIGKILL to the group and to each child of ours; their children come to us, for the next call."""
        self.signal(signal.SIGKILL, group=True)
        tree.kill(self.survivors(elector))

    def tell_survivors(self, elector: int | None) -> None:
        """SIGTERM to what the main process has left behind: its group, and those of other groups that are ours now."""
        self.signal(signal.SIGTERM, group=True, wake=True)
        for pid in self.survivors(elector):
            try:
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGCONT)
            except OSError:
                pass  # another user's

    def take_terminal(self) -> None:
        """The command is gone: what is typed comes to us again."""
        if self._foreground:
            try:
                os.tcsetpgrp(0, os.getpgrp())
            except OSError:
                pass  # the terminal is gone

    def dismiss_shim(self) -> None:
        """End the waiting shim."""
        if self._waiting:
            tree.kill({self._waiting.pid})
