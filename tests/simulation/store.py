"""The lease store, the network before it, operators, and a client of another make."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from awaitelect.core.lease import ABSENT, Observed, Record
from awaitelect.values import changed
from tests.simulation.world import Node, World

if TYPE_CHECKING:
    from tests.simulation.processes import Elector

MISLEADING = 18.0
"""Seconds after a deletion in which one who never saw the lease would create it beside a holder that is cut off."""


class Store:
    """One lease: versions that only grow, conditional writes, linearizable reads, watches not to be trusted."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.current = ABSENT
        self.electors: list[Elector] = []
        self.is_conditional = True
        self.deleted_at = -1000.0
        self.foreign_since = -1000.0
        """Since when a holder that signs nothing is there."""
        self.stranger_until = -1000.0
        """When an operator last put things right: who has seen the stranger only believes a wipe after that too."""
        self._version = 100
        self._earlier: list[Observed] = []

    @property
    def record(self) -> Record | None:
        return self.current.record

    @property
    def is_misleading(self) -> bool:
        return self.record is None and self.world.now < self.deleted_at + MISLEADING

    @property
    def may_be_wiped(self) -> bool:
        """Releases of other clients are believed; whom one has pushed aside may run for as long as its lease."""
        record = self.record
        if record is None or not record.holder:
            return False
        if self.world.now < self.stranger_until + MISLEADING:
            return False
        return bool(record.holder_instance) or self.world.now > self.foreign_since + MISLEADING

    def write(self, base: Observed, record: Record, writer: str, instance: str) -> Observed | None:
        """Store the record if the lease is as in `base`; None: a conflict."""
        if self.is_conditional:
            if base.record is None:
                if self.record is not None:
                    return None
            elif self.record is None or self.current.version != base.version:
                return None
        if not record.holder and instance in self.world.running.values():
            self.world.violation(f"released too early: {writer} empties the lease while the command of {instance} runs")
        return self.force(record, writer)

    def force(self, record: Record | None, writer: str) -> Observed:
        before = self.record.holder if self.record else ""
        if record and record.holder and not record.holder_instance and record.holder != before:
            self.foreign_since = self.world.now
        if before == "stranger":
            self.stranger_until = self.world.now
        self._version += self.world.chance.randint(1, 3)
        self.current = Observed(self._version, record)
        if record is None:
            self.deleted_at = self.world.now
            told = self.current if self.world.likely(0.5) else ABSENT
            self.current = ABSENT
            self.world.note("store", "%s deletes the lease", writer)
        else:
            told = self.current
            self.world.note(
                "store",
                "v%d by %s: holder=%r duration=%d instance=%s released_by=%s",
                self._version,
                writer,
                record.holder,
                record.duration,
                record.instance,
                record.released_by,
            )
        for elector in self.electors:
            if elector.is_alive:
                self._tell(elector, told)
        self._earlier.append(told)
        return self.current

    def _tell(self, elector: Elector, observed: Observed) -> None:
        world, node = self.world, elector.node
        fate = world.chance.random()
        delay = 0.001 + 0.02 * world.chance.random()
        if node.is_reliable:
            pass
        elif world.now < node.cut_until:
            if fate < 0.5:
                return
            delay += node.cut_until - world.now
        elif fate < 0.02:
            return
        elif fate < 0.04 or world.now < node.slow_until:
            delay = world.between(0.1, 5)
        elif fate < 0.06:
            world.after(delay + world.between(0, 3), elector.deliver, elector.on_watch, observed)
        elif fate < 0.08 and self._earlier:
            stale = world.chance.choice(self._earlier[-5:])
            world.after(delay + world.between(0, 1), elector.deliver, elector.on_watch, stale)
        world.after(delay, elector.deliver, elector.on_watch, observed)


