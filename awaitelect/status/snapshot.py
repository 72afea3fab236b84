"""How things stand, as one frozen record: what status and metrics are made from."""

from __future__ import annotations

from awaitelect.values import Value

TOLERANCE = 2.0
"""Seconds over the lease duration after which a leader that has not renewed is unhealthy, as in k8s-await-election."""


class Transition(Value):
    """One change of state."""

    at: float
    """Wall-clock time, in seconds since 1970: for people, never compared with anything."""
    before: str
    after: str
    cause: str = ""
    """Why a term ended, where one did."""


class Histogram(Value):
    """How often something took how long."""

    bounds: tuple[float, ...]
    """The upper bounds of the buckets, in seconds, ascending."""
    counts: tuple[int, ...]
    """How many fell into each bucket alone; one more for those above all bounds."""
    total: float = 0.0
    """The sum of all, in seconds."""


class Counts(Value):
    """What has happened since this elector began."""

    terms: int = 0
    """How often the lease was acquired; once more by each elector that finds its keeper leading."""
    ends: dict[str, int] = {}
    """The terms that have ended, by cause: an event of the state machine."""
    renewals: dict[str, int] = {}
    """Attempts to renew, by result: success, conflict, error."""
    slow_renewals: int = 0
    """Reads of a lease that we held: its record was not what we believed, or had to be made sure of."""
    renewal: Histogram | None = None
    """From sending a renewal to its confirmation."""
    start: Histogram | None = None
    """From sending the write that acquired the lease to the command's running."""
    step_down: Histogram | None = None
    """From the decision to step down to the command's being gone and the lease released."""


class Snapshot(Value):
    state: str
    lock: str
    identity: str
    holder: str
    lease_duration: float
    """In seconds."""
    renewed_at: float | None
    """The instant just before the last confirmed renewal was sent; None where we hold nothing."""
    is_ready: bool = False
    """The command runs here and is ready for its users."""
    name: str = ""
    """The election's name."""
    has_seen_lease: bool = True
    """The store has answered: we know who leads."""
    term_by: float | None = None
    """The instant at which the command is stopped, unless the lease is renewed; None where we hold nothing."""
    kill_by: float | None = None
    """The instant at which everything of the command is dead, unless the lease is renewed; None likewise."""
    free_at: float | None = None
    """The instant from which on the lease may be taken as far as is known; None where we hold it or it is free."""
    token: int | None = None
    """The fencing token; None where we hold nothing."""
    lease_transitions: int | None = None
    """How often the lease has changed hands, as it says itself; None where there is none."""
    pid: int = 0
    """Of the command's main process; 0 where none runs."""
    phase: str = ""
    """What the keeper does about the command, as it last said."""
    restarts: int = 0
    """How often the keeper has started the command again."""
    electors: int = 0
    """How many electors this keeper has had before this one."""
    counts: Counts = Counts()
    transitions: tuple[Transition, ...] = ()
    """The last changes of state, the oldest first."""

    def is_expired(self, now: float) -> bool:
        """We believe to lead, and the last renewal is older than the lease."""
        return self.renewed_at is not None and now > self.renewed_at + self.lease_duration + TOLERANCE
