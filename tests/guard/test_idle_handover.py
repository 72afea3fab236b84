"""A hand-over after nothing has happened for long: what was kept open may have been closed, or forgotten, meanwhile."""

from __future__ import annotations

import os
import signal

from tests.e2e.instances import Fleet, eventually, kill, now
from tests.e2e.locks import Lock
from tests.guard.places import places, start

IDLE = float(os.environ.get("IDLE_SECONDS", "20"))
"""Seconds without an event. IDLE_SECONDS=120 is two minutes, over all that is kept alive by a minute's look; the usual
run waits for what a client drops after 15.
"""


@places
def test_a_hand_over_after_an_idle_time_is_as_quick_as_ever(fleet: Fleet, lock: Lock, place: str) -> None:
    """Well before the lease would run out: the release is seen, and the write behind it goes through."""
    lasting = {"lease_duration": 30, "renew_deadline": 20, "retry_period": 2, "kill_margin": 1}
    first = start(place, fleet, "first", lock, settings={"election": lasting})
    begun = first.started()
    second = fleet.start("second", lock, settings={"election": lasting})
    second.follows()
    until = now() + IDLE
    eventually(lambda: now() > until, "it was idle", patience=IDLE + 30, pace=0.2)
    assert first.entries("start") == [begun] and second.entries() == []
    kill(first.pid, signal.SIGTERM)
    assert first.ends() == 0
    last_sign = first.last_sign()
    started = second.started().at
    print(f"after {IDLE:g}s: {1000 * (started - last_sign):.1f} ms from the last sign to the next start")
    assert last_sign < started < last_sign + 10
