"""The elector's first words, as a real process with the test as its keeper."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from awaitelect import protocol


class Started:
    """An elector, and the keeper's end of its socket."""

    def __init__(self, folder: Path) -> None:
        self.keeper, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.keeper.settimeout(30)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWAITELECT_", "K8S_"))}
        with theirs, open(folder / "stderr", "wb") as file:
            # Through a shell, which can put it at the number where the elector expects it.
            command = f'exec 3<&{theirs.fileno()} && exec "$0" -P -m awaitelect.elector'
            self.process = subprocess.Popen(
                ["bash", "-c", command, sys.executable], env=kept, stderr=file, pass_fds=(theirs.fileno(),)
            )
        self._stderr = folder / "stderr"

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def greet(self, *command: str, **options: str) -> None:
        self.keeper.send(protocol.encode(protocol.Hello("instance", 0, None, options, list(command))))

    def hears(self) -> protocol.Message:
        return protocol.decode(self.keeper.recv(protocol.MAX_MESSAGE))


@pytest.fixture
def elector(tmp_path: Path) -> Iterator[Started]:
    one = Started(tmp_path)
    yield one
    one.keeper.close()
    one.process.kill()
    one.process.wait()


def test_the_settings_are_its_first_word(elector: Started, tmp_path: Path) -> None:
    """The keeper gets ready while the slow imports go on; then it speaks of the lease."""
    elector.greet("sleep", "9", lock=f"file:{tmp_path}/lease", identity="me")
    first = elector.hears()
    assert isinstance(first, protocol.Settings) and first.command.argv == ["sleep", "9"]
    assert first.command.environment["AWAITELECT_IDENTITY"] == "me"
    while not isinstance(message := elector.hears(), protocol.Grant):
        assert isinstance(message, protocol.Alive)
    assert message.number == 1 and message.may_start


def test_a_bad_configuration_is_78_and_every_problem_a_line(elector: Started, tmp_path: Path) -> None:
    """Without settings: the keeper has nothing to act on, and learns why."""
    path = tmp_path / "broken.yaml"
    path.write_text("restart: {polcy: x}\nlog: {level: loud}\n")
    elector.greet("true", config=str(path))
    assert elector.process.wait(30) == 78
    assert "restart.polcy" in elector.stderr and "log.level" in elector.stderr
    failed = elector.hears()
    assert isinstance(failed, protocol.Failed) and "restart.polcy" in failed.reason
    assert elector.keeper.recv(1) == b""


def test_a_disabled_election_ends_it_after_the_settings(elector: Started, tmp_path: Path) -> None:
    """The keeper becomes the command."""
    path = tmp_path / "off.yaml"
    path.write_text("election: {enabled: false}\n")
    elector.greet("true", config=str(path))
    settings = elector.hears()
    assert isinstance(settings, protocol.Settings) and not settings.command.enabled
    assert elector.process.wait(30) == 0


def test_signals_to_the_whole_group_do_not_end_it(elector: Started, tmp_path: Path) -> None:
    """systemd and terminals signal everybody: when it ends is the keeper's to say."""
    elector.greet("sleep", "9", lock=f"file:{tmp_path}/lease")
    while not isinstance(grant := elector.hears(), protocol.Grant):
        pass
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        elector.process.send_signal(number)
    elector.keeper.send(protocol.encode(protocol.Ack(grant.number)))
    elector.keeper.send(protocol.encode(protocol.Shutdown(15)))
    while not isinstance(elector.hears(), protocol.Stop):
        pass
    elector.keeper.send(protocol.encode(protocol.Gone(grant.number, "shutdown", 0)))
    while not isinstance(elector.hears(), protocol.Leave):
        pass
    assert elector.process.wait(30) == 0


def test_a_keeper_that_never_greets_leaves_no_elector_behind(elector: Started) -> None:
    """It died between the spawn and its first word."""
    elector.keeper.close()
    assert elector.process.wait(30) == 1
    assert "not by hand" in elector.stderr
