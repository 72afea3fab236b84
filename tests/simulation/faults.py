"""What may befall an instance, its network, or the store. A fault is a function; its name is what it is counted as."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from awaitelect.core import messages
from tests.simulation.elector import Elector
from tests.simulation.keeper import Keeper
from tests.simulation.machines import Node

if TYPE_CHECKING:
    from tests.simulation.schedule import Schedule

Fault = Callable[["Schedule", Node], None]


def _pair(schedule: Schedule, node: Node) -> tuple[Keeper, Elector] | None:
    """Keeper and elector, both there and going: only what was well before is struck."""
    keeper = schedule.fleet.keepers.get(node)
    if keeper is None or not keeper.is_alive or keeper.is_frozen:
        return None
    elector = keeper.elector
    if elector is None or not elector.is_alive or not elector.is_up or elector.is_frozen:
        return None
    return keeper, elector


# ---------------------------------------------------------------------- processes


def elector_killed(schedule: Schedule, node: Node) -> None:
    pair = _pair(schedule, node)
    if pair:
        schedule.strike(node, "elector killed")
        pair[1].die()


def elector_frozen(schedule: Schedule, node: Node) -> None:
    pair = _pair(schedule, node)
    if pair:
        seconds = schedule.within(schedule.world.between(0.1, 20))
        schedule.strike(node, "elector frozen", seconds)
        pair[1].freeze(seconds)


def elector_frozen_at_write(schedule: Schedule, node: Node) -> None:
    """The next time that it acquires the lease, just behind its write."""
    pair = _pair(schedule, node)
    if pair:
        pair[1].freezes_at_write = schedule.within(schedule.world.between(1, 14))


def next_elector_frozen(schedule: Schedule, node: Node) -> None:
    """The one that follows is frozen until the command has been stopped for want of a grant."""
    pair = _pair(schedule, node)
    if pair:
        keeper, elector = pair
        keeper.next_freeze = schedule.within(node.timing.renew_deadline * schedule.world.between(0.7, 1))
        schedule.strike(node, "elector killed")
        elector.die()


def keeper_frozen(schedule: Schedule, node: Node) -> None:
    pair = _pair(schedule, node)
    if pair:
        seconds = schedule.within(schedule.world.between(0.1, 25))
        schedule.strike(node, "keeper frozen", seconds)
        pair[0].stop_for(seconds)


def keeper_frozen_for_long(schedule: Schedule, node: Node) -> None:
    """Long after its keeper has fallen silent an elector may die as well: by then nothing may be left running."""
    pair = _pair(schedule, node)
    if pair:
        keeper, elector = pair
        seconds = schedule.within(3 * node.timing.lease_duration)
        schedule.strike(node, "keeper frozen", seconds)
        keeper.stop_for(seconds)
        slept, until = node.slept, schedule.world.now + seconds

        def die() -> None:
            if schedule.world.now >= until or schedule.world.is_calm:
                return  # it may be another time, and no shim waits
            if elector.election is None or node.now() < elector.election._grants.start_by + 1:
                schedule.world.after(1, die)  # the last that it has granted is not over: it came late
            elif node.slept == slept and not node.is_asleep and not elector.is_frozen:
                elector.die()

        schedule.world.after(node.timing.lease_duration * 1.5, die)


def keeper_killed(schedule: Schedule, node: Node) -> None:
    pair = _pair(schedule, node)
    if pair:
        schedule.strike(node, "keeper killed")
        pair[0].die()


def both_killed(schedule: Schedule, node: Node) -> None:
    """At once, or nearly: a shim that waits is what is left."""
    pair = _pair(schedule, node)
    if pair and node.has_eyes:
        schedule.strike(node, "both killed")
        first, second = pair if schedule.world.likely(0.5) else pair[::-1]
        first.die()
        schedule.world.after(schedule.world.between(0, 0.05), second.die)


def both_frozen(schedule: Schedule, node: Node) -> None:
    """Keeper and elector, but not the command."""
    pair = _pair(schedule, node)
    if pair and node.has_eyes:
        seconds = schedule.within(schedule.world.between(0.5, 25))
        schedule.strike(node, "both frozen", seconds)
        pair[1].freeze(seconds)
        pair[0].stop_for(seconds)


def all_stopped(schedule: Schedule, node: Node) -> None:
    """SIGSTOP to every process; then SIGCONT, in that order, or to all but the command, which gets it later."""
    pair = _pair(schedule, node)
    if pair:
        keeper, elector = pair
        world = schedule.world
        seconds = schedule.within(world.between(0.5, 25))
        schedule.strike(node, "all processes stopped", seconds)
        stop = keeper.tree.stop()
        keeper.freeze(seconds)
        elector.freeze(seconds)
        schedule.stopped.append((keeper.tree, stop))
        world.after(seconds + world.between(0.3, 5), keeper.tree.wake_up, stop)


def starved(schedule: Schedule, node: Node) -> None:
    """Too little of the processor for a while: both processes get a slice now and then."""
    until = schedule.world.now + schedule.within(schedule.world.between(1, 10))
    schedule.strike(node, "starved", until - schedule.world.now)

    def starve() -> None:
        pair = _pair(schedule, node)
        if schedule.world.is_calm or schedule.world.now > until:
            return
        if pair:
            for process in pair:
                process.freeze(schedule.world.between(0.02, 0.25))
        schedule.world.after(schedule.world.between(0.1, 0.5), starve)

    starve()


def suspended(schedule: Schedule, node: Node) -> None:
    """The machine sleeps: nothing runs, CLOCK_MONOTONIC stands still, CLOCK_BOOTTIME goes on."""
    keeper = schedule.fleet.keepers.get(node)
    if keeper is None or node.is_asleep or keeper.tree.is_stopped:
        return
    seconds = schedule.within(schedule.world.between(0.5, 30))
    schedule.strike(node, "machine suspended", seconds)
    node.is_asleep = True
    elector = keeper.elector
    keeper.tree.stop()
    if keeper.is_alive:
        keeper.freeze(seconds)
    if elector and elector.is_alive:
        elector.freeze(seconds)
    schedule.world.after(seconds, _resume, node, keeper, seconds)


def _resume(node: Node, keeper: Keeper, seconds: float) -> None:
    node.slept += seconds
    node.is_asleep = False
    node.world.note(node.name, "is awake again")
    grant = keeper.guard.grant
    if grant is not None and node.now() >= grant.kill_by - 0.5:
        keeper.tree.awake_overdue()
    else:
        keeper.tree.wake_up()
    waiting, keeper.at_awakening = keeper.at_awakening, []
    for look in waiting:
        look()


def wall_clock_jumps(schedule: Schedule, node: Node) -> None:
    schedule.world.strike("wall clock jumps", node.name)
    node.skew += schedule.world.between(-4000, 4000)


def command_stuck(schedule: Schedule, node: Node) -> None:
    """State D: SIGKILL does not end it yet."""
    keeper = schedule.fleet.keepers.get(node)
    if keeper:
        seconds = schedule.within(schedule.world.between(0.5, 12))
        schedule.strike(node, "command cannot be killed", seconds)
        keeper.tree.stuck_until = schedule.world.now + seconds


def shut_down(schedule: Schedule, node: Node) -> None:
    keeper = schedule.fleet.keepers.get(node)
    if keeper and keeper.is_alive:
        schedule.world.strike("SIGTERM", node.name)
        keeper.deliver(keeper.shutdown)
        if schedule.world.likely(0.2):
            schedule.world.after(schedule.world.between(0, 2), keeper.deliver, keeper.shutdown)


def hand_over(schedule: Schedule, node: Node) -> None:
    pair = _pair(schedule, node)
    if pair and pair[1].is_leading:
        schedule.world.strike("asked to hand over", node.name)
        pair[1].feed(messages.HandoverRequested())


def configuration_broken(schedule: Schedule, node: Node) -> None:
    """And its elector is replaced just then."""
    seconds = schedule.within(schedule.world.between(0.5, 10))
    schedule.strike(node, "configuration broken", seconds)
    node.broken_until = schedule.world.now + seconds
    elector_killed(schedule, node)


# ---------------------------------------------------------------------- network


def cut_off(schedule: Schedule, node: Node) -> None:
    seconds = schedule.within(schedule.world.between(0.3, 30))
    schedule.strike(node, "cut off", seconds)
    node.cut_until = schedule.world.now + seconds


def slow_then_cut_off(schedule: Schedule, node: Node) -> None:
    seconds = schedule.world.between(1, 8)
    schedule.strike(node, "slow network", seconds)
    node.slow_until = schedule.world.now + seconds
    schedule.world.after(seconds, lambda: None if schedule.world.is_calm else cut_off(schedule, node))


def troubled(schedule: Schedule, node: Node) -> None:
    """All that can befall a request befalls many."""
    seconds = schedule.within(schedule.world.between(1, 20))
    schedule.strike(node, "troubled network", seconds)
    node.trouble_until = schedule.world.now + seconds


def cut_off_and_elector_killed(schedule: Schedule, node: Node) -> None:
    cut_off(schedule, node)
    elector_killed(schedule, node)


# ---------------------------------------------------------------------- the store


def store_frozen(schedule: Schedule, node: Node) -> None:
    """It answers nothing for a while, and then all at once."""
    seconds = schedule.within(schedule.world.between(0.3, 20))
    schedule.strike_store("store frozen", seconds)
    schedule.store.frozen_until = schedule.world.now + seconds


def store_refuses(schedule: Schedule, node: Node) -> None:
    seconds = schedule.within(schedule.world.between(0.3, 20))
    schedule.strike_store("store refuses", seconds)
    schedule.store.refusing_until = schedule.world.now + seconds


def watches_silent(schedule: Schedule, node: Node) -> None:
    seconds = schedule.within(schedule.world.between(1, 30))
    schedule.world.strike("watches silent", "store", "for %.2fs", seconds)
    schedule.store.silent_until = schedule.world.now + seconds


def watches_stale(schedule: Schedule, node: Node) -> None:
    seconds = schedule.within(schedule.world.between(1, 10))
    schedule.world.strike("watches stale", "store", "for %.2fs", seconds)
    schedule.store.stale_until = schedule.world.now + seconds


PROCESSES: list[Fault] = [
    elector_killed,
    elector_killed,
    elector_frozen,
    elector_frozen,
    elector_frozen_at_write,
    next_elector_frozen,
    next_elector_frozen,
    keeper_frozen,
    keeper_frozen,
    keeper_frozen_for_long,
    keeper_killed,
    both_killed,
    both_frozen,
    all_stopped,
    starved,
    suspended,
    command_stuck,
    configuration_broken,
]
NETWORK: list[Fault] = [cut_off, slow_then_cut_off, slow_then_cut_off, troubled, troubled, cut_off_and_elector_killed]
STORE: list[Fault] = [store_frozen, store_refuses, watches_silent, watches_stale]
MILD: list[Fault] = [shut_down, hand_over, wall_clock_jumps]
"""What operators and clocks do every day."""
