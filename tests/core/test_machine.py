"""The table is complete, and the election keeps its promises whatever comes in whatever order."""

from __future__ import annotations

import random
from itertools import product

import pytest

from awaitelect.core import machine, messages
from awaitelect.core.election import Election
from awaitelect.core.lease import Timing
from awaitelect.core.machine import EVENTS, IMPOSSIBLE, TABLE, State
from awaitelect.values import changed
from tests.core.scenario import Lease, ours


def rows(event: str, state: State) -> list[tuple[str, State, State | None, str | None, str | None]]:
    return [row for row in TABLE if row[0] == event and row[1] == state]


@pytest.mark.parametrize(("event", "state"), list(product(EVENTS, State)))
def test_each_event_has_a_row_in_each_state_or_is_named_impossible(event: str, state: State) -> None:
    """And never both: what cannot happen needs no row."""
    is_impossible = state in IMPOSSIBLE.get(event, set())
    assert bool(rows(event, state)) != is_impossible


def test_only_known_events_are_named_impossible() -> None:
    """A typing mistake there would hide a gap."""
    assert set(IMPOSSIBLE) <= set(EVENTS)


@pytest.mark.parametrize(("event", "state"), list(product(EVENTS, State)))
def test_a_guarded_row_is_followed_by_its_fallback(event: str, state: State) -> None:
    """What happens when the answer is no stands right below."""
    found = rows(event, state)
    if found:
        *guarded, last = found
        assert last[3] is None
        assert all(row[3] for row in guarded)
        first = TABLE.index(found[0])
        assert TABLE[first : first + len(found)] == found


def test_the_model_answers_all_that_the_table_asks() -> None:
    """A guard or an entry that does not exist would be found only on the way."""
    names = {name for row in TABLE for name in row[3:] if name}
    names |= {state["on_enter"] for state in machine.STATES if "on_enter" in state}
    assert all(callable(getattr(Election, name)) for name in names)


def test_nothing_leads_out_of_the_end() -> None:
    """Terminated is terminated."""
    assert all(row[2] is None for row in TABLE if row[1] == State.TERMINATED)


def test_only_a_candidate_becomes_a_leader_and_a_leader_only_steps_down() -> None:
    """The shape of the machine, whatever rows are added."""
    assert {row[1] for row in TABLE if row[2] == State.LEADER} == {State.CANDIDATE, State.LEADER}
    assert {row[2] for row in TABLE if row[1] == State.LEADER} == {State.LEADER, State.STEPPING_DOWN}


# ---------------------------------------------------------------- a random walk

CAUSES = ["finished", "gave_up", "deadline", "stopped", "shutdown"]
FINAL = {"finished", "shutdown"}


