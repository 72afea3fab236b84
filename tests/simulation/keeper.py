"""One keeper: the real guard and the real policy for its electors, in a model of the loop that carries them out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from awaitelect import protocol
from awaitelect.core.restart import exit_status
from awaitelect.errors import EXIT_CONFIG
from awaitelect.keeper import guard as guards
from awaitelect.keeper.elector import Elector as ElectorSide
from awaitelect.keeper.guard import Guard, Phase
from awaitelect.keeper.loop import ELECTOR_TIME
from awaitelect.keeper.shim import PATIENCE as EYES_PATIENCE
from awaitelect.protocol import BackoffSettings, CommandSettings, Grant, Probe
from tests.simulation.machines import Node, Process
from tests.simulation.tree import SIGKILL, SIGTERM, Tree

if TYPE_CHECKING:
    from tests.simulation.elector import Elector
    from tests.simulation.fleet import Fleet

OVERHEAD = 3.0
"""Seconds over its arithmetic that a stop may take: messages, sweeps, electors that start."""
STUCK = guards.STUCK_AFTER + 1.0


def any_settings(fleet: Fleet, node: Node) -> CommandSettings:
    """A configuration of the command: half of the time a plain one."""
    world = fleet.world
    chance = world.chance
    given: dict[str, Any] = {
        "argv": ["true"],
        "stop_timeout": chance.choice([0.5, 3.0, 10.0, 30.0]),
        "kill_mode": chance.choice(["mixed", "group", "process", "tree"]),
        "max_restarts": chance.choice([0, 1, 5]),
        "on_give_up": chance.choice(["release", "release", "exit", "hold"]),
        "restart_policy": chance.choice(["on-failure", "on-failure", "always", "on-abnormal", "never"]),
        "backoff": BackoffSettings(initial=chance.choice([0.05, 0.5]), max=chance.choice([1.0, 4.0])),
        "renew_deadline": node.timing.renew_deadline,
    }
    if world.likely(0.5):
        return CommandSettings(**given)
    names = ("pre_start", "post_start", "pre_stop", "post_stop", "stop")
    given["hooks"] = {name: ["true"] for name in names if world.likely(0.5)}
    given["hook_timeout"] = chance.choice([1.0, 8.0])
    given["drain_timeout"] = chance.choice([0.0, 0.0, 2.0])
    given["ready"] = chance.choice(["exec", "notify", "probe"])
    given["start_timeout"] = chance.choice([2.0, 6.0])
    if given["ready"] == "probe":
        given["start_probe"] = Probe("exec", ["true"], period=0.5)
    if world.likely(0.4):
        given["liveness"] = Probe("exec", ["true"], period=chance.choice([1.0, 3.0]), failure_threshold=2)
    return CommandSettings(**given)


class Keeper(Process):
    """PID 1, or what a service starts."""

    def __init__(self, fleet: Fleet, node: Node, instance: str) -> None:
        super().__init__(fleet.world, node, f"{instance}.keeper")
        world = self.world
        self.fleet = fleet
        self.instance = instance
        self.stubbornness = 0.9 if world.random() < 0.35 else 0.05
        """How likely the command, and what it has forked, ignores SIGTERM."""
        self.crashes = world.random() < 0.2
        """It ends soon after each start."""
        self.hook_trouble = world.chance.choice([0.02, 0.25])
        self.settings = any_settings(fleet, node)
        self.guard = Guard(self.settings, world.random)
        self.elector: Elector | None = None
        self.side = ElectorSide()
        if fleet.mutation:
            fleet.mutation.change_keeper(self)
        self.tree = Tree(self)
        self.is_shutting_down = False
        self.is_leaving = False
        self.leave_status: int | None = None
        self.next_freeze: float | None = None
        """For so long the next elector is frozen after its first acquiring write."""
        self.at_awakening: list[Callable[[], None]] = []
        """What those who looked while the machine was asleep do once it is awake."""
        self._end_by: float | None = None
        self._bad_configuration = False
        self._stops = 0
        """How many stops have begun."""
        self._is_stopping = False
        self._held_up = 0.0
        """Seconds that it was frozen for: a stop may take so much longer."""
        if world.now < node.broken_until:
            self._finish("its configuration is broken")  # exit 78, nothing was ever held
        else:
            self.spawn_elector()

    # ------------------------------------------------------------------ the elector

    def spawn_elector(self) -> None:
        from tests.simulation.elector import Elector

        side, now = self.side, self.node.now()
        self.elector = elector = Elector(self.fleet, self)
        elector.freezes_at_write, self.next_freeze = self.next_freeze, None
        side.pid, side.restart_at = 1, None
        side.spawned_at = side.heard_at = now
        side.spawned += 1
        side.has_spoken = side._is_measured = False
        grant = self.guard.grant
        self._tell(protocol.Hello(self.instance, self.guard.number, grant.kill_by if grant else None))
        if self.guard.is_alive:
            self._tell(protocol.Spawned(1))
        if self.guard.phase == Phase.ENDED or self.guard.is_shutting_down:
            self._tell(protocol.Shutdown(SIGTERM))
        self._settle()

    def hear(self, elector: Elector) -> None:
        """It has said anything at all, or that there is trouble with the store."""
        if elector is self.elector and not self.is_frozen and self.is_alive:
            now = self.node.now()
            if not self.side._is_measured:
                self.side.has_spoken = self.side._is_measured = True
                self.side.startup = max(1.0, now - self.side.spawned_at)
            self.side.heard_at = now

    def on_message(self, sender: Elector, message: Any) -> None:
        now = self.node.now()
        self.hear(sender)
        if sender is not self.elector:
            pass  # its socket was closed when its end was seen
        elif isinstance(message, Grant):
            self.world.note(
                self.name,
                "gets grant %d, %.3fs until term_by, may_start=%s",
                message.number,
                message.term_by - now,
                message.may_start,
            )
            self._bad_configuration = False
            self._take_grant(message, now)
        elif isinstance(message, protocol.Stop):
            self.world.note(self.name, "gets stop: %s, grace=%s", message.cause, message.grace)
            self._perform(self.guard.on_stop(message.grace, now, message.cause == "deadline_near"))
        elif isinstance(message, protocol.Drained):
            self._perform(self.guard.on_drained(now))
        elif isinstance(message, protocol.Leave):
            self.is_leaving, self.leave_status = True, message.status
            self._perform(self.guard.on_deadline(now))
        elif message is None:
            self._elector_ended(now)
        self._settle()

    def _take_grant(self, grant: Grant, now: float) -> None:
        is_new = grant.number > self.guard.number
        actions = self.guard.on_grant(grant, now)
        says_gone = any(isinstance(one, guards.Tell) and isinstance(one.message, protocol.Gone) for one in actions)
        if is_new and not says_gone and self.guard.phase in (Phase.IDLE, Phase.GIVEN_UP, Phase.ENDED):
            self.world.violation(f"leads for nothing: {self.instance} does not use grant {grant.number}, nor says so")
        self._perform(actions)

    def _elector_ended(self, now: float) -> None:
        self.elector = None
        if self.is_leaving:
            self.side.pid = None
            return
        self.side.ended(now)
        if self.world.now < self.node.broken_until:
            self._bad_configuration = True
            if self.guard.phase in (Phase.IDLE, Phase.ENDED, Phase.GIVEN_UP):
                self._finish("its configuration is broken")

    def _hung_at(self) -> float:
        return self.side.hung_at(self.guard.renewal_due(self.side.heard_at), self.guard.patience)

    # ------------------------------------------------------------------ the command

    def on_executed(self, run: int) -> None:
        if run == self.tree.run and self.guard.is_alive:
            self._tell(protocol.Spawned(1))
            self._perform(self.guard.on_executed(self.node.now()))
            self._settle()

    def plan_life(self, tree: Tree) -> None:
        """What the command does by itself after its exec: get ready, ask for time, end."""
        world, run = self.world, tree.run
        if self.settings.ready == "notify" and (world.is_calm or world.likely(0.9)):
            world.after(world.between(0.005, 0.5), self.deliver, self.on_notified, run)
        if world.is_calm:
            return
        if self.crashes:
            world.strike("command crashes at once", self.name)
            world.after(world.between(0.005, 0.3), tree.exits, run, 1)
        elif world.likely(0.2):
            status = 0 if world.likely(0.2) else world.chance.choice([1, 3, -SIGKILL])
            world.strike("command ends" if status == 0 else "command crashes", self.name)
            world.after(world.between(0.01, 30), tree.exits, run, status)

    def on_notified(self, run: int) -> None:
        if run == self.tree.run and self.tree.main:
            if self.world.likely(0.1):
                self.guard.on_extended(5.0, self.node.now())
            self._perform(self.guard.on_notified(self.node.now()))
            self._settle()

    def on_main_ended(self, run: int, status: int, was_pending: bool) -> None:
        if run != self.tree.run or not self.guard.is_alive:
            return
        now = self.node.now()
        if was_pending:  # the pipe of a shim that was killed is as empty as that of one that has executed
            self._perform(self.guard.on_executed(now))
        survivors = self.tree.has_survivors()
        self.world.note(self.name, "the command's main process has ended: %d, survivors=%s", status, survivors)
        self._perform(self.guard.on_exited(status, survivors, now))
        self._settle()

    def on_refused(self, run: int, reason: str, status: int | None) -> None:
        if run == self.tree.run and self.guard.is_alive:
            self._perform(self.guard.on_refused(reason, status, self.node.now()))
            self._settle()

    def on_attendant_ended(self, name: str, failure: str) -> None:
        if name == guards.PROBE:
            self._perform(self.guard.on_answer(failure, self.node.now()))
        else:
            self._perform(self.guard.on_hook_ended(name, failure, self.node.now()))
        self._settle()

    def on_child_ended(self) -> None:
        self._settle()

    # ------------------------------------------------------------------ time

    def on_wake(self) -> None:
        now, side = self.node.now(), self.side
        self._perform(self.guard.on_wake(now))
        if self._end_by is not None and now >= self._end_by:
            self._finish("the elector has not ended in time")
        elif side.pid is None:
            if side.restart_at is not None and now >= side.restart_at and not self.is_leaving:
                self.spawn_elector()
        elif self._end_by is None and now >= self._hung_at():
            self.world.note(self.name, "replaces its hung elector")
            side.heard_at = now
            if self.elector:
                self.elector.die()
        self._settle()

    @property
    def has_eyes(self) -> bool:
        """A shim that waits looks whether we live."""
        return self.node.has_eyes and not (self.fleet.mutation and self.fleet.mutation.has_no_eyes)

    @property
    def is_watched(self) -> bool:
        """Somebody is there who can act in its place."""
        return self.has_eyes or (self.elector is not None and self.elector.is_alive)

    def dead_by(self) -> float | None:
        """When the shim that waits takes this keeper for dead."""
        guard = self.guard
        if guard.grant and guard.is_alive and guard.phase != Phase.KILLING:
            return guard.grant.kill_by
        return None

    def stop_for(self, seconds: float) -> None:
        """SIGSTOP to the keeper alone: the shim that waits has its eye on the date."""
        self.freeze(seconds)
        dead_by = self.dead_by()
        if self.has_eyes and dead_by is not None:
            at = max(self.node.true(dead_by), self.world.now) + EYES_PATIENCE
            self.world.at(at, self._be_seen, dead_by)

    def _be_seen(self, dead_by: float) -> None:
        if not (self.is_alive and self.is_frozen and dead_by == self.dead_by()):
            return
        if self.node.is_asleep:
            self.at_awakening.append(lambda: self.world.after(EYES_PATIENCE, self._be_seen, dead_by))
        else:
            self.world.note(self.name, "is taken for dead by the shim that waits")
            self.world.after(self.world.between(0.001, 0.08), self._end_by_eyes)

    def _end_by_eyes(self) -> None:
        if not self.node.is_pid1:
            self.die()
        self.tree.hunt_down()

    # ------------------------------------------------------------------ the end

    def shutdown(self) -> None:
        """SIGTERM has come."""
        if not self.is_shutting_down:
            self.is_shutting_down = True
            self._expect_end(self._check_shutdown, 0)
        self.world.note(self.name, "SIGTERM: shutting down")
        self._perform(self.guard.on_shutdown(SIGTERM, self.node.now()))
        self._settle()

    def stop_bound(self) -> float:
        """Seconds that a stop may take: the command's time (twice, where what its main process has left behind gets
        its own), the hook after it, what cannot be killed at first, and the release.
        """
        settings = self.settings
        ladders = 2 if settings.kill_mode == "process" else 1
        return ladders * settings.stop_timeout + settings.hook_timeout + STUCK + ELECTOR_TIME + OVERHEAD

    def _expect_end(self, check: Callable[[int], None], run: int) -> None:
        """Look, after the time that a stop may take, whether it has ended."""
        self.world.after(self.stop_bound() / self.node.rate, self._look_again, check, run, self._held_up)

    def _look_again(self, check: Callable[[int], None], run: int, held_up: float) -> None:
        if self._held_up > held_up:  # it could do nothing for a while
            self.world.after(self._held_up - held_up, self._look_again, check, run, self._held_up)
        elif self.is_alive:
            check(run)

    def _check_shutdown(self, run: int) -> None:
        self.world.violation(f"a shutdown of {self.instance} does not end: phase {self.guard.phase}")

    def _check_stop(self, number: int) -> None:
        if (
            number == self._stops
            and self._is_stopping
            and self.guard.phase in (Phase.STOPPING, Phase.KILLING, Phase.CLEANING)
        ):
            self.world.violation(f"a stop by {self.instance} does not end: phase {self.guard.phase}")

    def freeze(self, seconds: float) -> None:
        super().freeze(seconds)
        self._held_up += seconds

    def die(self) -> None:
        """Killed: what hangs on it alone goes with it."""
        if not self.is_alive:
            return
        self.world.note(self.name, "dies")
        self.is_alive = False
        tree, elector, world = self.tree, self.elector, self.world
        if self.node.is_pid1:
            if elector:
                elector.die()
            tree.vanish()
        else:
            tree.lose_main()
            if elector:
                elector.channel.to_elector(None)
            if self.has_eyes:
                world.after(world.between(0.001, 0.1), tree.hunt_down)
        self.fleet.ended(self, finished=False)

    def _finish(self, why: str) -> None:
        if not self.is_alive:
            return
        world, guard = self.world, self.guard
        world.note(self.name, "ends: %s", why)
        if not self.tree.is_empty and not guard.is_stuck:
            world.violation(f"{self.instance} ends before its command")
        if guard.status is not None and guard.phase == Phase.ENDED and guard.restarts == 0:
            self._check_status()
        self.is_alive = False
        if self.elector:
            self.elector.die()
        self.fleet.ended(self, finished=not self.is_shutting_down and guard.status == 0)

    def _check_status(self) -> None:
        """The exit status is the command's own: none is lost, none is made up but for a failure of ours."""
        said, real = self.guard.status, self.tree.last_status
        if real is not None and said is not None and not self.guard.last_end.startswith(("hooks", "the command was")):
            if exit_status(said) != exit_status(real) and said != 1:
                self.world.violation(f"exit status of {self.instance}: {said}, but the command ended with {real}")

    def _settle(self) -> None:
        """After each event: is the command gone, are we done, and when is the next date?"""
        guard, tree = self.guard, self.tree
        while self.is_alive and guard.phase in (Phase.STOPPING, Phase.KILLING, Phase.CLEANING) and tree.is_empty:
            before = guard.phase
            self._perform(guard.on_empty(self.node.now()))
            if guard.phase == before and tree.is_empty:
                break
        if not self.is_alive:
            return
        if not guard.is_alive:
            self._is_stopping = False
        if guard.is_alive:
            is_stopping = guard.phase in (Phase.STOPPING, Phase.KILLING, Phase.CLEANING)
            if is_stopping and not self._is_stopping:
                self._stops += 1
                self._expect_end(self._check_stop, self._stops)
            self._is_stopping = is_stopping
            if guard.is_stuck:
                self.world.note(self.name, "gives up what cannot be killed")
                self._finish("stuck")
                return
        elif self._bad_configuration and guard.phase == Phase.IDLE:
            self._finish(f"{EXIT_CONFIG}: its configuration is broken")
            return
        elif self.is_leaving:
            self._finish("the elector has left")
            return
        elif guard.phase == Phase.ENDED:
            if self._end_by is None:
                self._end_by = self.node.now() + ELECTOR_TIME
            if self.side.pid is None and guard.grant is None:
                self._finish("nothing was ever held")
                return
        self.arm(self._wake_at())

    def _wake_at(self) -> float | None:
        guarded = self.guard.wake_at
        at = math.inf if guarded is None else guarded
        if self._end_by is not None:
            at = min(at, self._end_by)
        if self.side.pid is None:
            if self.side.restart_at is not None:
                at = min(at, self.side.restart_at)
        elif self._end_by is None:
            at = min(at, self._hung_at())
        return at if at < math.inf else None

    # ------------------------------------------------------------------ carrying out

    def _tell(self, message: Any) -> None:
        if self.elector:
            self.elector.channel.to_elector(message)

    def _perform(self, actions: list[guards.Action]) -> None:
        tree, world = self.tree, self.world
        for action in actions:
            match action:
                case guards.Tell(message=message):
                    world.note(self.name, "says %s", message)
                    self._tell(message)
                case guards.Start(grant=grant):
                    tree.start(grant)
                case guards.Signal(number=number, group=group):
                    world.note(self.name, "signal %d", number)
                    tree.signal(number, group)
                case guards.SignalTree(number=number):
                    world.note(self.name, "signal %d to all", number)
                    tree.signal(number, True)
                case guards.TellSurvivors():
                    if tree.is_stopped and not self.node.is_asleep and tree.has_survivors():
                        tree.wake_up()
                    tree.tell_survivors()
                case guards.KillAll():
                    if not tree.is_empty:
                        world.note(self.name, "kills all")
                        slow = 0.1 if world.likely(0.95) else 0.2
                        world.after(world.between(0.001, slow), tree.kill)
                case guards.RunHook(name=name):
                    world.note(self.name, "runs its hook %s", name)
                    tree.attend(name)
                case guards.Ask():
                    tree.attend(guards.PROBE)
                case guards.Abandon(name=name):
                    tree.abandon(name)
                case _:
                    world.note(self.name, "%s", action.text)
