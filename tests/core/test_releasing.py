"""How a lease is given back, and only when nothing of the command is alive."""

from __future__ import annotations

import pytest

from tests.core.scenario import Lease, Node, ours

# ---------------------------------------------------------------- the release


def test_a_release_empties_the_holder_signs_and_keeps_the_rest() -> None:
    """E8, rule 8. Duration 1, as client-go writes it; the signature lets the next take it at once."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    transitions = lease.record.transitions
    node.told_to_stop(at=1)
    node.gone(at=1.5, cause="shutdown")
    assert node.answered(at=1.6) == ["leave"]
    assert lease.record.holder == ""
    assert lease.record.duration == 1
    assert lease.record.transitions == transitions
    assert lease.record.released_by == lease.record.instance == "a1"


def test_a_released_lease_is_taken_by_the_next_within_the_same_event() -> None:
    """What the whole is for: when one stops, the next starts at once."""
    lease = Lease()
    leader = Node(lease).leads(at=0)
    follower = Node(lease, "b").follows(at=1)
    leader.told_to_stop(at=1.5)
    assert leader.gone(at=1.6, cause="shutdown") == ["release"]
    leader.answered(at=1.61)
    assert follower.sees(at=1.62) == ["acquire"]
    assert follower.answered(at=1.63) == ["grant 1: start, term by 11.62, kill by 15.62"]


def test_nothing_is_released_before_the_command_is_gone() -> None:
    """The promise itself. Renewals go on meanwhile, however long it takes."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    assert node.told_to_stop(at=1) == ["stop: stop_requested"]
    for at in range(2, 60, 2):
        assert node.wakes(at) == ["renew"]
        node.answered(at)
        node.acks(at)
        assert lease.record.holder == "a"
    assert node.gone(at=60, cause="shutdown") == ["release"]


def test_a_gone_that_crossed_with_a_newer_grant_releases_nothing() -> None:
    """Protocol rule 2. The keeper may start the command by the grant that it has not seen yet."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.wakes(at=2)
    node.answered(at=2)
    assert node.gone(at=2.1, number=1, cause="stopped") == []
    assert node.state == "leader"
    assert lease.record.holder == "a"
    assert node.gone(at=2.2, number=2, cause="deadline") == ["stop: deadline_near", "release"]


def test_a_gone_that_crossed_with_an_extension_releases_nothing_yet() -> None:
    """Protocol rule 2. The keeper answers the extension with another gone, and that one counts."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.asked_to_hand_over(at=1)
    node.wakes(at=2)
    assert node.answered(at=2) == ["grant 2: no start, term by 12, kill by 16"]
    assert node.gone(at=2.1, number=1) == []
    assert node.state == "stepping_down"
    assert node.gone(at=2.2, number=2) == ["release"]


