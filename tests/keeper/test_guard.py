"""The keeper's decisions: time and events in, actions out, no process."""

from __future__ import annotations

import pytest

from awaitelect.keeper.guard import (
    KILL_LEAD,
    STUCK_AFTER,
    SWEEP_AGAIN,
    Action,
    Guard,
    KillAll,
    Note,
    NoteSurvivors,
    Phase,
    Signal,
    SignalTree,
    Tell,
    TellSurvivors,
)
from awaitelect.keeper.guard import Start as StartAction
from awaitelect.protocol import Ack, CommandSettings, Gone, Grant, Shutdown

TERM, INT = 15, 2


def guard(**settings: object) -> Guard:
    return Guard(CommandSettings(argv=["true"], **settings), lambda: 0.0)


def grant(number: int = 1, sent: float = 0.0, may_start: bool = True, term: int = 7) -> Grant:
    """As of a renewal sent at that instant, with the default durations."""
    return Grant(number, sent + 10, sent + 14, may_start, term)


def running(**settings: object) -> Guard:
    """A command that was started at 0."""
    it = guard(**settings)
    assert words(it.on_grant(grant(), 0)) == ["ack 1 running", "start"]
    return it


def words(actions: list[Action]) -> list[str]:
    """What is done, without what is said to people."""
    return [_word(action) for action in actions if not isinstance(action, (Note, NoteSurvivors))]


def deeds(actions: list[Action]) -> list[str]:
    """What is done, without what is said to anybody."""
    return words([action for action in actions if not isinstance(action, Tell)])


def _word(action: Action) -> str:
    match action:
        case StartAction():
            return "start"
        case Signal(number=number, group=group):
            return f"signal {number}" + (" to the group" if group else "")
        case SignalTree(number=number):
            return f"signal {number} to all"
        case KillAll():
            return "kill all"
        case TellSurvivors():
            return "tell survivors"
    message = action.message
    match message:
        case Ack():
            return f"ack {message.number} {message.phase}"
        case Gone():
            return f"gone {message.number} {message.cause}" + ("" if message.status is None else f" {message.status}")
        case Shutdown():
            return f"shutdown {message.signal}"
    raise AssertionError(action)


def notes(actions: list[Action]) -> str:
    return "; ".join(action.text for action in actions if isinstance(action, (Note, NoteSurvivors)))


# ---------------------------------------------------------------- grants


def test_a_grant_is_acknowledged_and_starts_the_command() -> None:
    """Protocol rule 1."""
    it = guard()
    assert it.wake_at is None
    assert words(it.on_grant(grant(), 0)) == ["ack 1 running", "start"]
    assert it.phase == Phase.RUNNING
    assert it.wake_at == 10


@pytest.mark.parametrize("now", [10.0, 10.1, 3600.0])
def test_nothing_is_started_from_term_by_on(now: float) -> None:
    """Protocol rule 3. And the elector hears that nothing is, so that it does not lead for ever."""
    it = guard()
    assert words(it.on_grant(grant(), now)) == ["gone 1 deadline"]
    assert it.phase == Phase.IDLE


def test_a_grant_that_may_start_nothing_starts_nothing() -> None:
    """Protocol rule 2. It is answered with gone, and that number counts."""
    assert words(guard().on_grant(grant(may_start=False), 0)) == ["gone 1 deadline"]


@pytest.mark.parametrize("number", [1, 0])
def test_an_older_grant_is_passed_over(number: int) -> None:
    """Protocol rule 1. Of a former elector, or repeated: its dates must not count."""
    it = running()
    assert it.on_grant(grant(number, sent=100), 1) == []
    assert it.wake_at == 10


def test_a_newer_grant_moves_the_dates() -> None:
    """A renewal. The command never notices."""
    it = running()
    assert words(it.on_grant(grant(2, sent=2), 2.1)) == ["ack 2 running"]
    assert it.wake_at == 12
    assert it.on_wake(10) == []


def test_a_command_that_was_refused_because_it_came_too_late_is_gone() -> None:
    """Protocol rule 3. The shim looks at the clock once more just before the exec."""
    it = running()
    assert words(it.on_refused("the grant has run out", None, 10.1)) == ["gone 1 deadline"]
    assert it.phase == Phase.IDLE


# ---------------------------------------------------------------- dates


