"""What is answered to whom. Pure: a snapshot in, a page out."""

from __future__ import annotations

import json

import pytest

from awaitelect.status.pages import page
from awaitelect.status.snapshot import TOLERANCE, Snapshot, Transition
from awaitelect.values import changed

FOLLOWER = Snapshot("follower", "file:/x", "me", "other", 15.0, None, name="demo", free_at=112.5)
LEADER = Snapshot(
    "leader",
    "kubernetes:default/demo",
    "me",
    "me",
    15.0,
    98.5,
    is_ready=True,
    name="demo",
    term_by=108.5,
    kill_by=112.5,
    token=4711,
    lease_transitions=3,
    pid=42,
    phase="running",
    restarts=2,
    electors=1,
    transitions=(
        Transition(1_700_000_000.25, "follower", "leader"),
        Transition(1_700_000_001.0, "leader", "stepping_down", "lease_lost"),
    ),
)
EXPIRED = changed(LEADER, renewed_at=100.0 - 15.0 - TOLERANCE - 0.1)


def status(path: str, snapshot: Snapshot) -> int:
    return page("GET", path, snapshot, 100.0).status


@pytest.mark.parametrize("path", ["/readyz", "/livez", "/healthz", "/"])
def test_a_follower_is_well_and_ready(path: str) -> None:
    """A rollout waits for it, and it waits for the leader: if it were not ready, for ever."""
    assert status(path, FOLLOWER) == 200


@pytest.mark.parametrize(
    ("snapshot", "answer"),
    [
        (LEADER, 200),
        (changed(LEADER, is_ready=False), 503),
        (FOLLOWER, 503),
        (EXPIRED, 503),
        # An elector that has just replaced another is no leader yet, and the command runs.
        (changed(FOLLOWER, is_ready=True), 200),
        (changed(LEADER, state="stepping_down", is_ready=False), 503),
    ],
)
def test_the_leader_is_who_has_a_command_that_is_ready(snapshot: Snapshot, answer: int) -> None:
    """A load balancer sends traffic there."""
    assert status("/leader", snapshot) == answer


@pytest.mark.parametrize(
    ("snapshot", "answer", "reason"),
    [
        (LEADER, 200, ""),
        (changed(LEADER, is_ready=False), 503, "leading, and the command is not ready"),
        (changed(FOLLOWER, has_seen_lease=False), 503, "the lease has not been seen yet"),
        (changed(LEADER, state="stepping_down"), 503, "stepping down"),
        (changed(FOLLOWER, state="terminated"), 503, "ending"),
        (EXPIRED, 500, ""),
    ],
)
def test_whoever_is_not_ready_says_why(snapshot: Snapshot, answer: int, reason: str) -> None:
    found = page("GET", "/readyz", snapshot, 100.0)
    assert found.status == answer
    assert json.loads(found.body).get("reason", "") == reason


@pytest.mark.parametrize("path", ["/livez", "/healthz", "/"])
def test_no_trouble_with_the_store_or_the_command_makes_it_unwell(path: str) -> None:
    """A restart of the container would heal neither."""
    for one in (changed(FOLLOWER, has_seen_lease=False), changed(LEADER, is_ready=False)):
        assert status(path, one) == 200
    assert status(path, EXPIRED) == 500


def test_the_status_of_a_leader_tells_all_there_is() -> None:
    """Instants are told as seconds from now: the clock that they are on means nothing elsewhere."""
    assert json.loads(page("GET", "/status", LEADER, 100.0).body) == {
        "version": __import__("awaitelect").__version__,
        "name": "demo",
        "identity": "me",
        "lock": "kubernetes:default/demo",
        "state": "leader",
        "holder": "me",
        "fencing_token": 4711,
        "lease_transitions": 3,
        "seconds_until": {
            "command_is_stopped": 8.5,
            "command_is_killed": 12.5,
            "lease_runs_out": 13.5,
            "lease_may_be_taken": None,
        },
        "seconds_since_renewal": 1.5,
        "command": {"pid": 42, "is_ready": True, "phase": "running", "restarts": 2},
        "terms": 0,
        "elector_restarts": 1,
        "transitions": [
            {"time": "2023-11-14T22:13:20.250000Z", "from": "follower", "to": "leader"},
            {"time": "2023-11-14T22:13:21.000000Z", "from": "leader", "to": "stepping_down", "cause": "lease_lost"},
        ],
    }


def test_the_status_of_a_follower_has_no_values_that_it_does_not_know() -> None:
    told = json.loads(page("GET", "/status", FOLLOWER, 100.0).body)
    assert told["holder"] == "other" and told["seconds_until"]["lease_may_be_taken"] == 12.5
    for name in ("fencing_token", "lease_transitions", "seconds_since_renewal"):
        assert told[name] is None
    assert told["command"] == {"pid": None, "is_ready": False, "phase": None, "restarts": 0}


def test_a_holder_may_be_called_anything() -> None:
    """Other clients write what they like into a lease."""
    told = json.loads(page("GET", "/status", changed(FOLLOWER, holder='a"\n\ud800é'), 100.0).body)
    assert told["holder"].startswith('a"\n')


@pytest.mark.parametrize("path", ["/leader", "/status", "/metrics"])
@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS"])
def test_what_can_only_be_read_says_so(method: str, path: str) -> None:
    found = page(method, path, LEADER, 100.0)
    assert (found.status, found.allow) == (405, "GET, HEAD")
