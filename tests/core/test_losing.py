"""How a term ends against our will: time, another holder, a keeper that is silent."""

from __future__ import annotations

import pytest

from awaitelect.core.lease import Timing
from tests.core.scenario import Lease, Node, ours

# ---------------------------------------------------------------- time


def test_without_a_renewal_the_command_is_stopped_at_term_by() -> None:
    """Rule 1. With grace: what is left of the lease is for that."""
    node = Node(Lease()).leads(at=0)
    node.wakes(at=2)
    assert node.wake_at == 10
    assert node.wakes(at=9.99) == []
    assert node.wakes(at=10) == ["stop: deadline_near"]
    assert node.state == "stepping_down"
    assert node.reported("error") == ["stepping down: the lease could not be renewed in time"]


def test_a_date_that_has_passed_goes_before_whatever_else_has_happened() -> None:
    """E18. A machine that was suspended wakes up to a term that is over, and the late answer does not revive it."""
    node = Node(Lease()).leads(at=0)
    node.wakes(at=2)
    there = node.stored(at=2)
    said = node.confirmed(there, at=13)
    assert said == ["stop: deadline_near", "renew"]
    assert node.wakes(at=13.5) == []  # and no grant is waited for that was overdue when it left


def test_a_term_does_not_survive_a_suspend() -> None:
    """E18. An hour later the first thing done is to end it, and nothing is started."""
    node = Node(Lease()).leads(at=0)
    said = node.wakes(at=3600)
    assert said[0] == "stop: deadline_near"
    assert not any("start, term" in words and "no start" not in words for words in said)


def test_renewals_go_on_while_the_command_stops() -> None:
    """So that it has its whole time to stop in; but nothing is started any more."""
    node = Node(Lease()).leads(at=0)
    node.wakes(at=2)
    node.wakes(at=10)
    assert node.fails(at=10.1) == ["renew"]
    assert node.answered(at=10.2) == ["grant 2: no start, term by 20.1, kill by 24.1"]
    assert node.state == "stepping_down"


def test_after_a_missed_deadline_the_lease_is_released_and_contended_for_again() -> None:
    """E20. No standby that only looks like one; and another, whose network works, may be first."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.wakes(at=2)
    node.wakes(at=10)
    node.fails(at=10.1)
    node.fails(at=10.2, uncertain=False)
    assert node.gone(at=10.3, cause="stopped") == ["read"]
    assert node.answered(at=10.4) == ["release"]
    assert node.answered(at=10.5) == []
    assert node.state == "follower"
    assert lease.record.holder == ""
    assert node.wake_at == pytest.approx(12.3)
    assert node.wakes(at=12.3) == ["acquire"]


# ---------------------------------------------------------------- another holder


def test_another_holder_in_our_unexpired_lease_has_the_command_killed_at_once() -> None:
    """E24. Without grace: somebody may be starting this very moment."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.held_by("go")
    assert node.sees(at=1) == ["kill: lease_lost"]
    assert node.reported("error") == ["stepping down: 'go' has taken the lease from us"]


def test_a_conflict_and_another_holder_have_the_command_killed_at_once() -> None:
    """E7. The same without a watch."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.held_by("go")
    node.wakes(at=2)
    assert node.answered(at=2.1) == ["read"]
    assert node.answered(at=2.2) == ["kill: lease_lost"]


def test_a_conflict_alone_loses_nothing() -> None:
    """Rule 5. It means: read again."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.put(lease.record)
    node.wakes(at=2)
    assert node.answered(at=2.1) == ["read"]
    assert node.fails(at=2.2) == []
    assert node.state == "leader"
    assert node.wakes(at=node.wake_at) == ["read"]


def test_another_run_in_our_name_is_another_holder() -> None:
    """E19. The name is the same, the run is not."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.edit(instance="a2")
    assert node.sees(at=1) == ["kill: lease_lost"]


def test_a_go_client_s_theft_is_seen_although_our_annotations_are_still_there() -> None:
    """E24. It keeps what it does not know."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.held_by("go")
    assert lease.record.instance == "a1"
    assert node.sees(at=1) == ["kill: lease_lost"]


def test_a_lost_lease_is_never_written_again() -> None:
    """E8. Neither renewed nor released: it is another's."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.held_by("go")
    node.sees(at=1)
    assert node.wakes(at=4) == []
    assert node.gone(at=5) == []
    assert node.state == "follower"
    assert lease.record.holder == "go"
    assert node.wake_at == 16


def test_a_renewal_in_flight_when_the_lease_is_lost_grants_nothing() -> None:
    """The watch is faster than the answer of a write that was stored before the loss."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.wakes(at=2)
    there = node.stored(at=2)
    lease.held_by("go")
    assert node.sees(at=2.1) == ["kill: lease_lost"]
    assert node.confirmed(there, at=2.2) == []
    assert node.gone(at=2.3) == []
    assert lease.record.holder == "go"