def test_the_command_is_stopped_at_term_by() -> None:
    """G1. Whatever became of the elector."""
    it = running()
    assert it.on_wake(9.99) == []
    said = it.on_wake(10)
    assert words(said) == ["signal 15"]
    assert "not renewed in time" in notes(said)
    assert it.phase == Phase.STOPPING


def test_the_stop_timeout_is_cut_to_what_the_lease_allows_and_that_is_said() -> None:
    """S4, G1. SIGKILL comes before kill_by, so that everything is dead by then."""
    it = running(stop_timeout=10.0)
    it.on_wake(10)
    assert it.wake_at == pytest.approx(14 - KILL_LEAD)
    assert KILL_LEAD > 0
    assert it.on_wake(13.7) == []
    said = it.on_wake(13.8)
    assert words(said) == ["kill all"]
    assert "the lease leaves no more time" in notes(said)


def test_kill_comes_at_the_timeout_and_not_before() -> None:
    """S4. Where the lease leaves enough."""
    it = running(stop_timeout=2.0)
    it.on_stop(True, 1)
    assert it.wake_at == 3
    assert it.on_wake(2.9) == []
    said = it.on_wake(3)
    assert words(said) == ["kill all"]
    assert "has not ended in time" in notes(said)


def test_a_newer_grant_extends_the_time_to_stop_in() -> None:
    """Renewals go on while it stops."""
    it = running(stop_timeout=60.0)
    it.on_stop(True, 1)
    assert it.wake_at == pytest.approx(13.8)
    assert words(it.on_grant(grant(2, sent=2, may_start=False), 2)) == ["ack 2 stopping"]
    assert it.wake_at == pytest.approx(15.8)
    assert words(it.on_grant(grant(3, sent=12), 12)) == ["ack 3 stopping"]
    assert it.phase == Phase.STOPPING  # a stop that has begun is not called off


def test_a_command_whose_both_dates_have_passed_is_killed_without_being_asked() -> None:
    """The machine was suspended: others may run by now, and SIGCONT after a stop signal would only wake it up."""
    it = running()
    assert words(it.on_wake(3600)) == ["kill all"]
    assert it.phase == Phase.KILLING
    assert words(it.on_exited(-9, False, 3600) + it.on_empty(3600)) == ["gone 1 deadline 137"]


def test_what_was_killed_is_swept_until_it_is_empty() -> None:
    """P14. And what cannot be killed is said again and again, and never called gone."""
    it = running()
    it.on_stop(False, 1)
    now, said = 1.0, []
    for _ in range(80):
        now = it.wake_at
        step = it.on_wake(now)
        assert words(step) == ["kill all"]
        said.append(notes(step))
    assert now == pytest.approx(1 + 80 * SWEEP_AGAIN)
    assert it.is_stuck
    lines = [text for text in said if text]
    assert lines[:2] == ["not dead 1.0s after SIGKILL", "not dead 3.0s after SIGKILL"]
    assert lines[2].startswith("the command cannot be killed: the lease is not released")
    assert len(lines) == 4
    assert sum("cannot be killed" in text for text in lines) == 1
    assert now > 1 + STUCK_AFTER
    assert words(it.on_empty(now)) == ["gone 1 stopped"]
    assert not it.is_stuck


def test_a_deadline_by_the_keeper_itself_stops_the_command() -> None:
    """Protocol rule 9. No elector will come any more."""
    it = running()
    assert words(it.on_deadline(3)) == ["signal 15"]
    it.on_exited(0, False, 4)
    assert words(it.on_empty(4)) == ["gone 1 deadline 0"]
    assert it.on_deadline(5) == []


# ---------------------------------------------------------------- stop by the elector


def test_a_stop_without_grace_kills_at_once() -> None:
    """E24. Somebody else holds the lease."""
    it = running()
    assert words(it.on_stop(False, 1)) == ["kill all"]
    assert words(it.on_empty(1.1)) == ["gone 1 stopped"]
    assert it.phase == Phase.IDLE


def test_a_stop_without_grace_ends_the_patience_of_one_with() -> None:
    """E24. The lease was lost meanwhile."""
    it = running()
    it.on_stop(True, 1)
    assert it.on_stop(True, 1.1) == []
    assert words(it.on_stop(False, 1.2)) == ["kill all"]
    assert it.on_stop(False, 1.3) == []


