"""The elector's side of the keeper: what is said between the two, and what follows from its silence and its end."""

from __future__ import annotations

import signal
import sys

from awaitelect import clock, protocol
from awaitelect.errors import EXIT_CONFIG, EXIT_INTERNAL
from awaitelect.keeper.elector import Elector
from awaitelect.keeper.ending import Ending
from awaitelect.keeper.guard import Phase
from awaitelect.keeper.outcome import describe
from awaitelect.keeper.supervision import Supervision
from awaitelect.logs import Log

FIRST_TRIES = 3
"""So many electors may die without a word before the keeper gives up."""


class Dialogue:
    """With one elector after the other: each is greeted, listened to, and replaced when it dies or hangs."""

    def __init__(
        self,
        instance: str,
        options: dict[str, str],
        argv: list[str],
        elector: Elector,
        supervision: Supervision,
        ending: Ending,
        log: Log,
    ) -> None:
        """`options` and `argv` are what was typed."""
        self._instance, self._options, self._argv = instance, options, argv
        self._elector, self._supervision, self._ending, self._log = elector, supervision, ending, log
        self.is_configuration_bad = False
        """The last elector has ended for that."""
        self._is_disabled = False
        """The election was switched off in the file since we began: as good as a broken one."""
        self.standing = protocol.Alive()
        """How things stand with the lease, as the elector last said."""
        self.progress_at = clock.now()
        """When an elector last spoke of the lease, in seconds."""

    # ------------------------------------------------------------------ one after the other

    @property
    def wake_at(self) -> float | None:
        """The instant, in seconds, at which to call `notice_time` at the latest."""
        if self._elector.pid is None:
            return self._elector.restart_at
        return self._hung_at() if self._ending.by is None else None

    def notice_time(self, now: float) -> None:
        """A date may have come: of the next elector, or of one that has been silent for too long."""
        if self._elector.pid is None:
            if self._elector.restart_at is not None and now >= self._elector.restart_at:
                self.begin()
        elif self._ending.by is None and now >= self._hung_at():
            self._log.error(f"nothing heard of the elector for {now - self._elector.heard_at:.1f}s: replacing it")
            self._elector.kill()
            self._elector.heard_at = now

    def _hung_at(self) -> float:
        guard, elector = self._supervision.guard, self._elector
        if guard is None:
            return elector.hung_at(None, 0.0)
        return elector.hung_at(guard.renewal_due(elector.heard_at), guard.patience)

    def begin(self, launched: tuple[int, int] | None = None) -> None:
        """Start an elector and greet it. `launched`: pid and socket of one that has just been started."""
        hello = self._hello()
        if len(protocol.encode(hello)) > protocol.MAX_MESSAGE:
            self._log.error(f"the command line is longer than the {protocol.MAX_MESSAGE} bytes that can be handled")
            self._ending.status = EXIT_CONFIG
            self._elector.pid = launched[0] if launched else None
            return
        now = clock.now()
        try:
            self._elector.spawn(hello, now, launched)
        except OSError as error:
            self._log.error(f"cannot start the elector with {sys.executable}: {error.strerror}")
            self._elector.spawned_at = now
            self._elector.ended(now)
            if self._supervision.guard is None and self._elector.early_deaths >= FIRST_TRIES:
                self._ending.status = EXIT_INTERNAL
            return
        self._tell_state()

    def _hello(self) -> protocol.Hello:
        guard, command = self._supervision.guard, self._supervision.command
        grant = guard.grant if guard else None
        return protocol.Hello(
            self._instance,
            grant.number if grant else 0,
            grant.kill_by if grant else None,
            self._options,
            self._argv,
            grant.environment.get("AWAITELECT_LOCK", "") if grant else "",
            command.place,
            guard.restarts if guard else 0,
            self._elector.spawned,
        )

    def _tell_state(self) -> None:
        """What its predecessor knew of the command."""
        guard, command = self._supervision.guard, self._supervision.command
        if guard is None:
            return
        if guard.is_alive and command.main and not command.is_pending:
            self._elector.send(protocol.Spawned(command.main.pid, guard.restarts), command.main.pidfd)
            if guard.is_ready:
                self._elector.send(protocol.Ready())
        elif guard.is_alive:
            self._elector.send(protocol.Spawned(0))  # no more than that something of it is alive
        if guard.phase == Phase.ENDED or guard.is_shutting_down:
            self._elector.send(protocol.Shutdown(signal.SIGTERM))

    def ended(self, status: int) -> None:
        """The elector has been reaped: exit code, or minus the number of a signal."""
        now = clock.now()
        self.listen()  # what it said last
        if self._ending.leave or self._ending.passing:
            self._elector.pid = None
            return
        self._elector.ended(now)
        said = self._elector.fault or describe(status)
        if self._is_disabled:
            status = EXIT_CONFIG
        guard = self._supervision.guard
        if guard is None:
            if status == EXIT_CONFIG:
                self._ending.status = EXIT_CONFIG
            elif self._elector.early_deaths >= FIRST_TRIES:
                self._ending.failure = (
                    f"the elector {said}, {FIRST_TRIES} times in a row before it could begin: giving up"
                )
                self._log.error(self._ending.failure)
                self._ending.status = EXIT_INTERNAL
            return
        if status == EXIT_CONFIG and guard.phase in (Phase.IDLE, Phase.ENDED, Phase.GIVEN_UP):
            self._ending.status = EXIT_CONFIG
            return
        self.is_configuration_bad = status == EXIT_CONFIG
        again = "" if self._ending.by else ": starting another"
        self._log.warning(f"the elector {said}{again}")

    # ------------------------------------------------------------------ what it says

    def listen(self) -> None:
        """Take the messages that have come."""
        for message in self._elector.receive(clock.now()):
            now = clock.now()
            if isinstance(message, (protocol.Alive, protocol.Grant)):
                self.progress_at = now
            if isinstance(message, protocol.Settings):
                self._ending.elector_said = ""
                self._take_settings(message.command)
            elif isinstance(message, protocol.Failed):
                self._ending.elector_said = message.reason
            elif isinstance(message, protocol.Alive):
                self.standing = message if message.status else self.standing
            else:
                self._take_orders(message, now)

    def _take_orders(self, message: protocol.Message, now: float) -> None:
        guard, perform = self._supervision.guard, self._supervision.perform
        if guard is None:
            return
        if isinstance(message, protocol.Grant):
            self.is_configuration_bad = False
            perform(guard.on_grant(message, now))
        elif isinstance(message, protocol.Stop):
            perform(guard.on_stop(message.grace, now, message.cause == "deadline_near"))
        elif isinstance(message, protocol.Drained):
            perform(guard.on_drained(now))
        elif isinstance(message, protocol.Leave):
            self._ending.leave = message
            perform(guard.on_deadline(now))

    def _take_settings(self, settings: protocol.CommandSettings) -> None:
        self._log.configure(settings.log_level, settings.log_format, name=settings.name)
        guard = self._supervision.guard
        self._is_disabled = not settings.enabled and guard is not None
        if self._is_disabled:
            self._log.error("election.enabled is false now, which needs a restart of awaitelect")
        elif not settings.enabled:
            self._ending.passing, self._ending.status = settings, 0
        elif guard is None:
            self._supervision.begin(settings)
        else:
            self._supervision.renew(settings)
