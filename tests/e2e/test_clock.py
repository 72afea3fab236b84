"""A wall clock that jumps by an hour, back and forth, several times a second: no timer fires or stalls for it."""

from __future__ import annotations

import itertools
import re
import signal
from pathlib import Path

from tests.e2e.instances import LASTING, LEASE, Fleet, now, renews
from tests.e2e.locks import Lock

JUMPING = """
import datetime, time

real = time.time

def jumping():
    return real() + 3600 * (int(time.monotonic() / 0.2) % 3 - 1)

class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(jumping(), tz)

time.time, datetime.datetime = jumping, Jumping
"""


def test_a_jumping_wall_clock_fires_and_stalls_no_timer(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    """S5, E18: pauses, renewals, the stop's time-out and a take-over last as long as they should."""
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    environment = {"PYTHONPATH": str(tmp_path)}
    back = {"initial": "700ms", "factor": 1, "jitter": 0}
    crashing = fleet.start(
        "crashing",
        file_lock,
        "after=0",
        "exit=3",
        settings={"restart": {"backoff": back, "max_restarts": 2, "on_give_up": "exit"}},
        environment=environment,
    )
    crashing.started(3)
    starts = [one.at for one in crashing.entries("start")]
    assert all(0.7 <= later - one < 30 for one, later in itertools.pairwise(starts))
    assert crashing.ends() == 3
    hours = {re.match(r"\d+-\d+-\d+T(\d+)", line)[1] for line in crashing.stderr.splitlines()}  # type: ignore[index]
    assert len(hours) > 1, "the clock has jumped"

    settings = {"stop": {"timeout": "1s"}, "election": LASTING}
    one = fleet.start("one", file_lock, "ignore=SIGTERM", settings=settings, environment=environment)
    one.started()
    other = fleet.start("other", file_lock, environment=environment)
    other.follows()
    renews(file_lock, 4)
    began = now()
    one.tell(signal.SIGTERM)
    assert one.ends() == 137
    assert 1 <= now() - began < 20
    other.started()
    third = fleet.start("third", file_lock, environment=environment)
    third.follows()
    began = now()
    renews(file_lock, 1)
    other.wipe_out()
    assert LEASE <= third.started().at - began < LEASE + 20, "the lease is waited out, and no longer"
