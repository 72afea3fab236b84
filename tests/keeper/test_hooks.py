"""The keeper's decisions about hooks, readiness and liveness: time and events in, actions out, no process."""

from __future__ import annotations

import math

import pytest

from awaitelect.keeper.guard import PROBE, Abandon, Action, Ask, Guard, Note, Phase, RunHook, TellSurvivors
from awaitelect.keeper.health import Health
from awaitelect.protocol import KILL_LEAD, CommandSettings, Gone, Probe, Ready
from tests.keeper.test_guard import grant, guard
from tests.keeper.test_guard import words as plain_words

ALL = {name: ["x"] for name in ("pre_start", "post_start", "pre_stop", "post_stop")}
LIVENESS = Probe("tcp_socket", port=1, period=5, timeout=2, failure_threshold=2)


def words(actions: list[Action]) -> list[str]:
    """What is done, without what is said to people."""
    found = []
    for action in actions:
        match action:
            case RunHook(name=name):
                found.append(f"run {name}")
            case Ask():
                found.append("ask")
            case Abandon(name=name):
                found.append(f"abandon {name}")
            case Note():
                pass
            case _ if isinstance(getattr(action, "message", None), Ready):
                found.append("ready" if action.message.is_ready else "not ready")
            case _:
                found += plain_words([action])
    return found


def outcome(actions: list[Action]) -> dict[str, str]:
    """The variables of the last hook."""
    return next(action.environment for action in actions if isinstance(action, RunHook) and action.name == "post_stop")


def starting(**settings: object) -> Guard:
    """A hook runs since 0, before the start."""
    it = guard(**{"hooks": ALL, **settings})
    assert words(it.on_grant(grant(), 0)) == ["ack 1 starting", "run pre_start"]
    return it


def running(**settings: object) -> Guard:
    """A command that was executed at 1."""
    it = starting(**settings)
    assert words(it.on_hook_ended("pre_start", "", 1)) == ["start"]
    it.on_executed(1)
    return it


def test_the_hooks_come_in_their_order() -> None:
    it = starting()
    assert words(it.on_hook_ended("pre_start", "", 1)) == ["start"]
    assert words(it.on_executed(1)) == ["ready", "run post_start"]
    assert words(it.on_hook_ended("post_start", "", 2)) == []
    assert words(it.on_shutdown(15, 3)) == ["shutdown 15", "not ready", "run pre_stop"]
    assert words(it.on_hook_ended("pre_stop", "", 4)) == ["signal 15"]
    assert words(it.on_exited(-15, False, 5)) == []
    assert words(it.on_empty(5)) == ["run post_stop"]
    assert it.is_alive  # the lease is not given back before it has ended
    assert words(it.on_hook_ended("post_stop", "", 6)) == ["kill all"]  # what it has left behind
    assert words(it.on_empty(6)) == ["gone 1 shutdown 143"]


def test_the_first_hook_starts_nothing_after_the_time_to_start_is_over() -> None:
    """Protocol rule 3: nothing starts late."""
    it = starting()
    assert words(it.on_hook_ended("pre_start", "", 10)) == ["tell survivors"]
    assert it.phase == Phase.STOPPING


def test_the_first_hook_starts_nothing_that_a_newer_grant_forbids() -> None:
    it = starting()
    it.on_grant(grant(2, sent=2, may_start=False), 2)
    assert words(it.on_hook_ended("pre_start", "", 3)) == ["tell survivors"]


def test_a_first_hook_that_runs_when_the_lease_is_not_renewed_is_stopped_and_killed_in_time() -> None:
    it = starting(hook_timeout=100)
    assert it.wake_at == 10
    assert words(it.on_wake(10)) == ["tell survivors"]
    assert it.wake_at == 14 - KILL_LEAD
    assert words(it.on_wake(14 - KILL_LEAD)) == ["kill all"]
    assert words(it.on_hook_ended("pre_start", "", 14 - KILL_LEAD)) == []
    assert words(it.on_empty(14)) == ["gone 1 deadline"]


def test_a_first_hook_that_takes_too_long_is_a_failed_start() -> None:
    it = starting(hook_timeout=3)
    assert it.wake_at == 3
    assert words(it.on_wake(3)) == ["abandon pre_start", "tell survivors"]
    actions = it.on_empty(3)
    assert words(actions) == ["run post_stop"]
    assert outcome(actions)["SERVICE_RESULT"] == "exit-code"
    it.on_hook_ended("post_stop", "", 4)
    it.on_empty(4)
    assert it.phase == Phase.BACKOFF


@pytest.mark.parametrize("grace", [True, False])
def test_a_stop_during_the_first_hook_starts_nothing(grace: bool) -> None:
    it = starting()
    assert words(it.on_stop(grace, 1)) == (["tell survivors"] if grace else ["kill all"])
    assert words(it.on_hook_ended("pre_start", "", 2)) == []