def test_a_loss_while_stepping_down_turns_the_stop_into_a_kill() -> None:
    """E24. Whatever grace the command had been given."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    assert node.asked_to_hand_over(at=1) == ["stop: handover_requested"]
    lease.held_by("go")
    assert node.sees(at=1.5) == ["kill: lease_lost"]
    assert node.gone(at=1.6) == []


def test_after_a_loss_the_lease_is_taken_again_once_it_is_free() -> None:
    """E20. Without a restart."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.held_by("go")
    node.sees(at=1)
    node.gone(at=1.1)
    lease.emptied()
    assert node.sees(at=30) == ["acquire"]
    assert node.answered(at=30) == ["grant 2: start, term by 40, kill by 44"]
    assert node.grants[1].token > node.grants[0].token


@pytest.mark.parametrize("lost_by", ["time", "another"])
def test_on_lost_exit_leaves_with_75(lost_by: str) -> None:
    """For those whose restart is somebody else's business."""
    lease = Lease()
    node = Node(lease, on_lost="exit").leads(at=0)
    if lost_by == "time":
        assert node.wakes(at=10)[0] == "stop: deadline_near"
        node.fails(at=10.1, uncertain=False)
        assert node.gone(at=11, cause="stopped") == ["release"]
        assert node.answered(at=11.1) == ["leave 75"]
    else:
        lease.held_by("go")
        assert node.sees(at=1) == ["kill: lease_lost"]
        assert node.gone(at=1.1) == ["leave 75"]
        assert lease.record.holder == "go"


# ---------------------------------------------------------------- the keeper


def test_a_keeper_that_acknowledges_nothing_is_taken_for_dead_at_term_by() -> None:
    """Protocol rule 5. It starts no command after that date, and what it had started can be dead before the lease ends.

    Where it cannot be killed it is given until its last date: it may wake up and run the hooks of a stop until then.
    """
    lease = Lease()
    node = Node(lease)
    node.starts(at=0)
    node.answered(at=0)
    node.answered(at=0)
    for at in (2, 4, 6, 8):
        node.wakes(at)
        assert node.answered(at) == []
    assert node.wake_at == 10
    assert node.wakes(at=10) == ["kill keeper and tree, no start after 14", "renew"]
    assert node.state == "stepping_down"


def test_renewals_go_on_while_a_silent_keeper_s_tree_is_killed_and_the_release_comes_after() -> None:
    """Protocol rule 5. Nobody else starts before the last of it has been seen to end."""
    lease = Lease()
    node = Node(lease)
    node.starts(at=0)
    node.answered(at=0)
    node.answered(at=0)
    node.wakes(at=10)
    assert node.answered(at=10.1) == []
    assert node.wake_at == 12
    assert node.wakes(at=12) == ["renew"]
    assert node.answered(at=12.1) == []
    assert lease.record.holder == "a"
    assert node.tree_killed(at=13) == ["release"]
    assert node.answered(at=13.1) == ["leave"]
    assert lease.record.released_by == "a1"


def test_a_keeper_that_was_stopped_after_an_acknowledgement_is_noticed_by_the_next_grant() -> None:
    """Protocol rule 1. The acknowledgement is its heartbeat; its last date is the one it has not answered."""
    node = Node(Lease()).leads(at=0)
    node.wakes(at=2)
    node.answered(at=2)
    node.wakes(at=4)
    node.answered(at=4)
    assert node.runs(4, until=11.9) is None
    assert node.wakes(at=11.9) == []
    assert "kill keeper and tree, no start after 16" in node.wakes(at=12)


def test_a_keeper_that_answered_and_then_kept_silent_has_until_all_should_be_dead() -> None:
    """Protocol rule 5. It knows its dates. Past `kill_by`, with no word of the end, somebody else must see to it."""
    node = Node(Lease()).leads(at=0)
    node.wakes(at=2)
    node.wakes(at=10)
    assert node.wake_at == 14.25
    assert node.wakes(at=14.2) == []
    assert node.wakes(at=14.25) == ["kill keeper and tree, no start after 14"]
    assert node.wake_at is None
    assert node.tree_killed(at=14.4) == []
    assert node.answered(at=14.5) == ["release"]


def test_the_keeper_s_death_has_its_tree_killed_before_the_lease_is_released() -> None:
    """G2. The command may outlive it by a moment."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    assert node.keeper_dies(at=1) == ["kill keeper and tree, no start after 14"]
    assert node.keeper_dies(at=1) == []
    assert lease.record.holder == "a"
    assert node.tree_killed(at=1.2) == ["release"]
    assert node.answered(at=1.3) == ["leave"]


def test_the_keeper_s_death_while_stepping_down_is_no_gone() -> None:
    """G2. It has not said that nothing is alive."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.asked_to_hand_over(at=1)
    assert node.keeper_dies(at=1.1) == ["kill keeper and tree, no start after 14"]
    assert node.tree_killed(at=1.2) == ["release"]
    assert node.answered(at=1.2) == ["leave"]


