"""What goes into the core (events, past tense) and what comes out of it (actions, imperative).

Every ReadLease is answered by exactly one LeaseRead or ReadFailed, every WriteLease by exactly one WriteConfirmed,
WriteConflicted or WriteFailed, within its time-out; there is at most one of the two under way. LeaseObserved comes
whenever the watch has something.
"""

from __future__ import annotations

from awaitelect.core.lease import Observed, Record
from awaitelect.values import Value


class Event(Value):
    """Something that happened."""


class Started(Event):
    """The elector is up."""


class Woke(Event):
    """The instant `wake_at` has come."""


class LeaseRead(Event):
    """A read that was asked for has been answered."""

    observed: Observed


class ReadFailed(Event):
    """A read that was asked for has come to nothing."""

    reason: str
    retry_after: float | None = None


class LeaseObserved(Event):
    """The watch told of a change. It may be late, and it may be missing."""

    observed: Observed


class WriteConfirmed(Event):
    """The write under way is stored."""

    observed: Observed
    sent_at: float
    """The instant just before it was sent."""


class WriteConflicted(Event):
    """The write under way was refused: the lease is not what it was conditional on."""


class WriteFailed(Event):
    """The write under way has come to nothing that we know of."""

    reason: str
    uncertain: bool = True
    """It may have been stored all the same."""
    retry_after: float | None = None


class GrantAcknowledged(Event):
    """The keeper has taken note of this grant."""

    number: int


class CommandSpawned(Event):
    """The command runs."""


class CommandGone(Event):
    """Nothing of the command is alive, and nothing is started under any grant up to this number."""

    number: int
    cause: str
    """finished, gave_up, deadline, stopped, shutdown."""


class TreeKilled(Event):
    """All that the command left behind a dead or silent keeper has been killed and seen to end."""


class KeeperDied(Event):
    """The keeper is no more."""


class StopRequested(Event):
    """This instance was told to end."""


class HandoverRequested(Event):
    """This instance was asked to let another one lead."""


class Action(Value):
    """Something to do, in the order given."""


class ReadLease(Action):
    timeout: float
    """In seconds."""


class WriteLease(Action):
    """Write the record, conditional on `base`; create the lease where that has no record.

    The times in the record are filled in by whoever has a wall clock.
    """

    purpose: str
    """acquire, renew, release."""
    base: Observed
    record: Record
    timeout: float


class Grant(Action):
    """Tell the keeper that the command may run until these dates."""

    number: int
    term_by: float
    kill_by: float
    may_start: bool
    token: int
    transitions: int


class StopCommand(Action):
    """Tell the keeper to stop the command, and to say when it is gone."""

    cause: str
    grace: bool


class KillTree(Action):
    """Act for a dead or silent keeper: kill it, then all that carries our mark. TreeKilled follows.

    `start_by` is the instant after which the keeper starts nothing any more, no hook either: for where it cannot be
    killed.
    """

    start_by: float


class Leave(Action):
    """Nothing is held and nothing will be: end. `status` None: with the command's. `reason`: why, where it is ours."""

    status: int | None
    reason: str = ""


class Report(Action):
    """Tell people. `level` is debug, info, warning or error."""

    level: str
    text: str
