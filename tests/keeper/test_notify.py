"""Who is believed when something is said at the command's NOTIFY_SOCKET; over the real socket, by real users."""

from __future__ import annotations

import os
import select
import socket
import uuid
from collections.abc import Iterator

import pytest

from awaitelect.keeper.notify import Notices

COMMANDS, STRANGER = 54321, 54322
"""The command's user, and one that has nothing to do with it."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the user")


@pytest.fixture
def notices() -> Iterator[Notices]:
    one = Notices(uuid.uuid4().hex)
    yield one
    one.close()


def say(variable: str, user: int, content: bytes) -> None:
    """Say it as this user, from a process that has ended when this returns."""
    pid = os.fork()
    if pid == 0:
        try:
            if user != os.geteuid():
                os.setresuid(user, user, user)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
                one.sendto(content, f"\0{variable[1:]}")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, "nobody is kept from sending"


@needs_root
def test_the_commands_user_and_root_are_believed_and_nobody_else(notices: Notices) -> None:
    """The name is abstract: whoever is in the network namespace can find it, and must not turn traffic on."""
    for user in (STRANGER, COMMANDS, STRANGER, 0, STRANGER):
        say(notices.variable, user, b"READY=1\nSTATUS=by %d" % user)
    assert [one["STATUS"] for one in notices.take(COMMANDS)] == [f"by {COMMANDS}", "by 0"]
    assert list(notices.take(COMMANDS)) == []


@needs_root
def test_descriptors_that_are_sent_along_are_not_kept(notices: Notices) -> None:
    """Else any program could have us run out of them. Nor does a notice with them hide who has sent it."""
    before = len(os.listdir("/proc/self/fd"))
    for user in (COMMANDS, STRANGER):
        pid = os.fork()
        if pid == 0:
            os.setresuid(user, user, user)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
                one.connect(f"\0{notices.variable[1:]}")
                socket.send_fds(one, [b"READY=1"], [0, 1, 2] * 10)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    assert select.select([notices], [], [], 0)[0]
    assert list(notices.take(COMMANDS)) == [{"READY": "1"}]
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_no_notice_is_passed_over(notices: Notices) -> None:
    """Bytes that are no text, lines without a value, none at all: whatever came before or after is heard."""
    for content in (b"\xff\xfe", b"", b"READY", b"A=1=2\nnonsense\nB=\xff"):
        say(notices.variable, os.geteuid(), content)
    assert list(notices.take(os.geteuid())) == [{}, {}, {}, {"A": "1=2", "B": "\ufffd"}]
