"""The guard: by which grant the command may start, when it must stop, and when it is gone.

Pure: no process is touched here and no clock is read. Each `on_…` takes what happened and the instant of it, and
returns what to do, in order. This is where the keeper alone keeps the promise, whatever becomes of the elector.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum

from awaitelect.core.restart import Backoff, exit_status, is_restarted, is_success
from awaitelect.keeper.actions import (
    Abandon,
    Action,
    Ask,
    KillAll,
    Note,
    NoteSurvivors,
    RunHook,
    Signal,
    SignalTree,
    Start,
    Tell,
    TellSurvivors,
)
from awaitelect.keeper.health import Health
from awaitelect.keeper.outcome import Outcome
from awaitelect.protocol import KILL_LEAD, Ack, CommandSettings, Gone, Grant, Ready, Shutdown

SWEEP_AGAIN = 0.1
"""Seconds between two sweeps while something that was killed is not gone yet."""
ALARM_AFTER, ALARM_AGAIN = 1.0, 2.0
"""Seconds after SIGKILL, and from then on, at which it is said what is not dead yet."""
STUCK_AFTER = 5.0
"""Seconds after SIGKILL from which on a process counts as one that cannot be killed."""


class Phase(StrEnum):
    """What the keeper is doing about the command."""

    IDLE = "idle"
    STARTING = "starting"
    """Its pre_start hook runs."""
    RUNNING = "running"
    STOPPING = "stopping"
    KILLING = "killing"
    CLEANING = "cleaning"
    """Its post_stop hook runs."""
    BACKOFF = "backoff"
    HELD = "held"
    GIVEN_UP = "given_up"
    ENDED = "ended"


_STANDINGS = {
    Phase.STARTING: "the command is about to start",
    Phase.STOPPING: "the command is being stopped",
    Phase.KILLING: "the command is being killed",
    Phase.CLEANING: "the command has ended",
    Phase.BACKOFF: "the command is started again after a pause",
    Phase.HELD: "the command has failed too often, and is not started again",
    Phase.GIVEN_UP: "the command has failed too often: others go first",
}


SIGKILL, SIGTERM = 9, 15
PATIENCE_SHARE, PATIENCE_SLACK = 0.6, 0.5
"""An elector that leads may be silent for this share of the renew deadline and so many seconds more: it speaks after
each request, and with the usual retry period (a fifth of the deadline) one without an answer ends at three fifths."""
DRAIN = "drain"
"""The name under which a stop waits for the traffic to be off."""
PROBE = "probe"
"""The name under which the one question that is out is abandoned."""


class Guard:
    """The keeper's decisions about one command."""

    def __init__(self, settings: CommandSettings, chance: Callable[[], float]) -> None:
        """`chance` returns evenly from 0 to 1."""
        self.settings = settings
        self.phase = Phase.IDLE
        self.grant: Grant | None = None
        """The newest grant."""
        self.outcome = Outcome(0.0)
        """Of the command's last run, or of the one that goes on."""
        self.is_stuck = False
        """Something cannot be killed."""
        self.restarts = 0
        self._backoff = Backoff(settings.backoff, chance)
        self._let_down_at: float | None = None
        """The date of a grant that has come with nothing heard of another, and has ended what depended on it."""
        self._cause = "deadline"
        self._refused_term = 0
        self._stop_at = 0.0
        self._kill_at = 0.0
        self._alarm_at = 0.0
        self._main_is_killed = False
        """By itself, and the rest is left alone until it has ended (kill_mode process)."""
        self._restart_at = 0.0
        self._health: Health | None = None
        self._is_executed = False
        """The main process is the command, and has not ended."""
        self._stop_signal = settings.stop_signal
        self.last_end = ""
        """How the last run ended, and what we made of that, in words; empty where there was none."""
        self._limits: dict[str, float] = {}
        """The hooks, and the question, that are out, and until when each may take."""
        self._is_clean = True
        """Nothing was begun since the last post_stop hook."""
        self._may_clean = True
        """Nobody else may be starting at this very moment."""

    @property
    def status(self) -> int | None:
        """How the command's last run ended: exit code, or minus the signal's number."""
        return self.outcome.status

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
        """Something of the command may be alive, a hook of its included."""
        return self.phase in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING, Phase.KILLING, Phase.CLEANING)

    @property
    def _needs_grants(self) -> bool:
        """What is going on ends with the grant's time, unless another comes."""
        return self.phase in (Phase.STARTING, Phase.RUNNING, Phase.BACKOFF, Phase.HELD)

    def renewal_due(self, heard_at: float) -> float | None:
        """The date by which an elector last heard at `heard_at` had to renew, in seconds; None: nothing depends on it.

        One that has led, and has said nothing since that date, is silent for another reason than a follower.
        """
        if self._let_down_at is not None and heard_at < self._let_down_at:
            return self._let_down_at
        return self.grant.term_by if self.grant and self._needs_grants else None

    @property
    def patience(self) -> float:
        """Seconds for which an elector that leads may be silent."""
        return self.settings.renew_deadline * PATIENCE_SHARE + PATIENCE_SLACK

    @property
    def awaited(self) -> set[str]:
        """The hooks, and the question, whose end still matters."""
        return set(self._limits)

    @property
    def is_ready(self) -> bool:
        """The command runs and is ready for its users."""
        return self.phase == Phase.RUNNING and self._health is not None and self._health.is_ready

    @property
    def standing(self) -> str:
        """How the command does, in words; empty where none is meant to run."""
        if self.phase == Phase.RUNNING:
            return "the command runs" if self.is_ready else "the command runs, and is not ready yet"
        return _STANDINGS.get(self.phase, "")

    @property
    def wake_at(self) -> float | None:
        """The instant, in seconds, at which to call `on_wake` at the latest."""
        if self.grant is None:
            return None
        dates = list(self._limits.values())
        if self._needs_grants:
            dates.append(self.grant.term_by)
        if self.phase == Phase.RUNNING and self._health:
            dates.append(self._health.wake_at)
        elif self.phase == Phase.BACKOFF:
            dates.append(self._restart_at)
        elif self.phase == Phase.STOPPING:
            dates.append(self._kill_by)
        elif self.phase == Phase.KILLING:
            dates.append(self._kill_at + SWEEP_AGAIN)
        return min(dates, default=None)

    @property
    def _last_kill_by(self) -> float:
        """When SIGKILL has to be sent, whatever else."""
        return self.grant.kill_by - KILL_LEAD if self.grant else 0.0

    def _is_over(self, now: float) -> bool:
        """No hook is run and nobody is asked any more. After a suspension every date may have passed before we hear of
        anything: a SIGCONT would only wake the command up.
        """
        return now >= self._last_kill_by

    @property
    def _kill_by(self) -> float:
        """When SIGKILL is sent to a command that does not stop."""
        return min(self._stop_at + self.settings.stop_timeout, self._last_kill_by)

    # ------------------------------------------------------------------ what the elector says

    def on_grant(self, grant: Grant, now: float) -> list[Action]:
        if grant.number <= self.number:
            return []
        self.grant = grant
        if self.phase == Phase.GIVEN_UP and grant.term != self._refused_term:
            self.phase = Phase.IDLE
            self._backoff.forget()
        if self.phase == Phase.IDLE and self._may_start(now):
            started = self._start(now)
            return [Tell(Ack(grant.number, self.phase.value)), *started]
        if self.phase in (Phase.IDLE, Phase.GIVEN_UP, Phase.ENDED):
            return [self._gone()]
        return [Tell(Ack(grant.number, self.phase.value))]

    def _may_start(self, now: float) -> bool:
        return self.grant is not None and self.grant.may_start and now < self.grant.term_by

    def on_stop(self, grace: bool, now: float, is_late: bool = False) -> list[Action]:
        """The elector wants the command stopped, and to be told when it is gone. `is_late`: for want of a renewal."""
        self._may_clean = self._may_clean and grace
        if self.is_alive:
            is_up = self.phase in (Phase.STARTING, Phase.RUNNING)
            if is_up or self._cause not in ("shutdown", "deadline"):
                self._cause = "deadline" if is_late else "stopped"
            if is_up:
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
        if self.phase in (Phase.STARTING, Phase.RUNNING):
            self._cause = "shutdown"
            return actions + self._stop(stop_signal, True, now)
        if self.is_alive:
            again = self._cause == "shutdown" and self.phase == Phase.STOPPING and not self._is_over(now)
            self._cause = "shutdown"
            return [*actions, self._stop_by_signal(stop_signal)] if again else actions
        if self.phase == Phase.IDLE:
            self.outcome.status = None  # a follower is told to end: how its command ended in an earlier term is no news
        if self.phase != Phase.ENDED:
            self.phase, self._cause = Phase.ENDED, "shutdown"
        return [*actions, self._gone()]

    def on_missing(self, reason: str, status: int) -> list[Action]:
        """A program cannot be executed, which is worth this exit status: nothing is ever started."""
        self.phase, self._cause, self.outcome.status = Phase.ENDED, "shutdown", status
        return [Note("error", reason), Tell(Shutdown(SIGTERM)), self._gone()]

    def on_deadline(self, now: float) -> list[Action]:
        """Stop as if the lease had run out; there is no hope for a newer grant."""
        if self.phase in (Phase.STARTING, Phase.RUNNING):
            self._cause = "deadline"
            return self._stop(self.settings.stop_signal, True, now)
        return self._be_idle("deadline") if self.phase in (Phase.BACKOFF, Phase.HELD) else []

    # ------------------------------------------------------------------ what the processes do

    def on_executed(self, now: float) -> list[Action]:
        """The main process has become the command."""
        self._is_executed = True
        if self.phase != Phase.RUNNING:
            return []
        self._health = Health(self.settings, now)
        return self._be_ready(now) if self._health.is_ready else []

    def on_exited(self, status: int, survivors: bool, now: float, starved: bool = False) -> list[Action]:
        """The main process has ended: exit code, or minus the signal's number.

        `survivors`: it left others behind. `starved`: since its start the kernel has killed for want of memory.
        """
        self.outcome.ended(status, now)
        self.outcome.is_starved = starved and status == -SIGKILL and self.phase == Phase.RUNNING
        self._is_executed = False
        if self.phase == Phase.STOPPING and self.settings.kill_mode == "process":
            self._stop_at = now  # nobody has asked the others yet
        actions: list[Action] = []
        if self.phase == Phase.RUNNING:
            actions = self._leave_running()
            self.phase, self._cause, self._stop_at = Phase.STOPPING, "exited", now
        return actions + self._tell_survivors(now) if survivors and self.phase == Phase.STOPPING else actions

    def on_refused(self, reason: str, status: int | None, now: float) -> list[Action]:
        """The command was not started: for `reason`, which is worth the exit status, or too late if that is None."""
        if status is not None:
            self.outcome.ended(status, now)
            self.outcome.refusal = reason
        if self.phase != Phase.RUNNING:
            return self.on_empty(now)  # it was told to stop before it had begun
        note = Note("warning", f"not started: {reason}") if status is None else Note("error", reason)
        self._cause = "deadline" if status is None else "exited"
        if "pre_start" not in self.settings.hooks:
            return [note, *self.on_empty(now)]
        self.phase, self._stop_at = Phase.STOPPING, now  # that hook may have left something behind
        return [note, *self._tell_survivors(now)]

    def on_notified(self, now: float) -> list[Action]:
        """The command says that it is ready."""
        if self.phase != Phase.RUNNING or self._health is None or self._health.is_ready:
            return []
        self._health.on_notified(now)
        return self._be_ready(now) if self._health.is_ready else []

    def on_drained(self, now: float) -> list[Action]:
        """No traffic is sent to the command any more."""
        if self._limits.pop(DRAIN, None) is None or self.phase != Phase.STOPPING or not self._is_executed:
            return []
        return self._kill(now) if self._is_over(now) else self._begin_stop(now)

    def on_extended(self, seconds: float, now: float) -> None:
        """The command asks for so many seconds more to get ready."""
        if self._health:
            self._health.on_extended(seconds, now)

    def on_answer(self, trouble: str, now: float) -> list[Action]:
        """The question was answered well, or this is the trouble with the answer."""
        if self._limits.pop(PROBE, None) is None or self._health is None:
            return []
        was_ready = self._health.is_ready
        self._health.on_answer(trouble, now)
        note = Note("warning", f"probes.liveness: {trouble}") if was_ready else Note("debug", f"start.probe: {trouble}")
        said: list[Action] = [note] if trouble else []
        if self._health.failure:
            return said + self._fail(self._health.failure, "watchdog", now)
        return said + (self._be_ready(now) if self._health.is_ready and not was_ready else [])

    def on_hook_ended(self, name: str, failure: str, now: float) -> list[Action]:
        """A hook has ended, well or with this failure: `exited with 3`."""
        if self._limits.pop(name, None) is None:
            return []
        called = "stop.command" if name == "stop" else f"hooks.{name}"
        said: list[Action] = [Note("warning" if failure else "debug", f"{called} {failure or 'has ended'}")]
        if self.phase == Phase.STOPPING and self._is_over(now):
            return said + self._kill(now)
        if name == "pre_start" and self.phase == Phase.STARTING:
            if not failure:
                return said + (self._execute(now) if self._may_start(now) else self.on_deadline(now))
            self.outcome.ended(1, now)
            self.outcome.failure, self.outcome.result = f"{called} {failure}", "exit-code"
            self.phase, self._cause, self._stop_at = Phase.STOPPING, "exited", now
            return said + self._tell_survivors(now)
        if name == "post_start" and failure and self.phase == Phase.RUNNING:
            return self._fail(f"{called} {failure}", "exit-code", now)
        if name == "pre_stop" and self.phase == Phase.STOPPING:
            return said + (self._ask_to_stop(now) if self._is_executed else [TellSurvivors()])
        if name == "stop" and self.phase == Phase.STOPPING:
            return said + ([self._stop_by_signal(self._stop_signal)] if self._is_executed else [TellSurvivors()])
        if name == "post_stop" and self.phase == Phase.CLEANING:
            return said + self._kill(now)  # whatever it has left behind
        return said

    def on_empty(self, now: float) -> list[Action]:
        """Nothing of the command is alive."""
        self.is_stuck, self._health = False, None
        self._limits.clear()
        if not self._is_clean:
            self._is_clean = True
            if self._may_clean and not self._is_over(now):
                self.phase = Phase.CLEANING
                told = self.outcome.variables(self.settings, self._stop_signal)
                told["AWAITELECT_STOP_CAUSE"] = self._stop_cause
                return self._run("post_stop", now, self._last_kill_by, told)
            return [Note("warning", "hooks.post_stop left out: the lease leaves no time"), *self._conclude(now)]
        return self._conclude(now)

    def _conclude(self, now: float) -> list[Action]:
        self.last_end = self.outcome.refusal or self.outcome.words
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
        if self._needs_grants and now >= self.grant.term_by:
            self._let_down_at = self.grant.term_by
        if self.phase in (Phase.STARTING, Phase.RUNNING) and now >= self.grant.term_by:
            self._cause = "deadline"
            note = Note("error", "the lease was not renewed in time: stopping the command")
            return [note, *self._stop(self.settings.stop_signal, True, now)]
        if self.phase == Phase.STOPPING and now >= self._kill_by:
            cut = now < self._stop_at + self.settings.stop_timeout
            why = "the lease leaves no more time" if cut else "it has not ended in time"
            self.outcome.result = self.outcome.result or "timeout"
            note = Note("warning", f"killing the command {now - self._stop_at:.1f}s after its stop: {why}")
            is_left_alone = self.settings.kill_mode == "process" and self._is_executed and not self._main_is_killed
            if is_left_alone and not cut and not self._is_over(now):
                self._main_is_killed, self._stop_at = True, now
                return [note, Signal(SIGKILL)]
            return [note, *self._kill(now)]
        if self.phase == Phase.BACKOFF:
            return self._start(now) if self._may_start(now) else self._be_idle("deadline")
        if self.phase == Phase.HELD:
            return self._be_idle("deadline")
        if self.phase == Phase.KILLING:
            return self._sweep_again(now)
        return self._expire(now) or self._check_health(now)

    def _expire(self, now: float) -> list[Action]:
        """Give up on the hooks that have had their time, and on the question."""
        actions: list[Action] = []
        for name in [name for name, by in self._limits.items() if now >= by]:
            if name == DRAIN:
                actions.append(Note("warning", "traffic is not off in time: stopping the command all the same"))
                actions += self.on_drained(now)
                continue
            actions.append(Abandon(name))
            if name == PROBE:
                actions += self.on_answer("no answer in time", now)
            else:
                actions += self.on_hook_ended(name, "has not ended in time", now)
        return actions

    def _check_health(self, now: float) -> list[Action]:
        if self.phase != Phase.RUNNING or self._health is None:
            return []
        probe = self._health.on_wake(now)
        if self._health.failure:
            return self._fail(self._health.failure, "timeout", now)
        if probe is None:
            return []
        self._limits[PROBE] = now + probe.timeout
        return [Ask(probe)]

    # ------------------------------------------------------------------ starting

    def _start(self, now: float) -> list[Action]:
        self.phase, self._cause, self.outcome, self._let_down_at = Phase.STARTING, "exited", Outcome(now), None
        self._is_clean, self._may_clean = "post_stop" not in self.settings.hooks, True
        if "pre_start" in self.settings.hooks:
            return self._run("pre_start", now)
        return self._execute(now)

    def _execute(self, now: float) -> list[Action]:
        assert self.grant is not None
        self.phase, self.outcome.started_at = Phase.RUNNING, now
        return [Start(self.grant)]

    def _be_ready(self, now: float) -> list[Action]:
        said = [] if self.settings.ready == "exec" else [Note("info", "the command is ready")]
        is_late = self.grant is None or now >= self.grant.term_by  # and about to be stopped
        hook = self._run("post_start", now) if "post_start" in self.settings.hooks and not is_late else []
        return [*said, Tell(Ready()), *hook]

    def _fail(self, reason: str, result: str, now: float) -> list[Action]:
        """The command runs, and has to be taken for failed: it is stopped, and what follows is as after a crash."""
        self.outcome.failure, self.outcome.result, self._cause = reason, result, "exited"
        return [Note("error", f"{reason}: stopping the command"), *self._stop(self.settings.stop_signal, True, now)]

    def _run(
        self, name: str, now: float, by: float = math.inf, environment: dict[str, str] | None = None
    ) -> list[Action]:
        self._limits[name] = min(now + self.settings.hook_timeout, by)
        return [RunHook(name, environment or {})]

    def _leave_running(self) -> list[Action]:
        """What comes first when the command ends or is to end."""
        names = list(self._limits)
        self._limits.clear()
        unready: list[Action] = [Tell(Ready(False))] if self.is_ready else []
        return [*unready, *(Abandon(name) for name in names)]

    # ------------------------------------------------------------------ stopping

    def _stop(self, signal: int, grace: bool, now: float) -> list[Action]:
        is_starting = self.phase == Phase.STARTING
        is_ready = self.is_ready
        actions = [] if is_starting else self._leave_running()
        self.phase, self._stop_at, self._stop_signal = Phase.STOPPING, now, signal
        self._main_is_killed = False
        if not grace or self._is_over(now):
            return actions + self._kill(now)
        if is_starting:
            self._limits.clear()
            return [TellSurvivors()]
        if is_ready and self.settings.drain_timeout > 0:
            self._limits[DRAIN] = min(now + self.settings.drain_timeout, now + (self._kill_by - now) / 4)
            return actions
        return actions + self._begin_stop(now)

    def _begin_stop(self, now: float) -> list[Action]:
        if self._is_executed and "pre_stop" in self.settings.hooks:
            half = now + (self._kill_by - now) / 2  # the other one is the command's
            return self._run("pre_stop", now, half, {"AWAITELECT_STOP_CAUSE": self._stop_cause})
        return self._ask_to_stop(now)

    def _ask_to_stop(self, now: float) -> list[Action]:
        if self._is_executed and "stop" in self.settings.hooks:
            return self._run("stop", now, now + (self._kill_by - now) * 0.75)
        return [self._stop_by_signal(self._stop_signal)]

    def _tell_survivors(self, now: float) -> list[Action]:
        return self._kill(now) if self._is_over(now) else [TellSurvivors()]

    def _stop_by_signal(self, number: int) -> Action:
        if self.settings.kill_mode == "tree":
            return SignalTree(number)
        return Signal(number, group=self.settings.kill_mode == "group")

    def _kill(self, now: float) -> list[Action]:
        self.phase, self._stop_at, self._kill_at = Phase.KILLING, now, now
        self._alarm_at = now + ALARM_AFTER
        self._limits.clear()
        return [KillAll()]

    def _sweep_again(self, now: float) -> list[Action]:
        self._kill_at = now
        text = f"not dead {now - self._stop_at:.1f}s after SIGKILL"
        if now - self._stop_at > STUCK_AFTER and not self.is_stuck:
            self.is_stuck = True
            text = f"the command cannot be killed: the lease is not released but left to run out; {text}"
        elif now < self._alarm_at:
            return [KillAll()]
        self._alarm_at = now + ALARM_AGAIN
        return [KillAll(), NoteSurvivors("error", text)]

    @property
    def _stop_cause(self) -> str:
        """For hooks: exited, failed (it did not do as it should), stopped (for another to lead), deadline, shutdown."""
        return "failed" if self._cause == "exited" and self.outcome.failure else self._cause

    # ------------------------------------------------------------------ what follows an end

    def _decide_restart(self, now: float) -> list[Action]:
        outcome, status = self.outcome, self.status if self.status is not None else 0
        policy, codes = self.settings.restart_policy, self.settings.success_exit_codes
        ended = outcome.words
        well = is_success(status, codes) and not outcome.failure
        if outcome.failure:
            outcome.status = 1  # how it has ended when it was told to stop tells nothing
        if policy == "never" or not (outcome.failure or is_restarted(policy, status, codes)):
            self.phase, self._cause = Phase.ENDED, "finished"
            return [Note("info" if well else "error", ended), self._gone()]
        if well:
            pause = self.settings.backoff.initial
            count = ""
        else:
            pause = self._backoff.failed(outcome.lasted)
            count = f" ({self._backoff.failures} of {self.settings.max_restarts})"
            if self._backoff.failures > self.settings.max_restarts:
                return self._give_up(ended)
        self.phase, self._restart_at = Phase.BACKOFF, now + pause
        self.restarts += 1
        return [Note("info" if well else "warning", f"{ended}: starting it again in {pause:.1f}s{count}")]

    def _give_up(self, ended: str) -> list[Action]:
        then = self.settings.on_give_up
        count = self._backoff.failures
        crashes = f", {count} {'failure' if count == 1 else 'failures in a row'}: giving up"
        self.last_end += crashes
        text = ended + crashes
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
