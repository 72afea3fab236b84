"""The rules of the protocol between keeper and elector, and those of the guard, each broken once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from awaitelect.core import messages
from awaitelect.core.election import Election
from awaitelect.keeper.guard import Action, Guard, Phase
from awaitelect.keeper.guard import Tell as TellElector
from awaitelect.protocol import Ack, Grant
from awaitelect.values import changed
from tests.simulation.mutation import Mutation, over

if TYPE_CHECKING:
    from tests.simulation.keeper import Keeper
    from tests.simulation.machines import Node


# ---------------------------------------------------------------------- rules of the protocol


class NeverWaitsForAck(Mutation):
    """Rule 1 of the protocol: one grant at a time until it is acknowledged; here each counts as acknowledged."""

    def change_election(self, election: Election, node: Node) -> None:
        book = election._grants
        issue, acknowledge = book.issue, book.acknowledge
        heard_of = [book.last_number]

        def issue_always(term_by: float, kill_by: float, may_start: bool) -> int | None:
            self.applied += book.is_open and heard_of[0] < book.last_number
            number = issue(term_by, kill_by, may_start)
            book._acknowledged = True
            return number

        def take_note(number: int) -> bool:
            heard_of[0] = number
            return acknowledge(number)

        book.issue = issue_always  # type: ignore[method-assign]
        book.acknowledge = take_note  # type: ignore[method-assign]


class AnyGoneBelieved(Mutation):
    """Rule 2 of the protocol: only a gone of the last grant is the last word; here, any is."""

    def change_election(self, election: Election, node: Node) -> None:
        original = election._on_CommandGone

        def gone(event: messages.CommandGone) -> None:
            last = election._grants.last_number
            self.applied += event.number < last
            original(changed(event, number=last))

        election._on_CommandGone = gone  # type: ignore[method-assign]


class UselessGrantKept(Mutation):
    """Rule 2 of the protocol: a grant that is not used is answered with gone; here it is only acknowledged."""

    def change_keeper(self, keeper: Keeper) -> None:
        guard = keeper.guard
        original = guard.on_grant

        def on_grant(grant: Grant, now: float) -> list[Action]:
            actions = original(grant, now)
            if guard.phase in (Phase.IDLE, Phase.GIVEN_UP) and actions:
                self.applied += 1
                return [TellElector(Ack(grant.number, guard.phase.value))]
            return actions

        guard.on_grant = on_grant  # type: ignore[method-assign]


class StartsLate(Mutation):
    """Rule 3 of the protocol: nothing is started after `term_by`; here, neither guard nor shim looks at the clock."""

    starts_late = True

    def change_keeper(self, keeper: Keeper) -> None:
        guard = keeper.guard

        def may_start(now: float) -> bool:
            grant = guard.grant
            if grant is None or not grant.may_start:
                return False
            self.applied += now >= grant.term_by
            return True

        guard._may_start = may_start  # type: ignore[method-assign]


class KillsBlindly(Mutation):
    """Rule 4 of the protocol: who kills for a dead keeper waits for the end of the tree; here, for nothing."""

    kills_blindly = True

    def change_election(self, election: Election, node: Node) -> None:
        original = election._on_TreeKilled

        def tree_killed(event: messages.TreeKilled) -> None:
            self.applied += 1
            original(event)

        election._on_TreeKilled = tree_killed  # type: ignore[method-assign]


class NobodyActsForKeeper(Mutation):
    """Rule 5 of the protocol: an elector acts for a keeper that is dead or silent; here it takes it for alive."""

    def change_election(self, election: Election, node: Node) -> None:
        def act_for_keeper(reason: str) -> None:
            self.applied += not election._acted
            election._acted = election._ending = True
            if election.state == "leader":
                election._step_down("stop_requested", reason, "debug")
            election.handle_tree_killed()

        def tree_killed() -> None:
            election._on_TreeKilled(messages.TreeKilled())

        election.handle_tree_killed = tree_killed  # type: ignore[attr-defined]
        election._act_for_keeper = act_for_keeper  # type: ignore[method-assign]


class NoThirdEyes(Mutation):
    """Rule 6 of the protocol: the shim that waits ends what both leave behind when they die or hang at once; here it is
    not there.
    """

    has_no_eyes = True

    def change_keeper(self, keeper: Keeper) -> None:
        self.applied += keeper.node.has_eyes


class HungElectorKept(Mutation):
    """Rule 7 of the protocol: an elector that hangs is replaced in time; here, never."""

    def change_keeper(self, keeper: Keeper) -> None:
        def hung_at(term_by: float | None, patience: float) -> float:
            self.applied += 1
            return math.inf

        keeper.side.hung_at = hung_at  # type: ignore[method-assign]


class TermLost(Mutation):
    """Rule 8 of the protocol: a SIGTERM is decided at once, whatever is going on; here, only while the command runs."""

    def change_keeper(self, keeper: Keeper) -> None:
        guard = keeper.guard
        original = guard.on_shutdown

        def on_shutdown(signal: int, now: float) -> list[Action]:
            if guard.phase == Phase.RUNNING:
                return original(signal, now)
            self.applied += 1
            return []

        guard.on_shutdown = on_shutdown  # type: ignore[method-assign]


# ---------------------------------------------------------------------- rules of the guard


class LeaseNoLimit(Mutation):
    """Rule of the guard: the stop ladder ends with the lease; here, with the command's time alone."""

    def change_keeper(self, keeper: Keeper) -> None:
        self.applied += 1
        keeper.guard.__class__ = over(Guard, _last_kill_by=property(lambda guard: math.inf))


class NoDeadMan(Mutation):
    """Rule of the guard: without a newer grant the command is stopped by the dates of the last; here it runs on."""

    def change_keeper(self, keeper: Keeper) -> None:
        guard = keeper.guard
        original = guard.on_wake

        def on_wake(now: float) -> list[Action]:
            if guard.phase == Phase.RUNNING and guard.grant and now >= guard.grant.term_by:
                self.applied += 1
                guard.grant = changed(guard.grant, term_by=now + 5, kill_by=now + 9)
            return original(now)

        guard.on_wake = on_wake  # type: ignore[method-assign]


class GoneWithSurvivors(Mutation):
    """Rule of the guard: gone is said when nothing is alive; here, when the main process has ended."""

    def change_keeper(self, keeper: Keeper) -> None:
        guard = keeper.guard
        original = guard.on_exited

        def on_exited(status: int, survivors: bool, now: float, starved: bool = False) -> list[Action]:
            actions = original(status, survivors, now, starved)
            if survivors and guard._cause in ("stopped", "shutdown"):
                self.applied += 1
                actions.append(guard._gone())
            return actions

        guard.on_exited = on_exited  # type: ignore[method-assign]


class GraceAfterTheEnd(Mutation):
    """Rule of the guard: a stop that is heard after the last date kills at once; here it asks, and wakes the command
    of an instance that had been stopped.
    """

    def change_keeper(self, keeper: Keeper) -> None:
        guard = keeper.guard
        original = guard._stop

        def stop(signal: int, grace: bool, now: float) -> list[Action]:
            real = guard.grant
            if not grace or real is None or now < real.kill_by - 0.2:
                return original(signal, grace, now)
            self.applied += 1
            guard.grant = changed(real, kill_by=now + 1)
            try:
                return original(signal, grace, now)
            finally:
                guard.grant = real

        guard._stop = stop  # type: ignore[method-assign]
