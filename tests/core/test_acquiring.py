"""How a lease is taken: when it is free, what is written, and from when its dates count."""

from __future__ import annotations

from datetime import timedelta

import pytest

from awaitelect.core.lease import Observed, Record, Timing
from tests.core.scenario import EPOCH, Lease, Node, ours

# ---------------------------------------------------------------- what is written


def test_a_lease_that_does_not_exist_is_created() -> None:
    """E1. Read, create, and the first holder counts as no transition."""
    lease = Lease()
    node = Node(lease)
    assert node.starts(at=0) == ["read"]
    assert node.answered(at=0.1) == ["acquire"]
    assert node.under_way.base.record is None
    assert node.answered(at=0.2) == ["grant 1: start, term by 10.1, kill by 14.1"]
    assert lease.record.holder == "a"
    assert lease.record.duration == 15
    assert lease.record.transitions == 0
    assert lease.record.acquire_time == lease.record.renew_time


def test_an_empty_lease_is_taken_by_an_update_and_counts_as_a_transition() -> None:
    """E2. Operators create the object beforehand; client-go adds one, so do we."""
    lease = Lease(Record(), version=7)
    node = Node(lease).leads(at=0)
    assert lease.version == 8
    assert lease.record.transitions == 1
    assert node.state == "leader"


def test_each_write_names_the_version_that_was_observed() -> None:
    """Rule 5. The condition is what keeps two that see the same free lease from both having it."""
    lease = Lease(Record(), version=7)
    node, other = Node(lease), Node(lease, "b")
    node.starts(at=0)
    other.starts(at=0)
    node.answered(at=0)
    other.answered(at=0)
    assert node.under_way.base.version == other.under_way.base.version == 7
    assert node.answered(at=0.1)[0].startswith("grant")
    assert other.answered(at=0.1) == ["read"]
    assert other.answered(at=0.2) == []
    assert other.state == "follower"


def test_a_new_holder_counts_one_more_transition_and_a_new_acquire_time() -> None:
    """Rule 12, as client-go does it."""
    lease = Lease(ours("", "b1", transitions=4, released_by="b1", acquire_time=EPOCH - timedelta(1)), 9)
    Node(lease).leads(at=0)
    assert lease.record.transitions == 5
    assert lease.record.acquire_time == EPOCH
    assert lease.record.released_by == ""


def test_the_store_s_own_object_comes_along_so_that_what_others_put_there_is_kept() -> None:
    """E12. The core knows nothing of labels and foreign fields: it hands back the object that it was shown."""
    there = Observed(7, Record(), raw={"labels": {"team": "storage"}})
    node = Node(Lease(Record(), 7))
    node.starts(at=0)
    node.read_as(there, at=0)
    assert node.under_way.base.raw is there.raw


def test_the_fencing_token_is_the_version_of_the_write_that_acquired_the_lease() -> None:
    """Rule 11. It stays through renewals, and grows with each term, even after the object was deleted."""
    lease = Lease(version=40)
    node = Node(lease).leads(at=0)
    node.renews(at=2)
    assert [grant.token for grant in node.grants] == [41, 41]
    node.asked_to_hand_over(at=3)
    node.gone(at=3)
    assert node.answered(at=3) == []
    lease.delete()
    node.sees(at=3.5)
    assert node.runs(3.5, until=40) is not None
    assert node.grants[-1].token == lease.version > 42
    assert node.grants[-1].transitions == 0


def test_a_lease_duration_goes_on_the_wire_rounded_up() -> None:
    """Rule 3. Others must never wait less than we count on."""
    lease = Lease()
    node = Node(lease, timing=Timing(2.5, 1.5, 0.5, 0.3))
    node.starts(at=0)
    node.answered(at=0)
    assert node.answered(at=0) == ["grant 1: start, term by 1.5, kill by 2.2"]
    assert lease.record.duration == 3


# ---------------------------------------------------------------- from when it counts


