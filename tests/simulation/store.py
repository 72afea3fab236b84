"""The lease store: one lease, and watches that are not to be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from awaitelect.core.lease import ABSENT, Observed, Record
from awaitelect.core.messages import WriteLease
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.elector import Elector
    from tests.simulation.keeper import Keeper

SLOWEST = 1.03
"""By so much a duration may take longer on the slowest clock than on the fastest."""


class Store:
    """Versions that only grow, conditional writes, linearizable reads."""

    def __init__(self, world: World, longest: float) -> None:
        """`longest`: of all lease durations, in seconds."""
        self.world = world
        self.current = ABSENT
        self.electors: list[Elector] = []
        self.is_conditional = True
        self.frozen_until = 0.0
        """Until then nothing is answered; what has come by then is served then."""
        self.refusing_until = 0.0
        """Until then every request is refused."""
        self.stale_until = 0.0
        """Until then watches tell of what has long passed."""
        self.silent_until = 0.0
        """Until then watches tell nothing."""
        self.flaw = 0.0
        """How likely each of the things is that befall single requests."""
        self.disturbed_until = 0.0
        self.misleading = longest * SLOWEST + 1
        """Seconds after a deletion in which one who never saw the lease would create it beside a holder that is cut
        off: nobody could know better, so none begins then."""
        self.deleted_at = -1000.0
        self.foreign_since = -1000.0
        """Since when a holder that signs nothing is there."""
        self.stranger_until = -1000.0
        """When an operator last put things right: who has seen the stranger only believes a wipe after that too."""
        self.writes = 0
        self._version = 100
        self._objects = 0
        self._earlier: list[Observed] = []

    @property
    def record(self) -> Record | None:
        return self.current.record

    @property
    def is_misleading(self) -> bool:
        return self.record is None and self.world.now < self.deleted_at + self.misleading

    @property
    def may_be_wiped(self) -> bool:
        """Releases of other clients are believed; whom one has pushed aside may run for as long as its lease."""
        record = self.record
        if record is None or not record.holder or self.world.is_calm:
            return False
        if self.world.now < self.stranger_until + self.misleading:
            return False
        return bool(record.holder_instance) or self.world.now > self.foreign_since + self.misleading

    @property
    def may_be_deleted(self) -> bool:
        """Whoever has not seen the lease yet would create it at once, one who has only seen it with a shorter duration
        would wait for less, and one who does not know of its holder may have waited already for an earlier one, or take
        this deletion for an earlier one: nobody could know better.
        """
        record = self.record
        if record is None or not self.may_be_wiped or self.world.now < self.deleted_at + 2 * self.misleading:
            return False
        return all(
            (elector.seen.holder, elector.seen.instance) == (record.holder, record.instance)
            and elector.seen.duration >= record.duration
            for elector in self.electors
        )

    def disturb(self, seconds: float) -> None:
        self.disturbed_until = max(self.disturbed_until, self.world.now + seconds)

    def heal(self) -> None:
        self.frozen_until = self.refusing_until = self.stale_until = self.silent_until = 0.0

    # ------------------------------------------------------------------ writes

    def write(
        self, write: WriteLease, record: Record, writer: str, keeper: Keeper, is_awaited: bool
    ) -> Observed | None:
        """Store the record if the lease is as in the base of the write; None: a conflict. `is_awaited`: its writer has
        not given it up.
        """
        base, before = write.base, self.record
        if self.is_conditional:
            if base.record is None:
                if before is not None:
                    return None
            elif before is None or self.current.version != base.version:
                return None
        self._check(write, record, keeper, is_awaited)
        return self.force(record, f"{writer} ({write.purpose})")

    def _check(self, write: WriteLease, record: Record, keeper: Keeper, is_awaited: bool) -> None:
        world, before, instance = self.world, self.record, keeper.instance
        if write.purpose == "release":
            if not keeper.tree.is_empty:
                world.violation(f"released too early: {instance} empties the lease while its command is alive")
            if before is None or before.holder_instance != instance:
                world.violation(f"released another's: {instance} empties the lease of {before and before.holder!r}")
        elif write.purpose == "acquire" and is_awaited:
            world.check_alone(instance, "has acquired the lease")
        if write.purpose != "release" and record.duration < keeper.node.timing.lease_duration:
            world.violation(f"on the wire: {instance} tells the others to wait for {record.duration}s only")
        self._check_wire(write, record)

    def _check_wire(self, write: WriteLease, record: Record) -> None:
        """What client-go and people rely on in a record."""
        world, before = self.world, self.record
        if before is None or before != write.base.record:
            return
        is_kept = before.holder == record.holder
        grows = int(write.purpose == "acquire" and not is_kept)
        if record.transitions != before.transitions + grows:
            world.violation(f"on the wire: transitions {before.transitions} → {record.transitions} by {write.purpose}")
        if is_kept and before.instance == record.instance and record.acquire_time != before.acquire_time:
            world.violation("on the wire: a renewal has changed the acquire time")
        if is_kept and before.renew_time and record.renew_time:
            if record.renew_time.replace(microsecond=0) <= before.renew_time.replace(microsecond=0):
                world.violation("on the wire: a renewal has not moved the renew time on by a second")

    def force(self, record: Record | None, writer: str) -> Observed:
        """Store the record, whatever is there; None: delete the lease."""
        world = self.world
        before = self.record.holder if self.record else ""
        if record and record.holder and not record.holder_instance and record.holder != before:
            self.foreign_since = world.now
        if before == "stranger":
            self.stranger_until = world.now
        self.writes += 1
        self._version += 1 + int(3 * world.random())
        self._objects += self.record is None
        self.current = Observed(self._version, record, uid=str(self._objects) if record else "")
        if record is None:
            self.deleted_at = world.now
            told = self.current if world.likely(0.5) else ABSENT
            self.current = ABSENT
            world.note("store", "%s deletes the lease", writer)
        else:
            told = self.current
            world.note(
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
            if elector.is_watching:
                self._tell(elector, told)
        self._earlier.append(told)
        return self.current

    # ------------------------------------------------------------------ watches

    def _tell(self, elector: Elector, observed: Observed) -> None:
        world, node = self.world, elector.node
        chance = world.random
        delay = 0.001 + 0.02 * chance()
        if node.is_reliable or (world.is_calm and world.now >= node.cut_until):
            pass
        elif world.now < self.silent_until:
            return
        elif world.now < node.cut_until:
            if chance() < 0.5:
                elector.is_watching = chance() < 0.7  # the stream is cut for good: the next read opens another
                return
            delay += node.cut_until - world.now
        elif world.now < self.stale_until and self._earlier:
            observed = world.chance.choice(self._earlier[-5:])
        else:
            fate = chance()
            if fate < 0.02:
                return
            if fate < 0.04 or world.now < node.slow_until:
                delay = world.between(0.1, 5)
            elif fate < 0.06:
                world.after(delay + world.between(0, 3), elector.deliver, elector.on_watch, observed)
            elif fate < 0.08 and self._earlier:
                stale = world.chance.choice(self._earlier[-5:])
                world.after(delay + world.between(0, 1), elector.deliver, elector.on_watch, stale)
        world.after(delay, elector.deliver, elector.on_watch, observed)