def test_gone_is_said_only_when_all_is_empty() -> None:
    """Protocol rule 2. The main process is not all."""
    it = running()
    assert words(it.on_stop(True, 1)) == ["signal 15"]
    assert words(it.on_exited(0, True, 2)) == ["tell survivors"]
    assert it.is_alive
    assert words(it.on_empty(3)) == ["gone 1 stopped 0"]


def test_a_stop_where_nothing_runs_is_answered_with_gone() -> None:
    """Protocol rule 2. Whoever asks gets an answer."""
    it = guard()
    assert words(it.on_stop(True, 0)) == ["gone 0 deadline"]
    it = running()
    it.on_stop(True, 1)
    it.on_empty(1)
    assert words(it.on_stop(True, 2)) == ["gone 1 stopped"]


def test_a_stop_during_the_back_off_is_immediate_and_final_for_this_grant() -> None:
    """S3."""
    it = running()
    it.on_exited(1, False, 1)
    it.on_empty(1)
    assert it.phase == Phase.BACKOFF
    assert words(it.on_stop(True, 1.1)) == ["gone 1 stopped 1"]
    assert it.wake_at is None
    assert it.on_wake(2) == []


def test_a_stop_beats_a_restart() -> None:
    """S3. It came between the end of the main process and that of the last one."""
    it = running()
    it.on_exited(1, True, 1)
    it.on_stop(True, 1.1)
    assert words(it.on_empty(1.2)) == ["gone 1 stopped 1"]
    assert it.phase == Phase.IDLE


def test_a_stop_before_the_command_has_begun_leaves_nothing_running() -> None:
    """The shim has refused in the meantime."""
    it = running()
    it.on_stop(True, 0.1)
    assert words(it.on_refused("no such file", 127, 0.2)) == ["gone 1 stopped 127"]


def test_after_a_stop_a_newer_grant_starts_again() -> None:
    """E20. The next term."""
    it = running()
    it.on_stop(True, 1)
    it.on_empty(1.5)
    assert words(it.on_grant(grant(2, sent=20, term=9), 20)) == ["ack 2 running", "start"]


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("mixed", "signal 15"),
        ("process", "signal 15"),
        ("group", "signal 15 to the group"),
        ("tree", "signal 15 to all"),
    ],
)
def test_the_stop_signal_goes_where_the_kill_mode_says(mode: str, says: str) -> None:
    """systemd's KillMode=, and the group as other supervisors have it. A second one goes the same way."""
    assert words(running(kill_mode=mode).on_stop(True, 1)) == [says]
    it = running(kill_mode=mode)
    assert words(it.on_shutdown(TERM, 1)) == words(it.on_shutdown(TERM, 2)) == ["shutdown 15", says]


def test_kill_mode_process_leaves_the_rest_alone_until_the_main_process_has_ended() -> None:
    """systemd's KillMode=process: SIGKILL is for the main process alone too; but nothing may outlive the lease."""
    it = running(kill_mode="process", stop_timeout=2.0)
    it.on_executed(0.1)
    it.on_grant(grant(2, sent=60), 60)
    it.on_stop(True, 61)
    assert words(it.on_wake(63)) == ["signal 9"]
    assert words(it.on_exited(-9, True, 63.1)) == ["tell survivors"]
    assert it.wake_at == pytest.approx(65.1), "they have the whole time too"
    assert words(it.on_wake(65.1)) == ["kill all"]


def test_kill_mode_process_does_not_spare_the_rest_when_the_lease_leaves_no_time() -> None:
    """The promise comes before the mode."""
    it = running(kill_mode="process", stop_timeout=60.0)
    it.on_executed(0.1)
    assert deeds(it.on_wake(10)) == ["signal 15"]
    assert it.wake_at == 14 - KILL_LEAD
    assert words(it.on_wake(14 - KILL_LEAD)) == ["kill all"]


def test_kill_mode_process_kills_all_when_the_main_process_cannot_be_killed() -> None:
    """It would be asked for ever, and never be said to be stuck."""
    it = running(kill_mode="process", stop_timeout=2.0)
    it.on_executed(0.1)
    it.on_grant(grant(2, sent=60), 60)
    it.on_stop(True, 61)
    assert words(it.on_wake(63)) == ["signal 9"]
    assert words(it.on_wake(65)) == ["kill all"]


