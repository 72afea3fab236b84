"""Keeper, elector and command of one instance, and the socket between the first two."""

from __future__ import annotations

from typing import Any

from awaitelect import protocol
from awaitelect.core import messages
from awaitelect.core.election import Election
from awaitelect.core.lease import Observed, stamp
from awaitelect.keeper import guard as guards
from awaitelect.protocol import CommandSettings, Grant
from tests.simulation.mutations import Mutation
from tests.simulation.store import Store, request
from tests.simulation.world import Node, Process, World

SIGTERM, SIGKILL = 15, 9


class Fleet:
    """What all instances share."""

    def __init__(self, world: World, store: Store, mutation: Mutation | None) -> None:
        self.world = world
        self.store = store
        self.mutation = mutation
        self.keepers: dict[Node, Keeper] = {}
        self.is_quiet = False
        """The time of faults is over."""
        self.finished: set[Node] = set()
        """Where the command has done all that it was to do."""

    def start(self, node: Node) -> None:
        node.runs += 1
        self.keepers[node] = keeper = Keeper(self, node, f"{node.name}#{node.runs}")
        self.world.note(keeper.name, "starts")
        keeper.spawn_elector()

    def ended(self, keeper: Keeper, *, finished: bool) -> None:
        if finished and not self.is_quiet and self.world.likely(0.2):
            self.finished.add(keeper.node)
            return
        self.world.after(self.world.between(0.2, 5), self.start, keeper.node)


class Command:
    """The command and what it has started: first a shim that waits for its exec, then the real thing."""

    def __init__(self, keeper: Keeper, grant: Grant) -> None:
        self.keeper = keeper
        self.grant = grant
        self.world = world = keeper.world
        self.is_pending = True
        self.is_main_alive = True
        self.are_others_alive = False
        self.ignores_term = world.likely(keeper.stubbornness)
        self.leaves_survivors = world.likely(0.15)
        delay = 0.001 + 0.008 * world.chance.random()
        if world.likely(0.05):
            delay = world.between(0.1, 3)
        world.after(delay, self._exec)

    @property
    def is_alive(self) -> bool:
        return self.is_main_alive or self.are_others_alive

    def _exec(self) -> None:
        if not self.is_main_alive:
            return
        keeper, now = self.keeper, self.keeper.node.now()
        self.is_pending = False
        is_late = now >= self.grant.term_by
        if is_late and not (keeper.fleet.mutation and keeper.fleet.mutation.starts_late):
            self.is_main_alive = False
            self.world.note(keeper.name, "shim: too late")
            keeper.deliver(keeper.on_refused, self)
            return
        if is_late:
            self.world.violation(f"late start: {keeper.instance} starts {now - self.grant.term_by:.4f}s after term_by")
        self.world.note(keeper.name, "command STARTS under grant %d", self.grant.number)
        self.world.started(self, keeper.instance)
        keeper.deliver(keeper.on_spawned, self)
        if not keeper.fleet.is_quiet and self.world.likely(0.25):
            self.world.after(self.world.between(0.01, 30), self._exit, 0 if self.world.likely(0.2) else 1)

    def _exit(self, status: int) -> None:
        if self.is_main_alive and not self.keeper.fleet.is_quiet:
            self._end_main(status)

    def signal(self, number: int, group: bool) -> None:
        if self.ignores_term and not self.is_pending:
            return
        delay = 0.001 if self.is_pending else self.world.between(0.002, 0.4)
        self.world.after(delay, self._end_main, -number)
        if group:
            self.world.after(self.world.between(0.002, 0.4), self._end_others)

    def kill(self) -> None:
        """SIGKILL to everything, and all of it is gone."""
        self.are_others_alive = self.leaves_survivors = False
        if self.is_main_alive:
            self._end_main(-SIGKILL)
        else:
            self._end_others()

    def _end_main(self, status: int) -> None:
        if not self.is_main_alive:
            return
        survivors = self.leaves_survivors and not self.is_pending
        self.is_main_alive, self.are_others_alive = False, survivors
        self.keeper.deliver(self.keeper.on_exited, self, status, survivors)
        self._check_end()

    def _end_others(self) -> None:
        if self.are_others_alive:
            self.are_others_alive = False
        self._check_end()

    def _check_end(self) -> None:
        if not self.is_alive and self.keeper.command is self:
            if self in self.world.running:
                self.world.note(self.keeper.name, "command ENDS")
                self.world.ended(self)
            self.keeper.deliver(self.keeper.on_empty, self)


