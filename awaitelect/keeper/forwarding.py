"""What is typed and signalled: a stop for good, a suspension, or a signal that the command gets."""

from __future__ import annotations

import signal

from awaitelect import clock
from awaitelect.keeper import reaper, signals
from awaitelect.keeper.ending import Ending
from awaitelect.keeper.guard import Phase
from awaitelect.keeper.supervision import Supervision
from awaitelect.keeper.terminal import Terminal
from awaitelect.logs import Log


class Forwarding:
    """Each signal that comes to us goes where it is meant to go."""

    def __init__(
        self, caught: signals.Signals, terminal: Terminal, supervision: Supervision, ending: Ending, log: Log
    ) -> None:
        self._caught, self._terminal, self._supervision = caught, terminal, supervision
        self._ending, self._log = ending, log

    def forward(self) -> None:
        """All that have come since the last call."""
        for number in self._caught.take():
            if number != signal.SIGCHLD:  # whoever reaps does so once: one signal may stand for many ends
                self._forward(number)
        if self._terminal.is_there:
            self._notice_stop()

    def _forward(self, number: int) -> None:
        # We may have been stopped ourselves, and SIGCONT is not to wake up what has to be dead by now.
        self._supervision.notice_time(clock.now())
        guard = self._supervision.guard
        rewritten = guard.settings.signal_rewrite.get(number, number) if guard else number
        if rewritten == signal.SIGTSTP and not self._terminal.job:
            rewritten = signal.SIGSTOP  # in a session without a shell the kernel lets nobody be stopped by SIGTSTP
        name = signals.name(number)
        ends_us = number in signals.SHUTDOWN or (number == signal.SIGHUP and self._terminal.is_there)
        if ends_us and (number == signal.SIGTERM or number not in self._caught.ignored):
            if not rewritten:
                self._log.info(f"{name} dropped (signals.rewrite)")
                return
            self._log.info(f"{name}: shutting down" if not self._ending.told_by else f"{name} again")
            self._ending.told_by = name
            self._supervision.shut_down(rewritten)
        elif rewritten == signal.SIGTSTP and (self._terminal.is_suspended or not (guard and guard.is_alive)):
            self._terminal.suspend_job()
        elif guard and guard.is_alive and rewritten:
            is_seen = self._terminal.is_there or number not in signals.SUSPENSION
            say = self._log.debug if is_seen else self._log.info
            say(f"{name} forwarded" + (f" as {signals.name(rewritten)}" if rewritten != number else ""))
            self._send(rewritten, guard.settings.signal_target)
        else:
            self._log.debug(f"{name} dropped: no command runs that could get it")

    def _send(self, number: int, target: str) -> None:
        command = self._supervision.command
        if number == signal.SIGCONT:
            self._terminal.is_suspended = False
            if command.main:
                self._terminal.give_to(command.main.pid)
        command.signal(number, group=target == "group" or number in signals.SUSPENSION)

    def _notice_stop(self) -> None:
        """What was stopped on the terminal is the shell's to continue, so its job has to stop too."""
        guard, command = self._supervision.guard, self._supervision.command
        main = command.main
        if main is None or command.main_reaped or command.is_pending:
            return
        number = reaper.stopped_by(main.pid)
        if number is None or guard is None or guard.phase != Phase.RUNNING:
            return
        in_background = number in (signal.SIGTTIN, signal.SIGTTOU)
        if in_background and self._terminal.give_to(main.pid):
            command.signal(signal.SIGCONT, group=True)  # the shell has brought us to the foreground meanwhile
        elif self._terminal.suspend_job():
            self._terminal.is_suspended = True
            self._log.debug(f"the command was stopped by {signals.name(number)}: suspended, and the lease is kept")
        elif number == signal.SIGTSTP:
            command.signal(signal.SIGCONT, group=True)  # nobody is there who could continue it
