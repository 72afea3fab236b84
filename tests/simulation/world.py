"""Virtual time, one source of chance, the history, and who runs: what all models share."""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NoReturn

REMEMBERED = 160
"""How many lines of its history a failure tells."""


class Violation(AssertionError):
    """A promise was broken. The text tells the seed, the promise, what went before, and how to see it again."""

    def __init__(self, seed: int, what: str, history: list[str], repeat: str) -> None:
        super().__init__("\n".join([*history, f"seed {seed}: {what}", f"again: {repeat}"]))
        self.seed = seed
        self.what = what


class World:
    """One schedule: a queue of what happens when, in seconds of true time from 0 on."""

    def __init__(self, seed: int, repeat: str) -> None:
        """`repeat`: the command that runs this schedule again."""
        self.seed = seed
        self.repeat = repeat
        self.now = 0.0
        self.chance = random.Random(seed)
        self.random = self.chance.random
        self.events = 0
        self.starts = 0
        self.struck: Counter[str] = Counter()
        """How often each kind of fault has happened."""
        self.is_calm = False
        """Nothing goes wrong from now on: no fault, no crash, nothing lost or late."""
        self.storms = 0
        """How many there were: what one of them has held up does not arrive in the calm after it."""
        self.running: dict[object, str] = {}
        """What runs as the leader at this instant, and under which instance."""
        self.highest_token = (0, "")
        """The highest fencing token that a command was started with, and whose that was."""
        self._queue: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._count = 0
        self._history: deque[tuple[float, str, str, tuple[Any, ...]]] = deque(maxlen=REMEMBERED)

    def at(self, when: float, do: Callable[..., Any], *args: Any) -> None:
        """Let `do` happen at an instant of true time."""
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, do, args))

    def after(self, seconds: float, do: Callable[..., Any], *args: Any) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now + seconds, self._count, do, args))

    def run(self, until: float, is_enough: Callable[[], bool] | None = None) -> bool:
        """Let happen what is due before `until`. True: it has stopped early, since it `is_enough`."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= until:
            self.now, _, do, args = pop(queue)
            self.events += 1
            do(*args)
            if is_enough is not None and is_enough():
                return True
        self.now = max(self.now, until)
        return False

    def note(self, who: str, text: str, *args: Any) -> None:
        """Remember for the history of a failure; `text` is filled in only then."""
        self._history.append((self.now, who, text, args))

    def strike(self, fault: str, who: str, text: str = "", *args: Any) -> None:
        """A fault happens: count it, and remember it."""
        self.struck[fault] += 1
        self._history.append((self.now, who, f"** {fault} {text}", args))

    def violation(self, what: str) -> NoReturn:
        history = [f"{at:10.4f} {who:13} {text % args if args else text}" for at, who, text, args in self._history]
        raise Violation(self.seed, f"at {self.now:.4f}: {what}", history, self.repeat)

    def likely(self, share: float) -> bool:
        return self.random() < share

    def between(self, least: float, most: float) -> float:
        return least + (most - least) * self.random()

    # ------------------------------------------------------------------ who runs

    def runs(self, what: object, owner: str) -> None:
        """Something of a command runs from now on: nothing of another instance may be running anywhere."""
        for other in self.running.values():
            if other != owner:
                self.violation(f"two commands: that of {owner} runs while that of {other} runs")
        self.running[what] = owner

    def rests(self, what: object) -> None:
        self.running.pop(what, None)

    def check_alone(self, owner: str, why: str) -> None:
        """Whatever allows `owner` to start, no other instance's command may be alive at this instant."""
        for other in self.running.values():
            if other != owner:
                self.violation(f"lived on: the command of {other} runs at the instant at which {owner} {why}")

    def check_token(self, token: int, owner: str) -> None:
        """Fencing tokens grow: whoever starts later has the higher one."""
        highest, of = self.highest_token
        if token < highest or (token == highest and owner != of):
            self.violation(f"fencing token: {owner} starts with {token}, after {of} with {highest}")
        self.highest_token = token, owner
