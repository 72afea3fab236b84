"""What a service manager is told, over real sockets; time is an argument."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from awaitelect.keeper.systemd import AGAIN, STOP_AGAIN, STOP_TIME, ServiceManager
from tests.notify import Inbox, fill

FAR = 1e9
"""An instant that is not reached: the elector makes progress."""


@pytest.fixture(params=["path", "abstract"])
def inbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Inbox]:
    with Inbox(tmp_path, abstract=request.param == "abstract") as one:
        yield one


Make = Callable[..., ServiceManager]


@pytest.fixture
def manager() -> Iterator[Make]:
    """Makes one that tells an inbox, with these variables over the usual ones."""
    made = []

    def make(inbox: Inbox | None, watchdog: float | None = None, **variables: str) -> ServiceManager:
        environment = inbox.environment(watchdog) if inbox else {}
        made.append(ServiceManager({**environment, **variables}, os.getpid(), 0.0))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_each_thing_is_said_once(manager: Make, inbox: Inbox) -> None:
    """It is asked at every turn of the loop."""
    one = manager(inbox)
    for now in (1.0, 2.0):
        one.ready(now)
        one.show("following 'other'", now)
        one.on_wake(now, FAR)
    one.show("leading", 3.0)
    assert inbox.read() == [{"READY": "1"}, {"STATUS": "following 'other'"}, {"STATUS": "leading"}]


def test_a_status_is_one_line_whatever_the_holder_is_called(manager: Make, inbox: Inbox) -> None:
    """Else whoever holds the lease could say anything in our name."""
    manager(inbox).show("following 'a\nREADY=1\x1b'" + "x" * 1000, 1.0)
    [message] = inbox.read()
    assert list(message) == ["STATUS"] and message["STATUS"].startswith("following 'a?READY=1?'")
    assert len(message["STATUS"]) == 500


def test_what_finds_the_socket_full_comes_later_and_nothing_waits(manager: Make, tmp_path: Path) -> None:
    """At a machine's start everybody talks at once. Of two status lines the newer one is enough."""
    with Inbox(tmp_path) as inbox:
        one = manager(inbox)
        fill(inbox.variable)
        one.ready(1.0)
        one.show("first", 1.0)
        one.show("second", 1.0)
        assert one.wake_at == 1.0 + AGAIN
        one.on_wake(1.0 + AGAIN, FAR)
        assert one.wake_at == pytest.approx(1.0 + 2 * AGAIN), "it is still full"
        assert all("FILL" in message for message in inbox.read())
        one.on_wake(1.0 + 3 * AGAIN, FAR)
        assert inbox.read() == [{"READY": "1", "STATUS": "second"}]
        assert one.wake_at is None


@pytest.mark.parametrize("variable", ["", "relative", "vsock:2:1234", "/nowhere/notify", "/" + "long" * 50, "@nobody"])
def test_nobody_who_listens_is_no_trouble(manager: Make, variable: str) -> None:
    """A variable that was inherited from somewhere."""
    one = manager(None, NOTIFY_SOCKET=variable)
    one.ready(1.0)
    one.show("leading", 1.0)
    assert one.wake_at is None


def test_signs_of_life_come_twice_as_often_as_they_are_asked_for(manager: Make, inbox: Inbox) -> None:
    """And only from a service that is up: before, nobody counts."""
    one = manager(inbox, watchdog=4.0)
    one.on_wake(1.0, FAR)
    assert one.wake_at is None and inbox.read() == []
    one.ready(2.0)
    one.on_wake(2.0, FAR)
    assert inbox.read() == [{"READY": "1"}, {"WATCHDOG": "1"}]
    assert one.wake_at == 4.0
    one.on_wake(3.9, FAR)
    assert inbox.read() == []
    one.on_wake(4.0, FAR)
    assert inbox.read() == [{"WATCHDOG": "1"}]


def test_no_sign_of_life_without_progress(manager: Make, inbox: Inbox) -> None:
    """Electors that all hang or die help nobody, however well the keeper is."""
    one = manager(inbox, watchdog=2.0)
    one.ready(0.0)
    one.on_wake(9.0, alive_by=10.0)
    assert inbox.read() == [{"READY": "1"}, {"WATCHDOG": "1"}]
    one.on_wake(10.0, alive_by=10.0)
    assert inbox.read() == []
    one.on_wake(11.0, alive_by=20.0)
    assert inbox.read() == [{"WATCHDOG": "1"}], "it goes on once an elector speaks again"


@pytest.mark.parametrize(
    "variables",
    [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}],
)
def test_a_watchdog_that_is_not_ours_is_not_fed(manager: Make, inbox: Inbox, variables: dict[str, str]) -> None:
    """sd_watchdog_enabled(3): WATCHDOG_PID says whom it is meant for."""
    one = manager(inbox, 2.0, **variables)
    one.ready(0.0)
    one.on_wake(5.0, FAR)
    assert inbox.read() == [{"READY": "1"}] and one.wake_at is None


def test_a_stop_asks_for_time_as_long_as_it_goes_on(manager: Make, inbox: Inbox) -> None:
    """Each request has to come before the one before it is over."""
    one = manager(inbox)
    one.ready(0.0)
    one.stopping(1.0)
    one.stopping(1.1)
    asked = {"EXTEND_TIMEOUT_USEC": str(round(STOP_TIME * 1e6))}
    assert inbox.read() == [{"READY": "1"}, {"STOPPING": "1", **asked}]
    assert one.wake_at == 1.0 + STOP_AGAIN and STOP_AGAIN < STOP_TIME / 2
    one.on_wake(1.0 + STOP_AGAIN, FAR)
    assert inbox.read() == [asked]
    one.ready(7.0)
    assert inbox.read() == [], "nothing is ready again after that"


def test_a_reload_begins_and_ends(manager: Make, inbox: Inbox) -> None:
    """With the time that Type=notify-reload wants, of the clock that it wants."""
    one = manager(inbox)
    one.reloading(0.0)
    assert inbox.read() == [], "what is not up does not reload"
    one.ready(1.0)
    one.reloading(2.0)
    one.ready(3.0)
    ready, reloading, again = inbox.read()
    assert ready == again == {"READY": "1"}
    assert reloading["RELOADING"] == "1" and reloading["MONOTONIC_USEC"].isdecimal()


def test_a_reload_that_is_over_before_it_could_be_told_is_not_told(manager: Make, tmp_path: Path) -> None:
    """In one message with READY it would be for the reader to guess which came first."""
    with Inbox(tmp_path) as inbox:
        one = manager(inbox)
        one.ready(1.0)
        fill(inbox.variable)
        one.reloading(2.0)
        one.ready(2.0)
        inbox.read()
        one.on_wake(3.0, FAR)
        assert inbox.read() == [{"READY": "1"}]


@pytest.mark.parametrize(("speaks", "said"), [(False, [{"READY": "1"}, {"WATCHDOG_USEC": "0"}]), (True, [])])
def test_a_command_that_we_become_is_up_unless_it_says_so_itself(
    manager: Make, inbox: Inbox, speaks: bool, said: list[dict[str, str]]
) -> None:
    """Without an election nobody is left who could speak for it, nor give signs of life."""
    manager(inbox, 2.0).pass_on(1.0, speaks=speaks)
    assert inbox.read() == said
