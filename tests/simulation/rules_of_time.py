"""The rules of time and safety, each broken once: the README has them under "Rules of time"."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from awaitelect.core import messages
from awaitelect.core.election import Election, Term
from awaitelect.core.lease import Record, Timing
from awaitelect.keeper.guard import Action
from awaitelect.values import changed
from tests.simulation.mutation import Mutation, over

if TYPE_CHECKING:
    from tests.simulation.keeper import Keeper
    from tests.simulation.machines import Node
    from tests.simulation.store import Store


class CountedFromReply(Mutation):
    """Rule of time 1: the lease is ours from when the renewal was sent; here, from when its answer came."""

    def change_election(self, election: Election, node: Node) -> None:
        original = election._on_WriteConfirmed

        def confirmed(event: messages.WriteConfirmed) -> None:
            self.applied += 1
            original(changed(event, sent_at=election._now))

        election._on_WriteConfirmed = confirmed  # type: ignore[method-assign]


class NoKillMargin(Mutation):
    """Rule of time 1: everything is dead a margin before the lease ends; here, when it ends."""

    def change_election(self, election: Election, node: Node) -> None:
        self.applied += 1
        election.timing = changed(election.timing, kill_margin=-0.3)  # what SIGKILL is sent earlier by, and a little


class LateReplyLeads(Mutation):
    """Rule of time 2: an acquisition that was answered too late starts nothing; here it does."""

    def change_election(self, election: Election, node: Node) -> None:
        original = election.is_enough_left

        def is_enough_left() -> bool:
            self.applied += not original()
            return True

        def send_grant() -> None:
            term = election.term
            assert term
            kill_by = term.sent_at + election.timing.lease_duration - election.timing.kill_margin
            number = election._grants.issue(election._term_by, kill_by, True)
            if number is not None:
                grant = messages.Grant(number, election._term_by, kill_by, True, term.token, term.transitions)
                election._actions.append(grant)

        election.is_enough_left = is_enough_left  # type: ignore[method-assign]
        election.send_grant = send_grant  # type: ignore[method-assign]


class BadTimingAccepted(Mutation):
    """Rule of time 3: a renew deadline behind the end of the lease is refused; here it is used."""

    timings = [Timing(4, 5.5, 0.5, 0.6)]

    def change_election(self, election: Election, node: Node) -> None:
        self.applied += bool(node.timing.problems())


class RoundedDown(Mutation):
    """Rule of time 3: durations go on the wire rounded up; here, down."""

    timings = [Timing(4.5, 3, 0.5, 0.6)]

    def change_election(self, election: Election, node: Node) -> None:
        self.applied += 1
        kind = over(Timing, wire_duration=property(lambda timing: math.floor(timing.lease_duration)))
        election.timing = kind(**election.timing.__dict__)


class OwnDuration(Mutation):
    """Rule of time 4: a follower waits the record's duration; here, its own."""

    def change_election(self, election: Election, node: Node) -> None:
        view = election.view
        original = view._expiry

        def expiry(record: Record, now: float) -> float:
            self.applied += record.duration != election.timing.wire_duration
            return original(changed(record, duration=election.timing.wire_duration), now)

        view._expiry = expiry  # type: ignore[method-assign]


class WallClockBelieved(Mutation):
    """Rule of time 4: a follower counts from when it saw a renewal; here, from the time that is written in it."""

    def change_election(self, election: Election, node: Node) -> None:
        view = election.view
        original = view._expiry

        def expiry(record: Record, now: float) -> float:
            self.applied += 1
            since = (node.wall() - record.renew_time).total_seconds() if record.renew_time else 0.0
            return original(record, now) - since

        view._expiry = expiry  # type: ignore[method-assign]


class UnsignedReleaseBelieved(Mutation):
    """Rule of time 4: a lease of ours that somebody else emptied is waited out; here it is free at once."""

    def change_election(self, election: Election, node: Node) -> None:
        view = election.view
        original = view._free_after_release

        def free_after_release(record: Record, now: float) -> float:
            self.applied += original(record, now) > now
            return now

        view._free_after_release = free_after_release  # type: ignore[method-assign]


