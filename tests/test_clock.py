"""The one clock, and its alarm."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from awaitelect import clock


@pytest.fixture
def alarm() -> Iterator[clock.Alarm]:
    it = clock.Alarm()
    yield it
    it.close()


def rings(alarm: clock.Alarm, within: float) -> bool:
    """It becomes readable within so many seconds."""
    return bool(select.select([alarm], [], [], within)[0])


def test_instants_go_to_nanoseconds_and_back() -> None:
    """On the wire they are whole."""
    assert clock.to_ns(1.5) == 1_500_000_000
    assert clock.from_ns(1_500_000_000) == 1.5
    assert clock.from_ns(clock.to_ns(123456.789012345)) == pytest.approx(123456.789012345, abs=1e-9)


def test_the_clock_does_not_go_back() -> None:
    """And it counts the time since the machine started."""
    first = clock.now()
    assert 0 < first <= clock.now()


def test_the_alarm_rings_at_its_instant_and_not_before(alarm: clock.Alarm) -> None:
    """The kernel waits, nobody polls."""
    at = clock.now() + 1.0
    alarm.set(at)
    assert not rings(alarm, 0)
    assert rings(alarm, 5)
    assert clock.now() >= at


@pytest.mark.parametrize("ago", [0.0, 1.0, 1e9])
def test_an_instant_that_has_passed_rings_at_once(alarm: clock.Alarm, ago: float) -> None:
    """A zero would mean: never."""
    alarm.set(clock.now() - ago)
    assert rings(alarm, 1)


def test_an_alarm_that_is_set_again_rings_at_the_last_instant(alarm: clock.Alarm) -> None:
    """The last call counts."""
    alarm.set(clock.now())
    alarm.set(clock.now() + 3600)
    assert not rings(alarm, 0.01)
    alarm.set(clock.now() - 1)
    assert rings(alarm, 1)


def test_an_alarm_that_is_set_to_never_is_silent(alarm: clock.Alarm) -> None:
    """None."""
    assert not rings(alarm, 0)
    alarm.set(clock.now() - 1)
    alarm.set(None)
    assert not rings(alarm, 0.01)


def test_an_alarm_that_is_cleared_is_silent_and_can_be_set_to_the_same_instant(alarm: clock.Alarm) -> None:
    """Whoever rang is not set any more."""
    at = clock.now() - 1
    alarm.set(at)
    assert rings(alarm, 1)
    alarm.set(at)  # changes nothing
    assert rings(alarm, 0)
    alarm.clear()
    assert not rings(alarm, 0)
    alarm.clear()
    alarm.set(at)
    assert rings(alarm, 1)


def test_an_alarm_is_not_inherited_and_does_not_block(alarm: clock.Alarm) -> None:
    """No open file of ours leaks into the command."""
    assert not os.get_inheritable(alarm.fileno())
    assert not os.get_blocking(alarm.fileno())
