"""Our own log lines: they are in nobody's way, and programs can read them."""

from __future__ import annotations

import json
import os
import re
import signal

from tests.e2e.instances import LASTING, Fleet, eventually, is_alive, now, renews
from tests.e2e.locks import Lock


def test_a_reader_that_stands_still_delays_no_renewal_and_no_stop(fleet: Fleet, lock: Lock) -> None:
    """P18: a container's log driver that hangs must not cost the lease."""
    read, write = os.pipe()
    filler = os.open(f"/proc/self/fd/{write}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        try:
            while True:
                os.write(filler, b"x" * 4096)
        except BlockingIOError:
            pass
        one = fleet.start("one", lock, settings={"election": LASTING}, stderr=write)
        start = one.started()
        renews(lock, 4)
        assert is_alive(start.pid)
        assert os.get_blocking(write), "the command's own stderr is as it was"
        told = now()
        one.tell(signal.SIGTERM)
        assert one.ends() == 0
        assert now() < told + 20
    finally:
        for fd in (read, write, filler):
            os.close(fd)
    record = lock.record()
    assert record is not None and record.holder == ""


def test_a_reader_that_has_gone_is_no_reason_to_end(fleet: Fleet, file_lock: Lock) -> None:
    """`awaitelect … 2>&1 | head` must not take the leader down."""
    read, write = os.pipe()
    os.close(read)
    one = fleet.start("one", file_lock, stderr=write)
    os.close(write)
    one.started()
    renews(file_lock, 3)
    one.tell(signal.SIGTERM)
    assert one.ends() == 0


def test_json_lines_parse_and_say_when_what_and_how_bad(fleet: Fleet, file_lock: Lock) -> None:
    """Of keeper and elector alike."""
    one = fleet.start("one", file_lock, "after=0.3", settings={"log": {"format": "json"}})
    assert one.ends() == 0
    lines = [json.loads(line) for line in one.stderr.splitlines()]
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    said = " ".join(line["message"] for line in lines)
    assert "lease acquired" in said and "command started" in said


def test_logfmt_lines_parse(fleet: Fleet, file_lock: Lock) -> None:
    """Each line is pairs and nothing else; a value with blanks is quoted."""
    one = fleet.start("one", file_lock, "after=0.3", settings={"log": {"format": "logfmt"}})
    assert one.ends() == 0
    pair = r'[a-z_]+=(?:"(?:[^"\\]|\\.)*"|[^\s"=]+)'
    for line in one.stderr.splitlines():
        assert re.fullmatch(rf"{pair}(?: {pair})*", line), line
        assert line.startswith("time=") and " msg=" in line


def test_lines_in_a_file_are_not_written_over(fleet: Fleet, file_lock: Lock, tmp_path: os.PathLike[str]) -> None:
    """Keeper, elector and command share one offset, without O_APPEND; a description of our own would start at 0."""
    path = fleet.folder / "shared"
    script = "for i in $(seq 200); do echo command-line-$i-end >&2; sleep 0.005; done"
    with open(path, "wb") as file:
        file.write(b"a line from before us\n")
        file.flush()
        one = fleet.start(
            "one", file_lock, command=["sh", "-c", script], settings={"election": LASTING}, stderr=file.fileno()
        )
        assert one.ends() == 0
    lines = path.read_text().splitlines()
    assert lines[0] == "a line from before us"
    assert [line for line in lines if line.startswith("command-line")] == [
        f"command-line-{number}-end" for number in range(1, 201)
    ]
    assert any("lease acquired" in line for line in lines)


def test_all_formats_are_given_on_the_command_line_too(fleet: Fleet, file_lock: Lock) -> None:
    """The option is known from the first line on, before the configuration is read."""
    one = fleet.start("one", file_lock, "after=0.1", options=["--log-format", "json", "--log-level", "debug"])
    assert one.ends() == 0
    eventually(lambda: [json.loads(line) for line in one.stderr.splitlines()], "all lines are JSON")
