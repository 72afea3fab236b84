"""Whatever one of the two processes says to the other, neither is brought down, and the command is not let go."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from awaitelect import protocol
from awaitelect.elector.channel import Channel
from awaitelect.keeper.elector import AT_ONCE, Elector
from awaitelect.protocol import MAX_MESSAGE, Alive, CommandSettings, Grant, Hello, Message, Settings, UnknownMessage
from awaitelect.values import as_dict, misfit
from tests.e2e.instances import PATIENCE, Fleet, eventually
from tests.fuzz import hostile_elector
from tests.fuzz.effort import MORE, examples

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SOUND: list[Message] = [
    Settings(CommandSettings(argv=["true"], hooks={"stop": ["true"]}, liveness=protocol.Probe("exec", ["true"]))),
    Grant(1, 10.0, 14.0, environment={"A": "b"}),
    protocol.Hello("x", 1, 2.5, {"lock": "file:/x"}, ["a"]),
    protocol.Leave(3),
    protocol.Gone(1, "finished", 0),
    protocol.Spawned(1),
    protocol.Shutdown(15),
]


@st.composite
def nearly(draw: st.DrawFn) -> bytes:
    """A sound message with one thing in it that is another, or cut off."""
    fields: dict[str, Any] = json.loads(protocol.encode(draw(st.sampled_from(SOUND))))
    inner = fields.get("command") if isinstance(fields.get("command"), dict) and draw(st.booleans()) else fields
    inner[draw(st.sampled_from(sorted(inner)))] = draw(JUNK)
    raw = json.dumps(fields).encode()
    return raw[: draw(st.integers(0, len(raw)))] if draw(st.integers(0, 5)) == 0 else raw


@examples(200)
@given(nearly() | st.binary(max_size=60))
@example(b'{"is":"Grant","number":"9","term_by":1,"kill_by":2}')
@example(b'{"is":"Grant","number":1,"term_by":NaN,"kill_by":2}')
@example(b'{"is":"Leave","status":99999999999}')
@example(b'{"is":"Settings","command":{"argv":[]}}')
@example(b'{"is":"Settings","command":{"argv":["a\\u0000"]}}')
@example(b'{"is":"Settings","command":{"argv":["a"],"stop_signal":99}}')
@example(b'{"is":"Settings","command":{"argv":["a"],"stop_timeout":1e300}}')
def test_a_message_that_is_understood_holds_what_it_says(datagram: bytes) -> None:
    """The guard compares dates and numbers: a text in their place was once found out there, by a crash."""
    try:
        message = protocol.decode(datagram)
    except ValueError:
        return
    assert misfit(message) == ""
    assert type(protocol.decode(protocol.encode(message))) is type(message)
    for name, held in as_dict(message).items():
        if message.TYPES[name].startswith("float") and held is not None:
            assert abs(held) <= 2**53, "a timer can be set to it"


@pytest.fixture
def pair() -> Iterator[tuple[Elector, socket.socket, subprocess.Popen[bytes]]]:
    """The keeper's side, the other end, and the child that counts as its elector."""
    ours, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    elector = Elector()
    with subprocess.Popen(["sleep", "1000"]) as child, other:
        elector.spawn(Hello("instance", 0), 1000.0, (child.pid, ours.detach()))
        yield elector, other, child
        child.kill()
        elector.close()


Pair = tuple[Elector, socket.socket, subprocess.Popen[bytes]]


def test_an_elector_that_sends_nonsense_is_killed_and_the_keeper_says_why(pair: Pair) -> None:
    """It has failed, whatever it does next; what it had said before counts."""
    elector, other, child = pair
    other.send(protocol.encode(Alive("follower")))
    other.send(b'{"is":"Grant","number":"1","term_by":1,"kill_by":2}')
    assert list(elector.receive(1001.0)) == [Alive("follower")]
    assert "Grant.number is not int" in elector.fault
    assert child.wait(PATIENCE) == -signal.SIGKILL


