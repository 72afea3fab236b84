"""Log lines: they never wait, never break, and can be read."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from awaitelect.logs import Log, Outlet


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:
            pass


def fill(outlet: Outlet) -> int:
    """Write until nothing fits any more; how many lines did."""
    written = 0
    while not outlet.dropped:
        outlet.write(b"x" * 1023 + b"\n")
        written += 1
    return written - 1


def drain(fd: int) -> None:
    while True:
        os.read(fd, 65536)


def test_a_full_pipe_drops_lines_and_counts_them(pipe: tuple[int, int]) -> None:
    """The count stands before the first line that fits again: people learn that there is a gap."""
    read, write = pipe
    outlet = Outlet(write)
    fill(outlet)
    outlet.write(b"lost\n")
    lost = outlet.dropped
    os.set_blocking(read, False)
    with pytest.raises(BlockingIOError):
        drain(read)
    outlet.write(b"here again\n")
    assert os.read(read, 65536) == b"(%d log lines could not be written)\nhere again\n" % lost
    assert outlet.dropped == 0
    os.close(outlet._fd)


def test_the_descriptor_that_we_share_stays_blocking(pipe: tuple[int, int]) -> None:
    """The command writes to the same description; it must not get EAGAIN for our sake."""
    outlet = Outlet(pipe[1])
    outlet.write(b"line\n")
    assert os.get_blocking(pipe[1])
    os.close(outlet._fd)


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_a_write_that_raises_a_signal_keeps_it_to_itself(pipe: tuple[int, int], tmp_path: Path, kind: str) -> None:
    """SIGPIPE and SIGXFSZ of our own writes are nobody's business: the keeper would forward them to the command."""
    number = signal.SIGPIPE if kind == "pipe" else signal.SIGXFSZ
    come: list[int] = []
    before = signal.signal(number, lambda caught, frame: come.append(caught))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        if kind == "pipe":
            os.close(pipe[0])
            outlet = Outlet(pipe[1])
        else:
            os.close(pipe[1])
            fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
            outlet = Outlet(fd)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        outlet.write(b"line\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(number, before)
    assert outlet.dropped == 1 and come == []
    os.close(outlet._fd)


def test_a_file_is_written_at_its_own_offset(tmp_path: Path) -> None:
    """A shared file without O_APPEND has one offset for all who write to it."""
    with open(tmp_path / "log", "wb", buffering=0) as file:
        file.write(b"first\n")
        Outlet(file.fileno()).write(b"second\n")
        file.write(b"third\n")
    assert (tmp_path / "log").read_bytes() == b"first\nsecond\nthird\n"


def test_a_socket_without_a_reader_waits_no_more_than_a_pipe() -> None:
    """journald gives services a socket as standard error."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outlet = Outlet(ours.fileno())
        assert fill(outlet) > 0
        assert outlet._socket is not None
        outlet._socket.close()


def written(tmp_path: Path, form: str, level: str, text: str, **fields: str | int | float | None) -> str:
    with open(tmp_path / "log", "wb") as file:
        Log(level="info", form=form, fd=file.fileno(), name="lease").write(level, text, **fields)
    return (tmp_path / "log").read_text()


@pytest.mark.parametrize("text", ["plain", 'a "quoted" = one', "two\nlines", "\x1b[31mred", "häßlich ✓", "back\\slash"])
def test_every_text_is_one_line_in_every_format(tmp_path: Path, text: str) -> None:
    """What a server answers may end up in a message; it must not forge lines or move the cursor."""
    for form in ("text", "json", "logfmt"):
        line = written(tmp_path, form, "warning", text)
        assert line.count("\n") == 1 and line.endswith("\n") and "\x1b" not in line
        if form == "json":
            assert json.loads(line)["message"] == text


def test_fields_stand_on_lines_for_programs_and_empty_ones_do_not(tmp_path: Path) -> None:
    """A key without a value says nothing."""
    line = json.loads(written(tmp_path, "json", "info", "text", lock="file:x", token=7, holder="", cause=None))
    assert line["lock"] == "file:x" and line["token"] == 7 and line["name"] == "lease"
    assert "holder" not in line and "cause" not in line
    assert 'msg=text name=lease lock="a b"' in written(tmp_path, "logfmt", "info", "text", lock="a b")


def test_what_is_below_the_level_is_not_written(tmp_path: Path) -> None:
    """Nor does an unknown level or format break anything: the configuration's check comes later and tells."""
    assert written(tmp_path, "text", "debug", "text") == ""
    with open(tmp_path / "log", "wb") as file:
        Log(level="loud", form="xml", fd=file.fileno()).info("text")
    assert (tmp_path / "log").read_text().endswith("INFO    awaitelect: text\n")
    assert not written(tmp_path, "text", "error", "x" * 10_000).endswith("x" * 4000)