class Walk:
    """One election against a store and a keeper that do anything that their contracts allow, by chance.

    Each operation is answered once, and acknowledgements and gones are only of grants that were sent. All the rest is
    arbitrary: order, delay, lies of the watch, theft, deletion, repeated and contradictory words of the keeper.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.lease = Lease(version=10)
        former = self.chance.random() < 0.3
        if former:
            self.lease.put(ours("a", "a1"))
        self.timing = self.chance.choice([Timing(), Timing(6, 3, 2, 1), Timing(3, 1, 0.25, 0.5)])
        self.election = Election(
            "a",
            "a1",
            self.timing,
            self.chance.random,
            on_lost=self.chance.choice(["follow", "exit"]),
            last_number=3 if former else 0,
            last_kill_by=9.0 if former else float("inf"),
        )
        self.is_calm = self.chance.random() < 0.5  # the store answers soon and well
        self.now = 0.0
        self.under_way: messages.ReadLease | messages.WriteLease | None = None
        self.sent_at = 0.0
        self.last_number = 3 if former else 0
        self.unacknowledged: int | None = None
        self.gone_number = self.last_number
        self.gone = True  # nothing is alive, and nothing starts under the last grant
        self.ends = self.chance.choice([0.0, 0.01, 0.1])  # how soon somebody ends it
        self.kills_tree = False
        self.left = False
        self.snapshots = [self.lease.now]
        self.tell(messages.Started())
        if former and self.chance.random() < 0.5:
            self.gone = False
            self.tell(messages.CommandSpawned())

    def step(self) -> None:
        chance = self.chance.random()
        wake_at = self.election.wake_at
        if wake_at is not None and chance < 0.4:
            self.now = max(self.now, wake_at)
            self.tell(messages.Woke())
            self.expect_progress()
        elif self.under_way and chance < 0.7:
            self.now += self.chance.choice([0, 0.01] if self.is_calm else [0, 0.01, 0.5, 4, 20])
            self.answer()
        else:
            self.now += self.chance.choice([0, 0.01, 0.5, 2])
            self.anything()

    def expect_progress(self) -> None:
        """No busy loop: whoever wakes up when asked to is not asked for the same instant for ever."""
        for _ in range(4):
            wake_at = self.election.wake_at
            if wake_at is None or wake_at > self.now:
                return
            self.tell(messages.Woke())
        raise AssertionError(f"asked again and again for {wake_at} at {self.now}")

    def answer(self) -> None:
        under_way, self.under_way = self.under_way, None
        chance = 1.0 if self.is_calm else self.chance.random()
        retry_after = self.chance.choice([None, None, 1.0, 3600.0])
        if isinstance(under_way, messages.ReadLease):
            failed = messages.ReadFailed("no answer", retry_after)
            stale = self.chance.choice(self.snapshots[-3:])
            self.tell(failed if chance < 0.2 else messages.LeaseRead(stale if chance < 0.25 else self.lease.now))
            return
        assert under_way is not None
        stored = self.lease.write(under_way.base, under_way.record, self.now) if chance > 0.15 else None
        self.snapshots.append(self.lease.now)
        if stored and self.chance.random() < 0.1:
            self.meddle()  # before the answer is here
            if self.chance.random() < 0.5:
                self.tell(messages.LeaseObserved(self.lease.now))
        if chance < 0.15:
            self.tell(messages.WriteFailed("refused", uncertain=False, retry_after=retry_after))
        elif chance < 0.3:
            self.tell(messages.WriteFailed("no answer", uncertain=True, retry_after=retry_after))
        elif stored:
            self.tell(messages.WriteConfirmed(stored, self.sent_at))
        else:
            self.tell(messages.WriteConflicted())

    def meddle(self) -> None:
        """Others write what they like."""
        what = self.chance.choice(["go", "b", "twin", "wipe", "delete", "edit", "signed"])
        record = self.lease.record
        if what == "delete" or record is None:
            self.lease.delete()
        elif what == "go":
            self.lease.held_by("go", duration=3)
        elif what == "b":
            self.lease.put(ours("b", "b1", 3, record.transitions + 1))
        elif what == "twin":
            self.lease.put(ours("a", "a0", 3, record.transitions))
        elif what == "wipe":
            self.lease.emptied()
        elif what == "signed":
            self.lease.put(changed(record, holder="", duration=1, released_by=record.instance))
        else:
            self.lease.put(record)
        self.snapshots.append(self.lease.now)

    def anything(self) -> None:
        chance = self.chance.random()
        sent = self.last_number
        if chance < 0.2:
            self.meddle()
        elif chance < 0.45:
            self.tell(messages.LeaseObserved(self.chance.choice([self.lease.now, *self.snapshots[-3:]])))
        elif chance < 0.78 and sent:
            number = sent if self.chance.random() < 0.9 else self.chance.randint(0, sent)
            if number == self.unacknowledged:
                self.unacknowledged = None
            self.tell(messages.GrantAcknowledged(number))
        elif chance < 0.85:
            if not self.gone:
                self.tell(messages.CommandSpawned())
        elif chance < 0.94:
            number = sent if self.chance.random() < 0.7 else self.chance.randint(0, sent)
            final = self.chance.random() < 0.25
            if number == sent:
                self.gone, self.unacknowledged = True, None
            self.tell(messages.CommandGone(number, self.chance.choice([c for c in CAUSES if (c in FINAL) == final])))
        else:
            self.tell(messages.HandoverRequested())
        if self.chance.random() < self.ends:
            self.tell(self.chance.choice([messages.StopRequested(), messages.StopRequested(), messages.KeeperDied()]))
        if self.kills_tree and self.chance.random() < 0.3:
            self.kills_tree, self.gone = False, True
            self.tell(messages.TreeKilled())

    def tell(self, event: messages.Event) -> None:
        for action in self.election.handle(event, self.now):
            self.check(action)

    def check(self, action: messages.Action) -> None:
        if isinstance(action, messages.Report):
            return
        assert not self.left, f"{action} after the end"
        match action:
            case messages.ReadLease() | messages.WriteLease():
                assert self.under_way is None, f"{action} while {self.under_way} is under way"
                self.under_way, self.sent_at = action, self.now
                if isinstance(action, messages.WriteLease):
                    self.check_write(action)
            case messages.Grant():
                assert self.unacknowledged is None, "a second grant before the first was acknowledged"
                assert action.number == self.last_number + 1
                assert not self.kills_tree
                assert action.term_by < action.kill_by
                self.last_number = self.unacknowledged = action.number
                self.gone = False
            case messages.KillTree():
                assert not self.kills_tree
                self.kills_tree = True
                self.unacknowledged = None
            case messages.Leave():
                self.left = True

    def check_write(self, write: messages.WriteLease) -> None:
        base = write.base.record
        if write.purpose == "release":
            assert self.gone, "released before the last word of the keeper, or the end of its tree"
            assert base is not None and base.holder_instance == "a1"
            assert (write.record.holder, write.record.released_by) == ("", "a1")
        elif write.purpose == "renew":
            assert base is None or not base.holder or base.holder_instance == "a1", "another's lease is not renewed"


@pytest.mark.parametrize("seed", range(150))
def test_a_random_walk_breaks_no_promise(seed: int) -> None:
    """One operation and one unacknowledged grant at a time, release after gone only, no busy loop, one end."""
    walk = Walk(seed)
    for _ in range(400):
        walk.step()
    if walk.left:
        assert walk.election.state == State.TERMINATED
        assert walk.election.wake_at is None


def test_the_walks_go_everywhere() -> None:
    """A walk that never leads proves nothing."""
    seen: set[tuple[str, str]] = set()
    for seed in range(150):
        walk = Walk(seed)
        trigger = walk.election.trigger

        def note(event: str, walk: Walk = walk, trigger: object = trigger) -> bool:
            seen.add((event, str(walk.election.state)))
            return trigger(event)

        walk.election.trigger = note
        for _ in range(300):
            walk.step()
    possible = {(row[0], str(row[1])) for row in TABLE}
    never = {
        # answered by the election itself without asking the machine
        ("gave_up", "follower"),
        ("gave_up", "candidate"),
        ("gave_up", "stepping_down"),
        ("gave_up", "terminated"),
        ("command_finished", "follower"),
        ("command_finished", "candidate"),
        ("command_finished", "stepping_down"),
        ("command_finished", "terminated"),
        ("command_gone", "follower"),
        ("command_gone", "candidate"),
        ("command_gone", "terminated"),
        ("deadline_near", "stepping_down"),
    }
    assert possible - never - seen == set()