def test_the_dates_count_from_when_the_write_was_sent() -> None:
    """Rule 1. The others start to wait when the store has it, which may be long before its answer is here."""
    lease = Lease()
    node = Node(lease)
    node.starts(at=0)
    node.answered(at=1)
    assert node.answered(at=4) == ["grant 1: start, term by 11, kill by 15", "renew"]  # which has long been due
    node.acks(at=4)
    assert node.answered(at=5) == ["grant 2: start, term by 14, kill by 18"]


def test_an_acquiring_write_answered_too_late_starts_nothing_but_a_renewal() -> None:
    """Rule 2. What is left of the lease is not enough to stop a command in."""
    lease = Lease()
    node = Node(lease)
    node.starts(at=0)
    node.answered(at=0)
    there = node.stored(at=0.1)
    assert node.confirmed(there, at=10) == ["acquire"]
    assert node.state == "candidate"
    assert node.answered(at=10.5) == ["grant 1: start, term by 20, kill by 24"]
    assert lease.record.transitions == 0
    assert lease.record.acquire_time == EPOCH + timedelta(seconds=0.1)


def test_an_acquiring_write_answered_just_in_time_starts_the_command() -> None:
    """Rule 2, the other side of the limit."""
    node = Node(Lease())
    node.starts(at=0)
    node.answered(at=0)
    assert node.confirmed(node.stored(at=0), at=9.9)[0] == "grant 1: start, term by 10, kill by 14"


# ---------------------------------------------------------------- when it is free


def test_a_held_lease_costs_a_follower_a_single_read() -> None:
    """E5. Nothing but one read a minute, which keeps the connection warm, while the watch brings the renewals."""
    lease = Lease()
    lease.held_by("go")
    node = Node(lease).follows(at=0)
    assert node.wake_at == 15
    for at in range(2, 62, 2):
        lease.renewed(at)
        assert node.sees(at) == (["read"] if at == 60 else [])
    assert node.answered(at=62) == []
    assert node.wake_at == 75  # the read has brought nothing new


def test_the_duration_in_the_record_counts_and_not_our_own() -> None:
    """E3. It is the holder's promise of when it will be dead."""
    lease = Lease()
    lease.held_by("go", duration=3)
    node = Node(lease).follows(at=100)
    assert node.wake_at == 103
    assert node.wakes(at=102.9) == []
    assert node.wakes(at=103) == ["acquire"]


def test_a_longer_duration_in_the_record_is_waited_out_too() -> None:
    """Rule 4. A fleet in the middle of a change of its configuration."""
    lease = Lease()
    lease.held_by("go", duration=60)
    assert Node(lease).follows(at=0).wake_at == 60


def test_a_record_without_a_duration_is_waited_out_for_our_own() -> None:
    """It is optional in the API. Zero would mean: free at once."""
    lease = Lease()
    lease.held_by("someone", duration=0)
    assert Node(lease).follows(at=0).wake_at == 15


def test_the_time_counts_from_when_a_change_was_received() -> None:
    """Rule 4. However late the watch is, the holder has at least the time that it believes to have."""
    lease = Lease()
    lease.held_by("go")
    node = Node(lease).follows(at=0)
    lease.renewed(2)
    assert node.sees(at=9) == []
    assert node.wake_at == 24
    assert node.sees(at=12) == []  # the same again is no change
    assert node.wake_at == 24


@pytest.mark.parametrize("hours", [-10_000, -1, 1, 10_000])
def test_the_times_in_the_record_are_never_read(hours: int) -> None:
    """Rule 4. They are of another machine's wall clock."""
    lease = Lease()
    lease.held_by("go", renew_time=EPOCH + timedelta(hours=hours), acquire_time=EPOCH + timedelta(hours=hours))
    node = Node(lease).follows(at=0)
    assert node.wake_at == 15
    lease.edit(renew_time=EPOCH - timedelta(hours=hours))
    node.sees(at=1)
    assert node.wake_at == 16