def test_after_the_last_date_the_others_are_not_left_alone_either() -> None:
    """The keeper has slept over both its dates: SIGKILL to the main process alone would wake up the rest."""
    it = running(kill_mode="process", stop_timeout=2)
    it.on_executed(0)
    it.on_stop(True, 5)
    assert words(it.on_wake(14 - KILL_LEAD)) == ["kill all"]


def test_an_end_for_want_of_memory_is_named_as_one() -> None:
    """Signal 9 alone says nothing; but a kill of our own says enough."""
    it = running()
    it.on_exited(-9, False, 3.2, starved=True)
    assert "was killed for want of memory" in notes(it.on_empty(3.2))
    it = running()
    it.on_exited(-9, False, 3.2, starved=False)
    assert "was killed by SIGKILL" in notes(it.on_empty(3.2))
    it = running()
    it.on_stop(False, 3)
    it.on_exited(-9, False, 3.2, starved=True)
    it.on_empty(3.2)
    assert it.last_end == "the command was killed by SIGKILL after 3.2s"


# ---------------------------------------------------------------- shutdown by the user


@pytest.mark.parametrize(("signal", "sent"), [(TERM, 3), (INT, INT)])
def test_a_shutdown_stops_the_command_and_ends(signal: int, sent: int) -> None:
    """SIGTERM with the stop signal, the others with themselves."""
    it = running(stop_signal=3)
    assert words(it.on_shutdown(signal, 1)) == [f"shutdown {signal}", f"signal {sent}"]
    it.on_exited(0, False, 2)
    assert words(it.on_empty(2)) == ["gone 1 shutdown 0"]
    assert it.phase == Phase.ENDED
    assert words(it.on_grant(grant(2, sent=3), 3)) == ["gone 2 shutdown 0"]


def test_a_second_shutdown_is_forwarded_at_once() -> None:
    """A user who presses twice means it."""
    it = running()
    it.on_shutdown(TERM, 1)
    assert words(it.on_shutdown(INT, 1.5)) == ["shutdown 2", "signal 2"]
    assert it.wake_at == 11  # the ladder goes on as it was


def test_a_shutdown_while_the_elector_stops_it_ends_for_good() -> None:
    """No new term after it."""
    it = running()
    it.on_stop(True, 1)
    assert words(it.on_shutdown(TERM, 1.1)) == ["shutdown 15"]
    assert it.on_stop(True, 1.2) == []  # and its cause is not forgotten
    assert words(it.on_empty(2)) == ["gone 1 shutdown"]
    assert it.phase == Phase.ENDED


@pytest.mark.parametrize("phase", ["idle", "backoff", "held", "given_up"])
def test_a_shutdown_with_nothing_running_is_gone_at_once(phase: str) -> None:
    """P13. And no later grant starts anything."""
    it = guard(max_restarts=0, on_give_up="hold" if phase == "held" else "release")
    if phase == "backoff":
        it = guard()
    if phase != "idle":
        it.on_grant(grant(), 0)
        it.on_exited(1, False, 1)
        it.on_empty(1)
    assert it.phase == phase
    status = "" if phase == "idle" else " 1"
    assert words(it.on_shutdown(TERM, 2)) == ["shutdown 15", f"gone {it.number} shutdown{status}"]
    assert words(it.on_grant(grant(2, term=9), 2)) == [f"gone 2 shutdown{status}"]


def test_a_follower_that_is_told_to_end_does_not_give_the_status_of_an_earlier_term() -> None:
    """It was killed when the lease was lost, long ago: 137 would say that something went wrong now."""
    it = guard()
    it.on_grant(grant(), 0)
    it.on_stop(False, 1)
    it.on_exited(-9, False, 1.1)
    it.on_empty(1.1)
    assert it.phase == Phase.IDLE and it.status == -9
    assert words(it.on_shutdown(TERM, 2)) == ["shutdown 15", "gone 1 shutdown"]
    assert it.status is None


def test_a_missing_program_ends_it_all_with_its_status() -> None:
    """Before anything is contended for; nothing is started, whatever is granted."""
    it = guard()
    assert words(it.on_missing("no such file", 127)) == ["shutdown 15", "gone 0 shutdown 127"]
    assert words(it.on_grant(grant(), 1)) == ["gone 1 shutdown 127"]
    assert it.status == 127


# ---------------------------------------------------------------- the command's own end


def fails(it: Guard, now: float, status: int = 1) -> list[Action]:
    assert words(it.on_exited(status, False, now)) == []
    return it.on_empty(now)


