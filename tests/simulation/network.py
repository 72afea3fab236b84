"""What becomes of a request between an instance and the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.machines import Node
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.store import Store

WELL = 100.0
"""The fate of a request that nothing befalls."""
LATEST = 60.0
"""Seconds by which a request may be late: long after whoever sent it has given it up."""


class Request:
    """On its way through the network of `node` to the store and back; perhaps its answer arrives.

    `fail` gets a reason, whether it may have been stored all the same, and for how long the server asks to wait.
    """

    __slots__ = ("answer", "fail", "node", "sent_in", "serve", "store", "world")

    def __init__(
        self,
        world: World,
        store: Store,
        node: Node,
        serve: Callable[[], Any],
        answer: Callable[[Any], None],
        fail: Callable[[str, bool, float | None], None],
    ) -> None:
        self.world, self.store, self.node, self.serve, self.answer, self.fail = world, store, node, serve, answer, fail
        self.sent_in = world.storms

    def send(self) -> None:
        world, node = self.world, self.node
        chance = world.random
        delay = 0.001 + 0.008 * chance()
        if node.is_reliable or (world.is_calm and world.now >= node.cut_until):
            world.after(delay, self._arrive, WELL)
            return
        if world.now < node.cut_until:
            if chance() < 0.75 or node.cut_until - world.now > 10:
                return
            delay += node.cut_until - world.now
        elif world.now < node.slow_until:
            delay = world.between(0, 0.3) if chance() < 0.6 else world.between(0.2, 6)
        fate = chance() / self.store.flaw  # below 6 something is wrong with it
        if world.now < node.trouble_until:
            fate /= 12
        if fate < 1:
            world.strike("request lost", node.name)
            return
        if fate < 2:
            late = world.between(0.5, 8) if chance() < 0.6 else world.between(8, LATEST)
            world.strike("request late", node.name, "by %.1fs", late)
            delay += late
        elif fate < 3:
            again = world.between(0.002, 0.1) if chance() < 0.5 else world.between(0.1, LATEST)
            world.strike("request duplicated", node.name, "%.1fs later", again)
            world.after(delay + again, self._arrive, WELL)
            if chance() < 0.5:  # whoever had passed on the first one has lost its answer
                world.after(delay, self._serve_unheard)
                return
        world.after(delay, self._arrive, fate)

    def _is_over(self) -> bool:
        return self.world.is_calm and self.sent_in < self.world.storms and not self.node.is_reliable

    def _serve_unheard(self) -> None:
        if not self._is_over():
            self.serve()

    def _arrive(self, fate: float) -> None:
        world, node, store = self.world, self.node, self.store
        if self._is_over():
            return  # left over from a storm that has passed
        if world.now < store.frozen_until:
            world.at(store.frozen_until + 0.01 * world.random(), self._arrive, fate)
            return
        back = 0.001 + 0.008 * world.random()
        if world.now < node.slow_until:
            back = world.between(0.0, 5)
        refuses = world.now < store.refusing_until and not node.is_reliable
        if refuses or 3 <= fate < 4:
            reason = world.chance.choice(["429", "429", "401", "403", "503"])
            world.struck["request refused"] += 1
            world.after(back, self.fail, reason, False, world.between(0.2, 20) if reason == "429" else None)
        elif 4 <= fate < 5:
            world.struck["request broken (5xx), stored or not"] += 1
            if world.likely(0.5):
                self.serve()
            world.after(back, self.fail, "500", True, None)
        else:
            result = self.serve()
            if world.now < node.cut_until or 5 <= fate < 6:
                world.strike("reply lost", node.name)
            else:
                world.after(back, self.answer, result)