def test_nobody_else_being_about_to_start_no_hook_runs_after_a_loss() -> None:
    """Another holds the lease: whatever runs now runs beside its command."""
    it = running()
    assert words(it.on_stop(False, 2)) == ["not ready", "abandon post_start", "kill all"]
    it.on_exited(-9, False, 2)
    assert words(it.on_empty(2)) == ["gone 1 stopped 137"]


def test_a_loss_ends_the_last_hook_at_once() -> None:
    it = running()
    it.on_exited(1, False, 2)
    it.on_empty(2)
    assert it.phase == Phase.CLEANING
    assert words(it.on_stop(False, 3)) == ["kill all"]
    assert words(it.on_empty(3)) == ["gone 1 stopped 1"]


def test_the_last_hook_ends_with_the_lease() -> None:
    it = running(hook_timeout=100)
    it.on_exited(1, False, 2)
    it.on_empty(2)
    assert it.wake_at == 14 - KILL_LEAD
    assert words(it.on_wake(14 - KILL_LEAD)) == ["abandon post_stop", "kill all"]


def test_a_renewal_gives_the_last_hook_more_time() -> None:
    """The lease is kept while it runs."""
    it = running()
    it.on_exited(1, False, 2)
    it.on_empty(2)
    assert words(it.on_grant(grant(2, sent=4), 4)) == ["ack 2 cleaning"]
    assert it.wake_at == 12  # its own time-out


def test_without_time_the_last_hook_is_left_out() -> None:
    it = running()
    it.on_wake(10)
    it.on_exited(-9, False, 13.9)
    assert words(it.on_empty(13.9)) == ["gone 1 deadline 137"]


def test_the_hook_before_the_stop_takes_half_of_the_time_at_most() -> None:
    """A lost lease leaves less than the stop's time-out; the command gets its half of that."""
    it = running(hook_timeout=100, stop_timeout=100)
    assert words(it.on_wake(10)) == ["not ready", "abandon post_start", "run pre_stop"]
    half = 10 + (14 - KILL_LEAD - 10) / 2
    assert it.wake_at == pytest.approx(half)
    assert words(it.on_wake(half)) == ["abandon pre_stop", "signal 15"]
    assert words(it.on_wake(14 - KILL_LEAD)) == ["kill all"]


@pytest.mark.parametrize("what", ["stop", "shutdown", "deadline", "wake"])
def test_after_all_dates_have_passed_nothing_is_asked_to_stop_any_more(what: str) -> None:
    """The keeper was stopped in the middle of something: SIGCONT would wake up what another one replaces."""
    it = guard()
    it.on_grant(grant(), 0)
    it.on_executed(0)
    at = 14 - KILL_LEAD
    told = {
        "stop": lambda: it.on_stop(True, at),
        "shutdown": lambda: it.on_shutdown(15, at)[1:],
        "deadline": lambda: it.on_deadline(at),
        "wake": lambda: it.on_wake(at),
    }[what]()
    assert words(told) == ["not ready", "kill all"]


@pytest.mark.parametrize("what", ["drained", "pre_stop", "stop", "exit", "second signal"])
def test_what_is_heard_of_a_stop_after_the_last_date_has_nothing_begun_and_nobody_woken_up(what: str) -> None:
    """The keeper was stopped itself, and another instance has begun: no hook, and no SIGCONT behind a stop signal."""
    late = 14 - KILL_LEAD
    hooks = {"pre_stop": ["x"], "stop": ["x"]} if what in ("pre_stop", "stop") else {}
    it = guard(hooks=hooks, drain_timeout=2.0 if what == "drained" else 0.0)
    it.on_grant(grant(), 0)
    it.on_executed(0)
    it.on_shutdown(15, 5)
    if what == "drained":
        assert words(it.on_drained(late)) == ["kill all"]
    elif what == "pre_stop":
        assert words(it.on_hook_ended("pre_stop", "", late)) == ["kill all"]
    elif what == "stop":
        assert words(it.on_hook_ended("pre_stop", "", 6)) == ["run stop"]
        assert words(it.on_hook_ended("stop", "", late)) == ["kill all"]
    elif what == "exit":
        assert words(it.on_exited(-15, True, late)) == ["kill all"]
    else:
        assert words(it.on_shutdown(15, late)) == ["shutdown 15"]


def test_a_command_that_gets_ready_after_its_time_is_over_has_no_hook_begun() -> None:
    """It is about to be stopped."""
    it = guard(hooks={"post_start": ["x"]})
    it.on_grant(grant(), 0)
    assert "run post_start" not in words(it.on_executed(10))