def test_a_late_echo_of_an_older_record_is_no_renewal() -> None:
    """A watch that resumes may repeat what is known. A dead holder must not live on by it."""
    lease = Lease()
    older = lease.held_by("go")
    lease.renewed(2)
    node = Node(lease).follows(at=5)
    assert node.sees(at=9, observed=older) == []
    assert node.wake_at == 20


def test_a_store_that_has_gone_back_is_believed_when_it_says_so_twice() -> None:
    """A restored backup: without it, no instance would ever see the lease as it is again."""
    lease = Lease(version=100)
    lease.held_by("go")
    node = Node(lease).follows(at=0)
    restored = Observed(50, Record("old", 15))
    assert node.wakes(at=15) == ["acquire"]
    assert node.confirmed(None, at=15) == ["read"]
    assert node.read_as(restored, at=15) == ["acquire"]  # one answer may be of a replica that lags behind
    assert node.confirmed(None, at=15.1) == ["read"]
    assert node.read_as(restored, at=15.2) == []
    assert node.wake_at == pytest.approx(30.2)


# ---------------------------------------------------------------- releases and wipes


def test_an_empty_holder_that_we_never_saw_held_is_free_at_once() -> None:
    """E4. However fresh it is."""
    lease = Lease()
    lease.held_by("go")
    lease.emptied()
    Node(lease).leads(at=0)


def test_a_signed_release_is_taken_at_once() -> None:
    """E23. What a hand-over in milliseconds rests on."""
    lease = Lease(ours("b", "b1"), 5)
    node = Node(lease).follows(at=0)
    lease.edit(holder="", duration=1, released_by="b1")
    assert node.sees(at=1) == ["acquire"]


def test_a_go_holder_s_release_is_believed_without_a_signature() -> None:
    """E23. client-go signs nothing."""
    lease = Lease()
    lease.held_by("go")
    node = Node(lease).follows(at=0)
    lease.emptied()
    assert node.sees(at=1) == ["acquire"]


def test_a_go_holder_s_release_is_believed_where_stale_annotations_are_on_the_lease() -> None:
    """E23. Go clients keep annotations as they find them: those of a run of awaitelect long ago."""
    lease = Lease(ours("b", "b1", transitions=3), 5)
    lease.held_by("go")
    node = Node(lease).follows(at=0)
    lease.emptied()
    assert node.sees(at=1) == ["acquire"]


def test_an_unsigned_wipe_is_waited_out_as_if_the_holder_still_held_it() -> None:
    """E23. A Go client's late release reads who owns it from its cache, and can hit a lease just taken by another."""
    lease = Lease(ours("b", "b1"), 5)
    node = Node(lease).follows(at=0)
    lease.emptied()
    assert node.sees(at=4) == []
    assert node.wake_at == 15
    assert node.wakes(at=14.9) == []
    assert node.wakes(at=15) == ["acquire"]


def test_a_wipe_after_a_renewal_that_we_did_not_see_is_waited_out_from_the_wipe_on() -> None:
    """E23. The watch was silent: its holder has renewed since, and counts from then."""
    lease = Lease(ours("b", "b1"), 5)
    node = Node(lease).follows(at=0)
    lease.renewed(10)
    lease.emptied()
    assert node.sees(at=14) == []
    assert node.wake_at == 29


def test_a_wipe_with_a_stranger_s_signature_is_waited_out() -> None:
    """Only the holder's own name under it makes it a release."""
    lease = Lease(ours("b", "b1"), 5)
    node = Node(lease).follows(at=0)
    lease.edit(holder="", released_by="c1")
    assert node.sees(at=4) == []
    assert node.wake_at == 15


def test_a_wipe_of_a_run_that_we_never_saw_is_waited_out_in_full() -> None:
    """We come up and find the lease empty, last held by a run of awaitelect that did not sign: it may be running."""
    lease = Lease(ours("b", "b1"), 5)
    lease.emptied()
    node = Node(lease).follows(at=0)
    assert node.wake_at == 15


