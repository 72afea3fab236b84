"""What has happened, as status and metrics tell it: the loop writes it down, a snapshot is made of it.

Nothing here is fast or slow enough to matter, and nothing of it decides anything.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence

from awaitelect import protocol
from awaitelect.core import messages
from awaitelect.core.election import Election
from awaitelect.core.lease import LONGEST_NAME, named
from awaitelect.core.machine import TABLE, State
from awaitelect.status.snapshot import Counts, Histogram, Snapshot, Transition

REMEMBERED = 20
"""So many changes of state are told."""
REQUESTS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds in seconds for what a store takes to answer."""
STEPS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds in seconds for what takes as long as the command wants."""
_LONGEST = 300
"""Characters of a failure that stand in a line."""
_RESULTS: dict[type, str] = {
    messages.WriteConfirmed: "success",
    messages.WriteConflicted: "conflict",
    messages.WriteFailed: "error",
}
_CAUSES = [
    event for event, source, destination, *_ in TABLE if (source, destination) == (State.LEADER, State.STEPPING_DOWN)
]


class Journal:
    """One elector's, from its start."""

    def __init__(self, hello: protocol.Hello | None = None, *, wall: Callable[[], float] = time.time) -> None:
        """`hello`: what the keeper had to say of the electors before. `wall` tells the time of day, in seconds."""
        self._wall = wall
        self._restarts, self._electors = (hello.restarts, hello.electors) if hello else (0, 0)
        self._has_inherited = hello is not None and hello.number > 0
        """An elector before us has granted: the command may have been started under our first term already."""
        self._pid = 0
        self._phase = ""
        self._is_ready = False
        self._has_seen_lease = False
        self._trouble = ""
        self._transitions: deque[Transition] = deque(maxlen=REMEMBERED)
        self._write = ""
        self._written_at = 0.0
        self._token = 0
        self._started: int | None = None
        """The token of the term under which the command was last seen to start."""
        self._down_at: float | None = None
        self._terms = self._slow = 0
        # From 0 on: what appears only with its first event has no rate.
        self._ends: Counter[str] = Counter(dict.fromkeys(_CAUSES, 0))
        self._renewals: Counter[str] = Counter(dict.fromkeys(_RESULTS.values(), 0))
        self._durations = _Buckets(REQUESTS)
        self._starts = _Buckets(STEPS)
        self._step_downs = _Buckets(STEPS)

    # ------------------------------------------------------------------ writing

    def note(
        self,
        event: messages.Event,
        before: str,
        actions: Sequence[messages.Action],
        election: Election,
        now: float,
    ) -> None:
        """The election, which was in state `before`, has handled `event` at the instant `now`, and asks for this."""
        self._note_answer(event, now)
        if election.state != before:
            self._note_change(before, election, now)
        if election.term and election.term.token != self._token:
            self._token, self._terms = election.term.token, self._terms + 1
            if self._has_inherited:
                self._has_inherited, self._started = False, self._token
        for action in actions:
            if isinstance(action, messages.WriteLease):
                self._write, self._written_at = action.purpose, now
            elif isinstance(action, messages.ReadLease) and election.term:
                self._slow += 1
        if isinstance(event, messages.CommandSpawned) and election.term and self._started != self._token:
            self._started = self._token
            self._starts.add(now - election.term.sent_at)

    def _note_answer(self, event: messages.Event, now: float) -> None:
        if isinstance(event, (messages.ReadFailed, messages.WriteFailed)):
            self._trouble = event.reason[:_LONGEST]
        elif isinstance(event, (messages.LeaseRead, messages.WriteConfirmed)):
            self._trouble, self._has_seen_lease = "", True
        result = _RESULTS.get(type(event))
        if result and self._write == "renew":
            self._renewals[result] += 1
            if result == "success":
                self._durations.add(now - self._written_at)
        if result and self._write == "release" and result == "success" and self._down_at is not None:
            self._step_downs.add(now - self._down_at)
            self._down_at = None

    def _note_change(self, before: str, election: Election, now: float) -> None:
        is_over = before == State.LEADER
        if is_over:
            self._ends[election.cause] += 1
            self._down_at = now
        elif election.state == State.LEADER:
            self._down_at = None
        cause = election.cause if is_over else ""
        self._transitions.append(Transition(self._wall(), before, election.state, cause))

    def heard(self, message: protocol.Message) -> None:
        """The keeper has said this."""
        if isinstance(message, protocol.Spawned):
            self._pid, self._is_ready = message.pid, False
            self._restarts = max(self._restarts, message.restarts)
        elif isinstance(message, protocol.Gone):
            self._pid, self._is_ready, self._phase = 0, False, ""
        elif isinstance(message, protocol.Ready):
            self._is_ready = message.is_ready
        elif isinstance(message, protocol.Ack) and message.phase:
            self._phase = message.phase
            if message.phase in ("backoff", "held"):
                self._pid = 0

    def keeper_died(self) -> None:
        """What it has said of the command counts no more."""
        self._is_ready = False

    # ------------------------------------------------------------------ reading

    def alive(self, election: Election) -> protocol.Alive:
        """How things stand, for the keeper and whoever has started it."""
        if not self._has_seen_lease:
            return protocol.Alive("", f"waiting for the lease: {self._trouble}" if self._trouble else "")
        record = election.view.record
        holder = record.holder if record else ""
        if election.state == State.LEADER and election.term:
            said = f"leading, fencing token {election.term.token}"
        elif election.state == State.STEPPING_DOWN:
            said = f"stepping down ({election.cause.replace('_', ' ')})"
        elif election.state == State.TERMINATED:
            said = "ending"
        elif holder and not election.view.is_ours:
            said = f"following {named(holder)}"
        else:
            said = "contending for the lease"
        return protocol.Alive(election.state, f"{said}; {self._trouble}" if self._trouble else said)

    def snapshot(self, election: Election, lock: str, name: str) -> Snapshot:
        """How things stand."""
        record, timing, term = election.view.record, election.timing, election.term
        free_at = election.view.free_at
        return Snapshot(
            state=election.state,
            lock=lock,
            identity=election.identity,
            holder=record.holder[:LONGEST_NAME] if record else "",
            lease_duration=timing.lease_duration,
            renewed_at=term.sent_at if term else None,
            is_ready=self._is_ready,
            name=name,
            has_seen_lease=self._has_seen_lease,
            term_by=term.sent_at + timing.renew_deadline if term else None,
            kill_by=term.sent_at + timing.lease_duration - timing.kill_margin if term else None,
            free_at=None if term or free_at < 0 else free_at,
            token=term.token if term else None,
            lease_transitions=record.transitions if record else None,
            pid=self._pid,
            phase=self._phase,
            restarts=self._restarts,
            electors=self._electors,
            counts=self._counts(),
            transitions=tuple(self._transitions),
        )

    def _counts(self) -> Counts:
        return Counts(
            terms=self._terms,
            ends=dict(self._ends),
            renewals=dict(self._renewals),
            slow_renewals=self._slow,
            renewal=self._durations.frozen(),
            start=self._starts.frozen(),
            step_down=self._step_downs.frozen(),
        )


class _Buckets:
    """A histogram that grows."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._total += seconds

    def frozen(self) -> Histogram:
        return Histogram(self._bounds, tuple(self._counts), self._total)
