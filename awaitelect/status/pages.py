"""What is answered to a request: a page for a path, made from one snapshot. Pure.

Every path answers as k8s-await-election does, but for those that are known here to tell more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from awaitelect import __version__
from awaitelect.core.machine import State
from awaitelect.status.snapshot import Snapshot
from awaitelect.values import Value

JSON = "application/json; charset=utf-8"


class Page(Value):
    """An answer."""

    status: int
    body: bytes
    content_type: str = JSON
    allow: str = ""
    """The methods that would do, where this one does not."""


def page(method: str, path: str, snapshot: Snapshot, now: float) -> Page:
    """The answer to a request, at the instant `now`; METRICS_PATH is not among them."""
    if path in READ_ONLY and method not in ("GET", "HEAD"):
        return not_allowed()
    return PAGES.get(path, _health)(snapshot, now)


def not_allowed() -> Page:
    """A page that can only be read was asked for anything else."""
    return _json(405, {"status": "method not allowed"}, allow="GET, HEAD")


def _json(status: int, content: dict[str, Any], *, allow: str = "") -> Page:
    return Page(status, json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"), allow=allow)


def _health(snapshot: Snapshot, now: float) -> Page:
    """200, for followers too; 500 for a leader whose last renewal is older than its lease and a tolerance."""
    expired = snapshot.is_expired(now)
    return _json(500 if expired else 200, {"status": "expired" if expired else "ok"})


def _readiness(snapshot: Snapshot, now: float) -> Page:
    """200 for a follower that knows the lease, and for a leader whose command is ready; else 503, or 500 as above."""
    if snapshot.is_expired(now):
        return _health(snapshot, now)
    if not snapshot.has_seen_lease:
        reason = "the lease has not been seen yet"
    elif snapshot.state in (State.STEPPING_DOWN, State.TERMINATED):
        reason = "stepping down" if snapshot.state == State.STEPPING_DOWN else "ending"
    elif snapshot.state == State.LEADER and not snapshot.is_ready:
        reason = "leading, and the command is not ready"
    else:
        return _json(200, {"status": "ok"})
    return _json(503, {"status": "not ready", "reason": reason})


def _leader(snapshot: Snapshot, now: float) -> Page:
    """200 only where the command runs and is ready."""
    if snapshot.is_ready and not snapshot.is_expired(now):
        return _json(200, {"status": "leader"})
    return _json(503, {"status": "not leader" if snapshot.state != State.LEADER else "not ready"})


def _status(snapshot: Snapshot, now: float) -> Page:
    text = json.dumps(details(snapshot, now), ensure_ascii=False, indent=2) + "\n"
    return Page(200, text.encode("utf-8", "replace"))


READ_ONLY = {"/leader", "/status", "/metrics"}
METRICS_PATH = "/metrics"
PAGES: dict[str, Callable[[Snapshot, float], Page]] = {
    "/livez": _health,
    "/healthz": _health,
    "/readyz": _readiness,
    "/leader": _leader,
    "/status": _status,
}


def details(snapshot: Snapshot, now: float) -> dict[str, Any]:
    """All that there is to know, for people and scripts. Limits are seconds from `now`, negative once past."""

    def left(instant: float | None) -> float | None:
        return None if instant is None else round(instant - now, 3)

    one = snapshot
    ends_at = None if one.renewed_at is None else one.renewed_at + one.lease_duration
    return {
        "version": __version__,
        "name": one.name,
        "identity": one.identity,
        "lock": one.lock,
        "state": one.state,
        "holder": one.holder or None,
        "fencing_token": one.token,
        "lease_transitions": one.lease_transitions,
        "seconds_until": {
            "command_is_stopped": left(one.term_by),
            "command_is_killed": left(one.kill_by),
            "lease_runs_out": left(ends_at),
            "lease_may_be_taken": left(one.free_at),
        },
        "seconds_since_renewal": None if one.renewed_at is None else round(now - one.renewed_at, 3),
        "command": {
            "pid": one.pid or None,
            "is_ready": one.is_ready,
            "phase": one.phase or None,
            "restarts": one.restarts,
        },
        "terms": one.counts.terms,
        "elector_restarts": one.electors,
        "transitions": [
            {
                "time": datetime.fromtimestamp(change.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "from": change.before,
                "to": change.after,
                **({"cause": change.cause} if change.cause else {}),
            }
            for change in one.transitions
        ],
    }
