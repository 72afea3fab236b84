"""How a run of the keeper ends: with which status, and why; and the end that is none, becoming the command."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from awaitelect import attributes, clock
from awaitelect.core.restart import exit_status
from awaitelect.errors import EXIT_CONFIG, EXIT_INTERNAL, EXIT_NOT_EXECUTABLE
from awaitelect.keeper import execution, signals, standard, tree
from awaitelect.keeper.guard import Guard
from awaitelect.keeper.look_up import look_up
from awaitelect.keeper.terminal import Terminal
from awaitelect.protocol import CommandSettings, Leave

if TYPE_CHECKING:
    from awaitelect.keeper.systemd import ServiceManager


class Ending:
    """What is known of our end so far."""

    def __init__(self) -> None:
        self.status: int | None = None
        """The exit status, once it is certain; the loop ends."""
        self.by: float | None = None
        """The elector has until then, in seconds, to release the lease and end."""
        self.told_by = ""
        """The name of the signal that told us to end."""
        self.failure = ""
        """Why we end, where it is no end of the command."""
        self.elector_said = ""
        """Why the last elector has failed, in its own words."""
        self.leave: Leave | None = None
        """The elector's last word."""
        self.passing: CommandSettings | None = None
        """There is no election: we become this command."""

    def finish(self, guard: Guard | None) -> None:
        """Nothing is left to wait for."""
        if self.leave and self.leave.status is not None:
            self.status = self.leave.status
        elif guard and guard.status is not None:
            self.status = exit_status(guard.status)
        else:
            self.status = 0

    def cause(self, guard: Guard | None) -> str:
        """Why we end, in words, for people who see nothing else."""
        if self.failure:
            return self.failure
        if self.elector_said and self.status in (EXIT_CONFIG, EXIT_INTERNAL):
            return self.elector_said
        ended = (guard.last_end if guard else "") or "no command was running"
        if self.leave and self.leave.reason:
            return f"{self.leave.reason}; {ended}"
        return f"{self.told_by}: {ended}" if self.told_by else ended


def pass_through(
    settings: CommandSettings,
    caught: signals.Signals,
    terminal: Terminal,
    service: ServiceManager | None,
) -> tuple[str, int]:
    """Become the command, as there is no election. Returns only if that has failed: why, and the exit status for it."""
    argv = settings.argv
    environment = {**(os.environ if settings.inherit_env else {}), **settings.environment}
    missing = look_up(argv[0], settings)
    if missing:
        return missing
    try:
        attributes.give_pipes(settings)
        attributes.apply(settings)
        standard.close_at_exec()
        tree.resign_as_subreaper()
        if service:
            service.pass_on(clock.now(), speaks=settings.ready == "notify")
        terminal.give_to(os.getpgrp())
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for number in caught.take():
            if number in signals.SHUTDOWN:
                os._exit(128 + number)
        caught.restore()  # what has come since is pending, and goes to the command
        os.execvpe(argv[0], argv, environment)
    except (attributes.NotApplied, OSError, ValueError, MemoryError) as error:
        failed = execution.not_executed(argv[0], error)
        return failed.reason, failed.status or EXIT_NOT_EXECUTABLE
