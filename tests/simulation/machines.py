"""The machines with their clocks, and what processes have in common: they can be late, frozen and dead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from awaitelect.core.lease import Timing
from tests.simulation.world import World

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
DRIFT = 0.01
"""By so much a clock may be fast or slow."""
BUSY = 120
"""How often a process may be woken within one second before it counts as a busy loop; a freeze's backlog is extra."""
FULL = 12
"""So many messages wait for a frozen process; what comes after them is lost."""


class Node:
    """A machine: a clock with its own rate, and a place in the network."""

    def __init__(self, world: World, name: str, identity: str, timing: Timing, drift: float = DRIFT) -> None:
        self.world = world
        self.name = name
        self.identity = identity
        self.timing = timing
        self.rate = 1 + world.between(-drift, drift)
        self.offset = world.between(10, 100_000)
        self.skew = world.between(-40, 40)
        """How far the wall clock is off, in seconds; it may jump."""
        self.is_pid1 = world.likely(0.5)
        self.has_eyes = world.likely(0.6)
        """A shim waits beside the keeper; else somebody has killed it."""
        self.is_busy = world.likely(0.4)
        """Its processes are often late to hear of each other."""
        self.cut_until = 0.0
        """Until then no packet passes."""
        self.slow_until = 0.0
        self.trouble_until = 0.0
        self.broken_until = 0.0
        """Until then its configuration is broken."""
        self.disturbed_until = 0.0
        """The end of the last fault that has struck it, but for what befalls single requests."""
        self.slept = 0.0
        """Seconds that it was suspended for: CLOCK_MONOTONIC has not counted them."""
        self.is_asleep = False
        self.is_reliable = False
        """No packet to or from here is lost or late."""
        self.runs = 0

    def now(self) -> float:
        """What CLOCK_BOOTTIME shows here."""
        return self.offset + self.rate * self.world.now

    def true(self, local: float) -> float:
        """The true time at which this machine's clock shows `local`."""
        return (local - self.offset) / self.rate

    def wall(self) -> datetime:
        return EPOCH + timedelta(seconds=self.world.now + self.skew)

    def disturb(self, seconds: float) -> None:
        self.disturbed_until = max(self.disturbed_until, self.world.now + seconds)

    def heal(self) -> None:
        """The network is as it should be from now on."""
        self.cut_until = self.slow_until = self.trouble_until = self.broken_until = 0.0


class Process:
    """Something that handles events one by one, unless it is frozen or dead."""

    def __init__(self, world: World, node: Node, name: str) -> None:
        self.world = world
        self.node = node
        self.name = name
        self.is_alive = True
        self.is_frozen = False
        self.wakes = 0
        self._frozen_until = 0.0
        self._backlog: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._armed: float | None = None
        self._arming = 0
        self._second = -1
        self._allowed = 0

    def deliver(self, do: Callable[..., Any], *args: Any) -> None:
        """Let the process handle something, as soon as it can."""
        if not self.is_alive:
            return
        if self.is_frozen:
            self._backlog.append((do, args))
        else:
            self._handle(do, args)

    @property
    def is_full(self) -> bool:
        """It reads nothing, and its socket holds no more."""
        return self._frozen_until > 0 and len(self._backlog) > FULL

    def freeze(self, seconds: float) -> None:
        """Let it do nothing for so long; overlapping freezes end with the last."""
        self.world.note(self.name, "frozen for %.2fs", seconds)
        self.is_frozen = True
        until = self.world.now + seconds
        if until > self._frozen_until:
            self._frozen_until = until
            self.world.at(until, self._thaw, until)

    def thaw(self) -> None:
        """Go on: mostly a date that has passed comes first; else it was frozen behind its look at the clock."""
        if not self.is_alive or not self.is_frozen:
            return
        self.world.note(self.name, "goes on")
        self.is_frozen = False
        self._frozen_until = 0.0
        self._allowed += len(self._backlog)
        is_due = self._armed is not None and self.node.now() >= self._armed
        wakes_first = is_due and self.world.likely(0.7)
        if wakes_first:
            self._ring(self._arming)
        while self._backlog and self.is_alive and not self.is_frozen:
            do, args = self._backlog.popleft()
            self._handle(do, args)
        if is_due and not wakes_first and self._armed is not None and not self.is_frozen:
            self._ring(self._arming)

    def _thaw(self, until: float) -> None:
        if until >= self._frozen_until > 0:
            self.thaw()

    def arm(self, at: float | None) -> None:
        """Wake at this instant of the own clock, and not at the one that was asked for before."""
        if at == self._armed:
            return
        self._armed = at
        self._arming += 1
        if at is not None:
            when = max(self.node.true(at), self.world.now) + 0.00001 + 0.002 * self.world.random()
            self.world.at(when, self._ring, self._arming)

    def on_wake(self) -> None:
        raise NotImplementedError

    def _ring(self, arming: int) -> None:
        if arming == self._arming and self.is_alive and not self.is_frozen and self._armed is not None:
            self._armed = None
            self._arming += 1
            self._handle(self.on_wake, ())

    def _handle(self, do: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.wakes += 1
        second = int(self.world.now)
        if second != self._second:
            self._second, self._allowed = second, BUSY + len(self._backlog)
        self._allowed -= 1
        if self._allowed < 0:
            self.world.violation(f"busy loop: {self.name} was woken {BUSY} times within a second")
        do(*args)
