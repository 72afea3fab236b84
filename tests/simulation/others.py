"""Who else touches the lease: somebody with kubectl, and a client of another make."""

from __future__ import annotations

from typing import Any

from awaitelect.core.lease import Observed, Record
from awaitelect.values import changed
from tests.simulation.machines import Node
from tests.simulation.network import Request
from tests.simulation.store import Store
from tests.simulation.world import World


class Operator:
    """Somebody with kubectl, who has not read the manual."""

    def __init__(self, world: World, store: Store) -> None:
        self.world = world
        self.store = store

    def act(self) -> None:
        record, store, world = self.store.record, self.store, self.world
        if record is None or not store.may_be_wiped:
            return
        what = world.random()
        if what < 0.35:
            if store.may_be_deleted:
                world.strike("lease deleted", "operator")
                store.force(None, "operator")
        elif what < 0.75:
            world.strike("lease emptied by hand", "operator")
            store.force(changed(record, holder=""), "operator")
        else:
            world.strike("lease given to a stranger", "operator")
            store.force(changed(record, holder="stranger"), "operator")
            world.after(world.between(0.1, 25), self._restore, record)

    def _restore(self, before: Record) -> None:
        record = self.store.record
        if record is not None and record.holder == "stranger" and record.instance == before.instance:
            self.store.force(changed(record, holder=before.holder), "operator")


class GoClient:
    """A candidate by client-go's rules: it polls, counts from the reply, and signs no release."""

    def __init__(self, world: World, store: Store, node: Node, *, runs: bool, releases_late: bool) -> None:
        self.world = world
        self.store = store
        self.node = node
        self.runs = runs
        """Whether it counts as running what we run: its own rules are not enough against operators."""
        self.releases_late = releases_late
        self.is_leading = False
        self.has_led = False
        self.is_over = False
        self._observed: tuple[Any, ...] | None = None
        self._observed_at = 0.0
        self._leads_until = 0.0

    def begin(self) -> None:
        self._tick()

    def end(self) -> None:
        """Take part no more."""
        self._stop()
        self.is_over = True

    def _tick(self) -> None:
        if self.is_over:
            return
        world = self.world
        world.after(2.0 * (1 + 0.2 * world.random()), self._tick)
        if self.is_leading and self.store.may_be_wiped and world.likely(0.06):
            self._stop()
            self._wipe()
            return
        if not self.is_leading and self.has_led and self.releases_late and world.likely(0.06):
            self._wipe()
        Request(world, self.store, self.node, lambda: self.store.current, self._on_read, self._on_failure).send()

    def _on_read(self, observed: Observed) -> None:
        if self.is_over:
            return
        record, now = observed.record, self.node.now()
        if record is not None:
            times = [at.replace(microsecond=0) if at else None for at in (record.acquire_time, record.renew_time)]
            seen = (record.holder, record.duration, record.transitions, *times)
            if seen != self._observed:
                self._observed, self._observed_at = seen, now
            ours = record.holder == "go"
            if record.holder and not ours and now < self._observed_at + record.duration:
                self._stop()
                return
            if self.is_leading and not ours:
                self._stop()
                return
        else:
            record, ours = Record(), False
        self._write(observed, record, ours)

    def _write(self, observed: Observed, record: Record, ours: bool) -> None:
        wall = self.node.wall()
        written = changed(
            record,
            holder="go",
            duration=15,
            transitions=record.transitions + (0 if ours else 1),
            renew_time=wall,
            acquire_time=record.acquire_time if ours else wall,
        )
        world, store = self.world, self.store
        sent = world.now

        def serve() -> Observed | None:
            if world.now > sent + 1 or self.is_over:
                return None
            is_unchanged = store.record is None if observed.record is None else store.current == observed
            if store.is_conditional and not is_unchanged:
                return None
            return store.force(written, "go")

        def answer(result: Observed | None) -> None:
            if result is not None and world.now < sent + 2 and not self.is_over:
                self._lead()

        Request(world, store, self.node, serve, answer, self._on_failure).send()

    def _on_failure(self, reason: str, uncertain: bool, retry_after: float | None) -> None:
        pass

    def _lead(self) -> None:
        self._leads_until = self.node.now() + 10
        self.world.at(self.node.true(self._leads_until), self._expire)
        if not self.is_leading:
            self.is_leading = self.has_led = True
            self.world.note("go", "leads")
            if self.runs:
                self.world.runs(self, "go")

    def _expire(self) -> None:
        if self.node.now() >= self._leads_until - 0.001:
            self._stop()

    def _stop(self) -> None:
        if self.is_leading:
            self.is_leading = False
            self.world.note("go", "leads no more")
            self.world.rests(self)

    def _wipe(self) -> None:
        """Its release: what is there is emptied; a late one hits another holder."""
        record = self.store.record
        if record is not None and self.store.may_be_wiped and (record.holder == "go" or self.releases_late):
            self.world.strike("release of another client", "go")
            wall = self.node.wall()
            self.store.force(changed(record, holder="", duration=1, renew_time=wall, acquire_time=wall), "go")