def test_a_stop_waits_for_the_traffic_to_be_off() -> None:
    """Requests that are under way are finished; what comes first ends the wait: the word, or the time for it."""
    it = running(drain_timeout=1)
    assert words(it.on_shutdown(15, 3)) == ["shutdown 15", "not ready", "abandon post_start"]
    assert it.wake_at == 4
    assert words(it.on_drained(3.1)) == ["run pre_stop"]
    assert it.on_drained(3.2) == []

    it = running(drain_timeout=1)
    it.on_shutdown(15, 3)
    assert words(it.on_wake(3.9)) == []
    assert words(it.on_wake(4)) == ["run pre_stop"]
    assert it.on_drained(4.1) == []


def test_a_stop_waits_for_the_traffic_a_quarter_of_its_time_at_most() -> None:
    """What a lost lease leaves is the command's above all."""
    it = running(drain_timeout=100)
    it.on_wake(10)
    assert it.wake_at == pytest.approx(10 + (14 - KILL_LEAD - 10) / 4)
    assert words(it.on_wake(it.wake_at)) == ["run pre_stop"]


def test_no_stop_waits_for_the_traffic_of_a_command_that_was_never_ready() -> None:
    """It has got none."""
    it = running(drain_timeout=1, ready="notify", hooks={"pre_start": ["x"]})
    assert words(it.on_shutdown(15, 3)) == ["shutdown 15", "signal 15"]


def test_a_command_that_ends_while_the_traffic_is_turned_off_gets_no_signal() -> None:
    it = running(drain_timeout=1, hooks={"pre_start": ["x"]})
    it.on_shutdown(15, 3)
    it.on_exited(0, False, 3.1)
    assert it.on_drained(3.2) == []
    assert words(it.on_empty(3.2)) == ["gone 1 shutdown 0"]


def test_a_second_stop_signal_does_not_wait_for_the_hook() -> None:
    it = running()
    it.on_shutdown(2, 3)
    assert words(it.on_shutdown(2, 3.1)) == ["shutdown 2", "signal 2"]


def test_a_command_that_ends_during_the_hook_before_the_stop_gets_no_signal() -> None:
    it = running()
    it.on_shutdown(15, 3)
    assert words(it.on_exited(0, False, 4)) == []
    assert it.on_hook_ended("pre_stop", "", 5)[1:] == [TellSurvivors()]


def test_a_program_asks_to_stop_in_the_signals_place_and_the_signal_follows() -> None:
    it = guard(hooks={"stop": ["x"]})
    it.on_grant(grant(), 0)
    it.on_executed(0)
    assert words(it.on_shutdown(15, 1)) == ["shutdown 15", "not ready", "run stop"]
    assert words(it.on_hook_ended("stop", "exited with 1", 2)) == ["signal 15"]


def test_a_hook_that_nobody_waits_for_any_more_changes_nothing() -> None:
    it = running()
    it.on_hook_ended("post_start", "", 2)
    for name in (*ALL, "stop"):
        assert it.on_hook_ended(name, "exited with 1", 3) == []
    assert it.on_answer("refused", 3) == []


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (0, ("success", "exited", "0")),
        (3, ("exit-code", "exited", "3")),
        (-15, ("success", "killed", "TERM")),
        (-10, ("success", "killed", "USR1")),  # its own stop signal
        (-9, ("signal", "killed", "KILL")),
        (-11, ("signal", "killed", "SEGV")),
    ],
)
def test_the_outcome_is_told_as_systemd_tells_it(status: int, told: tuple[str, ...]) -> None:
    it = running(stop_signal=10)
    it.on_exited(status, False, 2)
    found = outcome(it.on_empty(2))
    assert (found["SERVICE_RESULT"], found["EXIT_CODE"], found["EXIT_STATUS"]) == told


def test_a_stop_that_took_too_long_is_told_as_such() -> None:
    it = running(stop_timeout=2, hooks={"post_stop": ["x"], "pre_start": ["x"]})
    it.on_shutdown(15, 2)
    it.on_wake(4)
    it.on_exited(-9, False, 4)
    assert outcome(it.on_empty(4))["SERVICE_RESULT"] == "timeout"


# ---------------------------------------------------------------- readiness and liveness


def test_a_command_that_says_so_is_ready_and_only_once() -> None:
    it = running(ready="notify")
    assert not it.is_ready
    assert words(it.on_notified(2)) == ["ready", "run post_start"]
    assert it.is_ready
    assert it.on_notified(3) == []


def test_a_command_that_is_not_ready_in_time_is_stopped_and_counts_as_failed() -> None:
    it = running(ready="notify", start_timeout=5, hooks={"pre_start": ["x"]})
    assert it.wake_at == 6
    assert words(it.on_wake(6)) == ["signal 15"]
    it.on_exited(0, False, 7)
    it.on_empty(7)
    assert it.phase == Phase.BACKOFF


