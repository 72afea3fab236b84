"""How things stand, as one frozen record: what status and metrics are made from."""

from __future__ import annotations

from awaitelect.values import Value

TOLERANCE = 2.0
"""Seconds over the lease duration after which a leader that has not renewed is unhealthy, as in k8s-await-election."""


class Snapshot(Value):
    state: str
    lock: str
    identity: str
    holder: str
    lease_duration: float
    """In seconds."""
    renewed_at: float | None
    """The instant just before the last confirmed renewal was sent; None where we hold nothing."""
    is_ready: bool = False
    """The command runs here and is ready for its users."""

    def is_expired(self, now: float) -> bool:
        """We believe to lead, and the last renewal is older than the lease."""
        return self.renewed_at is not None and now > self.renewed_at + self.lease_duration + TOLERANCE
