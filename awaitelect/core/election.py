"""The election: events in, actions out.

Pure: no I/O, no clock, no chance but what is given. `handle` takes an event and the instant at which it is handled;
`wake_at` says when to come back without one. The order of the actions matters. The rules that it keeps are in the
README under "Rules of time".
"""

from __future__ import annotations

import math
from collections.abc import Callable

from awaitelect.core import machine, messages
from awaitelect.core.grants import GrantBook
from awaitelect.core.lease import ABSENT, MOST_TRANSITIONS, Observed, Record, Timing, named
from awaitelect.core.machine import State
from awaitelect.core.messages import Action, Event, Report
from awaitelect.core.view import View
from awaitelect.errors import EXIT_LOST
from awaitelect.values import changed

KEEP_WARM = 60.0
"""Seconds between a follower's reads: they keep the connection open, and see what a silent watch has missed."""
RELEASE_TIME = 4.0
"""Seconds that a release may take before it is left to run out: the keeper waits for 5."""
MOST_REASONS = 5
"""So many reasons for failures in a row are told to a follower's people, each once."""
GIVE_UP_PAUSE = 10.0
"""Seconds, at least, that an instance whose command keeps failing leaves the lease to others."""
OVERSLEPT, PATIENCE = 0.5, 0.3
"""Seconds: woken up this much too late, wait so long before a keeper that has said nothing is taken for dead."""

_ENDS = {
    "finished": ("command_finished", "the command has ended"),
    "gave_up": ("gave_up", "the command has failed too often"),
    "deadline": ("deadline_near", "the keeper has stopped the command in time"),
    "stopped": ("deadline_near", "the command was stopped"),
    "shutdown": ("stop_requested", "told to stop"),
}
"""By the cause that the keeper names: what ends the term, and in words."""


class Term:
    """The time from acquiring the lease to losing it."""

    def __init__(self, token: int, transitions: int, sent_at: float) -> None:
        self.token = token
        """The fencing token: the version of the write that acquired it."""
        self.transitions = transitions
        self.sent_at = sent_at
        """The instant just before the last confirmed write was sent: every limit counts from here."""


