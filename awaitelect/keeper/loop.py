"""The keeper: one loop over signals, the clock, the elector's messages and the command's end.

It decides nothing about the lease and nothing about the command: the guard decides, this carries out. It never blocks
but in the one poll.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

from awaitelect import attributes, clock, protocol
from awaitelect.core.restart import exit_status
from awaitelect.errors import EXIT_CONFIG, EXIT_INTERNAL, EXIT_NOT_EXECUTABLE
from awaitelect.keeper import command, execution, guard, reaper, signals, tree
from awaitelect.keeper.attendant import Attendants
from awaitelect.keeper.elector import LONGEST_PAUSE, SILENCE, STARTUP, Elector
from awaitelect.keeper.guard import Guard, Phase
from awaitelect.keeper.notify import Notices
from awaitelect.keeper.oom import OomCounter
from awaitelect.keeper.terminal import Terminal
from awaitelect.keeper.termination import Termination
from awaitelect.logs import Log

if TYPE_CHECKING:
    from awaitelect.keeper.systemd import ServiceManager

ELECTOR_TIME = 5.0
"""Seconds that the elector has for the release once the command is gone."""
PATIENCE_SHARE, PATIENCE_SLACK = 0.6, 0.5
"""An elector that leads may be silent for this share of the renew deadline and so many seconds more: it speaks after
each request, and with the usual retry period (a fifth of the deadline) one without an answer ends at three fifths."""
REAP_TIME = 1.0
"""Seconds that what was killed at the end has to be gone: nothing may hold us up for ever."""
PROGRESS = SILENCE + STARTUP + LONGEST_PAUSE
"""Seconds without a word of an elector about the lease, after which we give a service manager no sign of life any more:
by then a hung one has been replaced, and so has its successor. A hung keeper gives none anyway."""
FIRST_TRIES = 3
"""So many electors may die without a word before the keeper gives up."""


class Keeper:
    """One run of the keeper. `run` returns the exit status."""

    def __init__(
        self, options: dict[str, str], argv: list[str], original_mask: Iterable[int], job: int | None = None
    ) -> None:
        """`job`: the pid of our parent, if that stands for us before a shell."""
        self._signals = signals.Signals(original_mask)
        self._log = Log(level=options.get("log_level", "info"), form=options.get("log_format", "auto"))
        self._options, self._argv = options, argv
        self._instance = os.urandom(8).hex()
        self._alarm = clock.Alarm()
        self._elector = Elector()
        self._guard: Guard | None = None
        self._deadman = clock.Alarm()
        self._terminal = Terminal(job)
        self._is_suspended = False
        """The command was stopped on the terminal, and the shell's job with it."""
        self._command = command.Command(self._instance, self._signals, self._deadman, self._terminal)
        self._attendants = Attendants(self._signals)
        self._notices: Notices | None = None
        self._termination = Termination(self._log)
        self._told_by = ""
        """The name of the signal that told us to end."""
        self._failure = ""
        """Why we end, where it is no end of the command."""
        self._elector_said = ""
        """Why the last elector has failed, in its own words."""
        self._oom = OomCounter()
        self._leave: protocol.Leave | None = None
        self._end_by: float | None = None
        """The elector has until then to release the lease and end."""
        self._status: int | None = None
        """The exit status, once it is certain; the loop ends."""
        self._passing = False
        self._bad_configuration = False
        self._disabled = False
        """The election was switched off in the file since we began: as good as a broken one."""
        self._standing = protocol.Alive()
        """How things stand with the lease, as the elector last said."""
        self._progress_at = clock.now()
        """When an elector last spoke of the lease."""
        self._service: ServiceManager | None = None
        if os.environ.get("NOTIFY_SOCKET"):
            from awaitelect.keeper.systemd import ServiceManager

            self._service = ServiceManager(os.environ, os.getpid(), self._progress_at)

    def run(self, launched: tuple[int, int] | None = None) -> int:
        """Keep the promise until the end. Returns the exit status. `launched`: pid and socket of the first elector."""
        self._command.foreign = tree.children() - ({launched[0]} if launched else set())
        self._spawn_elector(launched)
        tree.become_subreaper()
        if self._terminal.job:
            tree.die_with_parent()
            if os.getppid() != self._terminal.job:
                self._status = EXIT_INTERNAL  # it has been killed already, and nobody waits for us
        poll = select.poll()
        poll.register(self._signals.read_fd, select.POLLIN)
        poll.register(self._alarm, select.POLLIN)
        listening: set[int] = set()
        while self._status is None:
            listening = self._listen(poll, listening)
            self._termination.attend(poll)
            self._alarm.set(self._wake_at())
            self._deadman.set(self._dead_by())
            ready = {fd for fd, _ in poll.poll()}
            if self._alarm.fileno() in ready:
                self._alarm.clear()
            self._termination.pump(ready)
            self._notice_time()
            self._take_signals()
            if self._verdict_fd in ready:
                self._read_verdict()
            if self._notices and self._notices.fileno() in ready:
                self._take_notices()
            if self._elector.fileno() in ready:
                self._take_messages()
            self._settle()
            self._report()
        self._clean_up()
        if self._passing:
            self._pass_through()
        return self._status

    # ------------------------------------------------------------------ waiting

    def _listen(self, poll: select.poll, before: set[int]) -> set[int]:
        """Keep the poll object on the descriptors that come and go."""
        wanted = {fd: select.POLLIN for fd in (self._elector.fileno(), self._verdict_fd) if fd >= 0}
        if self._notices:
            wanted[self._notices.fileno()] = select.POLLIN
        if self._awaits_end and self._command.populated_fd >= 0:
            wanted[self._command.populated_fd] = select.POLLPRI
        for fd in before - wanted.keys():
            try:
                poll.unregister(fd)
            except KeyError:
                pass
        for fd, events in wanted.items():
            poll.register(fd, events)
        return set(wanted)

    @property
    def _awaits_end(self) -> bool:
        """The main process has ended, and what it left behind shall."""
        is_ending = self._guard is not None and self._guard.phase in (
            Phase.STOPPING,
            Phase.KILLING,
            Phase.CLEANING,
        )
        return is_ending and self._command.main_reaped and not self._command.is_pending

    @property
    def _verdict_fd(self) -> int:
        return self._command.main.verdict_fd if self._command.main and self._command.is_pending else -1

    def _wake_at(self) -> float | None:
        dates = [self._end_by, self._guard.wake_at if self._guard else None]
        if self._service:
            dates.append(self._service.wake_at)
        if self._elector.pid is None:
            dates.append(self._elector.restart_at)
        elif self._end_by is None:
            dates.append(self._hung_at())
        return min((at for at in dates if at is not None), default=None)

    def _dead_by(self) -> float | None:
        """When the waiting shim may take us for dead: we should have noticed a date, and killed, before it."""
        if self._guard and self._guard.grant and self._guard.is_alive and self._guard.phase != Phase.KILLING:
            return self._guard.grant.kill_by
        return None

    def _hung_at(self) -> float:
        watched = self._guard and self._guard.phase in (Phase.STARTING, Phase.RUNNING, Phase.BACKOFF, Phase.HELD)
        if self._guard and self._guard.grant and watched:
            patience = self._guard.settings.renew_deadline * PATIENCE_SHARE + PATIENCE_SLACK
            return self._elector.hung_at(self._guard.grant.term_by, patience)
        return self._elector.hung_at(None, 0.0)

    # ------------------------------------------------------------------ what happens

    def _notice_time(self) -> None:
        now = clock.now()
        self._command.expire(now)
        if self._guard:
            self._perform(self._guard.on_wake(now))
        if self._end_by is not None and now >= self._end_by:
            if self._elector.pid is not None:
                self._log.warning(f"the elector has not ended within {ELECTOR_TIME:.0f}s: killing it")
            self._finish()
        elif self._elector.pid is None:
            if self._elector.restart_at is not None and now >= self._elector.restart_at:
                self._spawn_elector()
        elif self._end_by is None and now >= self._hung_at():
            self._log.error(f"nothing heard of the elector for {now - self._elector.heard_at:.1f}s: replacing it")
            self._elector.kill()
            self._elector.heard_at = now

    def _take_signals(self) -> None:
        for number in self._signals.take():
            if number == signal.SIGCHLD:
                continue  # reaping is done once, below: one signal may stand for many ends
            self._take_signal(number)
        if self._terminal.is_there:
            self._notice_stop()
        for pid, status in reaper.reap():
            self._command.foreign.discard(pid)
            if pid == self._elector.pid:
                self._elector_ended(status)
            elif pid == self._command.waiting_pid:
                self._command.shim_ended()
                if self._guard and self._guard.is_alive and status == -signal.SIGKILL:
                    self._prepare()  # somebody has killed the third pair of eyes
            elif self._command.main and pid == self._command.main.pid:
                self._main_ended(status)
            elif pid in self._attendants.pids:
                self._attendant_ended(pid, status)

    def _take_signal(self, number: int) -> None:
        if self._guard:  # we may have been stopped ourselves, and SIGCONT is not to wake up what has to be dead by now
            self._perform(self._guard.on_wake(clock.now()))
        rewritten = self._guard.settings.signal_rewrite.get(number, number) if self._guard else number
        if rewritten == signal.SIGTSTP and not self._terminal.job:
            rewritten = signal.SIGSTOP  # in a session without a shell the kernel lets nobody be stopped by SIGTSTP
        name = signals.name(number)
        ends_us = number in signals.SHUTDOWN or (number == signal.SIGHUP and self._terminal.is_there)
        if ends_us and (number == signal.SIGTERM or number not in self._signals.ignored):
            if not rewritten:
                self._log.info(f"{name} dropped (signals.rewrite)")
                return
            self._log.info(f"{name}: shutting down")
            self._told_by = name
            self._shut_down(rewritten)
        elif rewritten == signal.SIGTSTP and (self._is_suspended or not (self._guard and self._guard.is_alive)):
            self._terminal.suspend_job()
        elif self._guard and self._guard.is_alive and rewritten:
            self._log.debug(f"{name} forwarded" + (f" as {signals.name(rewritten)}" if rewritten != number else ""))
            if rewritten == signal.SIGCONT:
                self._is_suspended = False
                if self._command.main:
                    self._terminal.give_to(self._command.main.pid)
            group = self._guard.settings.signal_target == "group" or rewritten in signals.SUSPENSION
            self._command.signal(rewritten, group=group)
        else:
            self._log.debug(f"{name} dropped: no command runs that could get it")

    def _notice_stop(self) -> None:
        """What was stopped on the terminal is the shell's to continue, so its job has to stop too."""
        main = self._command.main
        if main is None or self._command.main_reaped or self._command.is_pending:
            return
        number = reaper.stopped_by(main.pid)
        if number is None or self._guard is None or self._guard.phase != Phase.RUNNING:
            return
        in_background = number in (signal.SIGTTIN, signal.SIGTTOU)
        if in_background and self._terminal.give_to(main.pid):
            self._command.signal(signal.SIGCONT, group=True)  # the shell has brought us to the foreground meanwhile
        elif self._terminal.suspend_job():
            self._is_suspended = True
            self._log.debug(f"the command was stopped by {signals.name(number)}: suspended, and the lease is kept")
        elif number == signal.SIGTSTP:
            self._command.signal(signal.SIGCONT, group=True)  # nobody is there who could continue it

    def _attendant_ended(self, pid: int, status: int) -> None:
        ended = self._attendants.take(pid, status)
        if ended is None or self._guard is None:
            return
        self._take_answer(*ended)

    def _take_answer(self, name: str, failure: str) -> None:
        assert self._guard is not None
        if name == guard.PROBE:
            self._perform(self._guard.on_answer(failure, clock.now()))
        else:
            self._perform(self._guard.on_hook_ended(name, failure, clock.now()))

    def _take_notices(self) -> None:
        assert self._notices is not None and self._guard is not None
        uid = self._guard.settings.uid
        for notice in self._notices.take(os.getuid() if uid is None else uid):
            now = clock.now()
            if notice.get("EXTEND_TIMEOUT_USEC", "").isdecimal():
                self._guard.on_extended(int(notice["EXTEND_TIMEOUT_USEC"]) / 1e6, now)
            if "STATUS" in notice:
                self._log.info(f"the command says: {notice['STATUS'][:500]}")
            if notice.get("READY") == "1":
                self._perform(self._guard.on_notified(now))
                if self._service:
                    self._service.ready(now)
            elif notice.get("RELOADING") == "1" and self._service:
                self._service.reloading(now)

    def _shut_down(self, number: int) -> None:
        if self._guard is None:  # nothing is held before the settings have come
            self._status = 0
            return
        self._perform(self._guard.on_shutdown(number, clock.now()))

    def _main_ended(self, status: int) -> None:
        assert self._guard is not None
        if self._command.is_pending:
            self._read_verdict()  # the pipe is closed by now: it was executed, or the reason is there
        if not self._guard.is_alive:
            return  # it was never executed, and that has been dealt with
        self._command.main_reaped = True
        self._termination.catch_up()
        self._is_suspended = False
        self._command.take_terminal(status)
        survivors = not self._command.is_empty(self._elector.pid, self._attendants.pids)
        if survivors:
            self._log.debug(f"left behind by the command: {self._command.describe(self._elector.pid)}")
        if self._guard.phase == Phase.RUNNING and self._is_meant_for_all(status):
            self._shut_down(-status)
        self._perform(self._guard.on_exited(status, survivors, clock.now(), self._oom.has_struck()))

    def _is_meant_for_all(self, status: int) -> bool:
        """Ctrl-C on a terminal, or its end, goes to its foreground, which is the command: its user means all of us."""
        if status == -signal.SIGHUP:
            return self._terminal.has_gone
        return self._terminal.is_there and status in (-signal.SIGINT, -signal.SIGQUIT)

    def _read_verdict(self) -> None:
        assert self._guard is not None
        failed = self._command.read_verdict()
        if self._command.is_pending:
            return
        now = clock.now()
        if failed is None:
            assert self._command.main is not None
            self._log.info(f"command started, pid {self._command.main.pid}")
            self._elector.send(protocol.Spawned(self._command.main.pid, self._guard.restarts), self._command.main.pidfd)
            self._perform(self._guard.on_executed(now))
            self._prepare()
            return
        self._command.main_reaped = True
        self._command.take_terminal()
        self._perform(self._guard.on_refused(failed.reason, failed.status, now))

    # ------------------------------------------------------------------ the elector

    def _spawn_elector(self, launched: tuple[int, int] | None = None) -> None:
        grant = self._guard.grant if self._guard else None
        hello = protocol.Hello(
            self._instance,
            grant.number if grant else 0,
            grant.kill_by if grant else None,
            self._options,
            self._argv,
            grant.environment.get("AWAITELECT_LOCK", "") if grant else "",
            self._command.place,
            self._guard.restarts if self._guard else 0,
            self._elector.spawned,
        )
        if len(protocol.encode(hello)) > protocol.MAX_MESSAGE:
            self._log.error(f"the command line is longer than the {protocol.MAX_MESSAGE} bytes that can be handled")
            self._status = EXIT_CONFIG
            self._elector.pid = launched[0] if launched else None
            return
        now = clock.now()
        try:
            self._elector.spawn(hello, now, launched)
        except OSError as error:
            self._log.error(f"cannot start the elector with {sys.executable}: {error.strerror}")
            self._elector.spawned_at = now
            self._elector.ended(now)
            if self._guard is None and self._elector.early_deaths >= FIRST_TRIES:
                self._status = EXIT_INTERNAL
            return
        if self._guard is None:
            return
        if self._guard.is_alive and self._command.main and not self._command.is_pending:
            self._elector.send(protocol.Spawned(self._command.main.pid, self._guard.restarts), self._command.main.pidfd)
            if self._guard.is_ready:
                self._elector.send(protocol.Ready())
        elif self._guard.is_alive:
            self._elector.send(protocol.Spawned(0))  # no more than that something of it is alive
        if self._guard.phase == Phase.ENDED or self._guard.is_shutting_down:
            self._elector.send(protocol.Shutdown(signal.SIGTERM))

    def _elector_ended(self, status: int) -> None:
        now = clock.now()
        self._take_messages()  # what it said last
        if self._leave or self._passing:
            self._elector.pid = None
            return
        self._elector.ended(now)
        said = self._elector.fault or guard.describe(status)
        if self._disabled:
            status = EXIT_CONFIG
        if self._guard is None:
            if status == EXIT_CONFIG:
                self._status = EXIT_CONFIG
            elif self._elector.early_deaths >= FIRST_TRIES:
                self._failure = f"the elector {said}, {FIRST_TRIES} times in a row before it could begin: giving up"
                self._log.error(self._failure)
                self._status = EXIT_INTERNAL
            return
        if status == EXIT_CONFIG and self._guard.phase in (Phase.IDLE, Phase.ENDED, Phase.GIVEN_UP):
            self._status = EXIT_CONFIG
            return
        self._bad_configuration = status == EXIT_CONFIG
        again = "" if self._end_by else ": starting another"
        self._log.warning(f"the elector {said}{again}")

    def _take_messages(self) -> None:
        for message in self._elector.receive(clock.now()):
            now = clock.now()
            if isinstance(message, (protocol.Alive, protocol.Grant)):
                self._progress_at = now
            if isinstance(message, protocol.Settings):
                self._elector_said = ""
                self._take_settings(message.command)
            elif isinstance(message, protocol.Failed):
                self._elector_said = message.reason
            elif isinstance(message, protocol.Alive):
                self._standing = message if message.status else self._standing
            elif self._guard is None:
                continue
            elif isinstance(message, protocol.Grant):
                self._bad_configuration = False
                self._perform(self._guard.on_grant(message, now))
            elif isinstance(message, protocol.Stop):
                self._perform(self._guard.on_stop(message.grace, now))
            elif isinstance(message, protocol.Drained):
                self._perform(self._guard.on_drained(now))
            elif isinstance(message, protocol.Leave):
                self._leave = message
                self._perform(self._guard.on_deadline(now))

    def _take_settings(self, settings: protocol.CommandSettings) -> None:
        self._log.configure(settings.log_level, settings.log_format, name=settings.name)
        if not settings.enabled and self._guard is not None:
            self._log.error("election.enabled is false now, which needs a restart of awaitelect")
            self._disabled = True
            return
        self._disabled = False
        if not settings.enabled:
            self._passing, self._status = True, 0
            self._argv = settings.argv
            self._settings = settings
            return
        if self._guard is not None:
            self._guard.settings = settings
            self._command.enclose(settings.cgroup)
            return
        self._termination.configure(settings)
        self._guard = Guard(settings, random.random)
        missing = self._look_up(settings)
        if missing:
            self._failure = missing[0]
            self._log.error(self._failure)
            self._guard.status = missing[1]
            self._shut_down(signal.SIGTERM)
            return
        if settings.ready == "notify":
            self._notices = Notices(self._instance)
            self._command.notify_socket = self._notices.variable
        self._command.stderr_fd = self._termination.open_tail()
        reason = self._command.enclose(settings.cgroup)
        if reason:
            self._log.debug(f"no cgroup for the command ({reason}): its group and what descends from us is swept")
        self._prepare()

    @staticmethod
    def _look_up(settings: protocol.CommandSettings) -> tuple[str, int] | None:
        """What could not be executed of the command and all that runs beside it, and the exit status for it."""
        programs = {"": settings.argv}
        programs |= {
            f"{'stop.command' if name == 'stop' else f'hooks.{name}'}: ": argv for name, argv in settings.hooks.items()
        }
        for key, probe in (("start.probe", settings.start_probe), ("probes.liveness", settings.liveness)):
            if probe and probe.kind == "exec":
                programs[f"{key}: "] = probe.argv
        for key, argv in programs.items():
            missing = command.look_up(argv[0], settings)
            if missing:
                return key + missing[0], missing[1]
        return None

    # ------------------------------------------------------------------ carrying out

    def _perform(self, actions: list[guard.Action]) -> None:
        assert self._guard is not None
        for action in actions:
            if isinstance(action, guard.Tell):
                if not self._elector.send(action.message) and self._elector.pid is not None:
                    self._log.debug(f"the elector could not be told: {type(action.message).__name__}")
            elif isinstance(action, guard.Note):
                self._log.write(action.level, action.text)
            elif isinstance(action, guard.Start):
                self._start(action.grant)
            elif isinstance(action, guard.Signal):
                self._log.info(f"stopping the command with {signals.name(action.number)}")
                self._command.signal(action.number, group=action.group, wake=True)
            elif isinstance(action, guard.SignalTree):
                self._log.info(f"stopping every process of the command with {signals.name(action.number)}")
                self._command.signal_tree(action.number, self._elector.pid)
            elif isinstance(action, guard.NoteSurvivors):
                self._log.write(action.level, f"{action.text}: {self._command.describe(self._elector.pid)}")
            elif isinstance(action, guard.TellSurvivors):
                self._tell_survivors()
            elif isinstance(action, (guard.RunHook, guard.Ask)):
                self._begin_beside(action)
            elif isinstance(action, guard.Abandon):
                self._attendants.abandon(action.name)
            else:
                self._command.kill(self._elector.pid)

    def _tell_survivors(self) -> None:
        assert self._guard is not None
        spared = self._attendants.pids_of(self._guard.awaited)
        if not self._command.is_empty(self._elector.pid, spared):
            self._log.info("the command has ended and left processes behind: stopping them with SIGTERM")
            self._command.tell_survivors(self._elector.pid, spared)

    def _begin_beside(self, action: guard.RunHook | guard.Ask) -> None:
        """Run a hook, or ask a question."""
        assert self._guard is not None and self._guard.grant is not None
        settings = self._guard.settings
        name = guard.PROBE if isinstance(action, guard.Ask) else action.name
        environment = self._command.environment(settings, self._guard.grant)
        if self._command.main and not self._command.main_reaped and not self._command.is_pending:
            environment["MAINPID"] = str(self._command.main.pid)
        given = environment, attributes.attributes_of(settings), self._command.beside()
        try:
            if isinstance(action, guard.Ask):
                self._attendants.ask(name, action.probe, *given)
            else:
                environment |= {"AWAITELECT_HOOK": name, **action.environment}
                self._attendants.run(name, settings.hooks[name], *given)
        except OSError as error:
            self._take_answer(name, f"could not be started: {error.strerror}")

    def _start(self, grant: protocol.Grant) -> None:
        assert self._guard is not None
        try:
            self._command.start(self._guard.settings, grant)
            self._oom.mark(self._command.directory)
        except OSError as error:
            reason = f"cannot start the command: {error.strerror}"
            self._perform(self._guard.on_refused(reason, EXIT_NOT_EXECUTABLE, clock.now()))

    def _prepare(self) -> None:
        try:
            self._command.prepare()
        except OSError as error:
            self._log.warning(f"cannot have a process ready for the next start: {error.strerror}")

    def _settle(self) -> None:
        """After all that has happened: is the command gone, and are we done?"""
        guard_ = self._guard
        if guard_ is None or self._status is not None:
            return
        if self._awaits_end:
            if self._command.is_empty(self._elector.pid):
                self._command.forget()
                self._perform(guard_.on_empty(clock.now()))
            elif guard_.phase == Phase.KILLING:
                self._command.kill(self._elector.pid)  # children of those that have died are ours now
        if guard_.is_alive:
            if guard_.is_stuck:
                self._failure = "the command cannot be killed: the lease is left to run out"
                self._status = 1  # and the elector renews no more: the lease runs out
            return
        if self._bad_configuration and guard_.phase == Phase.IDLE:
            self._log.error("the configuration is broken and the command has stopped: ending")
            self._status = EXIT_CONFIG
        elif self._leave:
            self._finish()
        elif guard_.phase == Phase.ENDED:
            if self._end_by is None:
                self._end_by = clock.now() + ELECTOR_TIME
            if self._elector.pid is None and guard_.grant is None:
                self._finish()

    def _finish(self) -> None:
        """Nothing is left to wait for."""
        if self._leave and self._leave.status is not None:
            self._status = self._leave.status
        elif self._guard and self._guard.status is not None:
            self._status = exit_status(self._guard.status)
        else:
            self._status = 0

    # ------------------------------------------------------------------ who has started us

    def _report(self) -> None:
        """Tell the service manager how things stand, if one listens."""
        service, guard_ = self._service, self._guard
        if service is None:
            return
        now = clock.now()
        phase = guard_.phase if guard_ else Phase.IDLE
        if self._told_by or self._leave or phase == Phase.ENDED:
            service.stopping(now)
        elif service.is_reloading and phase != Phase.RUNNING:
            service.ready(now)  # the command that had begun to reload has gone, and will not say that it is done
        elif self._standing.state and not service.is_ready:
            service.ready(now)
        said = [self._standing.status, guard_.standing if guard_ else ""]
        service.show("; ".join(one for one in said if one), now)
        service.on_wake(now, self._progress_at + PROGRESS)

    # ------------------------------------------------------------------ the end

    def _cause(self) -> str:
        """Why we end, in words, for people who see nothing else."""
        if self._failure:
            return self._failure
        if self._elector_said and self._status in (EXIT_CONFIG, EXIT_INTERNAL):
            return self._elector_said
        ended = (self._guard.last_end if self._guard else "") or "no command was running"
        if self._leave and self._leave.reason:
            return f"{self._leave.reason}; {ended}"
        return f"{self._told_by}: {ended}" if self._told_by else ended

    def _clean_up(self) -> None:
        """End what is left of us, and reap it."""
        if self._service and not self._passing:
            self._service.stopping(clock.now())
        self._attendants.abandon_all()
        if self._elector.pid is not None:
            self._elector.kill()  # before its socket is closed, which it would take for our death
        self._elector.close()
        self._command.dismiss_shim()
        self._terminal.resume_job()
        left = {pid for pid in (self._elector.pid, self._command.waiting_pid) if pid is not None}
        if not self._passing:
            self._termination.end(self._cause())  # meanwhile the kernel takes them apart
        by = clock.now() + REAP_TIME
        while left and clock.now() < by:
            left -= {pid for pid, _ in reaper.reap()}
            if not left:
                break
            self._alarm.set(clock.now() + 0.001)
            select.select([self._alarm], [], [], REAP_TIME)
            self._alarm.clear()
        self._command.remove_cgroups()
        if not self._passing:
            self._log.info(f"ending with status {self._status}")

    def _pass_through(self) -> NoReturn:
        """Election is disabled: become the command."""
        settings = self._settings
        environment = {**(os.environ if settings.inherit_env else {}), **settings.environment}
        missing = command.look_up(settings.argv[0], settings)
        if missing:
            self._log.error(missing[0])
            self._termination.configure(settings)
            self._termination.end(missing[0])
            os._exit(missing[1])
        try:
            attributes.give_pipes(settings)
            attributes.apply(settings)
            tree.resign_as_subreaper()
            if self._service:
                self._service.pass_on(clock.now(), speaks=settings.ready == "notify")
            self._terminal.give_to(os.getpgrp())
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            for number in self._signals.take():
                if number in signals.SHUTDOWN:
                    os._exit(128 + number)
            self._signals.restore()  # what has come since is pending, and goes to the command
            os.execvpe(settings.argv[0], settings.argv, environment)
        except (attributes.NotApplied, OSError, ValueError, MemoryError) as error:
            failed = execution.not_executed(settings.argv[0], error)
            self._log.error(failed.reason)
            os._exit(failed.status or EXIT_NOT_EXECUTABLE)