def request(
    world: World,
    node: Node,
    serve: Callable[[], Any],
    answer: Callable[[Any], None],
    fail: Callable[[str, bool, float | None], None],
) -> None:
    """Send a request through the network of `node`; perhaps its answer arrives.

    `fail` gets a reason, whether it may have been stored all the same, and for how long the server asks to wait.
    """
    chance = world.chance.random
    delay = 0.001 + 0.008 * chance()
    if world.now < node.cut_until:
        if chance() < 0.75 or node.cut_until - world.now > 10:
            return
        delay += node.cut_until - world.now
    elif world.now < node.slow_until:
        delay = world.between(0, 0.3) if chance() < 0.6 else world.between(0.2, 6)
    trouble = 12 if world.now < node.trouble_until else 1
    fate = 1.0 if node.is_reliable else chance() / trouble
    if fate < 0.006:
        world.note(node.name, "request lost")
        return
    if fate < 0.012:
        world.note(node.name, "request will be late")
        delay += world.between(0.5, 8)
    is_throttled = 0.012 <= fate < 0.018
    is_broken = 0.018 <= fate < 0.024
    is_reply_lost = 0.024 <= fate < 0.03
    stored_anyway = is_broken and chance() < 0.5

    def arrive() -> None:
        back = 0.001 + 0.008 * chance()
        if world.now < node.slow_until:
            back = world.between(0.0, 5)
        if is_throttled:
            world.after(back, fail, "429", False, world.between(0.2, 8))
        elif is_broken:
            if stored_anyway:
                serve()
            world.after(back, fail, "500", True, None)
        else:
            result = serve()
            if world.now < node.cut_until or is_reply_lost:
                world.note(node.name, "reply lost")
            else:
                world.after(back, answer, result)

    world.after(delay, arrive)


class Operator:
    """Somebody with kubectl."""

    def __init__(self, world: World, store: Store) -> None:
        self.world = world
        self.store = store

    def act(self) -> None:
        record = self.store.record
        if record is None or not self.store.may_be_wiped:
            return
        what = self.world.chance.random()
        if what < 0.35:
            # One that has not seen the lease yet would create it at once, and one that has only seen it with a shorter
            # duration would wait for less: nobody could know better.
            electors = [elector for elector in self.store.electors if elector.is_alive]
            # Nor can one who was frozen tell a second deletion from the first: creating is conditional on no version.
            has_settled = self.world.now > self.store.deleted_at + 2 * MISLEADING
            if has_settled and all(elector.seen_duration >= record.duration for elector in electors):
                self.store.force(None, "operator")
        elif what < 0.75:
            self.store.force(changed(record, holder=""), "operator")
        else:
            self.store.force(changed(record, holder="stranger"), "operator")
            self.world.after(self.world.between(0.1, 25), self._restore, record)

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
        self._version = 0

    def begin(self) -> None:
        self._tick()

    def end(self) -> None:
        """Take part no more."""
        self._stop()
        self.is_over = True

    def _tick(self) -> None:
        if self.is_over:
            return
        self.world.after(2.0 * (1 + 0.2 * self.world.chance.random()), self._tick)
        if self.is_leading and self.store.may_be_wiped and self.world.likely(0.06):
            self._stop()
            self._wipe()
            return
        if not self.is_leading and self.has_led and self.releases_late and self.world.likely(0.06):
            self._wipe()
        request(self.world, self.node, lambda: self.store.current, self._on_read, self._on_failure)

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
        wall = self.node.wall()
        written = changed(
            record,
            holder="go",
            duration=15,
            transitions=record.transitions + (0 if ours else 1),
            renew_time=wall,
            acquire_time=record.acquire_time if ours else wall,
        )
        sent = self.world.now

        def serve() -> Observed | None:
            if self.world.now > sent + 1 or self.is_over:
                return None
            return self.store.write(observed, written, "go", "go")

        def answer(result: Observed | None) -> None:
            if result is not None and self.world.now < sent + 2 and not self.is_over:
                self._lead()

        request(self.world, self.node, serve, answer, self._on_failure)

    def _on_failure(self, reason: str, uncertain: bool, retry_after: float | None) -> None:
        pass

    def _lead(self) -> None:
        self._leads_until = self.node.now() + 10
        self.world.at(self.node.true(self._leads_until), self._expire)
        if not self.is_leading:
            self.is_leading = self.has_led = True
            self.world.note("go", "leads")
            if self.runs:
                self.world.started(self, "go")

    def _expire(self) -> None:
        if self.node.now() >= self._leads_until - 0.001:
            self._stop()

    def _stop(self) -> None:
        if self.is_leading:
            self.is_leading = False
            self.world.note("go", "leads no more")
            self.world.ended(self)

    def _wipe(self) -> None:
        """Its release: what is there is emptied; a late one hits another holder."""
        record = self.store.record
        if record is not None and self.store.may_be_wiped and (record.holder == "go" or self.releases_late):
            wall = self.node.wall()
            self.store.force(changed(record, holder="", duration=1, renew_time=wall, acquire_time=wall), "go")
