"""Bringing about what is wished for: one attempt at a time, the newest wish only, again after a failure.

A failure is told once for each cause, and costs nobody anything but the thing that was wished for.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from awaitelect.errors import StoreError, StoreUnavailable
from awaitelect.logs import Log
from awaitelect.publish.requests import Missing, NotAllowed

W = TypeVar("W")

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0
"""Seconds between two attempts: the first pause, doubled with each failure up to the longest."""


class Complaints:
    """Says what is wrong, once for each cause; what trying again does not help, once for all time."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._told: set[str] = set()
        self._told_for_good: set[str] = set()

    def tell(self, error: Exception, consequence: str) -> None:
        """A warning, unless it was said before."""
        text = " ".join(str(error).split()) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
        told = self._told_for_good if isinstance(error, (NotAllowed, Missing)) else self._told
        level = "debug" if text in told else "warning"
        told.add(text)
        self._log.write(level, f"{text}; {consequence}" if consequence else text)

    def settle(self, what: str) -> None:
        """It has worked, whatever was wrong before."""
        if self._told:
            self._told.clear()
            self._log.info(f"{what} again")


async def end(task: asyncio.Future[None]) -> None:
    """Cancel it, and wait until it has given back what it holds."""
    task.cancel()
    await asyncio.wait([task])


class Pursuit(Generic[W]):
    """The pursuit of one wish after the other."""

    def __init__(
        self,
        what: str,
        attempt: Callable[[W], Awaitable[None]],
        complaints: Complaints,
        *,
        cancels: bool,
        persists: bool,
    ) -> None:
        """`what` completes "… again" and "no …". `cancels`: a new wish ends an attempt that is under way; else it waits
        for its end. `persists`: it tries again, at times, even what is not allowed.
        """
        self._what, self._attempt, self._complaints = what, attempt, complaints
        self._cancels, self._persists = cancels, persists
        self.wish: W | None = None
        """The newest."""
        self._tried: asyncio.Future[bool] | None = None
        self._settled: asyncio.Future[None] | None = None
        """Done when the present wish has come true, or is not allowed to."""
        self._task: asyncio.Task[None] | None = None
        self._attempting: asyncio.Future[None] | None = None

    def want(self, wish: W) -> None:
        """Bring this about from now on, and nothing that was wished for before. Never waits."""
        loop = asyncio.get_running_loop()
        if self._task is not None:
            self._task.cancel()
        if self._tried is not None and not self._tried.done():
            self._tried.set_result(False)
        self.wish = wish
        self._tried = loop.create_future()
        self._settled = loop.create_future()
        self._task = loop.create_task(self._pursue(wish, self._tried, self._settled))

    async def tried(self) -> bool:
        """Wait until the first attempt at the present wish has ended, well or not; False: another wish came first."""
        return True if self._tried is None else await asyncio.shield(self._tried)

    @property
    def is_settled(self) -> bool:
        """Nothing is under way."""
        return self._task is None or self._task.done()

    async def finish(self, timeout: float) -> None:
        """Wait for the present wish, for so many seconds at most and only while there is hope; then end the pursuit."""
        if self._task is not None and not self._task.done():
            if self._settled is not None:
                await asyncio.wait([self._settled], timeout=timeout)
            await end(self._task)
        if self._attempting is not None:
            await end(self._attempting)

    async def _pursue(self, wish: W, tried: asyncio.Future[bool], settled: asyncio.Future[None]) -> None:
        before = self._attempting
        if before is not None and not before.done():
            if self._cancels:
                before.cancel()
            await asyncio.wait([before])
        failures = 0
        while True:
            self._attempting = asyncio.ensure_future(self._attempt(wish))
            # Not cancelled with us: whoever comes next decides whether it may end in the middle.
            self._attempting.add_done_callback(lambda done: done.cancelled() or done.exception())
            try:
                await asyncio.shield(self._attempting)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                failures += 1
                is_hopeless = isinstance(error, (NotAllowed, Missing))
                last = is_hopeless and not self._persists
                self._complaints.tell(error, "" if last else f"no {self._what} until that has changed")
                if not tried.done():
                    tried.set_result(True)
                if is_hopeless and not settled.done():
                    settled.set_result(None)
                if last:
                    return
                await asyncio.sleep(self._pause(failures, error))
            else:
                self._complaints.settle(self._what)
                if not tried.done():
                    tried.set_result(True)
                if not settled.done():
                    settled.set_result(None)
                return

    @staticmethod
    def _pause(failures: int, error: Exception) -> float:
        hopeless = isinstance(error, (NotAllowed, Missing))
        pause = LONGEST_PAUSE if hopeless else min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 16))
        asked = error.retry_after if isinstance(error, StoreUnavailable) else None
        return max(pause * random.uniform(0.8, 1.2), min(asked or 0.0, LONGEST_PAUSE))
