"""The asyncio shell around the core, against a lease in memory and a keeper that is a socket."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from awaitelect import clock, protocol
from awaitelect.core.election import Election
from awaitelect.core.lease import Timing
from awaitelect.elector.channel import Channel
from awaitelect.elector.guard import TreeGuard
from awaitelect.elector.loop import ElectionLoop
from awaitelect.errors import StoreUnavailable
from awaitelect.logs import Log
from awaitelect.status.journal import Journal
from tests.fakes import MemoryLease, MemoryStore

TIMING = Timing(lease_duration=30, renew_deadline=20, retry_period=0.05, kill_margin=1)
PATIENCE = 20


class Rig:
    """One elector, and the keeper's end of its socket."""

    def __init__(self, folder: Path, store: MemoryStore) -> None:
        self.keeper, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self.store = store
        self._file = open(folder / "log", "w+b")  # noqa: SIM115  # closed below
        log = Log(level="debug", fd=self._file.fileno())
        self.election = Election("me", "instance", TIMING, random.random)
        self.channel = Channel(theirs.detach())
        # A guard that knows no command; its keeper is this process, and is never asked to die here.
        guard = TreeGuard("instance", log, os.getpid())
        self.loop = ElectionLoop(self.election, store, self.channel, guard, log, Journal())

    async def hear(self, kind: type[protocol.Message]) -> protocol.Message:
        """The next message of that kind."""
        async with asyncio.timeout(PATIENCE):
            while True:
                datagram = await asyncio.get_running_loop().sock_recv(self.keeper, protocol.MAX_MESSAGE)
                message = protocol.decode(datagram)
                if isinstance(message, kind):
                    return message

    def say(self, message: protocol.Message) -> None:
        self.keeper.send(protocol.encode(message))

    def close(self) -> None:
        self.keeper.close()
        self._file.close()
        os.close(os.dup(self.channel.fileno()))
        self.channel._socket.close()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    one = Rig(tmp_path, MemoryStore(MemoryLease()))
    yield one
    one.close()


async def test_it_acquires_grants_and_renews_with_each_acknowledgement(rig: Rig) -> None:
    """Rule 1 of the protocol: a number for each grant, and no further one before the last is acknowledged."""
    running = asyncio.create_task(rig.loop.run())
    before = clock.now()
    numbers = []
    for _ in range(3):
        grant = await rig.hear(protocol.Grant)
        assert isinstance(grant, protocol.Grant)
        assert before + TIMING.renew_deadline <= grant.term_by <= clock.now() + TIMING.renew_deadline
        assert grant.kill_by == pytest.approx(grant.term_by + 9, abs=1e-6)
        assert grant.environment["AWAITELECT_LOCK"] == "memory:lease"
        numbers.append(grant.number)
        rig.say(protocol.Ack(grant.number))
    assert numbers == [1, 2, 3]
    await rig.hear(protocol.Grant)  # not acknowledged: none comes after the word that nothing starts under it
    rig.say(protocol.Shutdown(15))
    await rig.hear(protocol.Stop)
    rig.say(protocol.Gone(rig.election._grants.last_number, "shutdown", 0))
    assert await rig.hear(protocol.Leave) == protocol.Leave(None)
    assert await asyncio.wait_for(running, PATIENCE) == 0
    record = rig.store.lease.now.record
    assert record is not None and record.holder == "" and record.released_by == "instance"


async def test_an_unacknowledged_grant_is_followed_by_none(rig: Rig) -> None:
    """A keeper that was stopped must not find a queue of old ones when it goes on."""
    running = asyncio.create_task(rig.loop.run())
    first = await rig.hear(protocol.Grant)
    assert isinstance(first, protocol.Grant)
    version = rig.store.lease.version
    async with asyncio.timeout(PATIENCE):
        while rig.store.lease.version < version + 3:  # noqa: ASYNC110  # the store tells nobody
            await asyncio.sleep(0)
    with suppress(BlockingIOError):
        while datagram := rig.keeper.recv(protocol.MAX_MESSAGE):
            said = protocol.decode(datagram)
            assert isinstance(said, protocol.Alive), "how things stand may have changed, and nothing else is said"
    rig.say(protocol.Ack(first.number))
    second = await rig.hear(protocol.Grant)
    assert isinstance(second, protocol.Grant) and second.number == 2 and second.term_by > first.term_by
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_was_said_before_it_began_comes_first(rig: Rig) -> None:
    """A shutdown during the imports: nothing is written."""
    rig.say(protocol.Shutdown(15))
    rig.say(protocol.Gone(0, "shutdown", 127))
    assert await asyncio.wait_for(rig.loop.run(), PATIENCE) == 0
    assert isinstance(await rig.hear(protocol.Leave), protocol.Leave)
    assert {"create", "update"}.isdisjoint(rig.store.calls)


async def test_a_store_that_fails_in_any_way_is_asked_again(rig: Rig) -> None:
    """A bug in a store is an answer that did not come, not the end of the elector."""
    failures = [StoreUnavailable("no answer"), ValueError("a bug"), TimeoutError()]

    async def fail(verb: str) -> None:
        if failures:
            raise failures.pop(0)

    rig.store.before = fail
    running = asyncio.create_task(rig.loop.run())
    await rig.hear(protocol.Alive)
    assert isinstance(await rig.hear(protocol.Grant), protocol.Grant)
    assert failures == []
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_another_holder_stops_the_command_without_grace(rig: Rig) -> None:
    """E24, at the level of messages: the very next one says kill."""
    running = asyncio.create_task(rig.loop.run())
    grant = await rig.hear(protocol.Grant)
    assert isinstance(grant, protocol.Grant)
    rig.say(protocol.Ack(grant.number))
    rig.store.lease.put({"spec": {"holderIdentity": "other", "leaseDurationSeconds": 9}, "metadata": {}})
    stop = await rig.hear(protocol.Stop)
    assert isinstance(stop, protocol.Stop) and not stop.grace
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_keeper_that_dies_without_a_command_ends_the_elector(rig: Rig) -> None:
    """Nothing runs, nothing is held: there is nobody to be an elector for."""
    rig.store.lease.put({"spec": {"holderIdentity": "other", "leaseDurationSeconds": 9}, "metadata": {}})
    running = asyncio.create_task(rig.loop.run())
    await rig.hear(protocol.Alive)
    rig.keeper.shutdown(socket.SHUT_RDWR)
    assert await asyncio.wait_for(running, PATIENCE) == 0