class ClockNotRestarted(Mutation):
    """Rule of time 4: each renewal restarts a follower's clock; here, only a new holder does."""

    def change_election(self, election: Election, node: Node) -> None:
        view = election.view
        original = view._expiry
        known: dict[str, tuple[str, float]] = {}

        def expiry(record: Record, now: float) -> float:
            before = known.get("held")
            if before and before[0] == record.holder:
                self.applied += 1
                return before[1]
            until = original(record, now)
            known["held"] = record.holder, until
            return until

        view._expiry = expiry  # type: ignore[method-assign]


class Unconditional(Mutation):
    """Rule of time 5: each write is conditional on what was observed; here it is stored whatever there is."""

    def change_store(self, store: Store) -> None:
        original = store.write

        def write(write: messages.WriteLease, *args: Any) -> Any:
            self.applied += write.base.version != store.current.version
            return original(write, *args)

        store.is_conditional = False
        store.write = write  # type: ignore[method-assign]


class OtherHolderIgnored(Mutation):
    """Rule of time 5: another holder means that the lease is lost now; here the leader goes on until its deadline."""

    def change_election(self, election: Election, node: Node) -> None:
        original = election._check_hold

        def check_hold() -> None:
            if election.view.is_held_by_another:
                self.applied += 1
            else:
                original()

        election._check_hold = check_hold  # type: ignore[method-assign]


class LostWithGrace(Mutation):
    """Rule of time 5: a command whose lease another has taken is killed at once; here it is asked to stop."""

    def change_keeper(self, keeper: Keeper) -> None:
        original = keeper.guard.on_stop

        def on_stop(grace: bool, now: float, is_late: bool = False) -> list[Action]:
            self.applied += not grace
            return original(True, now, is_late)

        keeper.guard.on_stop = on_stop  # type: ignore[method-assign]


class ConflictIsLoss(Mutation):
    """Rule of time 5: a conflict means that the lease is read again; here, that it is lost."""

    def change_election(self, election: Election, node: Node) -> None:
        original = election._on_WriteConflicted

        def conflicted(event: messages.WriteConflicted) -> None:
            original(event)
            if election.term and election.state == "leader":
                self.applied += 1
                election.term = None
                election._step_down("lease_lost", "a conflict", "error")

        election._on_WriteConflicted = conflicted  # type: ignore[method-assign]


class WipeIsLoss(Mutation):
    """Rule of time 5 and 6: a lease that is emptied or deleted under its leader is taken back; here it is lost."""

    def change_election(self, election: Election, node: Node) -> None:
        original = election._check_hold

        def check_hold() -> None:
            record = election.view.record
            if (record is None or not record.holder) and election.state == "leader":
                self.applied += 1
                election.term = None
                election._step_down("lease_lost", "wiped", "error")
            else:
                original()

        election._check_hold = check_hold  # type: ignore[method-assign]


class ErrorIsLoss(Mutation):
    """Rule of time 6: no error of the store takes a lease away; here the first one does."""

    def change_election(self, election: Election, node: Node) -> None:
        original = election._on_WriteFailed

        def failed(event: messages.WriteFailed) -> None:
            original(event)
            if election.state == "leader":
                self.applied += 1
                election._step_down("deadline_near", event.reason, "error")

        election._on_WriteFailed = failed  # type: ignore[method-assign]


class CreatedAtOnce(Mutation):
    """Rule of time 6: who saw a holder waits its time before it creates a deleted lease; here it creates at once."""

    def change_election(self, election: Election, node: Node) -> None:
        view = election.view
        original = view._conclude

        def conclude(record: Record | None, earlier: Record | None, now: float) -> None:
            original(record, earlier, now)
            if record is None and view.free_at > now:
                self.applied += 1
                view.free_at = now

        view._conclude = conclude  # type: ignore[method-assign]


