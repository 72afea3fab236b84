"""The elector's first words, as a real process with the test as its keeper."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from awaitelect import protocol
from tests.guard.halves import ElectorAlone


@pytest.fixture
def elector(tmp_path: Path) -> Iterator[ElectorAlone]:
    one = ElectorAlone(tmp_path)
    yield one
    one.close()


def test_the_settings_are_its_first_word(elector: ElectorAlone, tmp_path: Path) -> None:
    """The keeper gets ready while the slow imports go on; then it speaks of the lease."""
    elector.greet("sleep", "9", lock=f"file:{tmp_path}/lease", identity="me")
    first = elector.hears_any()
    assert isinstance(first, protocol.Settings) and first.command.argv == ["sleep", "9"]
    assert first.command.environment["AWAITELECT_IDENTITY"] == "me"
    while not isinstance(message := elector.hears_any(), protocol.Grant):
        assert isinstance(message, protocol.Alive)
    assert message.number == 1 and message.may_start


def test_a_bad_configuration_is_78_and_every_problem_a_line(elector: ElectorAlone, tmp_path: Path) -> None:
    """Without settings: the keeper has nothing to act on, and learns why."""
    path = tmp_path / "broken.yaml"
    path.write_text("restart: {polcy: x}\nlog: {level: loud}\n")
    elector.greet("true", config=str(path))
    assert elector.process.wait(30) == 78
    assert "restart.polcy" in elector.stderr and "log.level" in elector.stderr
    failed = elector.hears_any()
    assert isinstance(failed, protocol.Failed) and "restart.polcy" in failed.reason
    assert elector.socket.recv(1) == b""


def test_a_disabled_election_ends_it_after_the_settings(elector: ElectorAlone, tmp_path: Path) -> None:
    """The keeper becomes the command."""
    path = tmp_path / "off.yaml"
    path.write_text("election: {enabled: false}\n")
    elector.greet("true", config=str(path))
    settings = elector.hears_any()
    assert isinstance(settings, protocol.Settings) and not settings.command.enabled
    assert elector.process.wait(30) == 0


def test_signals_to_the_whole_group_do_not_end_it(elector: ElectorAlone, tmp_path: Path) -> None:
    """systemd and terminals signal everybody: when it ends is the keeper's to say."""
    elector.greet("sleep", "9", lock=f"file:{tmp_path}/lease")
    while not isinstance(grant := elector.hears_any(), protocol.Grant):
        pass
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        elector.process.send_signal(number)
    elector.says(protocol.Ack(grant.number))
    elector.says(protocol.Shutdown(15))
    while not isinstance(elector.hears_any(), protocol.Stop):
        pass
    elector.says(protocol.Gone(grant.number, "shutdown", 0))
    while not isinstance(elector.hears_any(), protocol.Leave):
        pass
    assert elector.process.wait(30) == 0


def test_a_keeper_that_never_greets_leaves_no_elector_behind(elector: ElectorAlone) -> None:
    """It died between the spawn and its first word."""
    elector.socket.close()
    assert elector.process.wait(30) == 1
    assert "not by hand" in elector.stderr
