"""What is said about several settings together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from awaitelect.config.sources import load
from awaitelect.errors import ConfigError


def problems(environ: dict[str, str], lock: str = "file:/x") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load({"lock": lock} if lock else {}, ["true"], {"AWAITELECT_" + name: text for name, text in environ.items()})
    return caught.value.problems


def warnings(environ: dict[str, str], lock: str = "file:/x") -> list[str]:
    return load(
        {"lock": lock} if lock else {}, ["true"], {"AWAITELECT_" + name: text for name, text in environ.items()}
    ).warnings


def test_durations_that_contradict_each_other_are_refused_with_the_arithmetic() -> None:
    """With them two commands could run at once, so nothing starts."""
    assert problems({"ELECTION_LEASE_DURATION": "11"}) == [
        "election.lease_duration (AWAITELECT_ELECTION_LEASE_DURATION), election.renew_deadline (default), "
        "election.kill_margin (default): election.renew_deadline must be less than election.lease_duration − "
        "election.kill_margin: 10s is not less than 11s − 1s = 10s"
    ]
    assert problems({"ELECTION_RETRY_PERIOD": "9s"}) == [
        "election.renew_deadline (default), election.retry_period (AWAITELECT_ELECTION_RETRY_PERIOD): "
        "1.2 × election.retry_period must be less than election.renew_deadline: 1.2 × 9s = 10.8s is not less than 10s"
    ]
    assert problems({"ELECTION_RETRY_PERIOD": "0"}) == [
        "election.retry_period (AWAITELECT_ELECTION_RETRY_PERIOD): election.retry_period must be more than 0s, is 0s"
    ]


def test_each_backend_says_what_it_needs() -> None:
    """The three ways to give it are named, the newcomer's last."""
    assert problems({}, lock="") == [
        "lock.name: missing, and lock.backend is kubernetes (default); expected lock.name in the file, "
        "AWAITELECT_LOCK_NAME, or --lock kubernetes:NAMESPACE/NAME"
    ]
    assert problems({"LOCK_BACKEND": "file"}, lock="") == [
        "lock.path: missing, and lock.backend is file (AWAITELECT_LOCK_BACKEND); expected lock.path in the file, "
        "AWAITELECT_LOCK_PATH, or --lock file:PATH"
    ]


def test_a_lock_of_the_other_backend_is_told_what_would_make_it_count() -> None:
    """A path alone says what was meant, but the backend is not guessed: nobody should lead by a guess."""
    (problem,) = problems({"LOCK_PATH": "/x"}, lock="")
    assert problem.startswith("lock.name: missing") and problem.endswith(
        "; or, as lock.path is set (AWAITELECT_LOCK_PATH), lock.backend: file, AWAITELECT_LOCK_BACKEND=file"
    )
    (problem,) = problems({"LOCK_BACKEND": "file", "LOCK_NAME": "x"}, lock="")
    assert problem.startswith("lock.path: missing") and problem.endswith("AWAITELECT_LOCK_BACKEND=kubernetes")


def test_a_first_pause_longer_than_the_longest_is_refused() -> None:
    """One of the two cannot hold."""
    assert problems({"RESTART_BACKOFF_INITIAL": "1m"}) == [
        "restart.backoff.initial (AWAITELECT_RESTART_BACKOFF_INITIAL), restart.backoff.max (default): found initial "
        "60s and max 30s, expected initial to be at most max"
    ]


def test_a_stop_timeout_that_a_lost_lease_cuts_is_a_warning() -> None:
    """It holds in a planned stop, so it is no error; but nobody should be surprised."""
    assert warnings({"STOP_TIMEOUT": "3.8"}) == []
    assert warnings({"STOP_TIMEOUT": "5"}) == [
        "stop.timeout (AWAITELECT_STOP_TIMEOUT) is 5s, but when leadership is lost election.lease_duration (default) "
        "leaves 15s − 1s − 10s − 0.2s = 3.8s: it is cut to that then, and whole in a planned stop"
    ]


