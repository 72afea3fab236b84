"""The keeper: one loop over signals, the clock, the elector's messages and the command's end.

It decides nothing about the lease and nothing about the command: the guard decides, supervision.py carries out. It
never blocks but in the one poll.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from typing import TYPE_CHECKING

from awaitelect import clock
from awaitelect.errors import EXIT_CONFIG, EXIT_INTERNAL
from awaitelect.keeper import reaper, signals, tree
from awaitelect.keeper.dialogue import Dialogue
from awaitelect.keeper.elector import LONGEST_PAUSE, SILENCE, STARTUP, Elector
from awaitelect.keeper.ending import Ending, pass_through
from awaitelect.keeper.forwarding import Forwarding
from awaitelect.keeper.guard import Phase
from awaitelect.keeper.supervision import Supervision
from awaitelect.keeper.terminal import Terminal
from awaitelect.keeper.termination import Termination
from awaitelect.keeper.waiting import Waiting
from awaitelect.logs import Log

if TYPE_CHECKING:
    from awaitelect.keeper.systemd import ServiceManager

ELECTOR_TIME = 5.0
"""Seconds that the elector has for the release once the command is gone."""
REAP_TIME = 5.0
"""Seconds that what was killed at the end has to be gone: nothing may hold us up for ever."""
PROGRESS = SILENCE + STARTUP + LONGEST_PAUSE
"""Seconds without a word of an elector about the lease, after which we give a service manager no sign of life any more:
by then a hung one has been replaced, and so has its successor. A hung keeper gives none anyway."""


class Keeper:
    """One run of the keeper. `run` returns the exit status."""

    def __init__(
        self, options: dict[str, str], argv: list[str], original_mask: Iterable[int], job: int | None = None
    ) -> None:
        """`job`: the pid of our parent, if that stands for us before a shell."""
        self._signals = signals.Signals(original_mask)
        self._log = log = Log(level=options.get("log_level", "info"), form=options.get("log_format", "auto"))
        instance = os.urandom(8).hex()
        self._waiting = Waiting(self._signals.read_fd)
        self._terminal = Terminal(job)
        self._termination = Termination(log)
        self._service = _service_manager()
        self._ending = Ending()
        self._elector = Elector()
        self._supervision = Supervision(
            instance,
            self._signals,
            self._terminal,
            self._elector,
            self._termination,
            self._ending,
            self._service,
            log,
        )
        self._dialogue = Dialogue(instance, options, argv, self._elector, self._supervision, self._ending, log)
        self._forwarding = Forwarding(self._signals, self._terminal, self._supervision, self._ending, log)

    def run(self, launched: tuple[int, int] | None = None) -> int:
        """Keep the promise until the end. Returns the exit status. `launched`: pid and socket of the first elector."""
        ending = self._ending
        self._supervision.command.foreign = tree.children() - ({launched[0]} if launched else set())
        self._dialogue.begin(launched)
        tree.become_subreaper()
        if self._terminal.job:
            tree.die_with_parent()
            if os.getppid() != self._terminal.job:
                ending.status = EXIT_INTERNAL  # it has been killed already, and nobody waits for us
        while ending.status is None:
            self._turn()
        self._clean_up(ending.status)
        return self._pass_through() if ending.passing else ending.status

    def _turn(self) -> None:
        ready = self._wait()
        self._termination.pump(ready)
        self._supervision.notice_time(clock.now())
        if self._elector.fileno() in ready:  # before its silence is judged: it may be we who have slept
            self._dialogue.listen()
        self._notice_silence(clock.now())
        self._forwarding.forward()
        self._reap()
        self._supervision.notice(ready)
        self._settle()
        self._report()

    def _wait(self) -> set[int]:
        """Until something has happened, or a date has come; the descriptors that are ready."""
        wanted = self._supervision.wanted()
        if self._elector.fileno() >= 0:
            wanted[self._elector.fileno()] = select.POLLIN
        self._waiting.listen(wanted)
        self._termination.attend(self._waiting.poll)
        self._supervision.set_deadman()
        dates = [
            self._ending.by,
            self._supervision.wake_at,
            self._dialogue.wake_at,
            self._service.wake_at if self._service else None,
        ]
        return self._waiting.until(min((at for at in dates if at is not None), default=None))

    def _notice_silence(self, now: float) -> None:
        if self._ending.by is None or now < self._ending.by:
            self._dialogue.notice_time(now)
            return
        if self._elector.pid is not None:
            self._log.warning(f"the elector has not ended within {ELECTOR_TIME:.0f}s: killing it")
        self._ending.finish(self._supervision.guard)

    def _reap(self) -> None:
        for pid, status in reaper.reap():
            if pid == self._elector.pid:
                self._dialogue.ended(status)
            else:
                self._supervision.ended(pid, status)

    def _settle(self) -> None:
        """After all that has happened: is the command gone, and are we done?"""
        guard, ending = self._supervision.guard, self._ending
        if guard is None or ending.status is not None:
            return
        self._supervision.settle()
        if guard.is_alive:
            if guard.is_stuck:
                ending.failure = "the command cannot be killed: the lease is left to run out"
                ending.status = 1  # and the elector renews no more: the lease runs out
        elif self._dialogue.is_configuration_bad and guard.phase == Phase.IDLE:
            self._log.error("the configuration is broken and the command has stopped: ending")
            ending.status = EXIT_CONFIG
        elif ending.leave:
            ending.finish(guard)
        elif guard.phase == Phase.ENDED:
            if ending.by is None:
                ending.by = clock.now() + ELECTOR_TIME
            if self._elector.pid is None and guard.grant is None:
                ending.finish(guard)

    def _report(self) -> None:
        """Tell the service manager how things stand, if one listens."""
        service, guard, standing = self._service, self._supervision.guard, self._dialogue.standing
        if service is None:
            return
        now = clock.now()
        phase = guard.phase if guard else Phase.IDLE
        if self._ending.told_by or self._ending.leave or phase == Phase.ENDED:
            service.stopping(now)
        elif service.is_reloading and phase != Phase.RUNNING:
            service.ready(now)  # the command that had begun to reload has gone, and will not say that it is done
        elif standing.state and not service.is_ready:
            service.ready(now)
        said = [standing.status, guard.standing if guard else ""]
        service.show("; ".join(one for one in said if one), now)
        service.on_wake(now, self._dialogue.progress_at + PROGRESS)

    # ------------------------------------------------------------------ the end

    def _clean_up(self, status: int) -> None:
        """End what is left of us, and reap it."""
        command, is_passing = self._supervision.command, self._ending.passing is not None
        if self._service and not is_passing:
            self._service.stopping(clock.now())
        self._supervision.attendants.abandon_all()
        if self._elector.pid is not None:
            self._elector.kill()  # before its socket is closed, which it would take for our death
        self._elector.close()
        command.dismiss_shim()
        self._terminal.resume_job()
        left = {pid for pid in (self._elector.pid, command.waiting_pid) if pid is not None}
        if not is_passing:
            cause = self._ending.cause(self._supervision.guard)
            self._termination.end(cause)  # meanwhile the kernel takes them apart
        by = clock.now() + REAP_TIME
        while left and clock.now() < by:
            left -= {pid for pid, _ in reaper.reap()}
            if left:
                self._waiting.pause(0.001)
        command.remove_cgroups()
        if not is_passing:
            self._log.info(f"ending with status {status}")

    def _pass_through(self) -> int:
        """Become the command. Returns only if that has failed: the exit status for it."""
        settings = self._ending.passing
        assert settings is not None
        reason, status = pass_through(settings, self._signals, self._terminal, self._service)
        self._log.error(reason)
        self._termination.configure(settings)
        self._termination.end(reason)
        return status


def _service_manager() -> ServiceManager | None:
    """Ours, if there is one."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    from awaitelect.keeper.systemd import ServiceManager

    return ServiceManager(os.environ, os.getpid(), clock.now())