def test_the_keeper_s_death_after_a_loss_has_its_tree_killed_and_releases_nothing() -> None:
    """E24, G2 at once."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.held_by("go")
    node.sees(at=1)
    assert node.keeper_dies(at=1.1) == ["kill keeper and tree, no start after 14"]
    assert node.tree_killed(at=1.2) == ["leave"]
    assert lease.record.holder == "go"


def test_a_follower_whose_keeper_dies_leaves() -> None:
    """There is nobody left to start anything for."""
    lease = Lease()
    lease.held_by("go")
    assert Node(lease).follows(at=0).keeper_dies(at=1) == ["leave"]


def test_a_candidate_whose_keeper_dies_gives_back_what_it_gets() -> None:
    """Protocol rule 8: the write in flight is awaited, then the lease released."""
    lease = Lease()
    node = Node(lease)
    node.starts(at=0)
    node.answered(at=0)
    assert node.keeper_dies(at=0.1) == []
    assert node.answered(at=0.2) == ["release"]
    assert node.answered(at=0.3) == ["leave"]
    assert lease.record.holder == ""


# ---------------------------------------------------------------- what a former elector left behind


def test_a_command_of_the_former_elector_is_killed_where_another_holds_the_lease() -> None:
    """E24. The lease went away while no elector was there to see it."""
    lease = Lease(ours("b", "b1"), 9)
    node = Node(lease, last_number=3, last_kill_by=14)
    node.starts(at=0)
    node.spawned(at=0)
    assert node.answered(at=0.1) == ["kill: lease_lost"]
    assert node.gone(at=0.2, number=3) == []
    assert node.state == "follower"


def test_a_keeper_that_stops_answering_after_the_former_elector_is_dealt_with_on_its_last_date() -> None:
    """Protocol rule 5. The new elector has sent no grant of its own yet; the old one's dates are known."""
    node = Node(Lease(ours("a", "a1"), 9), last_number=3, last_kill_by=14)
    node.starts(at=5)
    node.spawned(at=5)
    assert node.wake_at == 14.25, "it can be dead by then, and the lease not yet free"
    assert node.wakes(at=14.25) == ["kill keeper and tree, no start after 14"]


def test_the_lease_of_a_former_elector_is_released_after_its_tree_was_killed() -> None:
    """Protocol rule 5. Although the new elector has never led."""
    lease = Lease(ours("a", "a1"), 9)
    node = Node(lease, last_number=3, last_kill_by=14)
    node.starts(at=5)
    node.spawned(at=5)
    node.fails(at=5.2)
    assert node.keeper_dies(at=5.3)[0].startswith("kill keeper and tree")
    assert node.under_way is None
    assert node.tree_killed(at=6.1) == ["read"]
    assert node.answered(at=7.1) == ["release"]
    assert node.answered(at=7.2) == ["leave"]
    assert lease.record.holder == ""


def test_a_new_elector_believes_no_gone_from_before_its_own_first_grant() -> None:
    """Protocol rule 2. It is of the former one, and may have crossed with a grant that starts the command."""
    lease = Lease(ours("a", "a1"), 9)
    node = Node(lease, last_number=3, last_kill_by=14)
    node.starts(at=0)
    node.answered(at=0)
    assert node.answered(at=0) == ["grant 4: start, term by 10, kill by 14"]
    assert node.gone(at=0.1, number=3, cause="stopped") == []
    assert node.state == "leader"
    assert node.gone(at=0.2, number=4, cause="deadline") == ["stop: deadline_near", "release"]


def test_a_gone_of_an_older_grant_frees_nothing_that_a_former_elector_left() -> None:
    """Protocol rule 2. The command may run by a later one."""
    lease = Lease(ours("a", "a1"), 9)
    node = Node(lease, last_number=3, last_kill_by=14)
    node.starts(at=0)
    node.spawned(at=0)
    node.fails(at=0.1)
    assert node.gone(at=0.2, number=2, cause="shutdown") == []
    assert node.state == "follower"
    assert node.gone(at=0.3, number=3, cause="shutdown") == ["read"]
    assert node.answered(at=0.4) == ["release"]


def test_time_that_was_enough_for_the_default_margin_is_enough_for_any() -> None:
    """Protocol rule 5: a keeper that goes silent is noticed before the lease ends, whatever the margin is."""
    for margin in (0.2, 1.0, 4.0):
        node = Node(Lease(), timing=Timing(15, 10, 2, margin))
        node.starts(at=0)
        node.answered(at=0)
        node.answered(at=0)
        node.acks(at=0)
        node.wakes(at=2)
        node.wakes(at=10)
        assert 15 - margin < node.wake_at < 15


def test_a_former_elector_s_grant_starts_nothing_where_another_holds_the_lease() -> None:
    """The keeper may be in the pause before a restart, and would start the command by that grant, until its date."""
    lease = Lease(ours("b", "b1"), 9)
    node = Node(lease, last_number=3, last_kill_by=14)
    node.starts(at=0)
    assert node.answered(at=0.1) == ["kill: lease_lost"]
    assert node.gone(at=0.2, number=3, cause="stopped") == []
    assert node.state == "follower"
    late = Node(lease, last_number=3, last_kill_by=14)
    late.starts(at=15)
    assert late.answered(at=15.1) == [], "that date has passed: there is nothing to stop"
