"""G4: the lease is out of reach.

For longer than the lease lasts: the command is asked at `term_by` and dead at `kill_by`. For less: it never notices.
"""

from __future__ import annotations

from tests.e2e.instances import RETRY, Fleet, Watched, eventually, is_alive, now, renews
from tests.e2e.locks import Lock
from tests.guard.places import FIRM, places, start, watched_of


@places
def test_g4_an_outage_longer_than_the_lease_ends_the_command_in_time(fleet: Fleet, lock: Lock, place: str) -> None:
    """Asked at `term_by`, dead at `kill_by`; when the lease is there again, it is contended for again."""
    settings = {"election": FIRM, "stop": {"timeout": "60s"}}
    one = start(place, fleet, "one", lock, "ignore=SIGTERM", "daemons=1", settings=settings)
    watched = watched_of(one, 1)
    renews(lock, 2)
    cut = now()
    with lock.outage():
        gone = max(each.wait() for each in watched)
        asked = next(each.at for each in one.entries("signal"))
        assert cut - 2 * RETRY - 0.5 + FIRM["renew_deadline"] < asked < gone
        assert gone < cut + FIRM["lease_duration"]
        assert one.process.poll() is None, "it stays, to follow"
    again = one.started(2)
    assert again.at > one.last_sign()


def test_g4_a_command_that_ends_by_itself_when_asked_is_not_killed(fleet: Fleet, lock: Lock) -> None:
    """The time between the two dates is the command's."""
    one = fleet.start("one", lock, "linger=0.2")
    watched = Watched(one.started().pid)
    with lock.outage():
        watched.wait()
        eventually(lambda: one.entries("end"), "it has ended in order")


def test_g4_an_outage_shorter_than_the_deadline_is_not_noticed(fleet: Fleet, lock: Lock) -> None:
    """E14: no answer is no lost lease."""
    election = {"lease_duration": 14, "renew_deadline": 13}
    one = fleet.start("one", lock, settings={"election": election})
    start = one.started()
    with lock.outage():
        one.says("cannot renew the lease")
    renews(lock, 3)
    assert "replacing it" not in one.stderr, "an elector that waits for an answer is not taken for a hung one"
    assert one.entries("start") == [start] and one.signals() == [] and is_alive(start.pid)


def test_g4_an_outage_from_the_start_delays_and_breaks_nothing(fleet: Fleet, lock: Lock) -> None:
    """An instance that cannot reach the lease waits for it, and says so."""
    first = fleet.start("first", lock, settings={"election": FIRM})
    first.started()
    with lock.outage():
        second = fleet.start("second", lock)
        second.says("cannot read the lease")
    assert second.process.poll() is None
    first.wipe_out()
    second.started()