def test_a_wipe_of_a_run_that_took_the_lease_unseen_is_waited_out_in_full() -> None:
    """The watch was cut: Go released, b took it, and the Go client's late release wiped it."""
    lease = Lease()
    lease.held_by("go")
    node = Node(lease).follows(at=0)
    lease.put(ours("b", "b1", transitions=1))
    lease.emptied()
    assert node.sees(at=3) == []
    assert node.wake_at == 18


def test_a_wipe_of_a_run_that_came_back_unseen_is_waited_out_in_full() -> None:
    """The same, where the annotations were the run's own already: only the count of transitions tells."""
    lease = Lease(ours("b", "b1", transitions=3), 5)
    lease.held_by("go")
    node = Node(lease).follows(at=0)
    lease.put(ours("b", "b1", transitions=5))
    lease.emptied()
    assert node.sees(at=3) == []
    assert node.wake_at == 18


# ---------------------------------------------------------------- deleted


def test_a_deleted_lease_is_left_alone_while_its_last_holder_may_not_know() -> None:
    """E13. Without this, deleting the lease had two commands running for a moment."""
    lease = Lease(ours("b", "b1"), 5)
    node = Node(lease).follows(at=0)
    lease.delete()
    assert node.sees(at=3) == []
    assert node.wake_at == 18
    assert node.wakes(at=18) == ["acquire"]
    assert node.under_way.base.record is None


def test_after_a_request_without_answer_a_missing_lease_counts_as_just_deleted() -> None:
    """Meanwhile another may have made it, begun, been cut off, and lost it to a second deletion, all of it unseen."""
    lease = Lease(ours("b", "b1"), 5)
    node = Node(lease).follows(at=0)
    lease.delete()
    node.sees(at=3)
    assert node.wakes(at=18) == ["acquire"]
    assert node.fails(at=22) == ["read"]
    assert node.answered(at=23) == []
    assert node.wake_at == 23 + 15
    assert node.wakes(at=38) == ["acquire"]


@pytest.mark.parametrize("how", ["emptied", "deleted"])
def test_a_twin_that_was_seen_alive_is_believed_when_it_takes_the_lease_back(how: str) -> None:
    """One that is held in our name by a run that may be dead is taken sooner; this one isn't dead."""
    lease = Lease(ours("a", "a1"), 5)
    node = Node(lease, "a", instance="a2").follows(at=0)
    lease.renewed(at=1)
    node.sees(at=1)
    if how == "emptied":
        lease.edit(holder="")
    else:
        lease.delete()
    node.sees(at=2)
    lease.put(ours("a", "a1"))
    assert node.sees(at=2.1) == []
    assert node.wake_at == pytest.approx(2.1 + 15)


def test_a_lease_that_nobody_held_and_that_is_gone_is_waited_for() -> None:
    """Behind a silent watch somebody may have taken it since, and not know of the deletion."""
    lease = Lease()
    lease.held_by("go", 20)
    lease.emptied()
    node = Node(lease)
    assert node.starts(at=0) == ["read"]
    lease.edit(instance="b1")
    assert node.answered(at=0) == []
    lease.delete()
    assert node.sees(at=4) == []
    assert node.wake_at == 4 + 15


@pytest.mark.parametrize("has_seen_it", [True, False])
def test_a_lease_that_somebody_else_made_first_and_that_is_gone_again_is_waited_for(has_seen_it: bool) -> None:
    """The conflict tells of a holder, who may not know of the deletion; whoever has only just begun heeds it too."""
    lease = Lease(ours("b", "b1"), 5) if has_seen_it else Lease()
    node = Node(lease)
    if has_seen_it:
        node.follows(at=0)
        lease.delete()
        node.sees(at=3)
        assert node.wakes(at=18) == ["acquire"]
    else:
        assert node.starts(at=17) == ["read"]
        assert node.answered(at=17.9) == ["acquire"]
    lease.put(ours("c", "c1"))
    assert node.stored(at=18.1) is None
    assert node.confirmed(None, at=18.1) == ["read"]
    lease.delete()
    assert node.answered(at=18.2) == []
    assert node.wake_at == pytest.approx(18.2 + 15)


