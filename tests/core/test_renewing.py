"""How a leader stays one: renewals, grants, and what does not take a lease away."""

from __future__ import annotations

from datetime import timedelta

import pytest

from awaitelect.core.lease import Timing
from tests.core.scenario import EPOCH, Lease, Node, ours


def test_a_renewal_is_one_write_and_no_read() -> None:
    """E6. One PUT per retry period, nothing else."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    for at in (2, 4, 6):
        assert node.wake_at == at
        assert node.wakes(at) == ["renew"]
        assert node.answered(at) == [f"grant {at // 2 + 1}: start, term by {at + 10}, kill by {at + 14}"]
        node.acks(at)
    assert lease.version == 4


def test_a_renewal_keeps_the_acquire_time_and_the_transitions() -> None:
    """E6. And the renew time moves."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.renews(at=2)
    first, second = lease.history
    assert second.acquire_time == first.acquire_time == EPOCH
    assert second.transitions == first.transitions == 0
    assert second.renew_time == EPOCH + timedelta(seconds=2)


def test_renewals_within_one_second_differ_in_their_seconds() -> None:
    """Rule 12. client-go compares times cut to seconds: two that look alike are no renewal to it."""
    lease = Lease()
    node = Node(lease, timing=Timing(3, 1, 0.25, 0.5))
    node.starts(at=0)
    node.answered(at=0)
    node.answered(at=0)
    node.acks(at=0)
    for _ in range(8):
        at = node.wake_at
        node.wakes(at)
        node.answered(at)
        node.acks(at)
    seconds = [record.renew_time.replace(microsecond=0) for record in lease.history]
    assert len(set(seconds)) == len(seconds) == 9
    assert seconds == sorted(seconds)


def test_the_next_renewal_is_due_a_retry_period_after_the_last_was_sent() -> None:
    """A slow answer delays no renewal."""
    node = Node(Lease()).leads(at=0)
    node.wakes(at=2)
    node.answered(at=3.5)
    assert node.wake_at == 4


# ---------------------------------------------------------------- grants


def test_no_grant_is_sent_while_one_is_unacknowledged() -> None:
    """Protocol rule 1. A keeper that was stopped and continued would obey a queue of old ones."""
    node = Node(Lease())
    node.starts(at=0)
    node.answered(at=0)
    assert node.answered(at=0) == ["grant 1: start, term by 10, kill by 14"]
    for at in (2, 4):
        node.wakes(at)
        assert node.answered(at) == []
    assert node.acks(at=5) == ["grant 2: start, term by 14, kill by 18"]
    assert node.acks(at=5) == []


def test_an_acknowledgement_of_an_older_grant_counts_for_nothing() -> None:
    """Protocol rule 1. It may have been under way for long."""
    node = Node(Lease()).leads(at=0)
    node.wakes(at=2)
    node.answered(at=2)
    node.acks(at=2.1, number=1)
    node.wakes(at=4)
    assert node.answered(at=4) == []
    assert node.acks(at=4.1, number=2)[0].startswith("grant 3")


def test_grants_are_numbered_on_over_all_electors_of_one_keeper() -> None:
    """Protocol rule 1. The keeper obeys the highest number only."""
    node = Node(Lease(), last_number=41)
    node.starts(at=0)
    node.answered(at=0)
    assert node.answered(at=0)[0].startswith("grant 42")


# ---------------------------------------------------------------- what does not take a lease away


