"""One schedule: a fleet, storms of faults that befall it, and the calm after each, in which somebody must lead."""

from __future__ import annotations

from typing import NamedTuple

from awaitelect.core.lease import Timing
from awaitelect.keeper.elector import LONGEST_PAUSE
from awaitelect.keeper.guard import Phase
from tests.simulation import faults
from tests.simulation.elector import SLACK
from tests.simulation.faults import Fault
from tests.simulation.fleet import RESTART, Fleet
from tests.simulation.keeper import Keeper
from tests.simulation.machines import DRIFT, Node
from tests.simulation.mutation import Mutation
from tests.simulation.mutations import MUTATIONS
from tests.simulation.others import GoClient, Operator
from tests.simulation.store import SLOWEST, Store
from tests.simulation.tree import Tree
from tests.simulation.world import World

TIMINGS = [
    Timing(15, 10, 2, 1),
    Timing(15, 10, 2, 1),
    Timing(10, 6, 1.5, 1),
    Timing(8, 5, 1, 0.8),
    Timing(4, 2.5, 0.5, 0.6),
    Timing(4.5, 3, 0.5, 0.6),
]
"""Each leaves its kill margin what DRIFT and the time to kill may take."""

FOR_EVER = 10_000.0
"""Seconds: longer than any schedule."""

THEMES: dict[str, list[Fault]] = {
    "processes": [*faults.PROCESSES, *faults.MILD, *faults.MILD],
    "network": [*faults.NETWORK, *faults.NETWORK, *faults.NETWORK, *faults.MILD, faults.elector_killed],
    "store": [*faults.STORE, *faults.STORE, *faults.NETWORK, *faults.MILD],
    "everything": [*faults.PROCESSES, *faults.NETWORK, *faults.NETWORK, *faults.STORE, *faults.MILD],
}


class Outcome(NamedTuple):
    """What a schedule came to that broke no promise."""

    seed: int
    events: int
    starts: int
    struck: dict[str, int]
    """How often each kind of fault has happened."""
    gaps: list[tuple[float, float]]
    """After each storm: the seconds until somebody led again, and the bound for it."""
    seconds: float
    """Of virtual time."""


def theme_of(seed: int) -> str:
    """What a seed is mostly about."""
    return list(THEMES)[seed % len(THEMES)]


def simulate(seed: int, mutation: Mutation | None = None, nodes: int | None = None, drift: float = DRIFT) -> Outcome:
    """Run the schedule of this seed. Raises Violation. `nodes`: as many instances, in place of what the seed says."""
    return Schedule(seed, mutation, nodes, drift).run()


def repeat_by(seed: int, mutation: Mutation | None, nodes: int | None, drift: float) -> str:
    """The command that runs a schedule again."""
    said = [f"--seed {seed}"]
    said += [f"--mutation {name}" for name, kind in MUTATIONS.items() if type(mutation) is kind]
    said += [f"--nodes {nodes}"] if nodes else []
    said += [f"--drift {drift}"] if drift != DRIFT else []
    return " ".join(["python -m tests.simulation", *said])