def test_a_failed_command_that_is_started_no_more_leaves_no_status_of_success() -> None:
    it = running(ready="notify", start_timeout=5, hooks={"pre_start": ["x"]}, restart_policy="never")
    it.on_wake(6)
    it.on_exited(0, False, 7)
    (gone,) = [action.message for action in it.on_empty(7) if not isinstance(action, Note)]
    assert gone == Gone(1, "finished", 1)


def test_a_command_is_asked_one_question_at_a_time_until_it_has_failed_often_enough() -> None:
    it = running(liveness=LIVENESS, hooks={"pre_start": ["x"]})
    assert words(it.on_wake(1)) == ["ask"]
    assert it.wake_at == 3  # the question's time-out
    assert words(it.on_wake(3)) == ["abandon probe"]
    assert it.wake_at == 6
    assert words(it.on_wake(6)) == ["ask"]
    assert it.awaited == {PROBE}
    assert words(it.on_answer("refused", 6.5)) == ["not ready", "signal 15"]


def test_hooks_are_told_that_a_command_has_failed_which_did_not_end_by_itself() -> None:
    """AWAITELECT_STOP_CAUSE: `exited` would say that it has ended."""
    it = running(liveness=Probe("tcp_socket", port=1, failure_threshold=1))
    it.on_hook_ended("post_start", "", 1)
    it.on_wake(1)
    (hook,) = [action for action in it.on_answer("refused", 1.5) if isinstance(action, RunHook)]
    assert (hook.name, hook.environment) == ("pre_stop", {"AWAITELECT_STOP_CAUSE": "failed"})
    it.on_hook_ended("pre_stop", "", 2)
    it.on_exited(0, False, 3)
    assert outcome(it.on_empty(3))["AWAITELECT_STOP_CAUSE"] == "failed"


def test_one_good_answer_forgives_what_was_before() -> None:
    it = running(liveness=LIVENESS, hooks={"pre_start": ["x"]})
    for at, trouble in ((1, "refused"), (6, ""), (11, "refused"), (16, "")):
        it.on_grant(grant(at + 1, sent=at), at)
        assert words(it.on_wake(at)) == ["ask"]
        assert words(it.on_answer(trouble, at + 0.1)) == []


def test_a_stop_abandons_the_question_that_is_out() -> None:
    it = running(liveness=LIVENESS, hooks={"pre_start": ["x"]})
    it.on_wake(1)
    assert words(it.on_shutdown(15, 2)) == ["shutdown 15", "not ready", "abandon probe", "signal 15"]
    assert it.on_answer("", 3) == []


def test_an_unanswered_question_delays_no_deadline() -> None:
    """The dates of the lease go before everything else."""
    it = running(liveness=Probe("tcp_socket", port=1, timeout=1000), hooks={"pre_start": ["x"]})
    it.on_wake(1)
    assert it.wake_at == 10
    assert words(it.on_wake(10)) == ["not ready", "abandon probe", "signal 15"]


def test_so_many_good_answers_in_a_row_make_it_ready() -> None:
    settings = CommandSettings(ready="probe", start_probe=Probe("tcp_socket", port=1, period=1, success_threshold=2))
    it = Health(settings, 0)
    for at, trouble in ((0, ""), (1, "refused"), (2, ""), (3, "")):
        assert it.wake_at == at
        assert it.on_wake(at) == settings.start_probe
        assert not it.is_ready
        it.on_answer(trouble, at)
    assert it.is_ready


def test_questions_begin_after_their_delay_and_that_of_liveness_counts_from_readiness() -> None:
    settings = CommandSettings(
        ready="probe",
        start_probe=Probe("tcp_socket", port=1, initial_delay=3),
        liveness=Probe("tcp_socket", port=2, initial_delay=7),
    )
    it = Health(settings, 0)
    assert it.wake_at == 3
    assert it.on_wake(2.9) is None
    it.on_wake(3)
    it.on_answer("", 4)
    assert it.wake_at == 11


def test_a_slow_answer_holds_the_next_question_back() -> None:
    it = Health(CommandSettings(liveness=Probe("tcp_socket", port=1, period=1, timeout=5)), 0)
    assert it.on_wake(0) is not None
    assert it.wake_at == math.inf
    assert it.on_wake(1) is None
    it.on_answer("", 3)
    assert it.wake_at == 3


def test_time_that_was_asked_for_is_given() -> None:
    it = Health(CommandSettings(ready="notify", start_timeout=5), 0)
    it.on_extended(20, 4)
    assert it.wake_at == 24
    it.on_extended(1, 4)
    assert it.wake_at == 24