def test_a_lease_deleted_and_created_again_by_its_holder_is_followed() -> None:
    """E13. The usual end of that story."""
    lease = Lease(ours("b", "b1"), 5)
    node = Node(lease).follows(at=0)
    lease.delete()
    node.sees(at=3)
    lease.put(ours("b", "b1"))
    assert node.sees(at=3.1) == []
    assert node.wake_at == pytest.approx(18.1)


def test_a_lease_made_again_as_it_once_was_is_waited_for_anew() -> None:
    """By a write that took long: what was renewed before the deletion is not known to somebody who was cut off."""
    record = ours("b", "b1")
    node = Node(Lease(record, 5)).follows(at=0)
    node.sees(at=10, observed=Observed(6, record))
    assert node.wake_at == 15, "somebody else has written into its labels"
    assert node.sees(at=14, observed=Observed(9, record, uid="another")) == []
    assert node.wake_at == 29


# ---------------------------------------------------------------- the same name twice


def test_a_lease_in_our_name_by_another_run_is_watched_for_a_moment_and_taken() -> None:
    """Rule 10. A restarted container has its lease back in under three seconds."""
    lease = Lease(ours("a", "a0", transitions=2), 5)
    node = Node(lease).follows(at=0)
    assert node.wake_at == pytest.approx(1.2 * 2 + 0.5)
    assert node.wakes(at=2.8) == []
    assert node.wakes(at=2.9) == ["acquire"]
    node.answered(at=2.9)
    assert lease.record.instance == "a1"
    assert lease.record.transitions == 2  # the same holder, to everybody else


def test_a_live_twin_is_another_holder_and_one_error() -> None:
    """E19. Two with one name: never two commands, and somebody is told."""
    lease = Lease(ours("a", "a0"), 5)
    node = Node(lease).follows(at=0)
    for at in (1, 3, 5):
        lease.renewed(at)
        assert node.sees(at) == []
        assert node.wake_at == at + 15
    assert node.wakes(at=19.9) == []
    [error] = node.reported("error")
    assert "same identity 'a'" in error
    assert node.wakes(at=20) == ["acquire"]


def test_a_twin_that_was_seen_alive_is_known_again_after_another_has_led() -> None:
    """Nobody that has been dead for long acquires a lease."""
    lease = Lease(ours("a", "a0"), 5)
    node = Node(lease).follows(at=0)
    lease.renewed(at=1)
    node.sees(at=1)
    lease.held_by("go")
    node.sees(at=2)
    lease.put(ours("a", "a0", transitions=2))
    assert node.sees(at=3) == []
    assert node.wake_at == 3 + 15


@pytest.mark.parametrize("how", ["emptied", "deleted"])
def test_a_lease_of_our_name_that_is_taken_away_by_hand_is_left_alone_for_its_whole_time(how: str) -> None:
    """Its run may be alive and not know yet; only where the lease is as it was left does a moment's watch do."""
    lease = Lease(ours("a", "a0"), 5)
    node = Node(lease).follows(at=0)
    if how == "emptied":
        lease.edit(holder="")
    else:
        lease.delete()
    assert node.sees(at=1) == []
    assert node.wake_at == (15 if how == "emptied" else 16)


