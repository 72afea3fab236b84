"""A pipe or socket that is full, because whoever should read it stands still: nobody waits for it."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from awaitelect.protocol import Ack, BackoffSettings, Gone, Leave, Settings, Shutdown
from awaitelect.values import changed
from tests.e2e.instances import Fleet, Watched, eventually, is_alive, kill, now, renews, stop
from tests.e2e.locks import Lock
from tests.guard.halves import KeeperAlone
from tests.guard.places import FIRM, fill, inside, places, seen_from_here, start


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A pipe that nobody reads and nothing goes into; with a name, for another namespace has no /proc of ours."""
    path = tmp_path / "full"
    os.mkfifo(path)
    both = os.open(path, os.O_RDWR)
    fill(both)
    yield path
    os.close(both)


@pytest.mark.parametrize(
    ("whose", "place"), [("keeper", "child"), ("elector", "child"), ("both", "child"), ("both", "init")]
)
def test_a_stuck_log_reader_delays_no_renewal_and_no_deadline(
    fleet: Fleet, lock: Lock, full: Path, whose: str, place: str
) -> None:
    """The lease is renewed all the while, and an outage ends the command by the dates, whoever cannot say so."""
    free = os.open(fleet.folder / "free", os.O_RDWR | os.O_CREAT)
    stuck = os.open(full, os.O_WRONLY)
    environment = inside(fleet.folder)
    if whose != "both":
        environment["E2E_ELECTOR_STDERR"] = str(full if whose == "elector" else fleet.folder / "free")
    try:
        one = start(
            place,
            fleet,
            "one",
            lock,
            "ignore=SIGTERM",
            settings={"election": FIRM, "stop": {"timeout": "60s"}},
            environment=environment,
            stderr=free if whose == "elector" else stuck,
        )
        begun = one.started()
        renews(lock, 8)
        command = Watched(seen_from_here(one, begun.pid))
        assert is_alive(command.pid) and one.signals() == []
        assert not select.select([], [stuck], [], 0)[1], "it is full still"
        cut = now()
        with lock.outage():
            gone = command.wait()
        assert one.signals()[0] == signal.SIGTERM
        assert gone < cut + FIRM["lease_duration"]
        assert one.started(2).at > gone
        kill(one.pid, signal.SIGTERM)
        one.tell(signal.SIGKILL)  # unshare, where there is one, and with it its child: it might be stuck in a last word
        one.ends()
    finally:
        os.close(free)
        os.close(stuck)


@places
def test_a_keeper_whose_words_nobody_reads_goes_on(keeper: KeeperAlone, place: str) -> None:
    """Its elector is stopped and it has much to say: a run of the command every few milliseconds, until the socket is
    full and long after. The dates are kept, and what was lost is said again to whoever listens again.
    """
    backoff = BackoffSettings(initial=0.001, factor=1.0, jitter=0.0)
    settings = keeper.settings(restart_policy="always", backoff=backoff, renew_deadline=90.0)
    keeper.says(Settings(changed(settings, argv=["true"])))
    keeper.grant(1, lasts=90.0)
    keeper.hears(Ack)
    keeper.instance.says("the elector could not be told", patience=60)
    said = "starting it again"
    runs = keeper.instance.stderr.count(said)
    eventually(lambda: keeper.instance.stderr.count(said) > runs + 20, "the command is run all the same")
    kill(keeper.instance.pid, signal.SIGTERM)
    keeper.instance.says("the elector could not be told: Gone")
    heard = keeper.has_said()
    assert len(heard) > 50
    assert not [one for one in heard if isinstance(one, (Shutdown, Gone))], "that was lost"
    keeper.grant(2)
    gone = keeper.hears(Gone)
    assert (gone.number, gone.cause) == (2, "shutdown")
    keeper.says(Leave())
    keeper.instance.ends()


@places
def test_a_full_socket_to_a_stopped_elector_costs_no_term(fleet: Fleet, file_lock: Lock, place: str) -> None:
    """The elector goes on before anybody took it for hung: it hears all that there was room for, and renews."""
    back = {"initial": "1ms", "factor": 1, "jitter": 0}
    lasting = {"lease_duration": 92, "renew_deadline": 90}
    settings = {"election": lasting, "restart": {"policy": "always", "backoff": back}, "log": {"level": "debug"}}
    one = start(place, fleet, "one", file_lock, command=["true"], settings=settings)
    one.says("starting it again", times=3)
    elector = one.elector
    stop(elector)
    one.says("the elector could not be told", patience=60)
    kill(elector, signal.SIGCONT)
    renews(file_lock, 4)
    assert one.elector == elector
    record = file_lock.record()
    assert record is not None and record.transitions == 0
    kill(one.pid, signal.SIGTERM)
    one.ends()
    record = file_lock.record()
    assert record is not None and record.holder == ""
