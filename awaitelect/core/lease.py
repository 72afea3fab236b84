"""The record of a lease, the durations around it, and what an onlooker may conclude from what it saw.

Pure: no I/O, no clock. Instants are seconds of this machine's own clock and come in as arguments; the times inside a
record are another machine's and are never compared with it.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from awaitelect.values import Value, changed


class Record(Value):
    """What a lease says. The first five are Kubernetes' LeaseSpec, the last three annotations of awaitelect."""

    holder: str = ""
    """holderIdentity; empty: nobody."""
    duration: int = 0
    """leaseDurationSeconds, in whole seconds; 0: not said."""
    acquire_time: datetime | None = None
    """acquireTime, with time zone. Wall clock of the holder: for people to read."""
    renew_time: datetime | None = None
    """renewTime, with time zone. Wall clock of the holder: it tells that something changed, never when."""
    transitions: int = 0
    """leaseTransitions: how often the holder changed since the object was created."""
    instance: str = ""
    """awaitelect.io/instance: the run of the keeper that wrote last; other clients leave it as it was."""
    instance_holder: str = ""
    """awaitelect.io/holder: the identity that `instance` wrote for; where it is not the holder, `instance` is stale."""
    released_by: str = ""
    """awaitelect.io/released-by: the instance that emptied the holder, as its signature."""

    @property
    def holder_instance(self) -> str:
        """The run of awaitelect that holds the lease; empty when nobody or another client does."""
        return self.instance if self.holder and self.instance_holder == self.holder else ""


class Observed(Value):
    """A lease as the store had it at one moment. `record` is None where there is no lease."""

    _unseen = frozenset({"raw"})

    version: int = 0
    """The store's version: it grows with every write, over a deletion too. 0: not known (an absent lease)."""
    record: Record | None = None
    raw: Any = None
    """The store's own object, so that an update keeps what others have put into it."""
    uid: str = ""
    """Which object it is, where the store tells: one that is made after a deletion has another."""


ABSENT = Observed()

MOST_TRANSITIONS = 2**31 - 1
"""What leaseTransitions can hold."""
LONGEST_NAME = 253
"""Characters of an identity at most; other clients may have longer ones."""


class Timing(Value):
    """The durations of an election, in seconds. Names and defaults are client-go's."""

    lease_duration: float = 15.0
    """How long the others wait after a renewal before they take the lease."""
    renew_deadline: float = 10.0
    """How long after the last confirmed renewal the command is asked to stop."""
    retry_period: float = 2.0
    """From one renewal to the next."""
    kill_margin: float = 1.0
    """How long before the end of the lease everything is dead."""

    @property
    def wire_duration(self) -> int:
        """leaseDurationSeconds as written: whole seconds, rounded up for the others to wait."""
        return math.ceil(self.lease_duration)

    @property
    def request_timeout(self) -> float:
        """How long a request may take at most, so that two fit between a renewal that is due and the renew deadline."""
        return min(5.0, (self.renew_deadline - self.retry_period) / 2)

    @property
    def twin_watch(self) -> float:
        """How long a lease of our own identity, written by another run, is watched before it is taken over."""
        return 1.2 * self.retry_period + 0.5

    def problems(self) -> list[str]:
        """Why these durations cannot be used, with the arithmetic; empty when they can."""
        found = [
            f"{name} must be more than 0s, is {_seconds(value)}"
            for name, value in (
                ("lease_duration", self.lease_duration),
                ("renew_deadline", self.renew_deadline),
                ("retry_period", self.retry_period),
            )
            if not value > 0
        ]
        if not self.kill_margin >= 0:
            found.append(f"kill_margin must not be negative, is {_seconds(self.kill_margin)}")
        if found:
            return found
        if not 1.2 * self.retry_period < self.renew_deadline:
            found.append(
                f"1.2 × retry_period must be less than renew_deadline: 1.2 × {_seconds(self.retry_period)} = "
                f"{_seconds(1.2 * self.retry_period)} is not less than {_seconds(self.renew_deadline)}"
            )
        if not self.renew_deadline < self.lease_duration - self.kill_margin:
            found.append(
                f"renew_deadline must be less than lease_duration − kill_margin: {_seconds(self.renew_deadline)} is "
                f"not less than {_seconds(self.lease_duration)} − {_seconds(self.kill_margin)} = "
                f"{_seconds(self.lease_duration - self.kill_margin)}"
            )
        return found


def named(holder: str) -> str:
    """A holder as people are shown it: in quotes and, whatever somebody has written there, short."""
    return repr(holder if len(holder) <= LONGEST_NAME else holder[: LONGEST_NAME - 1] + "…")


def _seconds(value: float) -> str:
    return f"{value:.6g}s"


def stamp(record: Record, base: Record | None, wall: datetime) -> Record:
    """The record with its times set for writing at `wall`.

    The renew time moves on by at least one whole second: client-go compares records with times cut to seconds, and two
    that look alike are no renewal to it. The acquire time is kept while the term goes on.
    """
    renewed = wall
    before = base.renew_time if base and base.holder == record.holder else None
    # Another run of ours may have left it a little ahead. What is far ahead somebody has made up: it looks different
    # anyway, and following it would end where dates do.
    if before and _same_second(before, wall) and before - wall < _AHEAD:
        renewed = before + timedelta(seconds=1)
    acquired = record.acquire_time or renewed
    return changed(record, acquire_time=acquired, renew_time=renewed)


_AHEAD = timedelta(days=1)


def _same_second(earlier: datetime, later: datetime) -> bool:
    return later.replace(microsecond=0) <= earlier.replace(microsecond=0)