@pytest.mark.parametrize("how", ["emptied", "deleted"])
def test_a_twin_that_takes_its_lease_back_before_our_eyes_is_alive(how: str) -> None:
    """It need not have renewed before."""
    lease = Lease()
    first, second = Node(lease, "a", "a1").leads(at=0), Node(lease, "a", "a2").follows(at=0.5)
    if how == "emptied":
        lease.edit(holder="")
    else:
        lease.delete()
    second.sees(at=1)
    assert first.sees(at=1) == ["renew"]
    first.answered(at=1)
    second.sees(at=1.1)
    assert second.wake_at == 16.1 and second.reported("error")


def test_two_with_one_name_never_lead_at_the_same_time() -> None:
    """E19. The second to come waits for ever while the first is alive."""
    lease = Lease()
    first, second = Node(lease, "a", "a1").leads(at=0), Node(lease, "a", "a2").follows(at=0.5)
    for at in range(2, 40, 2):
        first.renews(at)
        second.sees(at)
        assert second.state == "follower"
        assert not second.under_way
    assert first.reported("error") == []
    assert len(second.reported("error")) == 1


def test_a_go_client_with_our_name_is_watched_before_its_lease_is_taken() -> None:
    """Rule 10. Its records carry no run of ours: it may be alive."""
    lease = Lease()
    lease.held_by("a")
    node = Node(lease).follows(at=0)
    lease.renewed(2)
    node.sees(at=2)
    assert node.wake_at == 17
    assert len(node.reported("error")) == 1


def test_our_own_lease_is_ours_at_once() -> None:
    """Rule 10. That is how a new elector goes on where the one before it ended."""
    lease = Lease(ours("a", "a1", transitions=2), 5)
    node = Node(lease, last_number=7, last_kill_by=12)
    node.starts(at=0)
    assert node.answered(at=0.1) == ["acquire"]
    assert node.answered(at=0.2) == ["grant 8: start, term by 10.1, kill by 14.1"]
    assert lease.record.transitions == 2
    assert lease.record.acquire_time == EPOCH


# ---------------------------------------------------------------- failures


def test_an_acquiring_write_whose_answer_was_lost_is_recognised() -> None:
    """E15. Read again, find our own name and run, and renew before anything is started."""
    lease = Lease()
    node = Node(lease)
    node.starts(at=0)
    node.answered(at=0)
    node.stored(at=0)
    assert node.fails(at=4) == ["read"]
    assert node.state == "follower"
    assert node.answered(at=4.5) == ["acquire"]
    assert node.answered(at=4.6) == ["grant 1: start, term by 14.5, kill by 18.5"]
    assert lease.record.transitions == 0


def test_a_write_of_ours_that_arrives_after_its_time_does_not_cut_short_what_another_may_still_hold() -> None:
    """We gave it up long ago, another took the lease since, and it was deleted under that one, which may not know."""
    lease = Lease()
    late = Node(lease, "a")
    assert late.starts(0) == ["read"]
    assert late.answered(0) == ["acquire"]
    assert late.under_way is not None
    base, record = late.under_way.base, late.under_way.record
    lease.put(ours("b", "b1"))
    late.fails(4)
    late.runs(4, 5)
    assert late.state == "follower"
    lease.delete()
    late.sees(10)
    assert lease.write(base, record, 12) is not None
    assert late.sees(12) == []
    assert late.wake_at == 10 + 15
    assert late.wakes(25) == ["acquire"]


def test_a_confirmation_that_the_watch_has_overtaken_starts_nothing() -> None:
    """A Go client's late release has wiped what we wrote and another has it, all before our answer came."""
    lease = Lease()
    lease.held_by("go")
    lease.emptied()
    node = Node(lease)
    node.starts(at=0)
    node.answered(at=0)
    there = node.stored(at=0.1)
    lease.emptied()
    lease.held_by("gopher")
    assert node.sees(at=0.2) == []
    assert node.confirmed(there, at=0.3) == ["read"]
    assert node.answered(at=0.4) == []
    assert node.state == "follower"
    assert node.wake_at == pytest.approx(15.2)