def test_failed_renewals_are_retried_until_the_deadline() -> None:
    """Rule 6. A time-out, a reset, a 401, a 429, a 500: none is a lost lease."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    at = 2.0
    attempts = []
    while at < 10:
        assert node.wakes(at) == ["renew"]
        attempts.append(at)
        assert node.fails(at, uncertain=False) == []
        assert node.state == "leader"
        at = node.wake_at
    assert attempts == [2, 2.5, 3.5, 5.5, 7.5, 9.5]
    assert node.wake_at == 10
    assert node.wakes(at=10) == ["stop: deadline_near"]


def test_a_renewal_that_goes_through_in_the_end_is_all_that_the_keeper_hears_of() -> None:
    """G4. Back within the deadline: the command never notices."""
    node = Node(Lease()).leads(at=0)
    node.wakes(at=2)
    assert node.fails(at=6) == ["renew"]
    assert node.answered(at=7.9) == ["grant 2: start, term by 16, kill by 20"]
    assert any("renewed again after 1 failed" in text for text in node.reported("info"))


@pytest.mark.parametrize(
    "timing", [Timing(), Timing(60, 40, 5, 1), Timing(3, 1, 0.25, 0.5), Timing(137, 107, 26, 1), Timing(6, 2.5, 2, 1)]
)
def test_two_attempts_fit_between_a_renewal_that_is_due_and_the_deadline(timing: Timing) -> None:
    """Rule 7. A half-open connection must not eat the lease."""
    node = Node(Lease(), timing=timing)
    node.starts(at=0)
    assert 0 < node.under_way.timeout <= 5
    assert timing.retry_period + 2 * node.under_way.timeout <= timing.renew_deadline
    node.answered(at=0)
    node.answered(at=0)
    node.acks(at=0)
    due = node.wake_at
    node.wakes(due)
    assert node.fails(due + node.under_way.timeout) == ["renew"]


@pytest.mark.parametrize(
    "timing", [Timing(), Timing(60, 40, 5, 1), Timing(3, 1, 0.25, 0.5), Timing(137, 107, 26, 1), Timing(6, 2.5, 2, 1)]
)
def test_two_whole_attempts_fit_between_the_first_time_out_and_the_deadline(timing: Timing) -> None:
    """Rule 7. Its silence may have taken the connection of the second with it, and the third finds the network well."""
    node = Node(Lease(), timing=timing)
    node.starts(at=0)
    node.answered(at=0)
    node.answered(at=0)
    node.acks(at=0)
    at = node.wake_at
    node.wakes(at)
    assert node.under_way.timeout == timing.request_timeout, "the first may take as long as a slow server does"
    for _ in range(2):
        at += node.under_way.timeout
        assert node.fails(at) == ["renew"]
        assert at + node.under_way.timeout <= timing.renew_deadline + 1e-9
        assert node.under_way.timeout >= timing.request_timeout / 2


def test_a_failure_that_took_no_time_shortens_no_attempt() -> None:
    """A server may be slow and all the same the only one: after a refusal it gets as long as there is."""
    node = Node(Lease()).leads(at=0)
    node.wakes(at=2)
    node.fails(at=2, uncertain=False)
    node.wakes(at=2.5)
    assert node.under_way.timeout == 3.75


def test_a_leader_waits_no_longer_than_the_deadline_allows_whatever_the_server_asks() -> None:
    """Rule 7. Retry-After is honoured, and one attempt more must fit behind it."""
    node = Node(Lease()).leads(at=0)
    node.wakes(at=2)
    node.fails(at=2.1, retry_after=3)
    assert node.wake_at == pytest.approx(5.1)
    node.wakes(at=5.1)
    node.fails(at=5.2, retry_after=3600)
    assert node.wake_at <= 10 - node.election.timing.request_timeout + 0.5
    assert node.wakes(node.wake_at) == ["renew"]
    assert node.answered(at=7) == ["grant 2: start, term by 16.1, kill by 20.1"]


def test_a_renewal_whose_answer_was_lost_is_recognised() -> None:
    """E7, E15. The next one conflicts, the read says that it is still us, and on it goes."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.wakes(at=2)
    node.stored(at=2)
    assert node.fails(at=6) == ["renew"]
    assert node.answered(at=6.6) == ["read"]
    assert node.answered(at=6.7) == ["renew"]
    assert node.answered(at=6.8) == ["grant 2: start, term by 16.7, kill by 20.7"]


def test_a_lost_answer_seen_by_the_watch_needs_no_read() -> None:
    """E15. The watch has brought the version that the next write is conditional on."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.wakes(at=2)
    node.stored(at=2)
    assert node.fails(at=2.2) == []
    assert node.sees(at=2.3) == ["renew"]
    assert node.answered(at=2.4)[0].startswith("grant 2")


def test_a_lost_answer_that_was_seen_by_the_watch_extends_nothing_by_itself() -> None:
    """Rule 1. Only a confirmed write does: of this one it is not known when it was sent."""
    node = Node(Lease()).leads(at=0)
    node.wakes(at=2)
    node.stored(at=2)
    node.sees(at=2.1)
    assert node.fails(at=2.2) == []
    assert node.election.term.sent_at == 0


def test_an_operator_s_edit_of_our_record_costs_one_read() -> None:
    """E7, E12. A label was added: the write conflicts, the read has the new version, the term goes on."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.put(lease.record)
    assert node.wakes(at=2) == ["renew"]
    assert node.answered(at=2) == ["read"]
    assert node.answered(at=2.1) == ["renew"]
    assert node.answered(at=2.2) == ["grant 2: start, term by 12.1, kill by 16.1"]


