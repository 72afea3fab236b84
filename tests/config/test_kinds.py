"""Durations, listen addresses and signals, by tables."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from awaitelect.config.kinds import Refused, duration
from awaitelect.config.listen import Listen, parse_listen
from awaitelect.config.process_kinds import signal_name, signal_number


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("15s", 15), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), (".5s", 0.5), ("1.s", 1), ("3us", 3e-6),
     ("3µs", 3e-6), ("3μs", 3e-6), (0, 0), (2, 2), (0.25, 0.25), (2**31 - 1, 2**31 - 1)],
)  # fmt: skip
def test_durations_are_gos_or_seconds(value: Any, seconds: float) -> None:
    """People who know Kubernetes write them so."""
    assert duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    ["", "-1s", "+1s", "1d", "1 s", "15", "s", "1s ", "٣s", "inf", "1e3s", -0.1, float("nan"), float("inf"),
     float("-inf"), True, None, [], {}, 2**31, 10**400, -(10**400), "9999999999h", "9" * 5000 + "h"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(value: Any) -> None:
    """Also what durationpy would take: days, and more than a lease can have."""
    with pytest.raises(Refused, match="a duration such as 15s"):
        duration(value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [(":9999", ("", 9999)), ("127.0.0.1:9999", ("127.0.0.1", 9999)), ("[::1]:9999", ("::1", 9999)),
     ("[::]:0", ("::", 0)), ("localhost:80", ("localhost", 80)), ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
     (":65535", ("", 65535)), (":http", ("", 80)), ("", None)],
)  # fmt: skip
def test_listen_addresses_are_gos(text: str, parts: tuple[str, int] | None) -> None:
    """The old STATUS_ENDPOINT takes them, named ports included."""
    assert parse_listen(text) == (Listen(*parts) if parts else None)
    if parts and text != ":http":
        assert str(parse_listen(text)) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [("9999", "':9999'"), ("::1:9999", "brackets"), ("localhost", ""), (":65536", "65535"), (":-1", "65535"),
     ("[::1]", ""), (":", "65535"), (":nosuchport", "nosuchport"), ("a b:80", ""), ("[1.2.3.4]:80", "IPv6"),
     ("http://x:80", ""), (9999, ""), (None, "")],
)  # fmt: skip
def test_what_is_no_listen_address_is_refused(text: Any, hint: str) -> None:
    """With the nearest right way of writing where it is known."""
    with pytest.raises(Refused) as caught:
        parse_listen(text)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("value", "number"),
    [("SIGTERM", 15), ("TERM", 15), ("term", 15), (15, 15), ("RTMIN", signal.SIGRTMIN),
     ("SIGRTMIN+3", signal.SIGRTMIN + 3), ("RTMAX-1", signal.SIGRTMAX - 1)],
)  # fmt: skip
def test_signals_have_names_and_numbers(value: Any, number: int) -> None:
    """With or without SIG, as kill(1) takes them."""
    assert signal_number(value) == number
    assert signal_number(signal_name(number)) == number


@pytest.mark.parametrize("value", ["", "SIG", "RTMIN+99", 0, -1, 65, True, None, "15", 1.0])
def test_what_is_no_signal_is_refused(value: Any) -> None:
    """A stop signal that does not exist would be noticed when it is needed."""
    with pytest.raises(Refused):
        signal_number(value)