def test_a_message_of_a_newer_version_is_passed_over(pair: Pair) -> None:
    """The package may have been upgraded under a keeper that runs."""
    elector, other, child = pair
    other.send(b'{"is":"Handover","to":"somebody"}')
    other.send(protocol.encode(Alive()))
    assert list(elector.receive(1001.0)) == [Alive()]
    assert elector.fault == "" and child.poll() is None
    with pytest.raises(UnknownMessage):
        protocol.decode(b'{"is":"Handover"}')


def test_an_elector_that_never_stops_talking_does_not_keep_the_keeper_from_its_dates(pair: Pair) -> None:
    """It looks at the clock in between: here the other side sends one more for each that is taken."""
    elector, other, _ = pair
    other.send(protocol.encode(Alive()))
    heard = 0
    for _ in elector.receive(1001.0):
        heard += 1
        other.send(protocol.encode(Alive()))
        assert heard <= AT_ONCE
    assert heard == AT_ONCE


def test_an_elector_that_has_been_reaped_is_not_killed_again(pair: Pair) -> None:
    """Its number may be another's by then; its last words are read after its end."""
    elector, other, child = pair
    other.send(b"nonsense")
    child.kill()
    child.wait()
    assert list(elector.receive(1001.0)) == [] and elector.fault


@examples(100)
@given(st.lists((nearly() | st.binary(max_size=60)).filter(bool), max_size=4))
def test_the_elector_passes_over_what_its_keeper_cannot_have_said(datagrams: list[bytes]) -> None:
    """It is its keeper's child; all the same, nothing of it is acted upon, and no descriptor is left open."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    channel = Channel(theirs.detach())
    with ours, channel._socket:
        before = len(os.listdir("/proc/self/fd"))
        for datagram in datagrams:
            socket.send_fds(ours, [datagram], [ours.fileno()])
        ours.send(protocol.encode(Alive("last")))
        while True:
            heard = channel.receive()
            assert heard is not None
            message, fds = heard
            for fd in fds:
                os.close(fd)
            if message == Alive("last"):
                break
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_message_that_is_too_long_is_cut_off_by_the_socket_and_is_none(pair: Pair) -> None:
    """The kernel says nothing of it."""
    elector, other, child = pair
    other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_MESSAGE)
    other.send(protocol.encode(Alive("follower", "x" * MAX_MESSAGE)))
    assert list(elector.receive(1001.0)) == []
    assert child.wait(PATIENCE) == -signal.SIGKILL


@pytest.mark.parametrize("seed", range(3 * MORE))
def test_a_keeper_with_hostile_electors_goes_on_and_a_sound_one_leads_at_last(tmp_path: Path, seed: int) -> None:
    """A real keeper whose first electors say what they like: it does not fall, starts nothing that it should not, and
    ends as it is told.
    """
    with Fleet(tmp_path) as fleet:
        path = tmp_path / "a.yaml"
        path.write_text(
            yaml.safe_dump(fleet.settings("a", None, {"lock": {"backend": "file", "path": f"{tmp_path}/lease"}}))
        )
        with (tmp_path / "said").open("wb") as said:
            process = subprocess.Popen(
                [
                    sys.executable,
                    hostile_elector.__file__,
                    "keeper",
                    str(tmp_path),
                    str(seed),
                    str(path),
                    *fleet.actor("a"),
                ],
                env={**os.environ, "E2E_TEST": fleet.mark},
                stdin=subprocess.DEVNULL,
                stderr=said,
            )
        try:
            eventually(lambda: fleet.entries() or process.poll() is not None, "the command starts")
            assert process.poll() is None, (tmp_path / "said").read_text()
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
            process.wait()
        shown = (tmp_path / "said").read_text()
        assert "Traceback" not in shown
        assert shown.count("was killed, for it sent what is not a message") >= 1, shown