def test_a_read_that_fails_is_tried_again_after_a_pause_that_grows() -> None:
    """Rule 6. Soon at first, then every retry period, and it is said once."""
    node = Node(Lease())
    node.starts(at=0)
    at, pauses = 0.0, []
    for _ in range(4):
        assert node.fails(at) == []
        pauses.append(node.wake_at - at)
        at = node.wake_at
        assert node.wakes(at) == ["read"]
    assert pauses == [0.5, 1, 2, 2]
    assert len(node.reported("warning")) == 1
    assert node.answered(at) == ["acquire"]


def test_a_lease_that_can_be_read_and_not_written_is_tried_ever_more_slowly() -> None:
    """A right that is missing, a folder that nobody may write: that it can be read says nothing of the next write."""
    node = Node(Lease())
    node.starts(at=0)
    assert node.answered(at=0) == ["acquire"]
    at, pauses = 0.0, []
    for _ in range(4):
        assert node.fails(at, uncertain=False) == []
        pauses.append(node.wake_at - at)
        at = node.wake_at
        assert node.wakes(at) == ["read"]
        assert node.answered(at) == ["acquire"]
    assert pauses == [0.5, 1, 2, 2]
    assert len(node.reported("warning")) == 1
    assert node.answered(at)[0].startswith("grant 1")


def test_the_record_of_a_leader_whose_time_is_over_is_no_holder_that_makes_up_for_a_failed_write() -> None:
    """The commonest lease that is to be taken over. What goes wrong is told once for each reason."""
    lease = Lease()
    lease.held_by("go")
    node = Node(lease).follows(at=0)
    assert node.wakes(at=15) == ["acquire"]
    at, pauses = 15.0, []
    for reason in ("forbidden", "forbidden", "no answer", "forbidden"):
        assert node.fails(at, uncertain=False, reason=reason) == []
        pauses.append(node.wake_at - at)
        at = node.wake_at
        assert node.wakes(at) == ["read"]
        assert node.answered(at) == ["acquire"]
    assert pauses == [0.5, 1, 2, 2]
    assert [text.split(": ")[1] for text in node.reported("warning")] == ["forbidden", "no answer"]


def test_whoever_could_not_write_forgets_that_once_another_leads() -> None:
    """It is another turn then."""
    lease = Lease()
    node = Node(lease)
    node.starts(at=0)
    node.answered(at=0)
    node.fails(at=0, uncertain=False)
    node.wakes(at=0.5)
    lease.held_by("go")
    assert node.answered(at=0.5) == []
    assert node.wakes(at=15.5) == ["acquire"]
    node.fails(at=15.5, uncertain=False)
    assert node.wake_at == 16


def test_a_follower_waits_as_long_as_the_server_asks_but_not_for_ever() -> None:
    """Rule 7. Retry-After of an hour is a mistake of somebody's proxy."""
    node = Node(Lease())
    node.starts(at=0)
    node.fails(at=0, retry_after=7)
    assert node.wake_at == 7
    node.wakes(at=7)
    node.fails(at=7, retry_after=3600)
    assert node.wake_at == 67


def test_followers_that_are_refused_do_not_all_come_back_at_once() -> None:
    """What chance is for."""
    nodes = [Node(Lease(), chance=chance) for chance in (0.0, 1.0)]
    for node in nodes:
        node.starts(at=0)
        node.fails(at=0)
    assert [node.wake_at for node in nodes] == [0.5, 0.6]


def test_a_take_over_is_tried_once_per_expiry_and_the_loser_follows_the_winner() -> None:
    """A conflict means: read again. No instance writes over what it has not seen."""
    lease = Lease()
    lease.held_by("go")
    first, second = Node(lease).follows(at=0), Node(lease, "b").follows(at=0)
    assert first.wakes(at=15) == second.wakes(at=15) == ["acquire"]
    first.answered(at=15)
    assert second.answered(at=15) == ["read"]
    assert second.answered(at=15) == []
    assert second.wake_at == 30
    assert lease.record.holder == "a"
