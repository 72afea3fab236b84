"""Stories about the election: one lease, some instances, and the instant of each thing that happens.

A `Node` gives its Election one event at a time and answers with what it wants done, in words, so that a test reads like
a log. Nothing here has a clock; what is not told does not happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from awaitelect.core import messages
from awaitelect.core.election import Election
from awaitelect.core.lease import Observed, Record, Timing, stamp
from awaitelect.core.messages import Action, Event
from awaitelect.values import changed

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Lease:
    """The store: one record, and a version that grows with each write, over a deletion too."""

    record: Record | None = None
    version: int = 0
    history: list[Record | None] = field(default_factory=list)

    @property
    def now(self) -> Observed:
        return Observed(self.version if self.record else 0, self.record)

    def put(self, record: Record | None) -> Observed:
        """Whatever others do to it: no condition."""
        self.version += 1
        self.record = record
        self.history.append(record)
        return self.now

    def edit(self, **changes: object) -> Observed:
        return self.put(changed(self.record or Record(), **changes))

    def delete(self) -> Observed:
        return self.put(None)

    def held_by(self, holder: str, duration: int = 15, **changes: object) -> Observed:
        """Another client, which knows nothing of our annotations, takes it and keeps them as they were."""
        known = self.record or Record(transitions=-1)
        taken = changed(known, holder=holder, duration=duration, transitions=known.transitions + 1)
        return self.put(changed(taken, **changes))

    def renewed(self, at: float) -> Observed:
        """Its holder, somebody else, renews it."""
        return self.edit(renew_time=EPOCH + timedelta(seconds=at))

    def emptied(self) -> Observed:
        """Released as a Go client does it: unsigned, and all annotations as they were."""
        return self.edit(holder="", duration=1)

    def write(self, base: Observed, record: Record, at: float) -> Observed | None:
        """The conditional write; None: refused."""
        if base.version != self.now.version:
            return None
        return self.put(stamp(record, base.record, EPOCH + timedelta(seconds=at)))


def ours(
    holder: str = "a", instance: str = "a1", duration: int = 15, transitions: int = 0, **changes: object
) -> Record:
    """The record as a run of awaitelect writes it."""
    record = Record(holder, duration, EPOCH, EPOCH, transitions, instance, instance_holder=holder)
    return changed(record, **changes)


class Node:
    """One instance: its election, its operation under way, and what it has asked for."""

    def __init__(
        self,
        lease: Lease,
        identity: str = "a",
        instance: str = "",
        timing: Timing | None = None,
        chance: float = 0.0,
        **options: object,
    ) -> None:
        self.lease = lease
        self.instance = instance or identity + "1"
        self.election = Election(identity, self.instance, timing or Timing(), lambda: chance, **options)
        self.under_way: messages.ReadLease | messages.WriteLease | None = None
        self.sent_at = 0.0
        self.grants: list[messages.Grant] = []
        self.reports: list[messages.Report] = []
        self.left = False

    # -------------------------------------------------------------- what happens

    def tell(self, event: Event, at: float) -> list[str]:
        """Anything."""
        actions = self.election.handle(event, at)
        self.reports += [a for a in actions if isinstance(a, messages.Report)]
        return [self._note(a, at) for a in actions if not isinstance(a, messages.Report)]

    def starts(self, at: float) -> list[str]:
        return self.tell(messages.Started(), at)

    def wakes(self, at: float) -> list[str]:
        return self.tell(messages.Woke(), at)

    def sees(self, at: float, observed: Observed | None = None) -> list[str]:
        """The watch brings the lease as it is now, or as it once was."""
        return self.tell(messages.LeaseObserved(observed or self.lease.now), at)

    def stored(self, at: float) -> Observed | None:
        """The write under way reaches the store at this instant, and the answer is on its way."""
        assert isinstance(self.under_way, messages.WriteLease)
        return self.lease.write(self.under_way.base, self.under_way.record, at)

    def answered(self, at: float) -> list[str]:
        """The operation under way reaches the store and is answered, both at this instant."""
        if isinstance(self.under_way, messages.ReadLease):
            return self.read_as(self.lease.now, at)
        return self.confirmed(self.stored(at), at)

    def read_as(self, observed: Observed, at: float) -> list[str]:
        self._ended(messages.ReadLease)
        return self.tell(messages.LeaseRead(observed), at)

    def confirmed(self, observed: Observed | None, at: float) -> list[str]:
        """The answer to a write that was stored before, or was refused (None)."""
        self._ended(messages.WriteLease)
        if observed is None:
            return self.tell(messages.WriteConflicted(), at)
        return self.tell(messages.WriteConfirmed(observed, self.sent_at), at)

    def fails(
        self, at: float, uncertain: bool = True, retry_after: float | None = None, reason: str = "no answer"
    ) -> list[str]:
        """The operation under way comes to nothing that we know of."""
        if isinstance(self._ended(), messages.ReadLease):
            return self.tell(messages.ReadFailed(reason, retry_after), at)
        return self.tell(messages.WriteFailed(reason, uncertain, retry_after), at)

    def acks(self, at: float, number: int | None = None) -> list[str]:
        """The keeper has taken note of the last grant."""
        return self.tell(messages.GrantAcknowledged(number or self.grants[-1].number), at)

    def spawned(self, at: float) -> list[str]:
        return self.tell(messages.CommandSpawned(), at)

    def gone(self, at: float, cause: str = "stopped", number: int | None = None) -> list[str]:
        """Nothing of the command is alive, and nothing starts under the last grant."""
        last = self.grants[-1].number if self.grants else 0
        return self.tell(messages.CommandGone(last if number is None else number, cause), at)

    def told_to_stop(self, at: float) -> list[str]:
        return self.tell(messages.StopRequested(), at)

    def asked_to_hand_over(self, at: float) -> list[str]:
        return self.tell(messages.HandoverRequested(), at)

    def keeper_dies(self, at: float) -> list[str]:
        return self.tell(messages.KeeperDied(), at)

    def tree_killed(self, at: float) -> list[str]:
        return self.tell(messages.TreeKilled(), at)

    # -------------------------------------------------------------- longer passages

    def leads(self, at: float) -> Node:
        """It takes the lease at this instant, without a hitch, and its command runs."""
        assert self.starts(at) == ["read"]
        assert self.answered(at) == ["acquire"]
        assert self.answered(at) == [f"grant 1: start, term by {at + 10:g}, kill by {at + 14:g}"]
        self.acks(at)
        self.spawned(at)
        return self

    def follows(self, at: float) -> Node:
        """It finds the lease held and waits."""
        assert self.starts(at) == ["read"]
        assert self.answered(at) == []
        assert self.state == "follower"
        return self

    def renews(self, at: float) -> Node:
        assert self.wakes(at) == ["renew"]
        assert any(said.startswith("grant") for said in self.answered(at))
        self.acks(at)
        return self

    def runs(self, start: float, until: float) -> float | None:
        """All goes well and at once, from `start` on; the instant of its first grant, if one comes."""
        at = start
        count = len(self.grants)
        while True:
            while self.under_way:
                self.answered(at)
                if len(self.grants) > count:
                    self.acks(at)
                    return at
            if self.wake_at is None or self.wake_at > until:
                return None
            at = max(at, self.wake_at)
            self.wakes(at)

    # -------------------------------------------------------------- what is true

    @property
    def state(self) -> str:
        return str(self.election.state)

    @property
    def wake_at(self) -> float | None:
        return self.election.wake_at

    def reported(self, level: str) -> list[str]:
        return [report.text for report in self.reports if report.level == level]

    # --------------------------------------------------------------

    def _ended(self, kind: type | None = None) -> Action:
        assert self.under_way is not None, "nothing is under way"
        assert kind is None or isinstance(self.under_way, kind), f"{self.under_way} is under way"
        ended, self.under_way = self.under_way, None
        return ended

    def _note(self, action: Action, at: float) -> str:
        assert not self.left, f"{action} after the end"
        if isinstance(action, messages.ReadLease | messages.WriteLease):
            assert self.under_way is None, f"{action} while {self.under_way} is under way"
            self.under_way, self.sent_at = action, at
        if isinstance(action, messages.Grant):
            self.grants.append(action)
        self.left = isinstance(action, messages.Leave)
        return in_words(action)


def in_words(action: Action) -> str:
    match action:
        case messages.ReadLease():
            return "read"
        case messages.WriteLease(purpose=purpose):
            return purpose
        case messages.Grant(number=number, term_by=term_by, kill_by=kill_by, may_start=may_start):
            return f"grant {number}: {'start' if may_start else 'no start'}, term by {term_by:g}, kill by {kill_by:g}"
        case messages.StopCommand(cause=cause, grace=grace):
            return f"stop: {cause}" if grace else f"kill: {cause}"
        case messages.KillTree(start_by=start_by):
            return f"kill keeper and tree, no start after {start_by:g}"
        case messages.Leave(status=status):
            return "leave" if status is None else f"leave {status}"
    raise AssertionError(action)