def test_a_failed_command_is_started_again_after_a_pause() -> None:
    """The lease is kept meanwhile."""
    it = running()
    said = fails(it, 1)
    assert words(said) == []
    assert "exited with 1" in notes(said)
    assert "(1 of 5)" in notes(said)
    assert it.wake_at == 1.5
    assert words(it.on_grant(grant(2, sent=1), 1.2)) == ["ack 2 backoff"]
    assert it.on_wake(1.4) == []
    assert words(it.on_wake(1.5)) == ["start"]
    assert it.restarts == 1


def test_a_back_off_that_outlives_the_grant_starts_nothing() -> None:
    """Protocol rule 3."""
    it = running(restart_policy="on-failure")
    fails(it, 9.8)
    assert it.wake_at == 10
    assert words(it.on_wake(10)) == ["gone 1 deadline 1"]
    assert it.phase == Phase.IDLE


def test_a_back_off_starts_nothing_under_a_grant_that_only_moves_dates() -> None:
    """Protocol rule 2. The elector is stepping down."""
    it = running()
    fails(it, 1)
    assert words(it.on_grant(grant(2, sent=1, may_start=False), 1.1)) == ["ack 2 backoff"]
    assert words(it.on_wake(1.5)) == ["gone 2 deadline 1"]


def test_what_a_command_leaves_behind_is_told_and_then_killed_before_a_restart() -> None:
    """P14, S3. Never two at once."""
    it = running(stop_timeout=2.0)
    said = it.on_exited(1, True, 1)
    assert words(said) == ["tell survivors"]
    assert words(it.on_wake(3)) == ["kill all"]
    assert words(it.on_empty(3.1)) == []
    assert it.phase == Phase.BACKOFF


@pytest.mark.parametrize(
    ("policy", "status", "ends"),
    [
        ("on-failure", 0, True),
        ("on-failure", 3, True),
        ("on-failure", 1, False),
        ("on-failure", -9, False),
        ("always", 0, False),
        ("on-abnormal", 1, True),
        ("on-abnormal", -9, False),
        ("never", 1, True),
        ("never", -9, True),
    ],
)
def test_the_policy_decides_whether_it_is_started_again(policy: str, status: int, ends: bool) -> None:
    """S6. 3 is a success here, everywhere."""
    it = running(restart_policy=policy, success_exit_codes=[0, 3])
    said = fails(it, 1, status)
    if ends:
        assert words(said) == [f"gone 1 finished {128 - status if status < 0 else status}"]
        assert it.phase == Phase.ENDED
        assert words(it.on_grant(grant(2), 2))[0].startswith("gone 2 finished")
    else:
        assert it.phase == Phase.BACKOFF


def test_successes_under_always_are_never_too_many() -> None:
    """S6. They are no failures."""
    it = running(restart_policy="always", max_restarts=1)
    for run in range(8):
        fails(it, run, status=0)
        assert words(it.on_wake(run + 0.5)) == ["start"]


def crash_loop(it: Guard) -> list[Action]:
    """Fail until it is not started again."""
    said, number = fails(it, 0.1), 1
    while it.phase == Phase.BACKOFF:
        now = it.wake_at
        number += 1
        it.on_grant(grant(number, sent=now), now)
        assert words(it.on_wake(now)) == ["start"]
        said = fails(it, now)
    return said


def test_too_many_failures_in_a_row_release_the_lease() -> None:
    """S7. More than max_restarts."""
    it = running(max_restarts=3)
    said = crash_loop(it)
    assert words(said) == ["gone 4 gave_up 1"]
    assert "4 failures in a row: giving up" in notes(said)
    assert it.restarts == 3
    assert it.phase == Phase.GIVEN_UP


def test_a_command_that_ended_for_want_of_a_grant_was_let_down_until_the_next_start() -> None:
    """Whoever was silent then is no follower. Grants that come later say nothing of that date."""
    it = running()
    assert it.renewal_due(heard_at=5) == 10
    it.on_wake(10)
    it.on_grant(grant(2, sent=9, may_start=False), 11)
    it.on_exited(0, False, 12)
    it.on_empty(12)
    assert it.renewal_due(heard_at=9.9) == 10 and it.renewal_due(heard_at=11) is None
    it.on_grant(grant(3, sent=20), 20)
    assert it.phase == Phase.RUNNING and it.renewal_due(heard_at=9.9) == 30