def test_no_grant_follows_a_gone() -> None:
    """Protocol rule 2. Neither by a late acknowledgement nor by a renewal that was in flight."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.asked_to_hand_over(at=1)
    node.wakes(at=2)
    assert node.gone(at=2.1) == []
    assert node.acks(at=2.2, number=1) == []
    assert node.answered(at=2.3) == ["release"]
    assert node.acks(at=2.4, number=1) == []


# ---------------------------------------------------------------- stop while something is in flight


def test_a_stop_during_the_first_read_leaves_without_waiting_for_it() -> None:
    """E9. Nothing is held, nothing can be."""
    node = Node(Lease())
    node.starts(at=0)
    assert node.told_to_stop(at=0.1) == ["leave"]
    assert node.answered(at=0.2) == []


def test_a_stop_during_an_acquiring_write_releases_what_it_got() -> None:
    """E9. Else it would be held by nobody for its whole duration."""
    lease = Lease()
    node = Node(lease)
    node.starts(at=0)
    node.answered(at=0)
    assert node.told_to_stop(at=0.1) == []
    assert node.answered(at=0.2) == ["release"]
    assert node.answered(at=0.3) == ["leave"]
    assert lease.record.holder == ""
    assert node.grants == []


def test_a_stop_during_an_acquiring_write_that_is_refused_leaves() -> None:
    """E9. And what another holds is left alone."""
    lease = Lease()
    node = Node(lease)
    node.starts(at=0)
    node.answered(at=0)
    node.told_to_stop(at=0.1)
    lease.held_by("go")
    assert node.answered(at=0.2) == ["leave"]
    assert lease.record.holder == "go"


def test_a_stop_during_an_acquiring_write_whose_answer_is_lost_reads_and_releases() -> None:
    """E8, E9. It may have been stored all the same."""
    lease = Lease()
    node = Node(lease)
    node.starts(at=0)
    node.answered(at=0)
    node.told_to_stop(at=0.1)
    node.stored(at=0.2)
    assert node.fails(at=4) == ["read"]
    assert node.answered(at=4.1) == ["release"]
    assert node.answered(at=4.2) == ["leave"]
    assert lease.record.holder == ""


def test_a_stop_after_an_acquiring_write_whose_answer_was_lost_reads_and_releases() -> None:
    """E9. The moment later, before the next read has told what became of it."""
    lease = Lease()
    node = Node(lease)
    node.starts(at=0)
    node.answered(at=0)
    node.stored(at=0)
    assert node.fails(at=0.2) == []
    assert node.state == "follower"
    assert node.told_to_stop(at=0.3) == ["read"]
    assert node.answered(at=0.4) == ["release"]
    assert node.answered(at=0.5) == ["leave"]
    assert lease.record.holder == ""


def test_a_stop_during_a_renewal_releases_as_soon_as_it_is_answered() -> None:
    """E9. Without waiting for the next turn: another instance waits for it."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.wakes(at=2)
    assert node.told_to_stop(at=2.1) == ["stop: stop_requested"]
    assert node.gone(at=2.2, cause="shutdown") == []
    assert node.answered(at=2.3) == ["release"]
    assert node.answered(at=2.4) == ["leave"]


def test_a_stop_during_a_renewal_whose_answer_is_lost_reads_before_it_releases() -> None:
    """E8. The last confirmed version is not the last one."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.wakes(at=2)
    node.told_to_stop(at=2.1)
    node.gone(at=2.2, cause="shutdown")
    node.stored(at=2.3)
    assert node.fails(at=6) == ["read"]
    assert node.answered(at=6.1) == ["release"]
    assert node.answered(at=6.2) == ["leave"]
    assert lease.record.holder == ""


def test_a_stop_during_a_read_releases_by_what_it_brings() -> None:
    """E9. A conflict had asked for it."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.put(lease.record)
    node.wakes(at=2)
    assert node.answered(at=2.1) == ["read"]
    node.told_to_stop(at=2.2)
    assert node.gone(at=2.3, cause="shutdown") == []
    assert node.answered(at=2.4) == ["release"]
    assert node.answered(at=2.5) == ["leave"]


def test_a_stop_during_a_release_leaves_when_it_is_done() -> None:
    """E9. Rule 8: it is joined before the exit."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.asked_to_hand_over(at=1)
    assert node.gone(at=1.1) == ["release"]
    assert node.told_to_stop(at=1.2) == []
    assert node.answered(at=1.3) == ["leave"]
    assert lease.record.holder == ""


def test_a_stop_once_more_changes_nothing() -> None:
    """People press twice."""
    node = Node(Lease()).leads(at=0)
    assert node.told_to_stop(at=1) == ["stop: stop_requested"]
    assert node.told_to_stop(at=1.1) == []
    assert node.gone(at=1.2, cause="shutdown") == ["release"]
    assert node.told_to_stop(at=1.3) == []
    assert node.wake_at == pytest.approx(5.2)
    assert node.answered(at=1.4) == ["leave"]
    assert node.told_to_stop(at=1.5) == []


# ---------------------------------------------------------------- a release that does not go through


def test_a_release_that_conflicts_reads_and_tries_again() -> None:
    """E8. An edit by somebody else must not cost the next leader a whole duration."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    lease.put(lease.record)
    node.told_to_stop(at=1)
    node.gone(at=1.1, cause="shutdown")
    assert node.answered(at=1.2) == ["read"]
    assert node.answered(at=1.3) == ["release"]
    assert node.answered(at=1.4) == ["leave"]
    assert lease.record.holder == ""