class Channel:
    """A SOCK_SEQPACKET pair: in order both ways, and an end that dies is seen after its last message."""

    def __init__(self, world: World, keeper: Keeper, elector: Elector) -> None:
        self.world = world
        self.keeper = keeper
        self.elector = elector
        self._to_keeper = self._to_elector = 0.0

    def _delay(self) -> float:
        if self.world.likely(0.25 if self.keeper.node.is_busy else 0.02):
            return self.world.between(0.005, 0.3)
        return 0.0002 + 0.002 * self.world.chance.random()

    def to_keeper(self, message: Any) -> None:
        self._to_keeper = max(self._to_keeper, self.world.now + self._delay())
        self.world.at(self._to_keeper, self.keeper.deliver, self.keeper.on_message, self.elector, message)

    def to_elector(self, message: Any) -> None:
        self._to_elector = max(self._to_elector, self.world.now + self._delay())
        self.world.at(self._to_elector, self.elector.deliver, self.elector.on_message, message)


class Keeper(Process):
    """PID 1, or what a service starts: the guard, with its processes."""

    def __init__(self, fleet: Fleet, node: Node, instance: str) -> None:
        super().__init__(fleet.world, node, f"{instance}.keeper")
        chance = self.world.chance
        self.fleet = fleet
        self.instance = instance
        self.stubbornness = 0.9 if chance.random() < 0.35 else 0.05
        timing = node.timing
        settings = CommandSettings(
            argv=["true"],
            stop_timeout=chance.choice([0.5, 3.0, 10.0, 30.0]),
            kill_mode=chance.choice(["mixed", "group"]),
            max_restarts=chance.choice([1, 5]),
            on_give_up="release",
            renew_deadline=timing.renew_deadline,
        )
        self.guard = guards.Guard(settings, chance.random)
        if fleet.mutation:
            fleet.mutation.change_guard(self.guard)
        self.elector: Elector | None = None
        self.channel: Channel | None = None
        self.command: Command | None = None
        self.is_shutting_down = False
        self.is_leaving = False
        self.next_freeze: float | None = None
        """For so long the next elector is frozen after its first acquiring write."""
        self._end_by: float | None = None

    # the elector

    def spawn_elector(self) -> None:
        if not self.is_alive:
            return
        self.elector = Elector(self.fleet, self)
        self.channel = self.elector.channel
        self.elector.freezes_at_write, self.next_freeze = self.next_freeze, None
        grant = self.guard.grant
        self.channel.to_elector(protocol.Hello(self.instance, self.guard.number, grant.kill_by if grant else None))
        if self.guard.is_alive:
            self.channel.to_elector(protocol.Spawned(1))
        if self.is_shutting_down:
            self.channel.to_elector(protocol.Shutdown(SIGTERM))

    def on_message(self, sender: Elector, message: Any) -> None:
        now = self.node.now()
        if isinstance(message, Grant):
            self.world.note(
                self.name,
                "gets grant %d, %.3fs until term_by, may_start=%s",
                message.number,
                message.term_by - now,
                message.may_start,
            )
            self._do(self.guard.on_grant(message, now))
        elif isinstance(message, protocol.Stop):
            self.world.note(self.name, "gets stop: %s, grace=%s", message.cause, message.grace)
            self._do(self.guard.on_stop(message.grace, now))
        elif isinstance(message, protocol.Leave):
            self.is_leaving = True
            self._do(self.guard.on_stop(False, now) if self.guard.is_alive else [])
        elif message is None and sender is self.elector:
            self.elector = self.channel = None
            if not (self.is_leaving or self.guard.phase == guards.Phase.ENDED):
                self.world.after(self.world.between(0.01, 0.3), self.deliver, self.spawn_elector)
        self._settle()

    # the command

    def on_spawned(self, command: Command) -> None:
        if self.channel and command.is_alive:
            self.channel.to_elector(protocol.Spawned(1))

    def on_exited(self, command: Command, status: int, survivors: bool) -> None:
        if command is self.command:
            self.world.note(self.name, "command exited: %d, survivors=%s", status, survivors)
            self._do(self.guard.on_exited(status, survivors, self.node.now()))
            self._settle()

    def on_refused(self, command: Command) -> None:
        if command is self.command:
            self.command = None
            self._do(self.guard.on_refused("too late", None, self.node.now()))
            self._settle()

    def on_empty(self, command: Command) -> None:
        if command is self.command:
            self.command = None
            self._do(self.guard.on_empty(self.node.now()))
            self._settle()

    # time, and the end

    def on_wake(self) -> None:
        self._do(self.guard.on_wake(self.node.now()))
        self._settle()

    def shutdown(self) -> None:
        self.world.note(self.name, "SIGTERM")
        if not self.is_shutting_down:
            self.is_shutting_down = True
            limit = self.node.timing.lease_duration + 40
            self.world.after(limit, self._check_shutdown)
        self._do(self.guard.on_shutdown(SIGTERM, self.node.now()))
        self._settle()

    def _check_shutdown(self) -> None:
        if self.is_alive and not self.is_frozen:
            self.world.violation(f"a shutdown of {self.instance} does not end: phase {self.guard.phase}")

    def replace_hung_elector(self, sender: Elector) -> None:
        if sender is self.elector and sender.is_frozen and self.guard.is_alive:
            self.world.note(self.name, "replaces its hung elector")
            sender.die()

    def die(self) -> None:
        """Killed: what hangs on it alone goes with it."""
        if not self.is_alive:
            return
        self.world.note(self.name, "dies")
        self.is_alive = False
        command, elector = self.command, self.elector
        if command and command.is_pending:
            command.kill()
        if self.node.is_pid1:
            if elector:
                elector.die()
            if command:
                command.kill()
        else:
            if self.channel:
                self.channel.to_elector(None)
            if command and (elector is None or not elector.is_alive or elector.is_frozen):
                self.world.after(self.world.between(0.001, 0.1), command.kill)  # by the shim that waits
        self.fleet.ended(self, finished=False)

    def _settle(self) -> None:
        """After each event: end if it is time to, else sleep until the next date."""
        if not self.is_alive:
            return
        guard = self.guard
        is_over = self.is_leaving and not guard.is_alive
        if guard.phase == guards.Phase.ENDED:
            if self._end_by is None:
                self._end_by = self.node.now() + 5
                self.world.after(5, self.deliver, self._settle)
            is_over = is_over or self.elector is None or self.node.now() >= self._end_by - 0.1
        if is_over:
            self.world.note(self.name, "ends")
            if self.command and self.command.is_alive:
                self.world.violation(f"{self.instance} ends before its command")
            self.is_alive = False
            if self.elector:
                self.elector.die()
            self.fleet.ended(self, finished=not self.is_shutting_down and guard.status == 0)
            return
        self.arm(guard.wake_at)

    def _do(self, actions: list[guards.Action]) -> None:
        for action in actions:
            if isinstance(action, guards.Start):
                self.command = Command(self, action.grant)
            elif isinstance(action, guards.Signal):
                if self.command:
                    self.command.signal(action.number, action.group)
            elif isinstance(action, guards.TellSurvivors):
                if self.command:
                    self.command.signal(SIGTERM, True)
            elif isinstance(action, guards.KillAll):
                if self.command:
                    self.world.after(self.world.between(0.001, 0.1), self.command.kill)
            elif isinstance(action, guards.Tell):
                self.world.note(self.name, "says %s", action.message)
                if self.channel:
                    self.channel.to_elector(action.message)
            else:
                self.world.note(self.name, action.text)