class Election:
    """One instance's part in the election for one lease."""

    # given by the machine
    state: str
    trigger: Callable[[str], bool]

    def __init__(
        self,
        identity: str,
        instance: str,
        timing: Timing,
        chance: Callable[[], float],
        *,
        on_lost: str = "follow",
        last_number: int = 0,
        last_kill_by: float = math.inf,
    ) -> None:
        """`chance` returns evenly from 0 to 1; `last_number` is the highest grant that the keeper has seen so far,
        `last_kill_by` the date by which everything under it is dead.
        """
        self.identity = identity
        self.instance = instance
        self.timing = timing
        self.view = View(identity, instance, timing)
        self.term: Term | None = None
        self.cause = ""
        """Why it steps down, or last did."""
        self._chance = chance
        self._on_lost = on_lost
        self._now = 0.0
        self._actions: list[Action] = []
        self._busy: str | None = None  # read, acquire, renew, release: what is under way
        self._begun_at = -math.inf  # since when
        self._allowed = 0.0  # and for how long at most
        self._must_read = True
        self._uncertain = False  # the fate of the last write is not known
        self._failures = 0
        self._is_refused = False  # the last try to acquire the lease has failed
        self._reasons: set[str] = set()  # of the failures since the last success: those that were told
        self._next_at = -math.inf  # not before this: the next read or write
        self._contend_at = -math.inf
        self._warm_at = math.inf
        self._releasing_by: float | None = None
        self._grants = GrantBook(last_number)
        self._had_predecessor = last_number > 0
        self._last_kill_by = last_kill_by
        self._command_runs = False
        self._acted = False  # for a dead or silent keeper
        self._patient_until = -math.inf
        self._ending = False
        self._status: int | None = None
        self._reason = ""
        self._left = False
        self._confirmed = ABSENT
        self._confirmed_at = 0.0
        machine.attach(self)

    # ------------------------------------------------------------------ in and out

    def handle(self, event: Event, now: float) -> list[Action]:
        """What to do about `event`, in order."""
        self._now, self._actions = now, []
        before = self.state
        self._notice_time(event)  # a date that has passed goes before whatever else has happened
        getattr(self, "_on_" + type(event).__name__)(event)
        self._proceed()
        if self.state != before:
            self._report("debug", f"{before} → {self.state}")
        return self._actions

    @property
    def wake_at(self) -> float | None:
        """The instant, in seconds, at which to come back with Woke at the latest; None: only for another event."""
        dates = [self._silent_at]
        if self.term and self.state == State.LEADER:
            dates.append(self._term_by)
        if self._releasing_by is not None:
            dates.append(self._releasing_by)
        if not self._busy and not self._left:
            dates.append(self._due_at)
        at = min(dates)
        return at if at < math.inf else None

    @property
    def _due_at(self) -> float:
        """When the next read or write is due, if nothing is under way."""
        if self._releasing_by is not None:
            return self._next_at
        if self.state in (State.LEADER, State.STEPPING_DOWN):
            return self._next_at if self.term else math.inf
        if self.state != State.FOLLOWER:
            return math.inf
        if self._must_read:
            return self._next_at
        return min(max(self.view.free_at, self._contend_at, self._next_at), self._warm_at)

    def _proceed(self) -> None:
        """Begin what is due, if nothing is under way."""
        if self.state == State.TERMINATED and self._releasing_by is None and not self._busy_acquiring:
            self._leave()
        if self._releasing_by is not None and self._now >= self._releasing_by:
            self._end_release("warning", "the lease could not be released and is left to run out")
        if self._busy or self._left or self._now < self._due_at:
            return
        if self._releasing_by is not None:
            self._release()
        elif self.state == State.FOLLOWER:
            if self._must_read or self._now < max(self.view.free_at, self._contend_at):
                self._read()
            else:
                self.trigger("lease_available")
        elif self._must_read:
            self._read()
        else:
            self._write("renew", self._held_record())

    # ------------------------------------------------------------------ time

    def _notice_time(self, event: Event) -> None:
        if self.state == State.LEADER and self._now >= self._term_by:
            self._step_down("deadline_near", "the lease could not be renewed in time", "error")
        # Silence is judged by the alarm alone, before which all that has come from the keeper is heard.
        if isinstance(event, messages.Woke) and self._now >= self._silent_at:
            if self._now - self._silent_at > OVERSLEPT:
                # We were stopped ourselves, and the keeper most likely with us: let it speak first.
                self._patient_until = self._now + PATIENCE
            else:
                self._act_for_keeper("the keeper is silent")

    @property
    def _term_by(self) -> float:
        return self.term.sent_at + self.timing.renew_deadline if self.term else math.inf

    @property
    def _kill_by(self) -> float:
        """From when on nothing may run by what we have renewed: another may hold the lease, seen by us or not."""
        return self.term.sent_at + self.timing.lease_duration - self.timing.kill_margin if self.term else math.inf

    @property
    def _silent_at(self) -> float:
        """When a keeper from which nothing came must be taken for dead; in time for its tree to die with the lease."""
        if self._acted or self._left:
            return math.inf
        patience = self.timing.kill_margin / 4
        if self._command_runs and not self._grants.is_open:  # by a grant of the elector before this one
            return max(self._last_kill_by + patience, self._patient_until)
        return max(self._grants.silent_at(patience), self._patient_until)

    # ------------------------------------------------------------------ reads and writes

    def _read(self) -> None:
        self._busy, self._begun_at, self._allowed = "read", self._now, self._timeout
        self._warm_at = self._now + KEEP_WARM
        self._actions.append(messages.ReadLease(self._allowed))

    def _write(self, purpose: str, record: Record) -> None:
        self._busy, self._begun_at, self._allowed = purpose, self._now, self._timeout
        base = self.view.current or ABSENT
        self._actions.append(messages.WriteLease(purpose, base, record, self._allowed))

    @property
    def _timeout(self) -> float:
        """How long the next request may take, in seconds: while we lead, half of what is left until the deadline, so
        that another one fits behind it. A connection that was opened while the network was silent may stay so for ever.
        """
        usual = self.timing.request_timeout
        return min(usual, max((self._term_by - self._now) / 2, usual / 2))

    def _held_record(self) -> Record:
        """The record that says that we hold the lease."""
        known = self.view.record
        ours = known is not None and known.holder == self.identity
        taken_back = self.term is not None  # it was deleted or wiped under us: the term goes on
        if known is None:
            transitions = 0
        else:
            transitions = known.transitions + (0 if ours or taken_back else 1)
            if transitions > MOST_TRANSITIONS:
                transitions = 0  # a store would refuse it, and nobody could lead any more
        return Record(
            holder=self.identity,
            duration=self.timing.wire_duration,
            acquire_time=known.acquire_time if known and ours else None,
            transitions=transitions,
            instance=self.instance,
            instance_holder=self.identity,
        )

    def _on_Started(self, event: messages.Started) -> None:
        self._next_at = self._now

    def _on_Woke(self, event: messages.Woke) -> None:
        pass

    def _on_LeaseRead(self, event: messages.LeaseRead) -> None:
        self._busy = None
        self._must_read = False
        self._next_at = self._now
        self._learn(event.observed, asked=True)
        self._uncertain = False
        has_holder = self.view.is_held_by_another and self._now < self.view.free_at
        if not self._is_refused or has_holder:  # else the next write may fail as the last one did
            self._forget_failures()

    def _on_LeaseObserved(self, event: messages.LeaseObserved) -> None:
        self._learn(event.observed, asked=False)

    def _on_ReadFailed(self, event: messages.ReadFailed) -> None:
        self._busy = None
        self._must_read = True
        self._failed("read", event.reason, event.retry_after)

    def _on_WriteConfirmed(self, event: messages.WriteConfirmed) -> None:
        purpose, self._busy = self._busy, None
        self._uncertain = False
        if self._failures and purpose == "renew":
            self._report("info", f"renewed again after {self._failures} failed attempts")
        self._forget_failures()
        self.view.observe(event.observed, self._now, asked=True)
        self._confirmed, self._confirmed_at = event.observed, event.sent_at
        if purpose == "release":
            self._end_release("info", "lease released")
            return
        # The watch may have been faster with what came after our write, and it may not be ours any more.
        is_overtaken = not self.view.is_ours
        if is_overtaken or self._releasing_by is not None:
            self._next_at = self._now
        else:
            self._next_at = event.sent_at + self.timing.retry_period
        if purpose == "acquire" and is_overtaken:
            self._must_read = True
            self.trigger("refused")
            return
        if self.term:
            self.term.sent_at = event.sent_at
        self.trigger("acquired" if purpose == "acquire" else "renewed")

    def _on_WriteConflicted(self, event: messages.WriteConflicted) -> None:
        purpose, self._busy = self._busy, None
        self.view.lose_sight(is_there=True)
        self._must_read = True
        self._next_at = self._now
        self._refuse(purpose)

    def _on_WriteFailed(self, event: messages.WriteFailed) -> None:
        purpose, self._busy = self._busy, None
        self._uncertain = self._uncertain or event.uncertain
        self._must_read = self._is_refused = purpose == "acquire"
        self._failed(f"{purpose}", event.reason, event.retry_after)
        self._refuse(purpose)

    def _refuse(self, purpose: str | None) -> None:
        if purpose == "acquire":
            if self.state == State.TERMINATED and self._uncertain:
                self._begin_release()
            self.trigger("refused")

    def _forget_failures(self) -> None:
        self._failures, self._is_refused = 0, False
        self._reasons.clear()

    def _failed(self, what: str, reason: str, retry_after: float | None) -> None:
        """Try again, sooner at first, and within the deadline even if the server asks for more time."""
        self._failures += 1
        self.view.lose_sight()
        first = min(self.timing.retry_period / 4, self.timing.request_timeout)
        delay = min(self.timing.retry_period, first * 2 ** min(self._failures - 1, 8))
        if self.state == State.FOLLOWER:
            delay *= 1 + 0.2 * self._chance()
        # Counted from when it was sent: a request that has timed out has waited enough, and two more of them must fit.
        has_waited = self.term and self._now >= self._begun_at + self._allowed
        self._next_at = self._now if has_waited else max(self._now, self._begun_at + delay)
        if retry_after:
            end = self._term_by if self._releasing_by is None else self._releasing_by
            latest = end - self._now - self.timing.request_timeout
            self._next_at = max(self._next_at, self._now + min(retry_after, max(latest, 0.0), KEEP_WARM))
        is_news = reason not in self._reasons and len(self._reasons) < MOST_REASONS
        if is_news:
            self._reasons.add(reason)
        level = "warning" if is_news or self.term else "debug"
        left = f"; {self._term_by - self._now:.1f}s until the command is stopped" if self._term_by < math.inf else ""
        self._report(level, f"cannot {what} the lease: {reason}{left}")

    # ------------------------------------------------------------------ what the lease says

    def _learn(self, observed: Observed, *, asked: bool) -> None:
        had_twin = self.view.has_twin
        changed = self.view.observe(observed, self._now, asked=asked)
        if self.view.has_twin and not had_twin:
            self._report(
                "error",
                f"another instance is alive with the same identity {self.identity!r}: give each its own "
                "(election.identity); it is treated as another holder",
            )
        if self.term and self._releasing_by is None:
            self._check_hold()
        elif changed:
            self._tell_holder()
        if self.view.is_held_by_another and self._may_run_without_term and self.state == State.FOLLOWER:
            self._actions.append(messages.StopCommand("lease_lost", grace=False))

    @property
    def _may_run_without_term(self) -> bool:
        """The command, or a hook of its, was started under a term of the elector before this one, or can be until that
        one's last date: its keeper may be in the pause before a restart.
        """
        can_start = self._had_predecessor and self._now < self._last_kill_by
        return self.term is None and (self._command_runs or can_start)

    def _check_hold(self) -> None:
        """Is the lease that we hold still ours?"""
        record = self.view.record
        if self.view.is_ours:
            if self._uncertain and not self._busy:
                self._next_at = self._now
        elif record is None or not record.holder:
            what = "deleted" if record is None else "emptied by somebody else"
            if self._now >= self._kill_by:
                self.term = None  # the command is being stopped
                self._report("warning", f"the lease was {what} when ours had run out: it is not taken back")
                return
            self._report("warning", f"the lease was {what} while we hold it: taking it back")
            self._next_at = self._now
        else:
            self.term = None
            self._step_down("lease_lost", f"{named(record.holder)} has taken the lease from us", "error")

    def _tell_holder(self) -> None:
        if self.state != State.FOLLOWER:
            return
        record = self.view.record
        if record is None or not record.holder:
            wait = self.view.free_at - self._now
            what = "there is no lease" if record is None else "nobody holds the lease"
            if wait > 0:
                self._report("info", f"{what}, but its last holder did not release it: waiting {wait:.1f}s")
            else:
                self._report("debug", what)
        elif record.holder != self._told and not self.view.is_ours:
            self._told = record.holder
            self._report(
                "info", f"following {named(record.holder)}, who holds the lease for {record.duration}s at a time"
            )

    _told = ""

    # ------------------------------------------------------------------ called by the machine

    def write_acquisition(self) -> None:
        self._write("acquire", self._held_record())

    def is_enough_left(self) -> bool:
        return self._now < self._confirmed_at + self.timing.renew_deadline

    def begin_term(self) -> None:
        record = self._confirmed.record or Record()
        self.term = Term(self._confirmed.version, record.transitions, self._confirmed_at)
        self._told = ""
        again = " again after a restart of the elector" if self._command_runs else ""
        self._report("info", f"leading{again}: lease acquired, fencing token {self.term.token}")

    def send_grant(self) -> None:
        self._grant(may_start=True)

    def send_extension(self) -> None:
        self._grant(may_start=False)

    def stop_command(self) -> None:
        if self._acted:
            return
        self._actions.append(messages.StopCommand(self.cause, grace=self.cause != "lease_lost"))

    def kill_command(self) -> None:
        if not self._acted:
            self._actions.append(messages.StopCommand("lease_lost", grace=False))

    def is_ending(self) -> bool:
        return self._ending

    def begin_release(self) -> None:
        self._begin_release()

    # ------------------------------------------------------------------ the keeper

    def _grant(self, *, may_start: bool) -> None:
        """One grant at a time: while one is not acknowledged, the keeper may be stopped, and would find a queue."""
        if self.term is None or self._acted or self._now >= self._term_by:
            # After a late answer it would be overdue before it is sent, and the keeper taken for silent at once.
            return
        dates = (self._term_by, self._kill_by)
        number = self._grants.issue(*dates, may_start)
        if number is not None:
            self._actions.append(messages.Grant(number, *dates, may_start, self.term.token, self.term.transitions))

    def _on_GrantAcknowledged(self, event: messages.GrantAcknowledged) -> None:
        if self._grants.acknowledge(event.number) and self.state in (State.LEADER, State.STEPPING_DOWN):
            self._grant(may_start=self.state == State.LEADER)

    def _on_CommandSpawned(self, event: messages.CommandSpawned) -> None:
        self._command_runs = True

    def _on_CommandGone(self, event: messages.CommandGone) -> None:
        if event.cause in ("finished", "shutdown"):
            self._ending = True
        if event.number < self._grants.last_number:
            return  # the keeper has a newer grant, or is about to have it, and may start the command by that one
        self._command_runs = False
        if self.state in (State.LEADER, State.STEPPING_DOWN):
            if not self._grants.is_last(event.number):
                return
            self._grants.close()
            if self.state == State.LEADER:
                self._step_down(*_ENDS.get(event.cause, _ENDS["stopped"]), "info")
            self._pause()
            self.trigger("command_gone")
        elif self._ending:
            self.trigger("stop_requested")
            self._release_what_is_left()

    def _pause(self) -> None:
        """Let others go first, if there are any, where we are the ones who had trouble."""
        if self.cause == "gave_up":
            pause = max(GIVE_UP_PAUSE, self.timing.lease_duration)
            self._report("info", f"leaving the lease to others for {pause:.0f}s or a little more")
        elif self.cause == "handover_requested":
            pause = self.timing.lease_duration
        else:
            pause = self.timing.retry_period
        self._contend_at = self._now + pause * (1 + 0.2 * self._chance())

    def _on_StopRequested(self, event: messages.StopRequested) -> None:
        self._ending = True
        if self.state in (State.FOLLOWER, State.CANDIDATE) and self._may_run_without_term:
            return  # the lease of the elector before this one is not given back before the command is gone
        if self.state == State.LEADER:
            self._step_down("stop_requested", "told to stop", "info")
        else:
            self.trigger("stop_requested")
            self._release_what_is_left()

    def _on_HandoverRequested(self, event: messages.HandoverRequested) -> None:
        if self.state == State.LEADER:
            self._step_down("handover_requested", "asked to hand over", "info")
        else:
            self.trigger("handover_requested")

    def _on_KeeperDied(self, event: messages.KeeperDied) -> None:
        if self.term or self._grants.is_open or self._may_run_without_term:
            self._act_for_keeper("the keeper has died")
        else:
            self._ending = True
            self.trigger("stop_requested")

    def _act_for_keeper(self, reason: str) -> None:
        if self._acted:
            return
        self._acted = self._ending = True
        self._report("error", f"{reason}: ending the command in its place")
        start_by = self._grants.start_by if self._grants.is_open else self._last_kill_by
        self._actions.append(messages.KillTree(start_by))
        if self.state == State.LEADER:
            self._step_down("stop_requested", reason, "debug")

    def _on_TreeKilled(self, event: messages.TreeKilled) -> None:
        self._command_runs = False
        self._grants.close()
        self.trigger("stop_requested")
        if self.state == State.STEPPING_DOWN:
            self.trigger("command_gone")
        self._release_what_is_left()

    # ------------------------------------------------------------------ the end of a term

    def _step_down(self, trigger: str, reason: str, level: str) -> None:
        if self.state == State.LEADER:
            self.cause = trigger
            if trigger in ("lease_lost", "deadline_near") and self._on_lost == "exit":
                self._ending, self._status = True, EXIT_LOST
                self._reason = f"leadership lost: {reason}"
            self._report(level, f"stepping down: {reason}")
        self.trigger(trigger)

    def _begin_release(self) -> None:
        if self.term or self.state == State.TERMINATED or self.view.is_ours:
            self.term = None
            self._releasing_by = self._now + RELEASE_TIME
            self._next_at = self._now

    def _release_what_is_left(self) -> None:
        """The lease may still be in our name: by a write whose answer was lost, a release that did not go through, or
        an elector of this keeper before us. Nothing of the command is alive.
        """
        if self.state != State.TERMINATED or self._command_runs or self._left or self._releasing_by is not None:
            return
        is_unread = self._had_predecessor and self.view.current is None
        if not self._busy_acquiring and (self._uncertain or self.view.is_ours or is_unread):
            self._uncertain = True
            self._begin_release()

    def _release(self) -> None:
        """Give the lease back, only where what was just read or confirmed says that it is ours."""
        if self._must_read or self._uncertain:
            self._read()
        elif self.view.is_ours and self.view.record:
            record = changed(self.view.record, holder="", duration=1, acquire_time=None, released_by=self.instance)
            self._write("release", record)
        else:
            holder = self.view.record.holder if self.view.record else ""
            who = f"{named(holder)} holds the lease by now" if holder else "nobody holds the lease"
            self._end_release("info", f"{who}: nothing is left to release")

    def _end_release(self, level: str, text: str) -> None:
        self._releasing_by = None
        self._must_read = self._must_read or self._uncertain
        self._next_at = self._now
        self._report(level, text)
        self._proceed()

    @property
    def _busy_acquiring(self) -> bool:
        return self._busy == "acquire"

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._actions.append(messages.Leave(self._status, self._reason))

    def _report(self, level: str, text: str) -> None:
        self._actions.append(Report(level, text))
