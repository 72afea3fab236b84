"""The asyncio shell around the core: carries out its actions, feeds back what comes of them, re-arms one alarm.

At most one read or write is under way. Adapters never call the core: they return, and this feeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from awaitelect import clock, protocol
from awaitelect.core import messages
from awaitelect.core.election import Election
from awaitelect.core.lease import Observed, stamp
from awaitelect.elector.channel import Channel
from awaitelect.elector.guard import TreeGuard
from awaitelect.errors import EXIT_INTERNAL, Conflict, StoreUnavailable
from awaitelect.logs import Log
from awaitelect.status.journal import Journal
from awaitelect.status.snapshot import Snapshot
from awaitelect.stores import LeaseStore

if TYPE_CHECKING:
    from awaitelect.publish.publisher import Publisher

SLACK = 0.5
"""Seconds over its time-out after which a store that has not answered is taken for one that never will."""

_EVENTS: dict[type, Callable[[Any], messages.Event]] = {
    protocol.Ack: lambda said: messages.GrantAcknowledged(said.number),
    protocol.Gone: lambda said: messages.CommandGone(said.number, said.cause),
    protocol.Spawned: lambda said: messages.CommandSpawned(),
    protocol.Shutdown: lambda said: messages.StopRequested(),
}


class ElectionLoop:
    """One election, from the start to the end of this elector."""

    def __init__(
        self,
        election: Election,
        store: LeaseStore,
        channel: Channel,
        guard: TreeGuard,
        log: Log,
        journal: Journal,
        name: str = "",
        publisher: Publisher | None = None,
    ) -> None:
        """`name`: the election's, for people."""
        self._election, self._store, self._channel, self._guard, self._log = election, store, channel, guard, log
        self._journal, self._name, self._publisher = journal, name, publisher
        self._told = protocol.Alive()
        """How things stood when the keeper was last told."""
        self._alarm = clock.Alarm()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = False
        self._is_alone = False  # the keeper is no more
        self._left: asyncio.Future[int] | None = None

    async def run(self) -> int:
        """Take part until it is over. Returns our own exit status."""
        loop = asyncio.get_running_loop()
        self._left = loop.create_future()
        loop.add_reader(self._channel, self._hear)
        loop.add_reader(self._alarm, self._ring)
        self._hear()  # what came while we were imported counts before anything is contended for
        self._feed(messages.Started())
        return await self._left

    def snapshot(self) -> Snapshot:
        """How things stand."""
        return self._journal.snapshot(self._election, self._store.lock, self._name)

    # ------------------------------------------------------------------ events in

    def _feed(self, event: messages.Event) -> None:
        now, before = clock.now(), self._election.state
        actions = self._election.handle(event, now)
        for action in actions:
            self._perform(action)
        self._alarm.set(self._election.wake_at)
        self._journal.note(event, before, actions, self._election, now)
        if self._publisher:
            self._publisher.note(self._election)
        self._tell()

    def _tell(self) -> None:
        """Tell the keeper how things stand, where that has changed."""
        alive = self._journal.alive(self._election)
        if alive != self._told and self._channel.send(alive):
            self._told = alive

    def _ring(self) -> None:
        self._alarm.clear()
        self._hear()
        self._feed(messages.Woke())

    def _hear(self) -> None:
        while not self._is_alone:
            try:
                heard = self._channel.receive()
            except EOFError:
                self._is_alone = True
                self._journal.keeper_died()
                asyncio.get_running_loop().remove_reader(self._channel)
                self._feed(messages.KeeperDied())
                return
            if heard is None:
                return
            message, fds = heard
            self._journal.heard(message)
            if self._publisher:
                self._publish(self._publisher, message)
            if isinstance(message, protocol.Spawned) and fds:
                self._guard.know_command(fds[0])
            event = _EVENTS.get(type(message))
            if event:
                self._feed(event(message))

    def _publish(self, publisher: Publisher, message: protocol.Message) -> None:
        publisher.heard(message)
        if isinstance(message, protocol.Ready):  # no event of the election follows
            publisher.note(self._election)
            if not message.is_ready:
                self._begin(self._drain(publisher))

    async def _drain(self, publisher: Publisher) -> None:
        if await publisher.drained():
            self._channel.send(protocol.Drained())

    # ------------------------------------------------------------------ actions out

    def _perform(self, action: messages.Action) -> None:
        match action:
            case messages.ReadLease():
                self._begin(self._read(action.timeout))
            case messages.WriteLease():
                self._begin(self._write(action))
            case messages.Grant():
                self._channel.send(self._grant(action))
            case messages.StopCommand():
                self._channel.send(protocol.Stop(action.cause, action.grace))
            case messages.KillTree():
                self._begin(self._kill_tree(action.start_by))
            case messages.Report():
                self._log.write(action.level, action.text)
            case messages.Leave():
                if self._publisher:
                    self._begin(self._close_and_leave(self._publisher, action))
                else:
                    self._leave(action)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, timeout: float) -> None:
        event: messages.Event
        try:
            async with asyncio.timeout(timeout + SLACK):
                observed = await self._store.read(timeout)
            event = messages.LeaseRead(observed)
        except Exception as error:
            failure = self._failure(error)
            event = messages.ReadFailed(str(failure), failure.retry_after)
        self._channel.send(protocol.Alive())
        self._feed(event)
        if isinstance(event, messages.LeaseRead):
            self._watch(event.observed)

    async def _write(self, action: messages.WriteLease) -> None:
        event: messages.Event
        base = action.base
        record = stamp(action.record, base.record, datetime.now(UTC))
        sent_at = clock.now()
        try:
            async with asyncio.timeout(action.timeout + SLACK):
                if base.record is None:
                    stored = await self._store.create(record, action.timeout)
                else:
                    stored = await self._store.update(base, record, action.timeout)
            event = messages.WriteConfirmed(stored, sent_at)
        except Conflict:
            event = messages.WriteConflicted()
        except Exception as error:
            failure = self._failure(error)
            event = messages.WriteFailed(str(failure), failure.uncertain, failure.retry_after)
            self._channel.send(protocol.Alive())
        self._feed(event)

    def _failure(self, error: Exception) -> StoreUnavailable:
        """Whatever went wrong, as something that the core knows: it needs an answer to each of its requests."""
        if isinstance(error, StoreUnavailable):
            return error
        if isinstance(error, TimeoutError):
            return StoreUnavailable("no answer in time")
        self._log.error(f"unexpected {type(error).__name__} from {self._store.lock}: {error}")
        return StoreUnavailable(f"unexpected {type(error).__name__}")

    def _watch(self, since: Observed) -> None:
        if not self._watching:
            self._watching = True
            self._begin(self._follow(since))

    async def _follow(self, since: Observed) -> None:
        try:
            async for observed in self._store.watch(since):
                self._feed(messages.LeaseObserved(observed))
        except Exception as error:
            self._failure(error)
        self._watching = False  # the next read begins it anew

    async def _kill_tree(self, start_by: float) -> None:
        end_by = clock.now() + self._election.timing.lease_duration
        try:
            if await self._guard.kill_tree(start_by, end_by):
                if self._publisher:
                    self._publisher.command_gone()
                self._feed(messages.TreeKilled())
                return
        except OSError as error:
            self._log.error(f"cannot find what the keeper left behind: {error}; the lease is left to run out")
        if self._left and not self._left.done():
            self._left.set_result(EXIT_INTERNAL)

    def _grant(self, action: messages.Grant) -> protocol.Grant:
        return protocol.Grant(
            action.number,
            action.term_by,
            action.kill_by,
            action.may_start,
            action.token,
            {
                "AWAITELECT_FENCING_TOKEN": str(action.token),
                "AWAITELECT_LEASE_TRANSITIONS": str(action.transitions),
                "AWAITELECT_LOCK": self._store.lock,
            },
        )

    async def _close_and_leave(self, publisher: Publisher, action: messages.Leave) -> None:
        """The keeper ends us as soon as it is told: what is being published comes first, within its bound."""
        try:
            await publisher.close()
        finally:
            self._leave(action)

    def _leave(self, action: messages.Leave) -> None:
        self._channel.send(protocol.Leave(action.status, action.reason))
        if self._left and not self._left.done():
            self._left.set_result(0)
