"""Rules taken away one by one: what the simulation must find.

Each changes the objects of one schedule, counts in `applied` how often it made a difference, and names its rule.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

from awaitelect.core import messages
from awaitelect.core.election import Election
from awaitelect.core.lease import Record
from awaitelect.keeper.guard import Guard
from awaitelect.values import changed

if TYPE_CHECKING:
    from tests.simulation.store import Store


class Mutation:
    """A rule that is not kept."""

    starts_late = False
    """The shim does not look at the clock."""

    def __init__(self) -> None:
        self.applied = 0

    def change_election(self, election: Election) -> None: ...

    def change_guard(self, guard: Guard) -> None: ...

    def change_store(self, store: Store) -> None: ...


class CountedFromReply(Mutation):
    """Rule of time 1: the lease is ours from when the renewal was sent; here, from when its answer came."""

    def change_election(self, election: Election) -> None:
        original = election._on_WriteConfirmed

        def confirmed(event: messages.WriteConfirmed) -> None:
            self.applied += 1
            original(changed(event, sent_at=election._now))

        election._on_WriteConfirmed = confirmed  # type: ignore[method-assign]


class LateReplyLeads(Mutation):
    """Rule of time 2: an acquisition that was answered too late starts nothing; here it does."""

    def change_election(self, election: Election) -> None:
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


class OwnDuration(Mutation):
    """Rule of time 4: a follower waits the record's duration; here, its own."""

    def change_election(self, election: Election) -> None:
        view = election.view
        original = view._expiry

        def expiry(record: Record, now: float) -> float:
            self.applied += record.duration != election.timing.wire_duration
            return original(changed(record, duration=election.timing.wire_duration), now)

        view._expiry = expiry  # type: ignore[method-assign]


class UnsignedReleaseBelieved(Mutation):
    """Rule of time 4: a lease of ours that somebody else emptied is waited out; here it is free at once."""

    def change_election(self, election: Election) -> None:
        view = election.view
        original = view._free_after_release

        def free_after_release(record: Record, now: float) -> float:
            self.applied += original(record, now) > now
            return now

        view._free_after_release = free_after_release  # type: ignore[method-assign]


class ClockNotRestarted(Mutation):
    """Rule of time 4: each renewal restarts a follower's clock; here, only a new holder does."""

    def change_election(self, election: Election) -> None:
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

        def write(base: Any, record: Record, writer: str, instance: str) -> Any:
            self.applied += base.version != store.current.version
            return original(base, record, writer, instance)

        store.is_conditional = False
        store.write = write  # type: ignore[method-assign]


class ReleasedTooEarly(Mutation):
    """Rule of time 8: released only when the command is gone; here, when it is told to stop."""

    def change_election(self, election: Election) -> None:
        original = election.stop_command

        def stop_command() -> None:
            original()
            self.applied += 1
            election._begin_release()

        election.stop_command = stop_command  # type: ignore[method-assign]


class TwinTakenOver(Mutation):
    """Rule of time 10: a lease in our own name, by another run, is watched first; here it is taken at once."""

    def change_election(self, election: Election) -> None:
        view = election.view
        original = view._expiry

        def expiry(record: Record, now: float) -> float:
            if record.holder == election.identity and record.holder_instance != election.instance:
                self.applied += 1
                return now
            return original(record, now)

        view._expiry = expiry  # type: ignore[method-assign]


class NeverWaitsForAck(Mutation):
    """Rule 1 of the protocol: one grant at a time until it is acknowledged; here each counts as acknowledged."""

    def change_election(self, election: Election) -> None:
        book = election._grants
        issue, acknowledge = book.issue, book.acknowledge
        heard_of = [book.last_number]

        def issue_always(term_by: float, kill_by: float, may_start: bool) -> int | None:
            self.applied += book.is_open and heard_of[0] < book.last_number
            number = issue(term_by, kill_by, may_start)
            book._acknowledged = True
            return number

        def take_note(number: int) -> bool:
            heard_of[0] = number
            return acknowledge(number)

        book.issue = issue_always  # type: ignore[method-assign]
        book.acknowledge = take_note  # type: ignore[method-assign]


class AnyGoneBelieved(Mutation):
    """Rule 2 of the protocol: only a gone of the last grant is the last word; here, any is."""

    def change_election(self, election: Election) -> None:
        original = election._on_CommandGone

        def gone(event: messages.CommandGone) -> None:
            last = election._grants.last_number
            self.applied += event.number < last
            original(changed(event, number=last))

        election._on_CommandGone = gone  # type: ignore[method-assign]


class StartsLate(Mutation):
    """Rule 3 of the protocol: nothing is started after `term_by`; here, neither guard nor shim looks at the clock."""

    starts_late = True

    def change_guard(self, guard: Guard) -> None:
        def may_start(self_: Guard, now: float) -> bool:
            grant = self_.grant
            if grant is None or not grant.may_start:
                return False
            self.applied += now >= grant.term_by
            return True

        guard._may_start = types.MethodType(may_start, guard)  # type: ignore[method-assign]


MUTATIONS: dict[str, type[Mutation]] = {
    "counted-from-reply": CountedFromReply,
    "late-reply-leads": LateReplyLeads,
    "own-duration": OwnDuration,
    "unsigned-release-believed": UnsignedReleaseBelieved,
    "clock-not-restarted": ClockNotRestarted,
    "unconditional": Unconditional,
    "released-too-early": ReleasedTooEarly,
    "twin-taken-over": TwinTakenOver,
    "never-waits-for-ack": NeverWaitsForAck,
    "any-gone-believed": AnyGoneBelieved,
    "starts-late": StartsLate,
}
