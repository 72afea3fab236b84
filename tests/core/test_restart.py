"""When a command that has ended is started again, and after which pause."""

from __future__ import annotations

import pytest

from awaitelect.core.restart import Backoff, exit_status, is_restarted, is_success
from awaitelect.protocol import BackoffSettings


def test_the_pauses_double_from_half_a_second_to_thirty() -> None:
    """S2."""
    backoff = Backoff(BackoffSettings(jitter=0), lambda: 0.5)
    assert [backoff.failed(0) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert backoff.failures == 9


@pytest.mark.parametrize(("chance", "pause"), [(0.0, 0.5), (0.5, 0.525), (1.0, 0.55)])
def test_the_jitter_only_adds_and_adds_a_tenth_at_most(chance: float, pause: float) -> None:
    """S2. Evenly from 0 to 10 %."""
    assert Backoff(BackoffSettings(), lambda: chance).failed(0) == pytest.approx(pause)


def test_a_healthy_run_makes_the_next_failure_the_first() -> None:
    """S2."""
    backoff = Backoff(BackoffSettings(jitter=0), lambda: 0)
    assert [backoff.failed(ran) for ran in (0, 59.9, 60, 1)] == [0.5, 1, 0.5, 1]
    assert backoff.failures == 2


def test_a_new_term_forgets_the_failures_of_the_last() -> None:
    """Whatever went wrong in it."""
    backoff = Backoff(BackoffSettings(jitter=0), lambda: 0)
    backoff.failed(0)
    backoff.failed(0)
    backoff.forget()
    assert (backoff.failed(0), backoff.failures) == (0.5, 1)


def test_failures_without_end_overflow_nothing() -> None:
    """A crash loop with a pause of a second gets there in a night."""
    backoff = Backoff(BackoffSettings(factor=10, jitter=0), lambda: 0)
    assert {backoff.failed(0) for _ in range(2000)} == {0.5, 5, 30}


@pytest.mark.parametrize(
    ("policy", "after_success", "after_failure", "after_signal"),
    [
        ("always", True, True, True),
        ("on-failure", False, True, True),
        ("on-abnormal", False, False, True),
        ("never", False, False, False),
    ],
)
def test_each_policy_restarts_after_what_its_name_says(
    policy: str, after_success: bool, after_failure: bool, after_signal: bool
) -> None:
    """The names are those of systemd's Restart=."""
    assert is_restarted(policy, 0, [0]) == after_success
    assert is_restarted(policy, 1, [0]) == after_failure
    assert is_restarted(policy, -9, [0]) == after_signal


def test_success_is_what_the_user_calls_so() -> None:
    """S6. 0 only where it is listed."""
    assert is_success(3, [0, 3])
    assert not is_success(0, [3])
    assert not is_restarted("on-failure", 3, [0, 3])
    assert is_restarted("on-failure", 0, [3])


@pytest.mark.parametrize(("status", "code"), [(0, 0), (3, 3), (255, 255), (-9, 137), (-15, 143)])
def test_the_exit_status_is_what_a_shell_would_report(status: int, code: int) -> None:
    """128 + n for a signal."""
    assert exit_status(status) == code
