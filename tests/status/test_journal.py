"""What the loop writes down of an election, and what comes of it."""

from __future__ import annotations

import pytest

from awaitelect import protocol
from awaitelect.core import messages
from awaitelect.core.election import Election
from awaitelect.core.lease import ABSENT, Observed, Record, Timing
from awaitelect.status.journal import REMEMBERED, Journal
from awaitelect.status.snapshot import Snapshot

TIMING = Timing(15, 10, 2, 1)
OTHER = Record(holder="other", duration=15, transitions=4)


class Told:
    """An election and its journal, an event at a time."""

    def __init__(self, hello: protocol.Hello | None = None) -> None:
        self.election = Election("me", "instance", TIMING, lambda: 0.0)
        self.wall = 1_700_000_000.0
        self.journal = Journal(hello, wall=lambda: self.wall)
        self.now = 100.0
        self.version = 10

    def __call__(self, event: messages.Event, after: float = 0.1) -> list[messages.Action]:
        self.now += after
        self.wall += after
        before = self.election.state
        actions = self.election.handle(event, self.now)
        self.journal.note(event, before, actions, self.election, self.now)
        return actions

    def keeper(self, message: protocol.Message, event: messages.Event | None = None) -> None:
        self.journal.heard(message)
        if event:
            self(event, 0.0)

    def confirm(self, actions: list[messages.Action], took: float = 0.02) -> list[messages.Action]:
        """The write that was asked for is stored."""
        [write] = [one for one in actions if isinstance(one, messages.WriteLease)]
        sent_at, self.version = self.now, self.version + 1
        return self(messages.WriteConfirmed(Observed(self.version, write.record), sent_at), took)

    def lead(self) -> None:
        self(messages.Started())
        self.confirm(self(messages.LeaseRead(ABSENT)))
        self.keeper(protocol.Ack(1, "running"), messages.GrantAcknowledged(1))
        self.now += 0.03
        self.keeper(protocol.Spawned(42), messages.CommandSpawned())
        self.keeper(protocol.Ready())

    @property
    def snapshot(self) -> Snapshot:
        return self.journal.snapshot(self.election, "file:/x", "demo")


@pytest.fixture
def told() -> Told:
    return Told()


def test_before_the_first_answer_nothing_is_known(told: Told) -> None:
    told(messages.Started())
    assert not told.snapshot.has_seen_lease
    assert told.journal.alive(told.election) == protocol.Alive()
    told(messages.ReadFailed("connection refused"))
    assert told.journal.alive(told.election) == protocol.Alive("", "waiting for the lease: connection refused")


def test_a_leader_in_full(told: Told) -> None:
    told.lead()
    one = told.snapshot
    assert (one.state, one.holder, one.token, one.pid, one.phase) == ("leader", "me", 11, 42, "running")
    assert one.is_ready and one.has_seen_lease and one.counts.terms == 1
    assert one.renewed_at == pytest.approx(100.2)
    assert one.term_by == pytest.approx(110.2) and one.kill_by == pytest.approx(114.2)
    assert [(each.before, each.after) for each in one.transitions] == [
        ("follower", "candidate"),
        ("candidate", "leader"),
    ]
    assert one.transitions[0].at == pytest.approx(1_700_000_000.2)
    assert one.counts.start and one.counts.start.total == pytest.approx(0.05)
    assert told.journal.alive(told.election) == protocol.Alive("leader", "leading, fencing token 11")


def test_renewals_are_counted_by_their_result(told: Told) -> None:
    """With the time that the good ones took."""
    told.lead()
    told.confirm(told(messages.Woke(), 2.0), took=0.02)
    told(messages.Woke(), 2.0)
    again = told(messages.WriteFailed("HTTP 500"), 0.5)
    assert told.journal.alive(told.election).status == "leading, fencing token 11; HTTP 500"
    told.confirm(again, took=0.2)
    assert told.journal.alive(told.election).status == "leading, fencing token 11"
    counts = told.snapshot.counts
    assert counts.renewals == {"success": 2, "error": 1, "conflict": 0}
    assert counts.renewal and sum(counts.renewal.counts) == 2 and counts.renewal.total == pytest.approx(0.22)
    assert counts.slow_renewals == 0


