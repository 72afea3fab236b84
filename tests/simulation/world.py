"""Virtual time, the machines in it with their clocks, and what can be frozen there."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from awaitelect.core.lease import Timing

EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
BUSY = 250
"""How often a process may be woken within one second before it counts as a busy loop."""


class Violation(AssertionError):
    """A promise was broken. The text tells the seed, the promise and what went before."""

    def __init__(self, seed: int, what: str, history: list[str]) -> None:
        super().__init__("\n".join([*history, f"seed {seed}: {what}"]))
        self.seed = seed
        self.what = what


class World:
    """One schedule: a queue of what happens when, one source of chance, the history, and who runs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.chance = random.Random(seed)
        self.events = 0
        self.starts = 0
        self.running: dict[object, str] = {}
        """What runs as the leader at this instant, and under which instance."""
        self._queue: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._count = 0
        self._history: deque[tuple[float, str, str, tuple[Any, ...]]] = deque(maxlen=90)

    def at(self, when: float, do: Callable[..., Any], *args: Any) -> None:
        """Let `do` happen at an instant of true time."""
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, do, args))

    def after(self, seconds: float, do: Callable[..., Any], *args: Any) -> None:
        self.at(self.now + seconds, do, *args)

    def run(self, until: float) -> None:
        queue = self._queue
        while queue and queue[0][0] <= until:
            self.now, _, do, args = heapq.heappop(queue)
            self.events += 1
            do(*args)
        self.now = until

    def note(self, who: str, text: str, *args: Any) -> None:
        """Remember for the history of a failure; `text` is filled in only then."""
        self._history.append((self.now, who, text, args))

    def violation(self, what: str) -> NoReturn:
        history = [f"{at:10.4f} {who:12} {text % args if args else text}" for at, who, text, args in self._history]
        raise Violation(self.seed, f"at {self.now:.4f}: {what}", history)

    def likely(self, share: float) -> bool:
        return self.chance.random() < share

    def between(self, least: float, most: float) -> float:
        return least + (most - least) * self.chance.random()

    def started(self, what: object, owner: str) -> None:
        """A command begins to run: nothing else may be running anywhere."""
        for other in self.running.values():
            self.violation(f"two commands: {owner} starts while that of {other} runs")
        self.running[what] = owner
        self.starts += 1

    def ended(self, what: object) -> None:
        self.running.pop(what, None)


class Node:
    """A machine: a clock with its own rate and offset, and a place in the network."""

    def __init__(self, world: World, name: str, identity: str, timing: Timing) -> None:
        self.world = world
        self.name = name
        self.identity = identity
        self.timing = timing
        self.rate = 1 + world.between(-0.01, 0.01)
        self.offset = world.between(10, 100_000)
        self.skew = world.between(-40, 40)
        self.is_pid1 = world.likely(0.5)
        self.replaces_hung_electors = world.likely(0.5)
        self.is_busy = world.likely(0.5)
        """Its processes are often late to hear of each other."""
        self.cut_until = 0.0
        """Until then no packet passes."""
        self.slow_until = 0.0
        self.trouble_until = 0.0
        self.is_reliable = False
        """No packet to or from here is lost or late."""
        self.runs = 0

    def now(self) -> float:
        """What this machine's clock shows."""
        return self.offset + self.rate * self.world.now

    def true(self, local: float) -> float:
        """The true time at which this machine's clock shows `local`."""
        return (local - self.offset) / self.rate

    def wall(self) -> datetime:
        return EPOCH + timedelta(seconds=self.world.now + self.skew)


class Process:
    """Something that handles events one by one, unless it is frozen or dead."""

    def __init__(self, world: World, node: Node, name: str) -> None:
        self.world = world
        self.node = node
        self.name = name
        self.is_alive = True
        self.is_frozen = False
        self._backlog: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._armed: float | None = None
        self._arming = 0
        self._second = -1
        self._handled = 0

    def deliver(self, do: Callable[..., Any], *args: Any) -> None:
        """Let the process handle something, as soon as it can."""
        if not self.is_alive:
            return
        if self.is_frozen:
            self._backlog.append((do, args))
        else:
            self._handle(do, args)

    def freeze(self, seconds: float) -> None:
        self.world.note(self.name, "frozen for %.2fs", seconds)
        self.is_frozen = True
        self.world.after(seconds, self.thaw)

    def thaw(self) -> None:
        """Go on: a date that has passed comes first, then what has piled up."""
        if not self.is_alive or not self.is_frozen:
            return
        self.world.note(self.name, "goes on")
        self.is_frozen = False
        if self._armed is not None and self.node.now() >= self._armed:
            self._arming += 1
            self._armed = None
            self._handle(self.on_wake, ())
        while self._backlog and self.is_alive and not self.is_frozen:
            do, args = self._backlog.popleft()
            self._handle(do, args)

    def arm(self, at: float | None) -> None:
        """Wake at this instant of the own clock, and not at the one that was asked for before."""
        if at == self._armed:
            return
        self._armed = at
        self._arming += 1
        if at is not None:
            when = max(self.node.true(at), self.world.now) + 0.00001 + 0.002 * self.world.chance.random()
            self.world.at(when, self._ring, self._arming)

    def on_wake(self) -> None:
        raise NotImplementedError

    def _ring(self, arming: int) -> None:
        if arming == self._arming and self.is_alive and not self.is_frozen:
            self._armed = None
            self._handle(self.on_wake, ())

    def _handle(self, do: Callable[..., Any], args: tuple[Any, ...]) -> None:
        second = int(self.world.now)
        if second != self._second:
            self._second, self._handled = second, 0
        self._handled += 1
        if self._handled > BUSY:
            self.world.violation(f"busy loop: {self.name} was woken {BUSY} times within a second")
        do(*args)
