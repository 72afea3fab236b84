"""A lease in memory that passes the same contract tests as the real stores, with places to put faults in."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from awaitelect.core.lease import ABSENT, Observed, Record
from awaitelect.errors import Conflict, StoreUnavailable
from awaitelect.stores.wire import merge_record, parse_record

Hook = Callable[[str], Awaitable[None]]


class MemoryLease:
    """What is stored. Several MemoryStores share one, as instances share a lease."""

    def __init__(self) -> None:
        self.version = 0
        self.now: Observed = ABSENT
        self._watchers: set[asyncio.Queue[Observed]] = set()

    def put(self, lease: dict[str, Any]) -> Observed:
        """Store the object whatever there was, as an operator could."""
        self.version += 1
        self.now = Observed(self.version, parse_record(lease), copy.deepcopy(lease))
        self._tell(self.now)
        return self.now

    def delete(self) -> None:
        self.version += 1
        self.now = ABSENT
        self._tell(Observed(self.version))

    def watched(self) -> asyncio.Queue[Observed]:
        queue: asyncio.Queue[Observed] = asyncio.Queue()
        self._watchers.add(queue)
        return queue

    def unwatched(self, queue: asyncio.Queue[Observed]) -> None:
        self._watchers.discard(queue)

    def _tell(self, seen: Observed) -> None:
        for queue in self._watchers:
            queue.put_nowait(seen)


class MemoryStore:
    """One instance's way to the lease.

    `before` and `after` are awaited around each call with its verb (`read`, `create`, `update`). One that raises or
    waits beyond the time-out is a request that never arrived (`before`) or an answer that was lost (`after`: the write
    is stored). `mute` holds back what a watch would tell.
    """

    def __init__(self, lease: MemoryLease, before: Hook | None = None, after: Hook | None = None) -> None:
        self.lease = lease
        self.before = before
        self.after = after
        self.mute = False
        self.calls: list[str] = []

    @property
    def lock(self) -> str:
        return "memory:lease"

    async def read(self, timeout: float) -> Observed:
        return await self._call("read", timeout, lambda: self.lease.now)

    async def create(self, record: Record, timeout: float) -> Observed:
        return await self._call("create", timeout, lambda: self._create(record))

    async def update(self, base: Observed, record: Record, timeout: float) -> Observed:
        return await self._call("update", timeout, lambda: self._update(base, record))

    async def watch(self, since: Observed) -> AsyncIterator[Observed]:
        queue = self.lease.watched()
        try:
            known = since
            if (self.lease.now.version or known.record) and self.lease.now != known:
                known = self.lease.now
                yield known
            while True:
                seen = await queue.get()
                if seen.version > known.version and not self.mute:
                    known = seen
                    yield seen
        finally:
            self.lease.unwatched(queue)

    async def close(self) -> None:
        """Nothing is held."""

    async def _call(self, verb: str, timeout: float, act: Callable[[], Observed]) -> Observed:
        self.calls.append(verb)
        try:
            async with asyncio.timeout(timeout):
                if self.before is not None:
                    await self.before(verb)
                answer = act()
                if self.after is not None:
                    await self.after(verb)
                return answer
        except TimeoutError as error:
            raise StoreUnavailable(f"cannot {verb} {self.lock}: no answer in {timeout:g} s") from error

    def _create(self, record: Record) -> Observed:
        if self.lease.now.record is not None:
            raise Conflict(f"cannot create {self.lock}: it exists")
        return self.lease.put(merge_record({}, record))

    def _update(self, base: Observed, record: Record) -> Observed:
        if base.record is None or self.lease.now.version != base.version:
            raise Conflict(f"cannot update {self.lock}: it has changed")
        return self.lease.put(merge_record(base.raw, record))
