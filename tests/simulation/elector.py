"""One elector: the real election in a model of the shell around it, and the socket to its keeper."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from awaitelect import protocol
from awaitelect.core import messages
from awaitelect.core.election import Election
from awaitelect.core.lease import Observed, Record, stamp
from awaitelect.core.machine import State
from awaitelect.elector.guard import LEAST_LOOKS, PACE
from awaitelect.protocol import Grant
from awaitelect.values import changed
from tests.simulation.machines import Process
from tests.simulation.network import Request

if TYPE_CHECKING:
    from tests.simulation.fleet import Fleet
    from tests.simulation.keeper import Keeper

SLACK = 0.5
"""Seconds over its time-out after which a request counts as failed whatever the store does."""
LOST_LEASE = 1.5
"""Seconds from hearing that another holds the lease until nothing of the command is alive."""
LOOK = 0.06
"""Seconds between two looks at a tree that is being killed: events are dear here."""
WINDOW = 10.0
"""Seconds over which requests are counted."""


def allowed_requests(retry_period: float, changes: int) -> int:
    """In one window: a read or write per quarter of a retry period at first, then one per period, and again whenever
    the lease has changed under it."""
    return int(2 * WINDOW / retry_period) + 3 * changes + 8


class Channel:
    """A SOCK_SEQPACKET pair: in order both ways, and an end that dies is seen after its last message."""

    def __init__(self, keeper: Keeper, elector: Elector) -> None:
        self.world = elector.world
        self.keeper = keeper
        self.elector = elector
        self._late = 0.25 if keeper.node.is_busy else 0.02
        self._to_keeper = self._to_elector = 0.0

    def _delay(self) -> float:
        chance = self.world.random
        if chance() < self._late and not self.world.is_calm:
            return self.world.between(0.005, 0.3)
        return 0.0002 + 0.002 * chance()

    def to_keeper(self, message: Any) -> None:
        if message is not None and self.keeper.is_full:
            return
        self._to_keeper = max(self._to_keeper, self.world.now + self._delay())
        self.world.at(self._to_keeper, self.keeper.deliver, self.keeper.on_message, self.elector, message)

    def to_elector(self, message: Any) -> None:
        if message is not None and self.elector.is_full:
            self.world.struck["message lost in a full socket"] += 1
            return
        self._to_elector = max(self._to_elector, self.world.now + self._delay())
        self.world.at(self._to_elector, self.elector.deliver, self.elector.on_message, message)


class Elector(Process):
    """It performs the actions of its election and feeds the events back."""

    def __init__(self, fleet: Fleet, keeper: Keeper) -> None:
        super().__init__(fleet.world, keeper.node, f"{keeper.instance}.elector")
        world = self.world
        self.fleet = fleet
        self.keeper = keeper
        self.channel = Channel(keeper, self)
        self.election: Election | None = None
        self.seen = Record()
        """The last record with a holder that it has seen."""
        self.freezes_at_write: float | None = None
        """The next acquiring write is followed by a freeze of this length."""
        self.is_watching = False
        self.requests = 0
        self._up_at = world.now
        self._failures = 0
        """Attempts to renew that have failed since the last that was confirmed."""
        self._request: object | None = None
        self._purpose = ""
        self._counted_at, self._counted, self._changes = world.now, 0, 0
        self._told_lost = -1
        self._confirmed_at = 0.0
        """When the last confirmed write was sent, by the own clock."""
        self._unanswered = 0
        """The grant of which the keeper has said nothing yet."""
        self.is_frozen, self._is_begun = True, False  # until it is up
        is_broken = world.now < self.node.broken_until
        slow = 2.5 if world.likely(0.05) and not world.is_calm else 0.45
        world.after(world.between(0.25, 0.25 + slow), self.die if is_broken else self._begin)

    def _begin(self) -> None:
        if not self.is_alive:
            return
        wait = max(self._frozen_until - self.world.now, 0.5 if self.fleet.store.is_misleading else 0.0)
        if wait > 0:
            self.world.after(wait, self._begin)
            return
        self.fleet.store.electors.append(self)
        self._is_begun = True
        self.thaw()

    def thaw(self) -> None:
        """Go on; a start that was frozen ends when it may."""
        if self._is_begun:
            super().thaw()

    @property
    def is_up(self) -> bool:
        return self.election is not None

    # ------------------------------------------------------------------ events in

    def on_message(self, message: Any) -> None:
        if isinstance(message, (protocol.Ack, protocol.Gone)) and message.number == self._unanswered:
            self._unanswered = 0
        match message:
            case protocol.Ack():
                self.feed(messages.GrantAcknowledged(message.number))
            case protocol.Spawned():
                self.feed(messages.CommandSpawned())
            case protocol.Gone():
                self.feed(messages.CommandGone(message.number, message.cause))
            case protocol.Hello():
                self._greet(message)
            case protocol.Shutdown():
                self.feed(messages.StopRequested())
            case protocol.Ready():
                if not message.is_ready and (self.world.is_calm or self.world.likely(0.8)):
                    self.world.after(self.world.between(0.005, 1.0), self.deliver, self._tell_drained)
            case None:
                self.feed(messages.KeeperDied())

    def _greet(self, hello: protocol.Hello) -> None:
        node = self.node
        known = {} if hello.kill_by is None else {"last_kill_by": hello.kill_by}
        self._up_at = self.world.now
        self.election = Election(
            node.identity, hello.instance, node.timing, self.world.random, last_number=hello.number, **known
        )
        if self.fleet.mutation:
            self.fleet.mutation.change_election(self.election, node)
        self.feed(messages.Started())

    def _tell_drained(self) -> None:
        self.channel.to_keeper(protocol.Drained())

    def on_watch(self, observed: Observed) -> None:
        if self.election is not None and self.is_watching:
            self._see(observed)
            self.feed(messages.LeaseObserved(observed))

    def on_wake(self) -> None:
        """What the keeper has said is heard before the alarm."""
        waiting, self._backlog = self._backlog, deque()
        for do, args in waiting:
            if do == self.on_message and self.is_alive:
                do(*args)
            else:
                self._backlog.append((do, args))
        if self.is_alive:
            self.feed(messages.Woke())

    def feed(self, event: messages.Event) -> None:
        election = self.election
        if election is None or not self.is_alive:
            return  # nobody has introduced himself
        for action in election.handle(event, self.node.now()):
            if isinstance(action, messages.StopCommand) and not isinstance(event, messages.CommandGone):
                self._check_cause(action.cause)
            self._perform(action)
        if self.is_alive:
            self.arm(election.wake_at)
            if election.view.is_held_by_another and not self.keeper.tree.is_empty:
                self._note_lost_lease()

    def die(self) -> None:
        if not self.is_alive:
            return
        self.world.note(self.name, "dies")
        self.is_alive = False
        if self in self.fleet.store.electors:
            self.fleet.store.electors.remove(self)
        self.channel.to_keeper(None)

    # ------------------------------------------------------------------ actions out

    def _perform(self, action: messages.Action) -> None:
        world = self.world
        match action:
            case messages.Report():
                world.note(self.name, "%s", action.text)
            case messages.ReadLease():
                self._send(None, action.timeout)
            case messages.WriteLease():
                self._send(action, action.timeout)
            case messages.Grant():
                self._check_grant(action)
                self.channel.to_keeper(
                    Grant(action.number, action.term_by, action.kill_by, action.may_start, action.token)
                )
            case messages.StopCommand():
                self.channel.to_keeper(protocol.Stop(action.cause, action.grace))
            case messages.KillTree():
                self._kill_tree(action.start_by)
            case messages.Leave():
                world.note(self.name, "leaves")
                self.channel.to_keeper(protocol.Leave(action.status))
                self.die()

    def _check_grant(self, grant: messages.Grant) -> None:
        """It promises no more than the last confirmed write, and follows no other that the keeper may not know of."""
        world, timing = self.world, self.node.timing
        if grant.term_by <= self.node.now():
            world.violation(f"late grant: {self.name} sends grant {grant.number} after its own term_by")
        ends = self._confirmed_at + timing.lease_duration - timing.kill_margin
        if grant.term_by > self._confirmed_at + timing.renew_deadline + 1e-6 or grant.kill_by > ends + 1e-6:
            world.violation(f"generous: grant {grant.number} by {self.name} ends {grant.kill_by - ends:.3f}s too late")
        if self._unanswered:
            world.violation(f"hasty: {self.name} sends grant {grant.number} while {self._unanswered} is unanswered")
        self._unanswered = grant.number

    def _check_cause(self, cause: str) -> None:
        """A term is over only for a reason: another holder, or time, and time only after two whole attempts."""
        election, world, node = self.election, self.world, self.node
        assert election is not None
        if cause == "lease_lost" and not election.view.is_held_by_another:
            world.violation(f"lease lost: {self.name} stops its command, but nobody else holds the lease")
        since = world.now - node.timing.lease_duration / node.rate
        is_undisturbed = since > max(node.disturbed_until, self.fleet.store.disturbed_until, self._up_at)
        if cause == "deadline_near" and is_undisturbed and self._failures < 2 and not node.is_busy:
            world.violation(f"impatient: {self.name} gives up its term after {self._failures} failed attempts")

    def _note_lost_lease(self) -> None:
        """Another holds the lease: what runs here has to be dead in a moment."""
        keeper = self.keeper
        if self._told_lost != keeper.tree.run:
            self._told_lost = keeper.tree.run
            self.world.after(LOST_LEASE, self._check_killed, keeper.tree.run, self.world.now)

    def _check_killed(self, run: int, since: float) -> None:
        keeper, tree = self.keeper, self.keeper.tree
        lives = tree.run == run and tree in self.world.running and keeper.is_alive
        if lives and self.is_alive and self.node.disturbed_until < since:
            self.world.violation(f"lived on: {keeper.instance} has heard of another holder {LOST_LEASE}s ago")

    # ------------------------------------------------------------------ requests

    def _see(self, observed: Observed) -> None:
        self._changes += 1
        if observed.record and observed.record.holder:
            self.seen = observed.record

    def _count_request(self) -> None:
        self.requests += 1
        now = self.world.now
        if now > self._counted_at + WINDOW:
            self._counted_at, self._counted, self._changes = now, 0, 0
        self._counted += 1
        if self._counted > allowed_requests(self.node.timing.retry_period, self._changes):
            self.world.violation(f"busy loop: {self.name} has sent {self._counted} requests within {WINDOW:.0f}s")

    def _send(self, write: messages.WriteLease | None, timeout: float) -> None:
        world, node, store = self.world, self.node, self.fleet.store
        if self._request is not None:
            world.violation(f"two requests at once by {self.name}")
        self._count_request()
        self._request = asked = object()
        self._purpose = write.purpose if write else "read"
        sent_at = node.now()
        world.at(node.true(sent_at + timeout), self._time_out, asked, node.slept)

        def fail(reason: str, uncertain: bool, retry_after: float | None) -> None:
            if asked is self._request:
                self.deliver(self._fail, asked, reason, uncertain, retry_after)

        if write is None:
            Request(
                world, store, node, lambda: store.current, lambda got: self._answer(asked, got, sent_at), fail
            ).send()
            return
        record = stamp(write.record, write.base.record, node.wall())
        if self.fleet.mutation and self.fleet.mutation.stamps_plainly:
            record = changed(record, renew_time=node.wall())
        world.note(self.name, "writes: %s on v%d", write.purpose, write.base.version)

        def serve() -> Observed | None:
            return store.write(write, record, self.name, self.keeper, asked is self._request)

        Request(world, store, node, serve, lambda got: self._answer(asked, got, sent_at), fail).send()
        if self.freezes_at_write is not None and write.purpose == "acquire" and not world.is_calm:
            seconds, self.freezes_at_write = self.freezes_at_write, None
            world.after(0.0001, self._freeze_now, seconds)

    def _freeze_now(self, seconds: float) -> None:
        if self.is_alive and not self.is_frozen and self.keeper.is_alive and not self.keeper.is_frozen:
            self.world.strike("elector frozen in mid-write", self.name)
            self.node.disturb(seconds)
            self.freeze(seconds)

    def _time_out(self, asked: object, slept: float) -> None:
        """Its time is CLOCK_MONOTONIC's, which has not counted what the machine has slept since."""
        if asked is not self._request or not self.is_alive:
            return
        more = self.node.slept - slept
        if more > 0.001:
            self.world.after(more, self._time_out, asked, self.node.slept)
        else:
            self.deliver(self._fail, asked, "time-out", True, None)

    def _answer(self, asked: object, observed: Observed | None, sent_at: float) -> None:
        if asked is self._request:
            self.deliver(self._take_answer, asked, observed, sent_at)

    def _take_answer(self, asked: object, observed: Observed | None, sent_at: float) -> None:
        if asked is not self._request:
            return
        self._request = None
        if self._purpose == "read":
            assert observed is not None
            self.keeper.hear(self)
            self.is_watching = True
            self._see(observed)
            self.feed(messages.LeaseRead(observed))
        elif observed is None:
            self._changes += 1
            self.feed(messages.WriteConflicted())
        else:
            self._failures = 0
            self._confirmed_at = sent_at
            self._see(observed)
            self.feed(messages.WriteConfirmed(observed, sent_at))

    def _fail(self, asked: object, reason: str, uncertain: bool, retry_after: float | None) -> None:
        if asked is not self._request:
            return
        self._request = None
        self._failures += 1
        self.keeper.hear(self)
        if self._purpose == "read":
            self.feed(messages.ReadFailed(reason, retry_after))
        else:
            self.feed(messages.WriteFailed(reason, uncertain, retry_after))

    # ------------------------------------------------------------------ in the place of a dead or silent keeper

    def _kill_tree(self, start_by: float) -> None:
        """First the keeper, so that nothing wakes up later; as PID 1 it cannot be killed from inside: wait instead."""
        self.world.note(self.name, "kills the tree")
        give_up_at = self.node.now() + self.node.timing.lease_duration
        if self.node.is_pid1:
            delay = 0.0 if start_by == float("inf") else max(self.node.true(start_by) - self.world.now, 0)
            self.world.after(delay + 0.001, self.deliver, self._look, give_up_at, 0, False)
        else:
            self.world.after(0.001, self.keeper.die)
            self.world.after(0.003, self.deliver, self._look, give_up_at, 0, False)

    def _look(self, give_up_at: float, looks: int, was_empty: bool) -> None:
        """Twice in a row nothing may be left."""
        tree = self.keeper.tree
        is_blind = self.fleet.mutation is not None and self.fleet.mutation.kills_blindly
        is_empty = tree.is_empty or is_blind
        if is_empty and was_empty:
            if is_blind:
                self.world.after(self.world.between(0.01, 0.1), tree.kill)
            self.feed(messages.TreeKilled())
        elif self.node.now() >= give_up_at and looks >= LEAST_LOOKS * PACE / LOOK:
            self.world.note(self.name, "leaves the lease to run out: the tree cannot be killed")
            self.die()
        else:
            if not is_empty:
                self.world.after(self.world.between(0.001, 0.05), tree.kill)
            self.world.after(LOOK, self.deliver, self._look, give_up_at, looks + 1, is_empty)

    @property
    def is_leading(self) -> bool:
        return self.election is not None and self.election.state == State.LEADER
