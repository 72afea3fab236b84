"""What an onlooker has seen of the lease, and from when on it may try to take it.

Pure. Only here is decided whether a lease is free; every instant is this machine's own, of when a change was received.
"""

from __future__ import annotations

import math

from awaitelect.core.lease import Observed, Record, Timing

NEVER = -math.inf


class View:
    """One instance's knowledge of one lease."""

    def __init__(self, identity: str, instance: str, timing: Timing) -> None:
        self._identity = identity
        self._instance = instance
        self._timing = timing
        self._highest = 0
        self._gone_back = False
        self._held: Record | None = None  # the last record that named a holder
        self._held_until = NEVER
        self._out_of_sight = False
        self._twin: str | None = None  # the run that has renewed in our name
        self._has_existed = False  # others may have held the lease, seen by us or not
        self.current: Observed | None = None
        """The newest that was seen; None before anything was."""
        self.free_at = NEVER
        """The instant from which on a conditional write is allowed."""
        self.has_twin = False
        """Another run of us, with our identity, is alive and renews the lease."""

    @property
    def record(self) -> Record | None:
        return self.current.record if self.current else None

    @property
    def is_ours(self) -> bool:
        """The lease names this very instance as its holder."""
        return self.record is not None and self.record.holder_instance == self._instance and self._named_us(self.record)

    @property
    def is_held_by_another(self) -> bool:
        """The lease names a holder that is not this instance."""
        return self.record is not None and bool(self.record.holder) and not self.is_ours

    def observe(self, observed: Observed, now: float, *, asked: bool = False) -> bool:
        """Take note of the lease as received at `now`; True if that is news.

        What is older than what is known already is passed over, unless it is what the store answers when asked
        (`asked`) for the second time: then the store itself has gone back.
        """
        if observed.version and observed.version < self._highest:
            if not (asked and self._gone_back):
                self._gone_back = asked
                return False
        self._gone_back = False
        self._highest = observed.version or self._highest
        # A write that comes late may make a deleted lease again as it once was: that is no record that has not changed.
        is_news = self.current is None or (observed.record, observed.uid) != (self.record, self.current.uid)
        if asked:
            # One that is missing may have been there in the meantime. What else it was, its version would tell.
            is_news = is_news or (observed.record is None and self._out_of_sight)
            self._out_of_sight = False
        earlier, self.current = self.record, observed
        if is_news:
            self._conclude(observed.record, earlier, now)
        return is_news

    def lose_sight(self, *, is_there: bool = False) -> None:
        """Until the store answers again, somebody may hold the lease, and lose it by a deletion, without our seeing it.
        `is_there`: somebody else has written it.
        """
        self._out_of_sight = True
        self._has_existed = self._has_existed or is_there

    def _conclude(self, record: Record | None, earlier: Record | None, now: float) -> None:
        self._has_existed = self._has_existed or record is not None
        if record is None:
            # Whoever held it may not know yet that it was deleted, and goes on for as long as it believes to hold it.
            # Counted from now: it may have been renewed, or taken, without our seeing it.
            self.free_at = now + self._longest(self._held or earlier or Record()) if self._has_existed else NEVER
        elif not record.holder:
            self.free_at = self._free_after_release(record, now)
        else:
            self.has_twin = self._is_twin(record)
            self._twin = record.holder_instance if self.has_twin else self._twin
            self.free_at = self._held_until = self._expiry(record, now)
            if self._named_us(record) and record.holder_instance != self._instance:
                self._held_until = now + self._duration(record)  # wiped by hand, it may live on as any other would
            self._held = record

    def _expiry(self, record: Record, now: float) -> float:
        if self._named_us(record):
            if record.holder_instance == self._instance:
                # Ours at once; but if it is an old write of ours that was late, whoever was seen since then counts on.
                return self.free_at
            if not self.has_twin:
                return now + self._timing.twin_watch
        return now + self._duration(record)

    def _is_twin(self, record: Record) -> bool:
        """It is held in our name by another run, and that run has written it before our eyes, now or before."""
        if not self._named_us(record) or record.holder_instance == self._instance:
            return False
        known = (record.holder, record.holder_instance)
        is_renewed = self._held is not None and known == (self._held.holder, self._held.holder_instance)
        return is_renewed or record.holder_instance == self._twin

    def _free_after_release(self, record: Record, now: float) -> float:
        """From when on an empty lease is free: at once if its holder wrote it so, else when the holder's time is over.

        awaitelect signs its releases and is believed only then; of other clients, any release is believed.
        """
        signed = record.released_by
        if self._held is None:
            if not record.instance or signed == record.instance:
                return now
            return now + self._longest(record)
        holder = self._held.holder_instance
        if holder and signed == holder:
            return now
        is_seen = (record.instance, record.transitions) == (self._held.instance, self._held.transitions)
        if not is_seen and not signed:
            # A run of awaitelect may have taken it in between, never seen, and somebody else has wiped it.
            return now + self._longest(record)
        if not holder and record.instance == self._held.instance:
            return now
        if record.renew_time == self._held.renew_time:
            return self._held_until
        # It has been renewed since we saw it, and its holder may be cut off since; or its wiper has set the time.
        return now + max(self._longest(record), self._held.duration)

    def _duration(self, record: Record) -> float:
        return record.duration if record.duration > 0 else self._timing.lease_duration

    def _longest(self, record: Record) -> float:
        """For how long whoever holds it may go on, as far as can be known."""
        return max(record.duration, self._timing.lease_duration)

    def _named_us(self, record: Record) -> bool:
        return record.holder == self._identity
