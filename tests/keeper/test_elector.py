"""When the keeper takes an elector for hung: real sockets and a real child, and the instants are given."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from awaitelect.core.election import KEEP_WARM
from awaitelect.core.lease import Timing
from awaitelect.elector.loop import SLACK
from awaitelect.keeper.elector import SILENCE, STARTUP, YOUNG, Elector
from awaitelect.protocol import Alive, CommandSettings, Hello, Message, Settings, encode

SPAWNED = 1000.0
"""An instant, as all of these are, in seconds."""


class Pair(NamedTuple):
    """The keeper's side, and the socket of what it takes for its elector."""

    elector: Elector
    other: socket.socket

    def hears(self, message: Message, at: float) -> None:
        self.other.send(encode(message))
        assert list(self.elector.receive(at))


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    elector = Elector()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child, other:
        elector.spawn(Hello("instance", 0), SPAWNED, (child.pid, ours.detach()))
        yield Pair(elector, other)
        elector.close()
        assert child.stdin
        child.stdin.close()


def test_an_elector_that_says_nothing_at_all_is_replaced_after_half_a_minute(pair: Pair) -> None:
    """Whether or not the command depends on it."""
    assert pair.elector.hung_at(None, 0.0) == SPAWNED + STARTUP


def test_one_that_hangs_after_its_settings_is_replaced_after_half_a_minute(pair: Pair) -> None:
    """It still imports what is slow to import, and has to speak of the lease soon: a follower that never does will
    never lead, and nobody else would notice.
    """
    pair.hears(Settings(CommandSettings(argv=["true"])), SPAWNED + 2)
    assert pair.elector.hung_at(None, 0.0) == SPAWNED + 2 + STARTUP
    assert STARTUP < 60


def test_a_follower_that_hangs_is_replaced_when_its_minute_has_passed_without_a_word(pair: Pair) -> None:
    """No earlier: in steady state it speaks after each read, once a minute; and not much later."""
    pair.hears(Settings(CommandSettings(argv=["true"])), SPAWNED + 1)
    pair.hears(Alive(), SPAWNED + 2)
    slowest_word = KEEP_WARM + Timing(60, 50, 2, 1).request_timeout + SLACK
    assert SPAWNED + 2 + slowest_word + 20 < pair.elector.hung_at(None, 0.0) == SPAWNED + 2 + SILENCE
    assert SILENCE < 100


def test_one_that_hangs_before_its_first_grant_is_replaced_in_time_for_the_term_of_the_one_before(pair: Pair) -> None:
    """The command runs by an older grant: its successor has to renew before that ends."""
    pair.hears(Settings(CommandSettings(argv=["true"])), SPAWNED + 1)
    term_by = SPAWNED + 20
    assert SPAWNED + YOUNG < pair.elector.hung_at(term_by, 6.5) == term_by - 3 * pair.elector.startup
