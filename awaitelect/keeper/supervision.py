"""The command's side of the keeper: what the guard decides is carried out, and the guard told what becomes of it."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

from awaitelect import attributes, clock, protocol
from awaitelect.errors import EXIT_NOT_EXECUTABLE
from awaitelect.keeper import actions, look_up, signals
from awaitelect.keeper.attendant import Attendants
from awaitelect.keeper.command import Command
from awaitelect.keeper.elector import Elector
from awaitelect.keeper.ending import Ending
from awaitelect.keeper.guard import PROBE, Guard, Phase
from awaitelect.keeper.notify import Notices
from awaitelect.keeper.oom import OomCounter
from awaitelect.keeper.shim import PATIENCE
from awaitelect.keeper.terminal import Terminal
from awaitelect.keeper.termination import Termination
from awaitelect.logs import Log

if TYPE_CHECKING:
    from awaitelect.keeper.systemd import ServiceManager


class Supervision:
    """One command, its hooks and the questions of its probes, by the guard's word."""

    def __init__(
        self,
        instance: str,
        caught: signals.Signals,
        terminal: Terminal,
        elector: Elector,
        termination: Termination,
        ending: Ending,
        service: ServiceManager | None,
        log: Log,
    ) -> None:
        self.guard: Guard | None = None
        """None until the settings have come."""
        self._deadman = clock.Alarm()
        self.command = Command(instance, caught, self._deadman, terminal)
        self.attendants = Attendants(caught)
        self._notices: Notices | None = None
        self._oom = OomCounter()
        self._instance, self._terminal, self._elector, self._ignored = instance, terminal, elector, caught.ignored
        self._termination, self._ending, self._service, self._log = termination, ending, service, log

    # ------------------------------------------------------------------ settings

    def begin(self, settings: protocol.CommandSettings) -> None:
        """The first settings have come: the command may be started from now on, by a grant."""
        self._termination.configure(settings)
        self.guard = Guard(settings, _chance)
        missing = look_up.look_up_all(settings)
        if missing:
            self._ending.failure = missing[0]
            self.perform(self.guard.on_missing(*missing))
            return
        if settings.ready == "notify":
            self._notices = Notices(self._instance)
            self.command.notify_socket = self._notices.variable
        self.command.stderr_fd = self._termination.open_tail()
        reason = self.command.enclose(settings.cgroup)
        if reason:
            self._log.debug(f"no cgroup for the command ({reason}): its group and what descends from us is swept")
        self.prepare()

    def renew(self, settings: protocol.CommandSettings) -> None:
        """Other settings count from now on."""
        assert self.guard is not None
        self.guard.settings = settings
        self.command.enclose(settings.cgroup)

    # ------------------------------------------------------------------ waiting

    @property
    def wake_at(self) -> float | None:
        """The instant, in seconds, at which to call `notice_time` at the latest."""
        return self.guard.wake_at if self.guard else None

    def wanted(self) -> dict[int, int]:
        """The descriptors to wait for, each with its events of poll(2)."""
        found = {fd: select.POLLIN for fd in (self._verdict_fd, self._notices_fd) if fd >= 0}
        if self._awaits_end and self.command.populated_fd >= 0:
            found[self.command.populated_fd] = select.POLLPRI
        return found

    def set_deadman(self) -> None:
        """Before each wait: the waiting shim may take us for dead when we should have noticed a date, and killed."""
        one = self.guard
        if one and one.grant and one.is_alive and one.phase != Phase.KILLING:
            # Its patience is over before others may start, however short the margin is.
            self._deadman.set(one.grant.kill_by + min(0.0, one.settings.kill_margin / 2 - PATIENCE))
        else:
            self._deadman.set(None)

    @property
    def _awaits_end(self) -> bool:
        """The main process has ended, and what it left behind shall."""
        is_ending = self.guard is not None and self.guard.phase in (Phase.STOPPING, Phase.KILLING, Phase.CLEANING)
        return is_ending and self.command.main_reaped and not self.command.is_pending

    @property
    def _verdict_fd(self) -> int:
        return self.command.main.verdict_fd if self.command.main and self.command.is_pending else -1

    @property
    def _notices_fd(self) -> int:
        return self._notices.fileno() if self._notices else -1

    # ------------------------------------------------------------------ what happens

    def notice_time(self, now: float) -> None:
        """A date may have come."""
        self.command.expire(now)
        if self.guard:
            self.perform(self.guard.on_wake(now))

    def notice(self, ready: set[int]) -> None:
        """These descriptors are ready."""
        if self._verdict_fd in ready:
            self._read_verdict()
        if self._notices_fd in ready:
            self._take_notices()

    def shut_down(self, number: int) -> None:
        """Stop for good, by this signal."""
        if self.guard is None:  # nothing is held before the settings have come
            self._ending.status = 0
            return
        if self.command.is_pending:
            self._read_verdict()  # if it was executed meanwhile, its own ways to be stopped are due
        self.perform(self.guard.on_shutdown(number, clock.now()))

    def ended(self, pid: int, status: int) -> None:
        """A child of ours has been reaped: exit code, or minus the number of a signal."""
        self.command.foreign.discard(pid)
        if pid == self.command.waiting_pid:
            self.command.shim_ended()
            if self.guard and self.guard.is_alive and status == -signal.SIGKILL:
                self.prepare()  # somebody has killed the third pair of eyes
        elif self.command.main and pid == self.command.main.pid:
            self._main_ended(status)
        elif pid in self.attendants.pids:
            answer = self.attendants.take(pid, status)
            if answer is not None and self.guard is not None:
                self._take_answer(*answer)

    def _main_ended(self, status: int) -> None:
        assert self.guard is not None
        if self.command.is_pending:
            self._read_verdict()  # the pipe is closed by now: it was executed, or the reason is there
        if not self.guard.is_alive:
            return  # it was never executed, and that has been dealt with
        self.command.main_reaped = True
        self._termination.catch_up()
        self.command.take_terminal(status)
        survivors = not self.command.is_empty(self._elector.pid, self.attendants.pids)
        if survivors:
            self._log.debug(f"left behind by the command: {self.command.describe(self._elector.pid)}")
        number = self._meant_for_all(status)
        if self.guard.phase == Phase.RUNNING and number:
            self.shut_down(number)
        self.perform(self.guard.on_exited(status, survivors, clock.now(), self._oom.has_struck()))

    def _meant_for_all(self, status: int) -> int:
        """Ctrl-C on a terminal, or its end, goes to its foreground, which is the command: its user means all of us.

        The signal's number, or 0. Many catch it and exit as a shell reports a death by it, with 130.
        """
        number = -status if status < 0 else status - 128
        if number in self._ignored:
            return 0
        if number == signal.SIGHUP:
            return number if self._terminal.has_gone else 0
        return number if self._terminal.is_there and number in (signal.SIGINT, signal.SIGQUIT) else 0

    def _read_verdict(self) -> None:
        assert self.guard is not None
        failed = self.command.read_verdict()
        if self.command.is_pending:
            return
        now = clock.now()
        if failed is None:
            assert self.command.main is not None
            self._log.info(f"command started, pid {self.command.main.pid}")
            self._elector.send(protocol.Spawned(self.command.main.pid, self.guard.restarts), self.command.main.pidfd)
            self.perform(self.guard.on_executed(now))
            self.prepare()
            return
        self.command.main_reaped = True
        self.command.take_terminal()
        self.perform(self.guard.on_refused(failed.reason, failed.status, now))

    def _take_answer(self, name: str, failure: str) -> None:
        assert self.guard is not None
        if name == PROBE:
            self.perform(self.guard.on_answer(failure, clock.now()))
        else:
            self.perform(self.guard.on_hook_ended(name, failure, clock.now()))

    def _take_notices(self) -> None:
        assert self._notices is not None and self.guard is not None
        uid = self.guard.settings.uid
        for notice in self._notices.take(os.getuid() if uid is None else uid):
            now = clock.now()
            if notice.get("EXTEND_TIMEOUT_USEC", "").isdecimal():
                self.guard.on_extended(int(notice["EXTEND_TIMEOUT_USEC"]) / 1e6, now)
            if "STATUS" in notice:
                self._log.info(f"the command says: {notice['STATUS'][:500]}")
            if notice.get("READY") == "1":
                self.perform(self.guard.on_notified(now))
                if self._service:
                    self._service.ready(now)
            elif notice.get("RELOADING") == "1" and self._service:
                self._service.reloading(now)

    # ------------------------------------------------------------------ carrying out

    def perform(self, todo: list[actions.Action]) -> None:
        """Do what the guard says, in order."""
        for action in todo:
            if isinstance(action, actions.Tell):
                if not self._elector.send(action.message) and self._elector.pid is not None:
                    self._log.debug(f"the elector could not be told: {type(action.message).__name__}")
            elif isinstance(action, actions.Note):
                self._log.write(action.level, action.text)
            elif isinstance(action, actions.Start):
                self._start(action.grant)
            elif isinstance(action, actions.Signal):
                self._log.info(f"stopping the command with {signals.name(action.number)}")
                self.command.signal(action.number, group=action.group, wake=True)
            elif isinstance(action, actions.SignalTree):
                self._log.info(f"stopping every process of the command with {signals.name(action.number)}")
                self.command.signal_tree(action.number, self._elector.pid)
            elif isinstance(action, actions.NoteSurvivors):
                self._log.write(action.level, f"{action.text}: {self.command.describe(self._elector.pid)}")
            elif isinstance(action, actions.TellSurvivors):
                self._tell_survivors()
            elif isinstance(action, (actions.RunHook, actions.Ask)):
                self._begin_beside(action)
            elif isinstance(action, actions.Abandon):
                self.attendants.abandon(action.name)
            else:
                self.command.kill(self._elector.pid)

    def _tell_survivors(self) -> None:
        assert self.guard is not None
        spared = self.attendants.pids_of(self.guard.awaited)
        if not self.command.is_empty(self._elector.pid, spared):
            self._log.info("the command does not run, but processes of it or its hooks do: stopping them with SIGTERM")
            self.command.tell_survivors(self._elector.pid, spared)

    def _begin_beside(self, action: actions.RunHook | actions.Ask) -> None:
        """Run a hook, or ask a question."""
        assert self.guard is not None and self.guard.grant is not None
        settings = self.guard.settings
        name = PROBE if isinstance(action, actions.Ask) else action.name
        environment = self.command.environment(settings, self.guard.grant)
        if self.command.main and not self.command.main_reaped and not self.command.is_pending:
            environment["MAINPID"] = str(self.command.main.pid)
        given = environment, attributes.attributes_of(settings), self.command.beside()
        try:
            if isinstance(action, actions.Ask):
                self.attendants.ask(name, action.probe, *given)
            else:
                environment |= {"AWAITELECT_HOOK": name, **action.environment}
                self.attendants.run(name, settings.hooks[name], *given)
        except OSError as error:
            self._take_answer(name, f"could not be started: {error.strerror}")

    def _start(self, grant: protocol.Grant) -> None:
        assert self.guard is not None
        try:
            self.command.start(self.guard.settings, grant)
            self._oom.mark(self.command.directory)
        except OSError as error:
            reason = f"cannot start the command: {error.strerror}"
            self.perform(self.guard.on_refused(reason, EXIT_NOT_EXECUTABLE, clock.now()))

    def prepare(self) -> None:
        """Have a process ready for the next start."""
        try:
            self.command.prepare()
        except OSError as error:
            self._log.warning(f"cannot have a process ready for the next start: {error.strerror}")

    def settle(self) -> None:
        """After all that has happened: is the command gone?"""
        if self.guard is None or not self._awaits_end:
            return
        if self.command.is_empty(self._elector.pid):
            self.command.forget()
            self.perform(self.guard.on_empty(clock.now()))
        elif self.guard.phase == Phase.KILLING:
            self.command.kill(self._elector.pid)  # children of those that have died are ours now


def _chance() -> float:
    """Evenly from 0 to 1. To import `random` for that would be a twentieth of our start."""
    return int.from_bytes(os.urandom(6)) / 2**48