def test_a_renewal_that_has_to_read_first_is_a_slow_one(told: Told) -> None:
    told.lead()
    told(messages.Woke(), 2.0)
    told(messages.WriteConflicted())
    counts = told.snapshot.counts
    assert counts.slow_renewals == 1 and counts.renewals["conflict"] == 1


def test_a_term_that_ends_is_told_with_its_cause(told: Told) -> None:
    """And how long it took until the lease was given back."""
    told.lead()
    told(messages.StopRequested(), 1.0)
    assert told.snapshot.transitions[-1].cause == "stop_requested"
    assert told.journal.alive(told.election).status == "stepping down (stop requested)"
    told.keeper(protocol.Ready(False))
    told.now += 0.5
    told.journal.heard(protocol.Gone(1, "shutdown", 0))
    told.confirm(told(messages.CommandGone(1, "shutdown"), 0.0), took=0.02)
    one = told.snapshot
    assert (one.pid, one.is_ready, one.token) == (0, False, None)
    assert one.counts.ends["stop_requested"] == 1 and sum(one.counts.ends.values()) == 1
    assert one.counts.step_down and one.counts.step_down.total == pytest.approx(0.52)


def test_a_follower_tells_whom_it_follows_and_for_how_long(told: Told) -> None:
    told(messages.Started())
    told(messages.LeaseRead(Observed(5, OTHER)))
    assert told.journal.alive(told.election) == protocol.Alive("follower", "following 'other'")
    one = told.snapshot
    assert (one.holder, one.lease_transitions, one.renewed_at) == ("other", 4, None)
    assert one.free_at == pytest.approx(told.now + 15)


def test_restarts_are_the_keepers_count(told: Told) -> None:
    """It outlives the elector."""
    heir = Told(protocol.Hello("instance", 7, restarts=3, electors=1))
    assert (heir.snapshot.restarts, heir.snapshot.electors) == (3, 1)
    heir.keeper(protocol.Spawned(43, 4))
    assert heir.snapshot.restarts == 4


def test_a_command_that_ran_before_us_was_not_started_by_our_term() -> None:
    """Its next start would count as one that took since the term's beginning."""
    heir = Told(protocol.Hello("instance", 7, restarts=0, electors=1))
    heir.keeper(protocol.Spawned(42), messages.CommandSpawned())
    heir.keeper(protocol.Ready())
    assert heir.snapshot.is_ready, "before the lease has been read again"
    heir(messages.Started())
    heir.confirm(heir(messages.LeaseRead(ABSENT)))
    heir.now += 60
    heir.keeper(protocol.Spawned(43, 1), messages.CommandSpawned())
    start = heir.snapshot.counts.start
    assert start is not None and sum(start.counts) == 0


def test_a_dead_keepers_word_counts_no_more(told: Told) -> None:
    """Its command is being killed."""
    told.lead()
    told.journal.keeper_died()
    assert not told.snapshot.is_ready


def test_a_snapshot_stays_what_it_was(told: Told) -> None:
    """Whatever happens while a page is made from it."""
    told.lead()
    before = told.snapshot
    shown = repr(before)
    told.confirm(told(messages.Woke(), 2.0))
    told(messages.StopRequested())
    assert repr(before) == shown != repr(told.snapshot)


def test_only_the_last_changes_are_kept(told: Told) -> None:
    told(messages.Started())
    told(messages.LeaseRead(ABSENT))
    for _ in range(REMEMBERED):
        told(messages.WriteFailed("no", uncertain=False))
        told(messages.Woke(), 5.0)
        told(messages.LeaseRead(ABSENT))
    assert len(told.snapshot.transitions) == REMEMBERED