def test_another_holder_s_lease_is_never_released() -> None:
    """E8. client-go asks its cache, we the store."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.told_to_stop(at=1)
    lease.held_by("go")
    node.gone(at=1.1, cause="shutdown")
    assert node.answered(at=1.2) == ["read"]
    assert node.answered(at=1.3) == ["leave"]
    assert lease.record.holder == "go"
    assert node.reported("info")[-1] == "'go' holds the lease by now: nothing is left to release"


def test_a_release_whose_answer_was_lost_is_known_by_what_is_read() -> None:
    """It was stored: there is nothing to say of a loss."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.told_to_stop(at=1)
    node.gone(at=1.1, cause="shutdown")
    node.stored(at=1.2)
    node.fails(at=1.2)
    node.wakes(at=node.wake_at)
    assert node.answered(at=3) == ["leave"]
    assert node.reported("info")[-1] == "nobody holds the lease: nothing is left to release"


def test_a_release_that_fails_is_retried_and_bounded() -> None:
    """Rule 8. The keeper waits five seconds at most; then it runs out by itself."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.told_to_stop(at=1)
    node.gone(at=1, cause="shutdown")
    at, said = 1.0, []
    while not node.left:
        if node.under_way:
            said = node.fails(at, uncertain=False)
        if not node.left:
            at = node.wake_at
            said = node.wakes(at)
    assert said[-1] == "leave"
    assert at == 5
    assert any("left to run out" in text for text in node.reported("warning"))


def test_a_release_that_hangs_is_left_after_its_time() -> None:
    """Rule 8."""
    node = Node(Lease()).leads(at=0)
    node.told_to_stop(at=1)
    assert node.gone(at=1, cause="shutdown") == ["release"]
    assert node.wake_at == 5
    assert node.wakes(at=5) == ["leave"]
    assert node.answered(at=5.5) == []


def test_a_release_whose_answer_was_lost_is_read_before_it_is_repeated() -> None:
    """E8. It was stored, and another has the lease by now."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.told_to_stop(at=1)
    node.gone(at=1, cause="shutdown")
    node.stored(at=1)
    lease.held_by("go")
    node.fails(at=2)
    assert node.under_way is None or node.under_way.__class__.__name__ == "ReadLease"
    if not node.under_way:
        assert node.wakes(node.wake_at) == ["read"]
    assert node.answered(at=3) == ["leave"]
    assert lease.record.holder == "go"


# ---------------------------------------------------------------- why a term ends


def test_a_command_that_has_finished_ends_it_all() -> None:
    """A clean exit: release, and leave with the command's status."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    assert node.gone(at=3, cause="finished")[-1] == "release" or node.answered(at=3)[-1] == "release"
    assert node.answered(at=3.1) == ["leave"]
    assert lease.record.holder == ""


def test_a_command_that_keeps_failing_gives_the_lease_to_others_first() -> None:
    """S7. A pause of a whole duration before we contend again, as a follower like any other."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    assert node.gone(at=1, cause="gave_up") == ["stop: gave_up", "release"]
    assert node.answered(at=1.1) == []
    assert node.state == "follower"
    assert node.gone(at=1.2, cause="gave_up") == []  # its answer to the stop
    assert node.wake_at == 16
    assert node.wakes(at=15.9) == []
    assert node.wakes(at=16) == ["acquire"]
    assert node.answered(at=16)[0].startswith("grant 2: start")


def test_the_pause_after_giving_up_differs_between_instances() -> None:
    """Chance: two that fail must not meet again and again."""
    pauses = []
    for chance in (0.0, 1.0):
        node = Node(Lease(), chance=chance).leads(at=0)
        node.gone(at=1, cause="gave_up")
        node.answered(at=1)
        pauses.append(node.wake_at - 1)
    assert pauses == [15, 18]


