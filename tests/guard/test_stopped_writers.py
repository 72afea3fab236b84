"""A writer of the file store that is stopped in the middle of its write, and goes on when others lead."""

from __future__ import annotations

import signal

import pytest

from tests.e2e.instances import Fleet, Watched, eventually, is_alive, kill, renews, state_of, stop
from tests.e2e.locks import Lock
from tests.guard.places import FIRM, ask, inside, places, seen_from_here, start


@places
@pytest.mark.parametrize("where", ["stop at draft", "stop before link", "stop after link"])
def test_a_write_that_was_stopped_half_way_never_takes_the_lease_back(
    fleet: Fleet, file_lock: Lock, where: str, place: str
) -> None:
    """All of the leader is stopped, its elector in mid-write. When it goes on it has lost.

    That is when another leads. Or, as a child, when the shim kills the keeper: the kernel continues what is left of a
    process group that has nobody any more (setpgid(2)).
    """
    environment = {**inside(fleet.folder), "E2E_WRITES": "1"}
    first = start(place, fleet, "first", file_lock, settings={"election": FIRM}, environment=environment)
    command = Watched(seen_from_here(first, first.started().pid))
    second = fleet.start("second", file_lock, settings={"election": FIRM})
    second.follows()
    elector = first.elector
    ask(fleet.folder, where)
    eventually(lambda: state_of(elector) == "T", "it is stopped in its write")
    stop(first.pid)  # it would replace its elector
    command.wait()
    assert second.started().at > first.last_sign()
    renews(file_lock, 6)
    if place == "init":
        assert state_of(elector) == "T"
        kill(elector, signal.SIGCONT)
    eventually(lambda: not is_alive(elector), "it has seen that its keeper is silent, and ended")
    renews(file_lock, 2)
    record = file_lock.record()
    assert record is not None and record.holder == "second" and record.transitions == 1
    assert second.signals() == [] and len(second.entries("start")) == 1


@pytest.mark.parametrize("where", ["stop at draft", "stop before link", "stop after link"])
def test_a_follower_that_is_stopped_half_way_in_its_acquisition_stands_in_nobodys_way(
    fleet: Fleet, file_lock: Lock, where: str
) -> None:
    """Its write comes to the lease late or never; whoever else waits leads meanwhile, and is not overwritten."""
    environment = {**inside(fleet.folder), "E2E_WRITES": "1"}
    first = fleet.start("first", file_lock, settings={"election": FIRM})
    first.started()
    second = fleet.start("second", file_lock, settings={"election": FIRM}, environment=environment)
    second.follows()
    elector = second.elector
    (fleet.folder / where).touch()
    first.wipe_out()
    eventually(lambda: state_of(elector) == "T", "it is stopped in its write")
    third = fleet.start("third", file_lock, settings={"election": FIRM})
    third.started()
    renews(file_lock, 6)
    kill(elector, signal.SIGCONT)
    second.says("following 'third'")
    renews(file_lock, 4)
    record = file_lock.record()
    assert record is not None and record.holder == "third"
    assert second.entries() == [] and third.signals() == []
