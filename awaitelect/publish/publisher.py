"""All that is published, in one: the loop tells it what it sees, and is never made to wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from awaitelect import clock, protocol
from awaitelect.core.election import Election
from awaitelect.core.machine import State
from awaitelect.publish.standing import Standing
from awaitelect.stores.kubernetes_client import Pool

if TYPE_CHECKING:
    from awaitelect.publish.events import Events
    from awaitelect.publish.pod_label import PodLabel
    from awaitelect.publish.service import ServiceRouting

CLOSING, LEAST = 1.0, 0.25
"""Seconds from the end of the command in which what was begun may end, and, however late it is, at least."""


class Part(Protocol):
    """One thing that is published."""

    def note(self, standing: Standing) -> None:
        """This is how the instance stands now. Never waits."""

    @property
    def is_settled(self) -> bool:
        """Nothing is under way."""

    async def finish(self, timeout: float) -> None:
        """Wait for what was begun, for so many seconds at most, and begin nothing more."""


class Publisher:
    """Tells the parts that there are how the instance stands."""

    def __init__(
        self, pool: Pool, routing: ServiceRouting | None, label: PodLabel | None = None, events: Events | None = None
    ) -> None:
        """`pool` is closed with it."""
        self._pool, self._routing = pool, routing
        parts: tuple[Part | None, ...] = (routing, label, events)
        self._parts = [part for part in parts if part is not None]
        self._is_ready, self._is_gone = False, True
        self._gone_at = 0.0
        self._is_resumed: bool | None = None

    def heard(self, message: protocol.Message) -> None:
        """The keeper has said this; `note` follows."""
        if isinstance(message, protocol.Ready):
            self._is_ready = message.is_ready
        elif isinstance(message, protocol.Spawned):
            self._is_ready = self._is_gone = False
        elif isinstance(message, protocol.Gone):
            self.command_gone()

    def command_gone(self) -> None:
        """Nothing of the command is alive; `note` follows."""
        if not self._is_gone:
            self._gone_at = clock.now()
        self._is_ready, self._is_gone = False, True

    def note(self, election: Election) -> None:
        """Something has happened in the election, or to the command. Never waits."""
        seen = election.view.current
        if seen is None:
            return
        if self._is_resumed is None:
            self._is_resumed = election.view.is_ours
        if election.state == State.CANDIDATE:
            return  # it will be one or the other in a moment
        term = election.term
        standing = Standing(
            leads=election.state == State.LEADER,
            token=term.token if term else 0,
            is_ready=self._is_ready,
            is_gone=self._is_gone,
            is_resumed=self._is_resumed,
            renewed_at=term.sent_at if term else 0.0,
            lease=seen.raw,
        )
        for part in self._parts:
            part.note(standing)

    async def drained(self) -> bool:
        """Wait until no traffic is sent to the command any more, or that cannot be had. False: it serves again."""
        return self._routing is None or await self._routing.drained()

    @property
    def is_settled(self) -> bool:
        """Nothing is under way."""
        return all(part.is_settled for part in self._parts)

    async def close(self) -> None:
        """Wait until what was begun has ended, for a second from the command's end at most."""
        timeout = max(LEAST, min(CLOSING, self._gone_at + CLOSING - clock.now()))
        await asyncio.gather(*(part.finish(timeout) for part in self._parts))
        await self._pool.close()
