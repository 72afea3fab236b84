"""One schedule: a fleet, the faults that befall it, and the quiet at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from awaitelect.core import messages
from awaitelect.core.lease import Timing
from tests.simulation.mutations import Mutation
from tests.simulation.processes import Fleet
from tests.simulation.store import GoClient, Operator, Store
from tests.simulation.world import Node, World

TIMINGS = [
    Timing(15, 10, 2, 1),
    Timing(15, 10, 2, 1),
    Timing(10, 6, 1.5, 1),
    Timing(8, 5, 1, 0.8),
    Timing(4, 2.5, 0.5, 0.5),
]


class Outcome(NamedTuple):
    """What a schedule came to that broke no promise."""

    seed: int
    events: int
    starts: int


def simulate(seed: int, mutation: Mutation | None = None, nodes: int = 3, seconds: float = 120) -> Outcome:
    """Run the schedule of this seed: `seconds` of faults, then quiet. Raises Violation."""
    return Schedule(seed, mutation, nodes, seconds).run()


class Schedule:
    """All that a seed decides."""

    def __init__(self, seed: int, mutation: Mutation | None, nodes: int, seconds: float) -> None:
        self.world = world = World(seed)
        self.seconds = seconds
        self.store = Store(world)
        self.fleet = Fleet(world, self.store, mutation)
        if mutation:
            mutation.change_store(self.store)
        chance = world.chance
        self.has_twins = chance.random() < 0.12
        self.has_operators = chance.random() < 0.5
        has_go = not self.has_twins and chance.random() < 0.35
        releases_late = self.has_operators and has_go and chance.random() < 0.5
        self.pause = chance.choice([3.0, 8.0, 20.0])
        """Seconds between the faults of one node, on average."""
        common = chance.choice(TIMINGS)
        # One who has just come takes its own duration for that of a lease that was emptied with the duration 1.
        is_mixed = not releases_late and chance.random() < 0.6
        names = "ABCDEFGH"[:nodes]
        self.nodes = [
            Node(
                world, name, "twin" if self.has_twins and name in "AB" else name.lower(), self._timing(is_mixed, common)
            )
            for name in names
        ]
        self.go = None
        if has_go:
            self.go = GoClient(
                world,
                self.store,
                Node(world, "go", "go", common),
                runs=not self.has_operators,
                releases_late=releases_late,
            )
        if self.has_twins:
            for node in self.nodes:
                node.timing = common
                node.is_reliable = node.identity == "twin"

    def _timing(self, is_mixed: bool, common: Timing) -> Timing:
        return self.world.chance.choice(TIMINGS) if is_mixed else common

    def run(self) -> Outcome:
        world = self.world
        for node in self.nodes:
            world.at(world.between(0, 3), self.fleet.start, node)
            world.at(world.between(2, 2 + 2 * self.pause), self._strike, node)
        if self.go:
            world.at(world.between(0, 20), self.go.begin)
            world.at(self.seconds, self.go.end)
        if self.has_operators:
            operator = Operator(world, self.store)
            at = world.between(3, 25)
            while at < self.seconds - 30:
                world.at(at, self._operate, operator)
                at += world.between(1, 40)
        world.run(self.seconds)
        self.fleet.is_quiet = True
        for node in self.nodes:
            node.cut_until = node.slow_until = node.trouble_until = 0.0
        world.note("world", "quiet")
        world.run(self.seconds + 60 + max(node.timing.lease_duration for node in self.nodes))
        if not world.running and len(self.fleet.finished) < len(self.nodes):
            world.violation("nothing runs after a long quiet")
        return Outcome(world.seed, world.events, world.starts)

    def _operate(self, operator: Operator) -> None:
        """Half of the time where it hurts: the holder is cut off just then, and another one has been until then."""
        world = self.world
        if world.likely(0.5):
            operator.act()
            return
        blind = world.chance.choice(self.nodes)
        holder = self.store.record.holder if self.store.record else ""
        delay = 0.0
        if blind.identity != holder and world.likely(0.5) and not blind.is_reliable:
            delay = world.between(3, 20)
            blind.cut_until = world.now + delay
            world.note(blind.name, "blind until %.2f", blind.cut_until)
        world.after(max(delay - 0.1, 0), self._operate_on_cut_off, operator)

    def _operate_on_cut_off(self, operator: Operator) -> None:
        if self.fleet.is_quiet:
            return
        holder = self.store.record.holder if self.store.record else ""
        for node in self.nodes:
            if node.identity == holder and not node.is_reliable:
                self._cut(node)
        operator.act()

    # ------------------------------------------------------------------ faults

    def _strike(self, node: Node) -> None:
        world = self.world
        if self.fleet.is_quiet:
            return
        world.after(world.chance.expovariate(1 / self.pause) + 0.05, self._strike, node)
        # Twins on two machines are told apart by their renewals only: what silences one is left out.
        strikes = self._mild if node.is_reliable else self._strikes
        world.chance.choice(strikes)(self, node)

    def _left(self, seconds: float) -> float:
        """As long, but not into the quiet."""
        return min(seconds, max(self.seconds - self.world.now, 0.01))

    def _is_calm(self, node: Node) -> bool:
        """Both processes are there and go: one of them at a time may be struck."""
        keeper = self.fleet.keepers.get(node)
        if keeper is None or not keeper.is_alive or keeper.is_frozen:
            return False
        elector = keeper.elector
        return elector is not None and elector.is_alive and elector.is_up and not elector.is_frozen

    def _cut(self, node: Node) -> None:
        node.cut_until = self.world.now + self._left(self.world.between(0.3, 30))
        self.world.note(node.name, "cut off until %.2f", node.cut_until)

    def _slow_and_cut(self, node: Node) -> None:
        slow = self.world.between(1, 8)
        node.slow_until = self.world.now + slow
        self.world.note(node.name, "slow until %.2f, then cut off", node.slow_until)
        self.world.after(slow, self._cut_if_noisy, node)

    def _cut_if_noisy(self, node: Node) -> None:
        if not self.fleet.is_quiet:
            self._cut(node)

    def _trouble(self, node: Node) -> None:
        node.trouble_until = self.world.now + self.world.between(1, 20)

    def _crash_elector(self, node: Node) -> None:
        if self._is_calm(node):
            elector = self.fleet.keepers[node].elector
            assert elector
            elector.die()

    def _freeze_elector(self, node: Node) -> None:
        if self._is_calm(node):
            elector = self.fleet.keepers[node].elector
            assert elector
            elector.freeze(self._left(self.world.between(0.1, 20)))

    def _freeze_elector_at_write(self, node: Node) -> None:
        if self._is_calm(node):
            elector = self.fleet.keepers[node].elector
            assert elector
            elector.freezes_at_write = self._left(self.world.between(1, 14))

    def _freeze_keeper(self, node: Node) -> None:
        if self._is_calm(node):
            keeper = self.fleet.keepers[node]
            keeper.freeze(self._left(self.world.between(0.1, 25)))

    def _freeze_keeper_for_long(self, node: Node) -> None:
        """Long after its keeper has fallen silent an elector may die as well: by then nothing may be left running."""
        if self._is_calm(node):
            keeper = self.fleet.keepers[node]
            keeper.freeze(self._left(45))
            elector = keeper.elector
            assert elector
            self.world.after(node.timing.lease_duration * 1.5, elector.die)

    def _crash_elector_twice_struck(self, node: Node) -> None:
        """The one that follows is frozen until the command has been stopped for want of a grant."""
        if self._is_calm(node):
            keeper = self.fleet.keepers[node]
            keeper.next_freeze = self._left(node.timing.renew_deadline * self.world.between(0.7, 1))
            assert keeper.elector
            keeper.elector.die()

    def _kill_keeper(self, node: Node) -> None:
        if self._is_calm(node):
            self.fleet.keepers[node].die()

    def _shut_down(self, node: Node) -> None:
        keeper = self.fleet.keepers.get(node)
        if keeper and keeper.is_alive:
            keeper.deliver(keeper.shutdown)

    def _hand_over(self, node: Node) -> None:
        if self._is_calm(node):
            elector = self.fleet.keepers[node].elector
            assert elector
            elector.feed(messages.HandoverRequested())

    def _run_out_of_luck(self, node: Node) -> None:
        """Cut off and without its elector at once."""
        self._cut(node)
        self._crash_elector(node)

    Strike = Callable[["Schedule", Node], None]
    _strikes: tuple[Strike, ...] = (
        _cut,
        _slow_and_cut,
        _slow_and_cut,
        _trouble,
        _trouble,
        _crash_elector,
        _crash_elector,
        _freeze_elector,
        _freeze_elector,
        _freeze_elector_at_write,
        _freeze_keeper,
        _freeze_keeper,
        _freeze_keeper_for_long,
        _crash_elector_twice_struck,
        _crash_elector_twice_struck,
        _kill_keeper,
        _shut_down,
        _hand_over,
        _run_out_of_luck,
    )
    _mild: tuple[Strike, ...] = (_shut_down, _hand_over)
