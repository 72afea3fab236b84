"""The processes beside the command: its hooks, and the questions that its probes ask.

Each is a child of ours with the command's environment and attributes, in a session of its own and without a terminal.
It carries our mark, and counts as part of the command wherever the command's end is looked for.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Mapping, Sequence

from awaitelect.attributes import Attributes
from awaitelect.cgroup import Cgroup
from awaitelect.errors import EXIT_NOT_EXECUTABLE
from awaitelect.keeper import execution, signals, tree
from awaitelect.keeper import probe as probes
from awaitelect.keeper.outcome import describe
from awaitelect.keeper.shim import close_others
from awaitelect.protocol import Probe
from awaitelect.values import Value

_LONGEST = 300
"""Characters of what an attendant says of its failure."""


class Attendant(Value):
    """One that runs."""

    name: str
    pid: int
    report_fd: int
    """What it has to say of its failure."""
    is_question: bool
    """Over the network: what it says is the whole trouble, and its exit status nothing."""


class Attendants:
    """Those that run, by name at most one of each, and those that nobody waits for any more."""

    def __init__(self, caught: signals.Signals) -> None:
        self._caught = caught
        self._running: dict[int, Attendant] = {}
        self._abandoned: set[int] = set()

    @property
    def pids(self) -> set[int]:
        """All that have not been reaped."""
        return {*self._running, *self._abandoned}

    def pids_of(self, names: Collection[str]) -> set[int]:
        """Those of these names."""
        return {one.pid for one in self._running.values() if one.name in names}

    def run(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        attributes: Attributes,
        cgroup: Cgroup | None = None,
    ) -> None:
        """Run a hook, in this cgroup if it can be entered. Raises OSError where no process can be had."""
        self._spawn(name, lambda keeper: self._execute(argv, environment, attributes, cgroup, keeper))

    def ask(
        self,
        name: str,
        probe: Probe,
        environment: Mapping[str, str],
        attributes: Attributes,
        cgroup: Cgroup | None = None,
    ) -> None:
        """Ask a question; an answer that is none is ended by its asker. Raises OSError where no process can be had."""

        def question(keeper: int) -> tuple[str, int]:
            if probe.kind == "exec":
                return self._execute(probe.argv, environment, attributes, cgroup, keeper)
            trouble = probes.ask(probe)
            return trouble, 1 if trouble else 0

        self._spawn(name, question, is_quiet=True, is_question=probe.kind != "exec")

    def abandon(self, name: str) -> None:
        """End it; nothing more is heard of it."""
        for one in [one for one in self._running.values() if one.name == name]:
            self._forget(one)
            self._abandoned.add(one.pid)
            _kill(one.pid)

    def abandon_all(self) -> None:
        """End all of them."""
        for name in {one.name for one in self._running.values()}:
            self.abandon(name)

    def take(self, pid: int, status: int) -> tuple[str, str] | None:
        """One has been reaped: its name, and how it has failed, empty for success. None if nobody waits for it."""
        self._abandoned.discard(pid)
        one = self._running.get(pid)
        if one is None:
            return None
        try:
            said = os.read(one.report_fd, 65536).decode("utf-8", "replace")
        except OSError:
            said = ""
        self._forget(one)
        if status == 0:
            return one.name, ""
        reason = " ".join(said.split())[:_LONGEST]
        if one.is_question and reason:
            return one.name, reason
        return one.name, f"{describe(status)}: {reason}" if reason else describe(status)

    def _forget(self, one: Attendant) -> None:
        del self._running[one.pid]
        os.close(one.report_fd)

    def _execute(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        attributes: Attributes,
        cgroup: Cgroup | None,
        keeper: int,
    ) -> tuple[str, int]:
        """Become the program. Returns only if that has failed: why, and the exit status for it."""
        execution.enter(cgroup)
        failed = execution.execute(argv, environment, attributes, self._caught, keeper)
        return failed.reason, failed.status or EXIT_NOT_EXECUTABLE

    def _spawn(
        self, name: str, body: Callable[[int], tuple[str, int]], is_quiet: bool = False, is_question: bool = False
    ) -> None:
        """Fork a child that says and ends with what `body`, which is given our pid, returns.

        `is_quiet`: its standard error is what it says.
        """
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read_fd, False)
        keeper = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                status = EXIT_NOT_EXECUTABLE
                try:
                    _prepare(keeper, write_fd, is_quiet)
                    said, status = body(keeper)
                    os.write(write_fd, said.encode())
                except BaseException as error:
                    os.write(write_fd, f"{error}".encode())
                finally:
                    os._exit(status)
        except OSError:
            os.close(read_fd)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(write_fd)
        self._running[pid] = Attendant(name, pid, read_fd, is_question)


def _prepare(keeper: int, report_fd: int, is_quiet: bool) -> None:
    """In the child: a session of its own, nothing of ours open, nothing on standard input."""
    signal.set_wakeup_fd(-1)
    os.setsid()
    os.dup2(os.open("/dev/null", os.O_RDWR), 0)
    if is_quiet:
        os.dup2(0, 1)
        os.dup2(report_fd, 2)
    close_others({0, 1, 2, report_fd})
    tree.die_with_parent()
    if os.getppid() != keeper:
        os._exit(EXIT_NOT_EXECUTABLE)


def _kill(pid: int) -> None:
    """SIGKILL to one that has not been reaped, and to its session's first group."""
    for kill in (os.kill, os.killpg):
        try:
            kill(pid, signal.SIGKILL)
        except OSError:
            pass  # another user's, or it has not got as far as its own group
