"""What all instances share, and who starts them again: a kubelet, or a service manager."""

from __future__ import annotations

from awaitelect.keeper.guard import Phase
from tests.simulation.keeper import Keeper
from tests.simulation.machines import Node
from tests.simulation.mutation import Mutation
from tests.simulation.store import Store
from tests.simulation.world import World

RESTART = 3.0
"""Seconds at most until an instance that has ended is started again."""


class Fleet:
    """The instances that share the lease."""

    def __init__(self, world: World, store: Store, mutation: Mutation | None) -> None:
        self.world = world
        self.store = store
        self.mutation = mutation
        self.keepers: dict[Node, Keeper] = {}
        self.finished: set[Node] = set()
        """Where the command has done all that it was to do."""

    def start(self, node: Node) -> None:
        if node.is_asleep:
            self.world.after(1.0, self.start, node)
            return
        node.runs += 1
        name = f"{node.name}#{node.runs}"
        self.world.note(name, "starts%s", " as PID 1" if node.is_pid1 else "")
        self.keepers[node] = Keeper(self, node, name)

    def ended(self, keeper: Keeper, *, finished: bool) -> None:
        if finished and not self.world.is_calm and self.world.likely(0.1):
            self.finished.add(keeper.node)
            return
        self.world.after(self.world.between(0.2, RESTART), self.start, keeper.node)

    def leader(self) -> Keeper | None:
        """Whose command runs and is ready, or who holds the lease with nothing running since it was told to."""
        for keeper in self.keepers.values():
            if keeper.is_alive and (keeper.guard.is_ready or keeper.guard.phase == Phase.HELD):
                return keeper
        return None