class Schedule:
    """All that a seed decides."""

    def __init__(self, seed: int, mutation: Mutation | None, nodes: int | None, drift: float) -> None:
        self.world = world = World(seed, repeat_by(seed, mutation, nodes, drift))
        chance = world.chance
        self.faults = THEMES[theme_of(seed)]
        timings = mutation.timings if mutation and mutation.timings else TIMINGS
        common = chance.choice(timings)
        self.has_twins = chance.random() < 0.08
        self.has_operators = chance.random() < (0.8 if theme_of(seed) == "store" else 0.3)
        has_go = not self.has_twins and chance.random() < 0.25
        releases_late = self.has_operators and has_go and chance.random() < 0.5
        # One who has just come takes its own duration for that of a lease that was emptied with the duration 1.
        is_mixed = not self.has_twins and not releases_late and chance.random() < 0.5
        count = chance.choice([1, 2, *[3] * 14, *[4] * 5, *[5] * 4])
        self.nodes = [
            Node(
                world,
                name,
                "twin" if self.has_twins and name in "AB" else name.lower(),
                chance.choice(timings) if is_mixed else common,
                drift,
            )
            for name in "ABCDEFGH"[: nodes or count]
        ]
        self.longest = max([15.0 if has_go else 0.0, *(float(node.timing.wire_duration) for node in self.nodes)])
        self.pause = chance.choice([0.3, 0.8, 2.0, 6.0]) * min(node.timing.lease_duration for node in self.nodes)
        """Seconds between the faults of one node, on average."""
        self.store = Store(world, self.longest)
        self.fleet = Fleet(world, self.store, mutation)
        if mutation:
            mutation.change_store(self.store)
        self.store.flaw = chance.choice([0.004, 0.004, 0.015])
        self.operator = Operator(world, self.store)
        self.stopped: list[tuple[Tree, int]] = []
        self.go = None
        if has_go:
            node = Node(world, "go", "go", common, drift)
            runs = not self.has_operators
            self.go = GoClient(world, self.store, node, runs=runs, releases_late=releases_late)
        for node in self.nodes:
            # Twins on two machines are told apart by their renewals only: what silences one is left out.
            node.is_reliable = self.has_twins and node.identity == "twin"
        self.storm_ends = 0.0

    def run(self) -> Outcome:
        world = self.world
        for node in self.nodes:
            world.after(world.between(0, 3), self.fleet.start, node)
        if self.go:
            world.after(world.between(0, 20), self.go.begin)
        storms = 1 if world.likely(0.8) else 2
        gaps = []
        for number in range(storms):
            self._storm()
            if number == storms - 1 and self.go:
                self.go.end()
            gaps.append(self._calm(number == storms - 1))
        return Outcome(world.seed, world.events, world.starts, dict(world.struck), gaps, world.now)

    # ------------------------------------------------------------------ a storm

    def _storm(self) -> None:
        world = self.world
        world.is_calm = False
        world.storms += 1
        length = min(max(self.longest * world.between(1.5, 4), 15.0), 50.0)
        self.storm_ends = world.now + length
        world.note("world", "a storm begins")
        for node in self.nodes:
            world.after(world.between(1, 1 + 2 * self.pause), self._strike_next, node)
        if self.has_operators:
            world.after(world.between(2, 12), self._operate)
        world.run(self.storm_ends)

    def _strike_next(self, node: Node) -> None:
        world = self.world
        if world.now >= self.storm_ends or world.is_calm:
            return
        world.after(world.chance.expovariate(1 / self.pause) + 0.05, self._strike_next, node)
        if not node.is_asleep:
            world.chance.choice(faults.MILD if node.is_reliable else self.faults)(self, node)

    def within(self, seconds: float) -> float:
        """As long, but not into the calm."""
        return min(seconds, max(self.storm_ends - self.world.now, 0.01))

    def strike(self, node: Node, fault: str, seconds: float = 0.0) -> None:
        """A fault befalls an instance, for so long."""
        node.disturb(seconds)
        self.world.strike(fault, node.name, "for %.2fs", seconds)

    def strike_store(self, fault: str, seconds: float) -> None:
        self.store.disturb(seconds)
        self.world.strike(fault, "store", "for %.2fs", seconds)

    def _operate(self) -> None:
        """Half of the time where it hurts: the holder is cut off just then, and another one has been until then."""
        world = self.world
        if world.now >= self.storm_ends or world.is_calm:
            return
        world.after(world.between(1, 25), self._operate)
        self.store.disturb(0)
        if world.likely(0.5):
            self.operator.act()
            return
        blind = world.chance.choice(self.nodes)
        delay = 0.0
        if blind.identity != self._holder() and world.likely(0.5) and not blind.is_reliable:
            delay = self.within(world.between(3, 20))
            self.strike(blind, "cut off", delay)
            blind.cut_until = world.now + delay
        world.after(max(delay - 0.1, 0), self._operate_on_cut_off)

    def _operate_on_cut_off(self) -> None:
        if self.world.is_calm:
            return
        holder = self._holder()
        for node in self.nodes:
            if node.identity == holder and not node.is_reliable:
                faults.cut_off(self, node)
        self.operator.act()

    def _holder(self) -> str:
        return self.store.record.holder if self.store.record else ""

    # ------------------------------------------------------------------ the calm

    def bound(self) -> float:
        """Seconds after a storm in which somebody must lead.

        Instances that have ended start again, or their electors do, after their pause; a request that is under way
        times out; the lease that somebody held runs out on the slowest clock, and if it is handed on, its next holder's
        once more; whoever had trouble lets the others go first; the command starts, with its hooks.
        """
        starts = max(RESTART, LONGEST_PAUSE) + 1.0
        requests = max(node.timing.request_timeout for node in self.nodes) + SLACK
        polite = 1.2 * max(10.0, *(node.timing.lease_duration for node in self.nodes))
        stops = max((self._left_to_stop(keeper) for keeper in self.fleet.keepers.values()), default=0.0)
        commands = max(
            (
                keeper.settings.start_timeout + 2 * keeper.settings.hook_timeout + 1.1 * keeper.settings.backoff.max
                for keeper in self.fleet.keepers.values()
            ),
            default=0.0,
        )
        return starts + requests + max(self.longest * SLOWEST, stops) + polite * SLOWEST + commands

    def _left_to_stop(self, keeper: Keeper) -> float:
        return keeper.stop_bound() if keeper.is_alive and keeper.guard.is_alive else 0.0

    def _calm(self, is_last: bool) -> tuple[float, float]:
        """Nothing goes wrong any more, but that some of the instances, fewer than half, stay as ill as can be."""
        world, began = self.world, self.world.now
        world.is_calm = True
        world.note("world", "calm")
        self.store.heal()
        self.store.disturb(0)
        ill = self._ill_ones() if is_last else []
        for node in self.nodes:
            if node not in ill:
                node.heal()
        for tree, stop in self.stopped:
            world.after(0.5, tree.wake_up, stop)
        self.stopped.clear()
        bound = self.bound()
        if not ill:
            world.after(0.001, self._settle_down)
        if len(self.fleet.finished) >= len(self.nodes) - len(ill):
            world.run(began + 1)
            return 0.0, bound
        world.run(began + bound, self._somebody_leads)
        if not self._somebody_leads():
            world.violation(f"nobody leads {bound:.1f}s after the storm")
        gap = world.now - began
        if not ill and world.likely(0.5):
            self._check_steady(began + bound)
        return gap, bound

    def _somebody_leads(self) -> bool:
        return self.fleet.leader() is not None or (self.go is not None and self.go.is_leading)

    def _settle_down(self) -> None:
        for keeper in self.fleet.keepers.values():
            keeper.crashes = False

    def _ill_ones(self) -> list[Node]:
        world = self.world
        count = (len(self.nodes) - 1) // 2
        if not count or self.has_twins or world.likely(0.5):
            return []
        chosen = world.chance.sample(self.nodes, count)
        for node in chosen:
            node.disturb(FOR_EVER)
            node.cut_until = world.now + FOR_EVER
            keeper = self.fleet.keepers.get(node)
            ill = world.chance.choice(["cut off", "keeper frozen", "elector frozen", "dead"])
            if ill in ("keeper frozen", "dead") and keeper and not keeper.is_watched:
                ill = "cut off"  # else nobody is left to end the command
            world.strike("ill through the calm", node.name, "%s", ill)
            if keeper is None or not keeper.is_alive:
                continue
            if ill == "keeper frozen":
                keeper.stop_for(FOR_EVER)
            elif ill == "elector frozen" and keeper.elector and keeper.elector.is_alive:
                keeper.elector.freeze(FOR_EVER)
            elif ill == "dead":
                keeper.die()
        return chosen

    def _check_steady(self, until: float) -> None:
        """Once all is well it stays so: for a whole lease nobody steps down, and nobody asks more than is needed."""
        world = self.world
        window = max(node.timing.lease_duration for node in self.nodes)
        while world.now < until + window:
            leader = self.fleet.leader()
            if leader is None:
                if not world.run(max(until, world.now), self._somebody_leads):
                    world.violation("nobody leads any more in the calm")
                if self.fleet.leader() is None:
                    return  # the client of another make does
                continue
            world.run(world.now + 1)  # what was frozen until now has much to take in
            before = Load(self.fleet)
            world.run(world.now + window)
            after = Load(self.fleet)
            if before.shape == after.shape and self.fleet.leader() is leader:
                self._check_load(leader, before, after, window)
                if world.likely(0.3) and not self.has_twins:
                    self._check_hang(leader, window)
                return
        world.violation("nobody stays the leader in the calm")

    def _check_load(self, leader: Keeper, before: Load, after: Load, window: float) -> None:
        for keeper, (requests, electors_wakes, keepers_wakes) in after.counts.items():
            since = before.counts[keeper]
            period = keeper.node.timing.retry_period
            renewals = window / period if keeper is leader else 0
            seen = after.writes - before.writes
            if requests - since[0] > 1.1 * renewals + 4:
                self.world.violation(f"busy: {keeper.name} asks {requests - since[0]} times in {window}s of calm")
            if electors_wakes - since[1] > 4 * renewals + 2 * seen + 15:
                self.world.violation(f"busy: the elector of {keeper.name} wakes {electors_wakes - since[1]} times")
            if keepers_wakes - since[2] > 4 * renewals + 3 * window + 15:
                self.world.violation(f"busy: {keeper.name} wakes {keepers_wakes - since[2]} times in {window}s")

    def _check_hang(self, leader: Keeper, window: float) -> None:
        """An elector that hangs for good is replaced, where a start fits into the deadline; the command notices
        nothing.
        """
        world, run = self.world, leader.tree.run
        if leader.elector is None or leader.guard.phase != Phase.RUNNING or leader.node.timing.renew_deadline < 5:
            return
        world.strike("elector hangs in the calm", leader.name)
        leader.elector.freeze(FOR_EVER)
        world.run(world.now + 2 * window)
        if leader.tree.run != run or leader.guard.phase != Phase.RUNNING:
            world.violation(f"impatient: the hung elector of {leader.instance} has cost it the term")


class Load:
    """What the instances have done so far."""

    def __init__(self, fleet: Fleet) -> None:
        alive = [keeper for keeper in fleet.keepers.values() if keeper.is_alive]
        self.writes = fleet.store.writes
        self.counts = {
            keeper: (keeper.elector.requests, keeper.elector.wakes, keeper.wakes) for keeper in alive if keeper.elector
        }
        self.shape = [(keeper, keeper.elector, keeper.tree.run) for keeper in alive]
        """Who is there, and in which run: while nothing happens it stays the same."""