class PatientRequests(Mutation):
    """Rule of time 7: two attempts fit before the deadline; here one request may eat the whole lease."""

    def change_election(self, election: Election, node: Node) -> None:
        self.applied += 1
        kind = over(Timing, request_timeout=property(lambda timing: timing.lease_duration))
        election.timing = kind(**election.timing.__dict__)


class RetryAfterObeyed(Mutation):
    """Rule of time 7: Retry-After is honoured within the deadline; here, whatever it costs."""

    def change_election(self, election: Election, node: Node) -> None:
        original = election._failed

        def failed(what: str, reason: str, retry_after: float | None) -> None:
            original(what, reason, retry_after)
            if retry_after:
                self.applied += election._next_at < election._now + retry_after
                election._next_at = election._now + retry_after

        election._failed = failed  # type: ignore[method-assign]


class ReleasedTooEarly(Mutation):
    """Rule of time 8: released only when the command is gone; here, when it is told to stop."""

    def change_election(self, election: Election, node: Node) -> None:
        original = election.stop_command

        def stop_command() -> None:
            original()
            self.applied += 1
            election._begin_release()

        election.stop_command = stop_command  # type: ignore[method-assign]


class AnothersReleased(Mutation):
    """Rule of time 8: released only if the record says that it is ours; here, whoever holds it."""

    def change_election(self, election: Election, node: Node) -> None:
        def release() -> None:
            record = election.view.record
            if record is None or not record.holder:
                election._end_release("info", "nothing to release")
                return
            self.applied += not election.view.is_ours
            emptied = changed(record, holder="", duration=1, acquire_time=None, released_by=election.instance)
            election._write("release", emptied)

        election._release = release  # type: ignore[method-assign]


class WatchTrusted(Mutation):
    """Rule of time 9: expiry timers stand behind the watch; here a follower waits for it to tell."""

    def change_election(self, election: Election, node: Node) -> None:
        view = election.view
        original = view._expiry

        def expiry(record: Record, now: float) -> float:
            until = original(record, now)
            self.applied += now < until
            return math.inf if now < until else until

        view._expiry = expiry  # type: ignore[method-assign]


class TwinTakenOver(Mutation):
    """Rule of time 10: a lease in our own name, by another run, is watched first; here it is taken at once."""

    def change_election(self, election: Election, node: Node) -> None:
        view = election.view
        original = view._expiry

        def expiry(record: Record, now: float) -> float:
            if record.holder == election.identity and record.holder_instance != election.instance:
                self.applied += 1
                return now
            return original(record, now)

        view._expiry = expiry  # type: ignore[method-assign]


class TransitionsAsToken(Mutation):
    """Rule of time 11: the fencing token is the version of the acquiring write; here, the lease's transitions."""

    def change_election(self, election: Election, node: Node) -> None:
        original = election.begin_term

        def begin_term() -> None:
            original()
            self.applied += 1
            term = election.term
            assert term
            election.term = Term(term.transitions + 1, term.transitions, term.sent_at)

        election.begin_term = begin_term  # type: ignore[method-assign]


class TransitionsOnRenewal(Mutation):
    """Rule of time 12: the transitions grow with a new holder only; here, with each write."""

    def change_election(self, election: Election, node: Node) -> None:
        original = election._held_record

        def held_record() -> Record:
            record, known = original(), election.view.record
            self.applied += 1
            return changed(record, transitions=known.transitions + 1 if known else 0)

        election._held_record = held_record  # type: ignore[method-assign]


class AcquireTimeMoves(Mutation):
    """Rule of time 12: a renewal keeps the time of the acquisition; here it is made anew."""

    def change_election(self, election: Election, node: Node) -> None:
        original = election._held_record

        def held_record() -> Record:
            self.applied += 1
            return changed(original(), acquire_time=None)

        election._held_record = held_record  # type: ignore[method-assign]


class StampedPlainly(Mutation):
    """Rule of time 12: the renew time moves on by a second with each renewal; here it is what the wall clock shows."""

    stamps_plainly = True

    def change_election(self, election: Election, node: Node) -> None:
        self.applied += 1
