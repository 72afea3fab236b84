"""The text of the termination message: what fits in it, whatever was said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from awaitelect.keeper.termination import LIMIT, message

LINES = st.lists(st.binary(max_size=3000).map(lambda line: line.replace(b"\n", b"")), max_size=12)


@given(st.text(max_size=3000), LINES)
def test_it_is_valid_text_within_the_limit_and_begins_with_the_cause(cause: str, lines: list[bytes]) -> None:
    """Kubernetes cuts what is longer, and shows nothing of what is no UTF-8."""
    content = message(cause, lines)
    assert len(content) <= LIMIT
    first, *rest = content.decode().removesuffix("\n").split("\n")
    assert first.removesuffix(" …") in " ".join(cause.encode("utf-8", "replace").decode().split())
    shown = [line.decode("utf-8", "replace") for line in lines]
    assert len(rest) <= len(lines)
    if len(rest) > 1:
        assert rest == shown[len(shown) - len(rest) :], "whole lines, the last ones"
    elif rest:
        assert shown[-1].endswith(rest[0])


def test_of_one_line_that_is_too_long_the_end_is_kept() -> None:
    """The end of a long line is what was said last. It is not cut inside a character."""
    cause, line = "the command exited with 1 after 1.0s", "ü" * 4000
    first, rest = message(cause, [b"before", line.encode()]).decode().removesuffix("\n").split("\n")
    assert first == cause
    assert line.endswith(rest) and LIMIT - 3 <= len(f"{first}\n{rest}\n".encode()) <= LIMIT


def test_a_long_cause_leaves_half_for_the_lines() -> None:
    """A configuration can have a hundred mistakes."""
    content = message("configuration: " + "x" * 9000, [b"a line"])
    assert content.endswith(" …\na line\n".encode())
    assert 2000 < len(content) <= LIMIT // 2 + 10
