"""The guard: by which grant the command may start, when it must stop, and when it is gone.

Pure: no process is touched here and no clock is read. Each `on_…` takes what happened and the instant of it, and
returns what to do, in order. This is where the keeper alone keeps the promise, whatever becomes of the elector.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from awaitelect.core.restart import Backoff, exit_status, is_restarted, is_success
from awaitelect.protocol import KILL_LEAD, Ack, CommandSettings, Gone, Grant, Message, Shutdown
from awaitelect.values import Value

SWEEP_AGAIN = 0.1
"""Seconds between two sweeps while something that was killed is not gone yet."""
STUCK_AFTER = 5.0
"""Seconds after SIGKILL from which on a process counts as one that cannot be killed."""


class Phase(StrEnum):
    """What the keeper is doing about the command."""

    IDLE = "idle"
    RUNNING = "running"
    STOPPING = "stopping"
    KILLING = "killing"
    BACKOFF = "backoff"
    HELD = "held"
    GIVEN_UP = "given_up"
    ENDED = "ended"


class Start(Value):
    """Start the command, unless the grant's `term_by` has passed by the time of the exec."""

    grant: Grant


class Signal(Value):
    """Send a signal to the command's main process, or to its whole group."""

    number: int
    group: bool = False


class TellSurvivors(Value):
    """SIGTERM to whatever the main process has left behind, in its group or not."""


class KillAll(Value):
    """SIGKILL to the group and to every descendant, until none is left."""


class Tell(Value):
    """Send a message to the elector."""

    message: Message


class Note(Value):
    """Tell people."""

    level: str
    text: str


Action = Start | Signal | TellSurvivors | KillAll | Tell | Note
SIGTERM = 15