def test_an_edit_seen_by_the_watch_costs_nothing() -> None:
    """E12. The next renewal starts from what the watch has brought."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.put(lease.record)
    assert node.sees(at=1) == []
    assert node.wakes(at=2) == ["renew"]
    assert node.answered(at=2)[0].startswith("grant 2")


@pytest.mark.parametrize("how", ["emptied", "deleted"])
def test_a_lease_that_was_lost_to_time_is_not_taken_back(how: str) -> None:
    """After a sleep: another may have led since, and lead still, cut off from what somebody has done to the lease."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    if how == "emptied":
        lease.edit(holder="")
    else:
        lease.delete()
    assert node.wakes(at=16)[-1] == "renew"
    assert node.state == "stepping_down"
    assert node.answered(at=16.1) == ["read"]
    assert node.answered(at=16.2) == []
    assert node.gone(at=16.3) == []
    assert node.state == "follower"


def test_a_lease_deleted_under_its_leader_is_created_again_at_once() -> None:
    """E13. And the command goes on under the same token."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.delete()
    assert node.sees(at=1) == ["renew"]
    assert node.under_way.base.record is None
    assert node.answered(at=1.1) == ["grant 2: start, term by 11, kill by 15"]
    assert node.grants[1].token == node.grants[0].token
    assert lease.record.holder == "a"


def test_a_deletion_that_only_the_renewal_notices_ends_no_term() -> None:
    """E13. Without a watch the conflict tells."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.delete()
    node.wakes(at=2)
    assert node.answered(at=2) == ["read"]
    assert node.answered(at=2.1) == ["renew"]
    assert node.answered(at=2.2)[0].startswith("grant 2: start")


def test_an_unsigned_wipe_of_our_lease_is_taken_back_at_once() -> None:
    """E23. By a conditional write, as the same term: nobody of ours takes it before it expires."""
    lease = Lease(ours("", "a0", transitions=3, released_by="a0"), 5)
    node = Node(lease).leads(at=0)
    lease.emptied()
    assert node.sees(at=1) == ["renew"]
    assert node.answered(at=1.1) == ["grant 2: start, term by 11, kill by 15"]
    assert lease.record.transitions == 4
    assert node.grants[1].token == node.grants[0].token


def test_a_wipe_that_a_renewal_in_flight_has_just_missed_is_taken_back_at_once_too() -> None:
    """E23. The watch is faster than the answer, and the answer must not make us wait for the next turn."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.wakes(at=2)
    there = node.stored(at=2)
    lease.emptied()
    assert node.sees(at=2.1) == []
    said = node.confirmed(there, at=2.2)
    assert said == ["grant 2: start, term by 12, kill by 16", "renew"]


def test_a_wipe_that_a_go_client_was_faster_to_take_is_a_loss() -> None:
    """E23, E24. Our conditional write is refused, and the read says by whom."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.emptied()
    assert node.sees(at=1) == ["renew"]
    lease.held_by("go")
    assert node.answered(at=1.1) == ["read"]
    assert node.answered(at=1.2) == ["kill: lease_lost"]


@pytest.mark.parametrize(
    ("timing", "says"),
    [
        (Timing(lease_duration=0), "lease_duration must be more than 0s, is 0s"),
        (Timing(renew_deadline=-1), "renew_deadline must be more than 0s, is -1s"),
        (Timing(retry_period=0), "retry_period must be more than 0s, is 0s"),
        (Timing(retry_period=float("nan")), "retry_period must be more than 0s"),
        (Timing(kill_margin=-1), "kill_margin must not be negative, is -1s"),
        (Timing(15, 10, 9), "1.2 × 9s = 10.8s is not less than 10s"),
        (Timing(15, 14, 2, 1), "14s is not less than 15s − 1s = 14s"),
        (Timing(10, 10, 2, 0), "10s is not less than 10s − 0s = 10s"),
    ],
)
def test_durations_that_cannot_hold_are_refused_with_the_arithmetic(timing: Timing, says: str) -> None:
    """E10, rule 3."""
    assert any(says in problem for problem in timing.problems())


def test_durations_that_hold_are_no_problem() -> None:
    """E10. The defaults are those of Kubernetes' own components."""
    assert Timing().problems() == []
    assert Timing(137, 107, 26, 1).problems() == []
    assert (Timing().lease_duration, Timing().renew_deadline, Timing().retry_period) == (15, 10, 2)
