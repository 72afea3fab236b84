"""The messages between keeper and elector, on the wire and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awaitelect.protocol import (
    MAX_MESSAGE,
    Ack,
    Alive,
    BackoffSettings,
    CommandSettings,
    Drained,
    Failed,
    Gone,
    Grant,
    Hello,
    Leave,
    Message,
    Ready,
    Settings,
    Shutdown,
    Spawned,
    Stop,
    decode,
    encode,
)

MESSAGES: list[Message] = [
    Settings(CommandSettings(argv=["a"])),
    Settings(
        CommandSettings(
            argv=["a", "b c", "ü"],
            environment={"A": "1", "B": ""},
            umask=0o27,
            signal_rewrite={1: 10, 12: 0},
            backoff=BackoffSettings(1.5, 3, 60, 0, 10),
            success_exit_codes=[0, 3],
        )
    ),
    Grant(3, 10.25, 14.25),
    Grant(4, 10.25, 14.25, False, 99, {"AWAITELECT_FENCING_TOKEN": "99"}),
    Stop("lease_lost", grace=False),
    Alive(),
    Alive("follower", "following 'other'"),
    Failed("lock.path: missing"),
    Leave(),
    Drained(),
    Leave(75, "leadership lost"),
    Hello("c0ffee", 0),
    Hello("c0ffee", 7, 12.5, {"lock": "file:/run/x"}, ["sleep", "1"]),
    Hello("c0ffee", 7, restarts=3, electors=1),
    Ack(3, "running"),
    Spawned(4711),
    Spawned(4711, 2),
    Ready(),
    Gone(3, "finished", 0),
    Gone(3, "stopped"),
    Shutdown(15),
]


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_a_message_comes_back_as_it_was_sent(message: Message) -> None:
    """Type and all."""
    back = decode(encode(message))
    assert back == message
    assert type(back) is type(message)


def test_every_kind_of_message_is_tried_here() -> None:
    """A new one must not be forgotten."""
    assert {type(message) for message in MESSAGES} == set(Message.__args__)


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


seconds = st.floats(0, 1e6)
fields = {
    "environment": st.dictionaries(text, text),
    "working_dir": st.none() | text,
    "umask": st.none() | st.integers(0, 0o777),
    "stop_timeout": seconds,
    "signal_rewrite": st.dictionaries(st.integers(1, 64), st.integers(0, 64)),
    "backoff": st.tuples(seconds, seconds, seconds, seconds, seconds).map(lambda drawn: BackoffSettings(*drawn)),
    "success_exit_codes": st.lists(st.integers(0, 255)),
}


@given(
    st.fixed_dictionaries({"argv": st.lists(text, min_size=1)}, optional=fields).map(
        lambda chosen: CommandSettings(**chosen)
    )
)
def test_any_settings_come_back(settings: CommandSettings) -> None:
    """Whatever users put into them; JSON has no numbers as keys."""
    assert decode(encode(Settings(settings))) == Settings(settings)


@given(st.integers(0, 2**53), st.integers(0, 10**17), st.integers(0, 10**12), text)
def test_a_grant_comes_back_to_the_nanosecond(number: int, start: int, length: int, value: str) -> None:
    """As near as a float of seconds can say it."""
    grant = Grant(number, start / 1e9, (start + length) / 1e9, environment={"X": value})
    back = decode(encode(grant))
    assert isinstance(back, Grant)
    assert back.number == number
    assert back.environment == {"X": value}
    assert back.term_by == pytest.approx(grant.term_by, abs=1e-6)
    assert back.kill_by == pytest.approx(grant.kill_by, abs=1e-6)


def test_instants_are_whole_nanoseconds_on_the_wire_and_nothing_else_is() -> None:
    """Both processes mean the same instant."""
    fields = json.loads(encode(Grant(1, 1234.000000001, 1238.5)))
    assert fields["term_by"] == 1234000000001
    assert fields["kill_by"] == 1238500000000
    assert json.loads(encode(Hello("x", 0)))["kill_by"] is None
    assert json.loads(encode(Settings(CommandSettings(argv=["a"]))))["command"]["stop_timeout"] == 10.0


def test_unknown_fields_are_ignored_and_missing_ones_have_defaults() -> None:
    """A keeper outlives an upgrade of its elector."""
    assert decode(b'{"is":"Ack","number":3,"mood":"good"}') == Ack(3)
    assert decode(b'{"is":"Settings","command":{"argv":["x"],"new":1,"backoff":{"max":9,"new":2}}}') == Settings(
        CommandSettings(argv=["x"], backoff=BackoffSettings(max=9))
    )


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'["is"]',
        b"3",
        b"{}",
        b'{"is":"Nothing"}',
        b'{"is":["Ack"]}',
        b'{"is":null}',
        b'{"is":"Ack"}',
        b'{"is":"Grant","number":1,"term_by":"soon","kill_by":2}',
        b'{"is":"Settings","command":7}',
        b'{"is":"Settings","command":{"signal_rewrite":{"x":1}}}',
        b'{"is":"Settings","command":{"backoff":[]}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_message_is_a_value_error_and_nothing_else(datagram: bytes) -> None:
    """Neither process may be brought down by the other."""
    with pytest.raises(ValueError, match="not a message"):
        decode(datagram)


@pytest.mark.parametrize(
    "datagram",
    [
        b'{"is":"Grant","number":1,"term_by":1' + b"0" * 400 + b',"kill_by":2}',
        b'{"is":"Settings","command":{"signal_rewrite":{"1":Infinity}}}',
    ],
    ids=["instant", "signal"],
)
def test_a_number_that_is_too_large_is_a_value_error_too(datagram: bytes) -> None:
    """JSON has no largest number."""
    with pytest.raises(ValueError, match="not a message"):
        decode(datagram)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from([kind.__name__ for kind in Message.__args__])
field_names = st.sampled_from(sorted({name for kind in Message.__args__ for name in kind.FIELDS} | {"is"}))


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_garbage_is_a_value_error_or_a_message(datagram: bytes) -> None:
    """Any bytes at all."""
    _decoded_or_refused(datagram)


@given(names, st.dictionaries(field_names, json_values, max_size=5))
def test_a_message_with_wrong_fields_is_a_value_error_or_a_message(name: str, fields: dict[str, object]) -> None:
    """Nearly right is the likelier kind of garbage."""
    _decoded_or_refused(json.dumps({**fields, "is": name}).encode())


def _decoded_or_refused(datagram: bytes) -> None:
    try:
        decode(datagram)
    except ValueError:
        pass


def test_a_usual_message_is_far_from_the_limit() -> None:
    """Sending never has to wait."""
    assert max(len(encode(message)) for message in MESSAGES) < MAX_MESSAGE / 64
