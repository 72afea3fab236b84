"""All processes of one keeper's command: the main one, what it has forked, its hooks, and the questions it is asked.

Behind the keeper's adapters in the real thing; here a model, with all that commands are known to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from awaitelect.protocol import Grant

if TYPE_CHECKING:
    from tests.simulation.keeper import Keeper

SIGKILL, SIGTERM = 9, 15
OVERDUE = 0.5
"""Seconds that a machine which has slept over its dates has, once awake, to see that and to kill: until it woke up
nothing of it ran, and nobody could have stopped it earlier."""


class Tree:
    """What is alive of it. `is_empty` is for the promise to release only then; what can run is known to the world."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.world = keeper.world
        self.run = 0
        """The number of the last start."""
        self.main = ""
        """pending (a shim that is about to become the command), running, or nothing."""
        self.others = 0
        """What else is alive of it."""
        self.attendants: dict[str, int] = {}
        """Hooks and questions that are under way, and which of their kind."""
        self.abandoned = 0
        self.is_stopped = False
        """By SIGSTOP, or its machine is asleep."""
        self._stops = 0
        self.is_overdue = False
        """It has just woken up, and its dates had passed by then."""
        self.stuck_until = 0.0
        """SIGKILL does not end it before (state D)."""
        self.is_killed = False
        """It got SIGKILL in state D: it will never run again, but it is there."""
        self.last_status: int | None = None
        self.ignores_term = self.forks = self.others_ignore = False
        self._attendant = 0
        self._grant: Grant | None = None
        self._held_back: list[tuple[int, bool]] = []
        self._exec_waits = False

    @property
    def is_empty(self) -> bool:
        return not (self.main or self.others or self.attendants or self.abandoned)

    def has_survivors(self) -> bool:
        """Something is alive besides the main process and those that are awaited."""
        return bool(self.others or self.abandoned)

    @property
    def _can_run(self) -> bool:
        return (
            (self.main == "running" or bool(self.others or self.attendants or self.abandoned))
            and not self.is_stopped
            and not self.is_killed
            and not self.is_overdue
        )

    def _changed(self) -> None:
        runs = self in self.world.running
        if self._can_run != runs:
            if runs:
                self.world.note(self.keeper.name, "NOTHING of the command runs any more")
                self.world.rests(self)
            else:
                self.world.runs(self, self.keeper.instance)

    # ------------------------------------------------------------------ starting

    def start(self, grant: Grant) -> None:
        world, keeper = self.world, self.keeper
        if self.main:
            world.violation(f"{keeper.instance} starts its command over one that is alive")
        self.run += 1
        self.main, self._grant, self._held_back = "pending", grant, []
        self.ignores_term = world.likely(keeper.stubbornness)
        self.others_ignore = world.likely(keeper.stubbornness)
        self.forks = world.likely(0.2)
        delay = 0.001 + 0.008 * world.random()
        if world.likely(0.05) and not world.is_calm:
            delay = world.between(0.1, 3)
        world.after(delay, self._exec, self.run)

    def _exec(self, run: int) -> None:
        if run != self.run or self.main != "pending":
            return
        if self.is_stopped:
            self._exec_waits = True
            return
        keeper, grant, world = self.keeper, self._grant, self.world
        assert grant is not None
        late = keeper.node.now() - grant.term_by
        if late >= 0:
            if not (keeper.fleet.mutation and keeper.fleet.mutation.starts_late):
                self.main = ""
                world.note(keeper.name, "shim: too late")
                keeper.deliver(keeper.on_refused, run, "too late", None)
                return
            world.violation(f"late start: {keeper.instance} starts {late:.4f}s after term_by")
        if world.likely(0.01) and not world.is_calm:
            world.strike("cannot be executed", keeper.name)
            self.main = ""
            self.last_status = 127
            keeper.deliver(keeper.on_refused, run, "no such file", 127)
            return
        self.main = "running"
        world.note(keeper.name, "the command STARTS under grant %d", grant.number)
        world.starts += 1
        world.check_token(grant.term, keeper.instance)
        self._changed()
        if self.forks:
            self.others = 1
        keeper.deliver(keeper.on_executed, run)
        held_back, self._held_back = self._held_back, []
        for number, group in held_back:
            self.signal(number, group)
        keeper.plan_life(self)

    def exits(self, run: int, status: int) -> None:
        """The main process ends by itself."""
        if not self.world.is_calm and not self.is_stopped:
            self._end_main(run, status)

    # ------------------------------------------------------------------ signals

    def signal(self, number: int, group: bool, wake: bool = True) -> None:
        """To the main process, or to its group too."""
        world = self.world
        if wake and self.is_stopped and not self.keeper.node.is_asleep:
            self.wake_up()
        if self.main == "pending" and number != SIGKILL:
            self._held_back.append((number, group))
            return
        if self.main:
            if number == SIGKILL:
                world.after(world.between(0.001, 0.05), self._end_main, self.run, -SIGKILL)
            elif not self.ignores_term:
                slow = 0.4 if world.likely(0.9) else 6
                world.after(world.between(0.002, slow), self._end_main, self.run, -number)
        if group:
            self.tell_survivors()

    def tell_survivors(self) -> None:
        """SIGTERM to all but the main process and the hooks that are awaited."""
        if self.has_survivors() and not self.others_ignore:
            self.world.after(self.world.between(0.002, 0.4), self._end_others, self.run)

    def kill(self) -> None:
        """SIGKILL to everything: all of it is gone, but for what is in state D or has been forked that very moment."""
        world = self.world
        if self.is_empty:
            return
        if world.now < self.stuck_until:
            if not self.is_killed:
                self.is_killed = True
                self._changed()
                world.at(self.stuck_until, self.kill)
            return
        races = self.others > 0 and not self.is_killed and world.likely(0.2) and not world.is_calm
        main, ended = self.main, list(self.attendants)
        self.main, self.abandoned, self.is_killed = "", 0, False
        self.others = 1 if races else 0
        self.attendants = {}
        self._changed()
        keeper = self.keeper
        if main:
            self.last_status = -SIGKILL
            keeper.deliver(keeper.on_main_ended, self.run, -SIGKILL, main == "pending")
        for name in ended:
            keeper.deliver(keeper.on_attendant_ended, name, "was killed by SIGKILL")
        keeper.deliver(keeper.on_child_ended)

    def hunt_down(self) -> None:
        """SIGKILL, again and again, until nothing is left: so does the shim that waits."""
        self.kill()
        if not self.is_empty:
            self.world.after(self.world.between(0.005, 0.02), self.hunt_down)

    def vanish(self) -> None:
        """Its PID namespace has ended, and with it all that was in it."""
        self.main, self.others, self.abandoned, self.attendants = "", 0, 0, {}
        self._changed()

    def _end_main(self, run: int, status: int) -> None:
        if run != self.run or not self.main or self.is_killed:
            return
        if self.is_stopped and status != -SIGKILL:
            self.world.after(0.5, self._end_main, run, status)
            return
        was_pending, self.main = self.main == "pending", ""
        self.last_status = status
        self._changed()
        self.keeper.deliver(self.keeper.on_main_ended, run, status, was_pending)

    def _end_others(self, run: int) -> None:
        if run != self.run or not self.has_survivors() or self.is_killed:
            return
        if self.is_stopped:
            self.world.after(0.5, self._end_others, run)
        else:
            self.others = self.abandoned = 0
            self._changed()
            self.keeper.deliver(self.keeper.on_child_ended)

    def lose_main(self) -> None:
        """The keeper has died: a shim that waits or the main process dies with it (PDEATHSIG)."""
        if self.main:
            self.main = ""
            self._changed()

    # ------------------------------------------------------------------ beside the main process

    def attend(self, name: str) -> None:
        """A hook is run, or a question asked."""
        world = self.world
        self._attendant += 1
        self.attendants[name] = mine = self._attendant
        self._changed()
        fate = 1.0 if world.is_calm else world.random()
        length, failure = world.between(0.002, 0.05), ""
        trouble = self.keeper.hook_trouble
        if fate < trouble:
            world.strike("hook or question hangs", self.keeper.name, name)
            return
        if fate < 2 * trouble:
            world.strike("hook or question fails", self.keeper.name, name)
            failure = "exited with 3"
        elif fate < 3 * trouble:
            length = world.between(0.3, 5)
        world.after(length, self._end_attendant, name, mine, failure)

    def abandon(self, name: str) -> None:
        """End it: nobody waits for it."""
        if self.attendants.pop(name, None) is not None:
            self.abandoned += 1
            self.world.after(self.world.between(0.001, 0.05), self._end_abandoned)

    def _end_abandoned(self) -> None:
        if self.abandoned and not self.is_killed:
            self.abandoned -= 1
            self._changed()
            self.keeper.deliver(self.keeper.on_child_ended)

    def _end_attendant(self, name: str, which: int, failure: str) -> None:
        if self.attendants.get(name) != which or self.is_killed:
            return
        if self.is_stopped:
            self.world.after(0.5, self._end_attendant, name, which, failure)
            return
        del self.attendants[name]
        if self.world.likely(0.1) and not self.world.is_calm and name != "probe":
            self.others += 1  # a hook may leave something behind
        self._changed()
        self.keeper.deliver(self.keeper.on_attendant_ended, name, failure)

    # ------------------------------------------------------------------ stopped and continued

    def stop(self) -> int:
        """SIGSTOP to all of it, or its machine falls asleep. The number of this stop."""
        self.is_stopped = True
        self._stops += 1
        self._changed()
        return self._stops

    def wake_up(self, stop: int | None = None) -> None:
        """SIGCONT to all of it, or its machine is awake again. With a number: to end this stop, and no later one."""
        if not self.is_stopped or stop not in (None, self._stops):
            return
        self.is_stopped = False
        self._changed()
        if self._exec_waits:
            self._exec_waits = False
            self._exec(self.run)

    def awake_overdue(self) -> None:
        """Its machine is awake again, and has slept over the date by which all had to be dead."""
        self.is_overdue = True
        self.wake_up()
        self.world.after(OVERDUE, self._no_longer_overdue)

    def _no_longer_overdue(self) -> None:
        self.is_overdue = False
        self._changed()