def test_a_lease_that_others_may_write_is_a_warning(tmp_path: Path) -> None:
    """They have all the votes; but it may be meant so, and a lease that is held is not to be lost for it."""
    lock, expected = f"file:{tmp_path}", "whoever may write to it decides who leads; expected a folder of the user that"
    tmp_path.chmod(0o770)
    assert warnings({}, lock) == []
    tmp_path.chmod(0o777)
    (said,) = warnings({}, lock)
    assert said.startswith(f"lock.path (--lock): {tmp_path} has mode 0777: {expected}")
    tmp_path.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(tmp_path, 4711, 4711)
        assert f"{tmp_path} belongs to user 4711: {expected}" in warnings({}, lock)[0]
    assert warnings({}, f"file:{tmp_path}/none") == []


def test_a_stop_timeout_that_nobody_has_set_is_no_warning() -> None:
    """Whoever has set durations alone, as those do who come with another program's variables, would have it at each
    start; `--check` has the timeline, and a stop that is cut says so.
    """
    assert warnings({}) == []
    assert (
        warnings({"ELECTION_LEASE_DURATION": "4", "ELECTION_RENEW_DEADLINE": "2", "ELECTION_RETRY_PERIOD": "1"}) == []
    )


@pytest.mark.parametrize(
    ("environ", "lock", "warning"),
    [
        ({"LOCK_PATH": "/y", "LOCK_NAME": "demo"}, "", "lock.path (AWAITELECT_LOCK_PATH) has no effect while "
         "lock.backend is kubernetes (default)"),
        ({"LOCK_PATH": "/y", "LOCK_BACKEND": "file", "LOCK_NAME": "demo"}, "", "lock.name (AWAITELECT_LOCK_NAME) has "
         "no effect while lock.backend is file (AWAITELECT_LOCK_BACKEND)"),
        ({"RESTART_POLICY": "never", "RESTART_BACKOFF_MAX": "9"}, "file:/x", "restart.backoff.max "
         "(AWAITELECT_RESTART_BACKOFF_MAX) has no effect while restart.policy is never (AWAITELECT_RESTART_POLICY)"),
        ({"RESTART_POLICY": "never", "RESTART_ON_GIVE_UP": "hold"}, "file:/x", "restart.on_give_up "
         "(AWAITELECT_RESTART_ON_GIVE_UP) has no effect while restart.policy is never (AWAITELECT_RESTART_POLICY)"),
        ({"RESTART_MAX_RESTARTS": "0", "RESTART_BACKOFF_MAX": "9"}, "file:/x", "restart.backoff.max "
         "(AWAITELECT_RESTART_BACKOFF_MAX) has no effect while restart.max_restarts is 0 "
         "(AWAITELECT_RESTART_MAX_RESTARTS)"),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_a_warning(environ: dict[str, str], lock: str, warning: str) -> None:
    """Both keys are named, as either may be the mistake."""
    assert warnings(environ, lock) == [warning]


def test_a_probe_that_is_asked_for_must_be_there_and_liveness_needs_one_success() -> None:
    assert problems({"START_READY": "probe", "PROBES_LIVENESS": "{tcp_socket: {port: 1}, success_threshold: 2}"}) == [
        "start.probe: missing, and start.ready is probe (AWAITELECT_START_READY); expected one such as "
        "{http_get: {path: /ready, port: 8080}}",
        "probes.liveness (AWAITELECT_PROBES_LIVENESS): found success_threshold 2, expected 1: "
        "one good answer shows life",
    ]


@pytest.mark.parametrize(
    ("environ", "warning"),
    [
        (
            {"START_TIMEOUT": "5s"},
            "start.timeout (AWAITELECT_START_TIMEOUT) has no effect while start.ready is exec (default)",
        ),
        (
            {"START_PROBE": "{tcp_socket: {port: 1}}"},
            "start.probe (AWAITELECT_START_PROBE) has no effect while start.ready is exec (default)",
        ),
        ({"HOOKS_TIMEOUT": "5s"}, "hooks.timeout (AWAITELECT_HOOKS_TIMEOUT) has no effect: there is no hook"),
        (
            {"ELECTION_ENABLED": "false", "HOOKS_PRE_START": "[a]"},
            "hooks.pre_start (AWAITELECT_HOOKS_PRE_START): without effect while election.enabled is false",
        ),
        (
            {"ELECTION_ENABLED": "false", "STATUS_LISTEN": ":9999"},
            "status.listen (AWAITELECT_STATUS_LISTEN): without effect while election.enabled is false",
        ),
    ],
)
def test_what_nothing_will_heed_is_a_warning(environ: dict[str, str], warning: str) -> None:
    """S10. Both keys are named."""
    assert warnings(environ) == [warning]