class Request:
    """One read or write under way."""

    __slots__ = ("is_write",)

    def __init__(self, is_write: bool) -> None:
        self.is_write = is_write


class Elector(Process):
    """The shell around the election: it performs the actions and feeds the events back."""

    def __init__(self, fleet: Fleet, keeper: Keeper) -> None:
        super().__init__(fleet.world, keeper.node, f"{keeper.instance}.elector")
        self.fleet = fleet
        self.keeper = keeper
        self.channel = Channel(self.world, keeper, self)
        self.election: Election | None = None
        self.seen_duration = 0
        """That of the last record with a holder that it has seen."""
        self.freezes_at_write: float | None = None
        """The next acquiring write is followed by a freeze of this length."""
        self._request: Request | None = None
        self._is_acting = False
        self.is_frozen = True  # until it is up
        self.world.after(self.world.between(0.25, 0.7), self._begin)

    def _begin(self) -> None:
        if not self.is_alive:
            return
        if self.fleet.store.is_misleading:
            self.world.after(0.5, self._begin)
            return
        self.fleet.store.electors.append(self)
        self.thaw()

    @property
    def is_up(self) -> bool:
        return self.election is not None

    def on_message(self, message: Any) -> None:
        if isinstance(message, protocol.Hello):
            node = self.node
            self.election = Election(
                node.identity,
                message.instance,
                node.timing,
                self.world.chance.random,
                last_number=message.number,
                **({} if message.kill_by is None else {"last_kill_by": message.kill_by}),
            )
            if self.fleet.mutation:
                self.fleet.mutation.change_election(self.election)
            self.feed(messages.Started())
        elif isinstance(message, protocol.Ack):
            self.feed(messages.GrantAcknowledged(message.number))
        elif isinstance(message, protocol.Spawned):
            self.feed(messages.CommandSpawned())
        elif isinstance(message, protocol.Gone):
            self.feed(messages.CommandGone(message.number, message.cause))
        elif isinstance(message, protocol.Shutdown):
            self.feed(messages.StopRequested())
        elif message is None:
            self.feed(messages.KeeperDied())

    def on_watch(self, observed: Observed) -> None:
        if self.election is not None:
            self._see(observed)
            self.feed(messages.LeaseObserved(observed))

    def on_wake(self) -> None:
        self.feed(messages.Woke())

    def die(self) -> None:
        if not self.is_alive:
            return
        self.world.note(self.name, "dies")
        self.is_alive = False
        if self in self.fleet.store.electors:
            self.fleet.store.electors.remove(self)
        self.channel.to_keeper(None)

    def freeze(self, seconds: float) -> None:
        super().freeze(seconds)
        keeper = self.keeper
        if self.node.replaces_hung_electors and keeper.guard.grant:
            at = keeper.node.true(keeper.guard.grant.term_by) - 2
            self.world.at(max(at, self.world.now + 0.5), keeper.deliver, keeper.replace_hung_elector, self)

    def feed(self, event: messages.Event) -> None:
        election = self.election
        if election is None:
            return  # nobody has introduced himself
        for action in election.handle(event, self.node.now()):
            self._perform(action)
        if self.is_alive:
            self.arm(election.wake_at)

    def _see(self, observed: Observed) -> None:
        if observed.record and observed.record.holder:
            self.seen_duration = observed.record.duration

    def _perform(self, action: messages.Action) -> None:
        world = self.world
        if isinstance(action, messages.Report):
            world.note(self.name, "%s", action.text)
        elif isinstance(action, messages.ReadLease):
            self._send(None, action.timeout)
        elif isinstance(action, messages.WriteLease):
            self._send(action, action.timeout)
        elif isinstance(action, messages.Grant):
            if action.term_by <= self.node.now():
                world.violation(f"late grant: {self.name} sends grant {action.number} after its own term_by")
            grant = Grant(action.number, action.term_by, action.kill_by, action.may_start, action.token)
            self.channel.to_keeper(grant)
        elif isinstance(action, messages.StopCommand):
            self.channel.to_keeper(protocol.Stop(action.cause, action.grace))
        elif isinstance(action, messages.KillTree):
            self._kill_tree(action.start_by)
        elif isinstance(action, messages.Leave):
            world.note(self.name, "leaves")
            self.channel.to_keeper(protocol.Leave(action.status))
            self.die()

    # requests

    def _send(self, write: messages.WriteLease | None, timeout: float) -> None:
        world, node, store = self.world, self.node, self.fleet.store
        if self._request is not None:
            world.violation(f"two requests at once by {self.name}")
        self._request = asked = Request(write is not None)
        sent_at = node.now()
        world.at(node.true(sent_at + timeout), self.deliver, self._fail, asked, "time-out", True, None)

        def fail(reason: str, uncertain: bool, retry_after: float | None) -> None:
            self.deliver(self._fail, asked, reason, uncertain, retry_after)

        if write is None:
            request(world, node, lambda: store.current, lambda got: self.deliver(self._answer_read, asked, got), fail)
            return
        record = write.record
        if write.purpose != "release" or record.holder:
            record = stamp(record, write.base.record, node.wall())
        world.note(self.name, "writes: %s on v%d", write.purpose, write.base.version)

        def serve() -> Observed | None:
            return store.write(write.base, record, f"{self.name} ({write.purpose})", self.keeper.instance)

        request(world, node, serve, lambda got: self.deliver(self._answer_write, asked, got, sent_at), fail)
        if self.freezes_at_write is not None and write.purpose == "acquire" and not self.fleet.is_quiet:
            seconds, self.freezes_at_write = self.freezes_at_write, None
            if self.keeper.is_alive and not self.keeper.is_frozen:
                self.world.after(0.0001, self._freeze_now, seconds)

    def _freeze_now(self, seconds: float) -> None:
        if self.is_alive and not self.is_frozen and self.keeper.is_alive and not self.keeper.is_frozen:
            self.freeze(seconds)

    def _answer_read(self, asked: Request, observed: Observed) -> None:
        if asked is self._request:
            self._request = None
            self._see(observed)
            self.feed(messages.LeaseRead(observed))

    def _answer_write(self, asked: Request, observed: Observed | None, sent_at: float) -> None:
        if asked is not self._request:
            return
        self._request = None
        if observed is None:
            self.feed(messages.WriteConflicted())
        else:
            self._see(observed)
            self.feed(messages.WriteConfirmed(observed, sent_at))

    def _fail(self, asked: Request, reason: str, uncertain: bool, retry_after: float | None) -> None:
        if asked is not self._request:
            return
        self._request = None
        if asked.is_write:
            self.feed(messages.WriteFailed(reason, uncertain, retry_after))
        else:
            self.feed(messages.ReadFailed(reason, retry_after))

    # in the place of a dead or silent keeper

    def _kill_tree(self, start_by: float) -> None:
        self.world.note(self.name, "kills the tree")
        if self.node.is_pid1:
            if start_by == float("inf"):
                return
            delay = max(self.node.true(start_by) - self.world.now, 0) + 0.001
            self.world.after(delay, self.deliver, self._kill_command)
        else:
            self.world.after(0.001, self.keeper.die)
            self.world.after(0.002, self.deliver, self._kill_command)

    def _kill_command(self) -> None:
        self.world.after(self.world.between(0.001, 0.1), self.deliver, self._killed)

    def _killed(self) -> None:
        if self.keeper.command:
            self.keeper.command.kill()
        self.feed(messages.TreeKilled())