def test_a_hand_over_leaves_the_lease_to_another_for_a_duration() -> None:
    """An operator asked for it: it must not come back at once."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    assert node.asked_to_hand_over(at=1) == ["stop: handover_requested"]
    assert node.gone(at=1.5) == ["release"]
    assert node.answered(at=1.6) == []
    assert node.wake_at == 16.5
    lease.held_by("go")
    assert node.sees(at=2) == []
    assert node.wake_at == 17


def test_a_hand_over_is_nothing_to_a_follower() -> None:
    """It leads nothing."""
    lease = Lease()
    lease.held_by("go")
    assert Node(lease).follows(at=0).asked_to_hand_over(at=1) == []


def test_a_hand_over_is_nothing_to_a_candidate() -> None:
    """It does not lead yet, and its write is in flight."""
    node = Node(Lease())
    node.starts(at=0)
    node.answered(at=0)
    assert node.asked_to_hand_over(at=0.1) == []
    assert node.answered(at=0.2)[0].startswith("grant 1")


# ---------------------------------------------------------------- what a former elector left held


def test_a_stop_releases_the_lease_that_a_former_elector_left_held() -> None:
    """Protocol rule 8. The new elector has not even read it; the command under it is gone."""
    lease = Lease(ours("a", "a1"), 9)
    node = Node(lease, last_number=3, last_kill_by=14)
    node.starts(at=5)
    node.spawned(at=5)
    assert node.told_to_stop(at=5.1) == []
    assert node.gone(at=5.5, number=3, cause="shutdown") == []
    assert node.state == "terminated"
    assert node.answered(at=5.6) == ["release"]
    assert node.answered(at=5.7) == ["leave"]
    assert lease.record.holder == ""


def test_a_stop_releases_nothing_while_a_hook_may_run_by_a_former_elector_s_grant() -> None:
    """Of a hook before the start nothing is told. Whatever that grant has begun, the keeper says when it is gone."""
    lease = Lease(ours("a", "a1"), 9)
    node = Node(lease, last_number=3, last_kill_by=14)
    node.starts(at=5)
    assert node.told_to_stop(at=5.1) == []
    assert node.answered(at=5.2) == ["acquire"], "it is kept meanwhile"
    assert node.answered(at=5.3) == ["grant 4: start, term by 15.2, kill by 19.2"]
    assert node.gone(at=7, number=4, cause="shutdown")[-1] == "release"
    late = Node(Lease(ours("a", "a1"), 9), last_number=3, last_kill_by=14)
    late.starts(at=15)
    assert late.told_to_stop(at=15.1) == []
    assert late.answered(at=15.2) == ["release"], "that date has passed: all of it is dead"


def test_a_keeper_that_dies_may_leave_what_a_former_elector_s_grant_has_begun() -> None:
    """Its tree is ended before the lease is given back, whether we heard of a start or not."""
    node = Node(Lease(ours("a", "a1"), 9), last_number=3, last_kill_by=14)
    node.starts(at=5)
    assert node.keeper_dies(at=5.1) == ["kill keeper and tree, no start after 14"]


def test_a_stop_releases_nothing_of_a_former_elector_before_its_command_is_gone() -> None:
    """Protocol rule 2. The lease is even renewed while it stops."""
    lease = Lease(ours("a", "a1"), 9)
    node = Node(lease, last_number=3, last_kill_by=14)
    node.starts(at=5)
    node.spawned(at=5)
    node.told_to_stop(at=5.1)
    assert node.answered(at=5.2) == ["acquire"]
    assert node.answered(at=5.3) == ["grant 4: start, term by 15.2, kill by 19.2"]
    assert node.gone(at=5.4, number=3, cause="shutdown") == []
    assert lease.record.holder == "a"
    assert node.gone(at=5.5, number=4, cause="shutdown")[-1] == "release"
    assert node.answered(at=5.6) == ["leave"]


def test_a_stop_leaves_another_s_lease_alone_after_a_former_elector() -> None:
    """E8."""
    lease = Lease(ours("b", "b1"), 9)
    node = Node(lease, last_number=3, last_kill_by=14).follows(at=15)
    assert node.told_to_stop(at=16) == ["leave"]
    assert lease.record.holder == "b"


def test_a_follower_that_is_told_to_stop_leaves() -> None:
    """Rule 8: nothing is held, so nothing is written."""
    lease = Lease()
    lease.held_by("go")
    assert Node(lease).follows(at=0).told_to_stop(at=1) == ["leave"]


def test_a_stop_tries_once_more_where_an_earlier_release_did_not_go_through() -> None:
    """E9. A follower whose lease is still in its own name."""
    lease = Lease()
    node = Node(lease).leads(at=0)
    node.asked_to_hand_over(at=1)
    assert node.gone(at=1) == ["release"]
    assert node.wakes(at=5) == []  # its time is over, and the request hangs
    assert node.fails(at=5.1, uncertain=False) == []
    assert node.state == "follower"
    assert node.told_to_stop(at=5.2) == ["read"]
    assert node.answered(at=5.3) == ["release"]
    assert node.answered(at=5.4) == ["leave"]
    assert lease.record.holder == ""