def test_a_restart_that_a_grant_forbids_lets_nobody_down() -> None:
    """Its elector steps down, and may be as silent as a follower once it has."""
    it = running()
    it.on_grant(grant(2, sent=1, may_start=False), 1)
    fails(it, 2)
    at = it.wake_at
    assert at is not None and at < 11
    it.on_wake(at)
    assert it.phase == Phase.IDLE and it.renewal_due(heard_at=at) is None


@pytest.mark.parametrize(("is_late", "cause"), [(True, "deadline"), (False, "stopped")])
def test_the_cause_of_a_stop_by_the_elector_is_told(is_late: bool, cause: str) -> None:
    it = running()
    it.on_stop(True, 5, is_late)
    it.on_exited(0, False, 6)
    assert words(it.on_empty(6)) == [f"gone 1 {cause} 0"]


def test_a_stop_that_the_date_has_begun_stays_one_when_the_elector_asks_for_it() -> None:
    """Both act on the same date."""
    it = running()
    it.on_wake(10)
    it.on_stop(True, 10.1)
    it.on_exited(0, False, 11)
    assert words(it.on_empty(11)) == ["gone 1 deadline 0"]


def test_a_single_failure_is_no_row() -> None:
    assert "after 1.0s, 1 failure: giving up" in notes(fails(running(max_restarts=0), 1))


def test_after_giving_up_the_same_term_is_refused_and_the_next_accepted() -> None:
    """Protocol rule 2, S7. The failures of the last term are forgotten."""
    it = running(max_restarts=0)
    assert words(fails(it, 1)) == ["gone 1 gave_up 1"]
    assert words(it.on_grant(grant(2, sent=1), 1.1)) == ["gone 2 gave_up 1"]
    assert words(it.on_grant(grant(3, sent=2, may_start=False), 2)) == ["gone 3 gave_up 1"]
    assert words(it.on_stop(True, 2.5)) == ["gone 3 gave_up 1"]
    assert words(it.on_grant(grant(4, sent=30, term=9), 30)) == ["ack 4 running", "start"]
    assert words(fails(it, 31)) == ["gone 4 gave_up 1"]


def test_giving_up_can_end_it_all() -> None:
    """on_give_up: exit."""
    it = running(max_restarts=0, on_give_up="exit")
    assert words(fails(it, 1)) == ["gone 1 finished 1"]
    assert it.phase == Phase.ENDED


def test_giving_up_can_hold_the_lease_with_nothing_running() -> None:
    """on_give_up: hold. Until a stop, or until it runs out."""
    it = running(max_restarts=0, on_give_up="hold")
    said = fails(it, 1)
    assert words(said) == []
    assert "held with nothing running" in notes(said)
    assert words(it.on_grant(grant(2, sent=2), 2)) == ["ack 2 held"]
    assert it.wake_at == 12
    assert it.on_wake(11) == []
    assert words(it.on_wake(12)) == ["gone 2 deadline 1"]


def test_a_command_that_cannot_be_started_counts_as_a_failure() -> None:
    """S1. By policy, like any other."""
    it = running(max_restarts=1)
    said = it.on_refused("cannot run x: no such file", 127, 0.1)
    assert "no such file" in notes(said)
    assert it.phase == Phase.BACKOFF
    it.on_wake(it.wake_at)
    assert words(it.on_refused("cannot run x: no such file", 127, 1)) == ["gone 1 gave_up 127"]


def test_a_healthy_run_makes_the_next_failure_the_first() -> None:
    """S2, through the guard."""
    it = running(max_restarts=1)
    fails(it, 0.1)
    it.on_grant(grant(2, sent=0.5), 0.5)
    it.on_wake(0.6)
    it.on_grant(grant(3, sent=60), 60)
    assert words(fails(it, 60.7)) == []
    assert it.phase == Phase.BACKOFF


def test_it_is_alive_from_the_start_to_the_last_of_the_sweep() -> None:
    """What the keeper asks before it ends."""
    it = guard()
    seen = [it.is_alive]
    it.on_grant(grant(), 0)
    seen.append(it.is_alive)
    it.on_stop(True, 1)
    seen.append(it.is_alive)
    it.on_stop(False, 2)
    seen.append(it.is_alive)
    it.on_empty(3)
    seen.append(it.is_alive)
    assert seen == [False, True, True, True, False]