class Guard:
    """The keeper's decisions about one command."""

    def __init__(self, settings: CommandSettings, chance: Callable[[], float]) -> None:
        """`chance` returns evenly from 0 to 1."""
        self.settings = settings
        self.phase = Phase.IDLE
        self.grant: Grant | None = None
        """The newest grant."""
        self.status: int | None = None
        """How the command's last run ended: exit code, or minus the signal's number."""
        self.is_stuck = False
        """Something cannot be killed."""
        self.restarts = 0
        self._backoff = Backoff(settings.backoff, chance)
        self._cause = "deadline"
        self._refused_term = 0
        self._started_at = 0.0
        self._stop_at = 0.0
        self._kill_at = 0.0
        self._restart_at = 0.0

    @property
    def number(self) -> int:
        """The highest grant number seen."""
        return self.grant.number if self.grant else 0

    @property
    def is_shutting_down(self) -> bool:
        """It was told to stop for good."""
        return self._cause == "shutdown"

    @property
    def is_alive(self) -> bool:
        """Something of the command may be alive."""
        return self.phase in (Phase.RUNNING, Phase.STOPPING, Phase.KILLING)

    @property
    def wake_at(self) -> float | None:
        """The instant, in seconds, at which to call `on_wake` at the latest."""
        if self.grant is None:
            return None
        if self.phase in (Phase.RUNNING, Phase.HELD):
            return self.grant.term_by
        if self.phase == Phase.BACKOFF:
            return min(self._restart_at, self.grant.term_by)
        if self.phase == Phase.STOPPING:
            return min(self._stop_at + self.settings.stop_timeout, self.grant.kill_by - KILL_LEAD)
        if self.phase == Phase.KILLING:
            return self._kill_at + SWEEP_AGAIN
        return None

    # ------------------------------------------------------------------ what the elector says

    def on_grant(self, grant: Grant, now: float) -> list[Action]:
        if grant.number <= self.number:
            return []
        self.grant = grant
        if self.phase == Phase.GIVEN_UP and grant.term != self._refused_term:
            self.phase = Phase.IDLE
            self._backoff.forget()
        if self.phase == Phase.IDLE and self._may_start(now):
            return [Tell(Ack(grant.number, Phase.RUNNING.value)), *self._start(now)]
        if self.phase in (Phase.IDLE, Phase.GIVEN_UP, Phase.ENDED):
            return [self._gone()]
        return [Tell(Ack(grant.number, self.phase.value))]

    def _may_start(self, now: float) -> bool:
        return self.grant is not None and self.grant.may_start and now < self.grant.term_by

    def on_stop(self, grace: bool, now: float) -> list[Action]:
        """The elector wants the command stopped, and to be told when it is gone."""
        if self.is_alive:
            if self._cause != "shutdown" or self.phase == Phase.RUNNING:
                self._cause = "stopped"
            if self.phase == Phase.RUNNING:
                return self._stop(self.settings.stop_signal, grace, now)
            return [] if grace or self.phase == Phase.KILLING else self._kill(now)
        if self.phase in (Phase.BACKOFF, Phase.HELD):
            return self._be_idle("stopped")
        return [self._gone()]

    # ------------------------------------------------------------------ what the user says

    def on_shutdown(self, signal: int, now: float) -> list[Action]:
        """SIGTERM, SIGINT or SIGQUIT (after rewriting): stop for good. A second one goes to the command at once."""
        actions: list[Action] = [Tell(Shutdown(signal))]
        stop_signal = self.settings.stop_signal if signal == SIGTERM else signal
        if self.phase == Phase.RUNNING:
            self._cause = "shutdown"
            return actions + self._stop(stop_signal, True, now)
        if self.is_alive:
            again = self._cause == "shutdown" and self.phase == Phase.STOPPING
            self._cause = "shutdown"
            group = self.settings.kill_mode == "group"
            return [*actions, Signal(stop_signal, group)] if again else actions
        if self.phase != Phase.ENDED:
            self.phase, self._cause = Phase.ENDED, "shutdown"
        return [*actions, self._gone()]

    def on_deadline(self, now: float) -> list[Action]:
        """Stop as if the lease had run out; there is no hope for a newer grant."""
        if self.phase == Phase.RUNNING:
            self._cause = "deadline"
            return self._stop(self.settings.stop_signal, True, now)
        return self._be_idle("deadline") if self.phase in (Phase.BACKOFF, Phase.HELD) else []

    # ------------------------------------------------------------------ what the processes do

    def on_exited(self, status: int, survivors: bool, now: float) -> list[Action]:
        """The main process has ended: exit code, or minus the signal's number. `survivors`: it left others behind."""
        self.status = status
        if self.phase == Phase.RUNNING:
            self.phase, self._cause, self._stop_at = Phase.STOPPING, "exited", now
        return [TellSurvivors()] if survivors and self.phase == Phase.STOPPING else []

    def on_refused(self, reason: str, status: int | None, now: float) -> list[Action]:
        """The command was not started: for `reason`, which is worth the exit status, or too late if that is None."""
        if status is not None:
            self.status = status
        if self.phase != Phase.RUNNING:
            return self.on_empty(now)  # it was told to stop before it had begun
        if status is None:
            return [Note("warning", f"not started: {reason}"), *self._be_idle("deadline")]
        return [Note("error", reason), *self._decide_restart(now)]

    def on_empty(self, now: float) -> list[Action]:
        """Nothing of the command is alive."""
        self.is_stuck = False
        if self._cause == "exited":
            return self._decide_restart(now)
        if self._cause == "shutdown":
            self.phase = Phase.ENDED
            return [self._gone()]
        return self._be_idle(self._cause)

    # ------------------------------------------------------------------ time

    def on_wake(self, now: float) -> list[Action]:
        """A date may have come."""
        at = self.wake_at
        if at is None or now < at or self.grant is None:
            return []
        if self.phase == Phase.RUNNING:
            self._cause = "deadline"
            # After a suspension both dates may have passed: the SIGCONT of a stop would only wake the command up.
            grace = now < self.grant.kill_by - KILL_LEAD
            note = Note("error", "the lease was not renewed in time: stopping the command")
            return [note, *self._stop(self.settings.stop_signal, grace, now)]
        if self.phase == Phase.BACKOFF:
            return self._start(now) if self._may_start(now) else self._be_idle("deadline")
        if self.phase == Phase.HELD:
            return self._be_idle("deadline")
        if self.phase == Phase.STOPPING:
            cut = now < self._stop_at + self.settings.stop_timeout
            why = "the lease leaves no more time" if cut else "it has not ended in time"
            return [
                Note("warning", f"killing the command {now - self._stop_at:.1f}s after its stop: {why}"),
                *self._kill(now),
            ]
        return self._sweep_again(now)

    # ------------------------------------------------------------------

    def _start(self, now: float) -> list[Action]:
        assert self.grant is not None
        self.phase, self._cause, self._started_at = Phase.RUNNING, "exited", now
        return [Start(self.grant)]

    def _stop(self, signal: int, grace: bool, now: float) -> list[Action]:
        self.phase, self._stop_at = Phase.STOPPING, now
        if not grace:
            return self._kill(now)
        return [Signal(signal, group=self.settings.kill_mode == "group")]

    def _kill(self, now: float) -> list[Action]:
        self.phase, self._stop_at, self._kill_at = Phase.KILLING, now, now
        return [KillAll()]

    def _sweep_again(self, now: float) -> list[Action]:
        self._kill_at = now
        if now - self._stop_at > STUCK_AFTER and not self.is_stuck:
            self.is_stuck = True
            return [KillAll(), Note("error", "the command cannot be killed: the lease is left to run out")]
        return [KillAll()]

    def _decide_restart(self, now: float) -> list[Action]:
        status = self.status if self.status is not None else 0
        policy, codes = self.settings.restart_policy, self.settings.success_exit_codes
        ended = f"the command {describe(status)} after {now - self._started_at:.1f}s"
        if not is_restarted(policy, status, codes):
            self.phase, self._cause = Phase.ENDED, "finished"
            return [Note("info" if is_success(status, codes) else "error", ended), self._gone()]
        if is_success(status, codes):
            pause = self.settings.backoff.initial
            count = ""
        else:
            pause = self._backoff.failed(now - self._started_at)
            count = f" ({self._backoff.failures} of {self.settings.max_restarts})"
            if self._backoff.failures > self.settings.max_restarts:
                return self._give_up(ended)
        self.phase, self._restart_at = Phase.BACKOFF, now + pause
        self.restarts += 1
        return [Note("warning", f"{ended}: starting it again in {pause:.1f}s{count}")]

    def _give_up(self, ended: str) -> list[Action]:
        then = self.settings.on_give_up
        text = f"{ended}, {self._backoff.failures} failures in a row: giving up"
        if then == "hold":
            self.phase = Phase.HELD
            return [Note("error", f"{text}; the lease is held with nothing running (restart.on_give_up: hold)")]
        if then == "exit":
            self.phase, self._cause = Phase.ENDED, "finished"
        else:
            self.phase, self._cause = Phase.GIVEN_UP, "gave_up"
            self._refused_term = self.grant.term if self.grant else 0
        return [Note("error", text), self._gone()]

    def _be_idle(self, cause: str) -> list[Action]:
        self.phase, self._cause = Phase.IDLE, cause
        self._backoff.forget()
        return [self._gone()]

    def _gone(self) -> Action:
        status = None if self.status is None else exit_status(self.status)
        return Tell(Gone(self.number, self._cause, status))


def describe(status: int) -> str:
    """How a process ended, in words: `exited with 3`, `was killed by signal 9`."""
    return f"was killed by signal {-status}" if status < 0 else f"exited with {status}"
