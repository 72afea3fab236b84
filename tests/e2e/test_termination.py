"""The termination message, and the command's standard error on its way through us."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.instances import Fleet, Instance, eventually, is_alive, now, renews, state_of
from tests.e2e.locks import Lock

DEFAULT = "/dev/termination-log"
MEGABYTES = 10


def message_settings(fleet: Fleet, **more: Any) -> dict[str, Any]:
    return {"termination_message": {"path": str(fleet.folder / "message"), **more}}


def message(fleet: Fleet) -> str:
    return (fleet.folder / "message").read_text()


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


class Reader:
    """The other end of an instance's standard error, read on a thread."""

    def __init__(self) -> None:
        self.content = bytearray()
        self._read, self.fd = os.pipe()
        self._may_read = threading.Event()
        self._may_read.set()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """Read nothing more, once what is being read is there, until `go_on`."""
        self._may_read.clear()

    def go_on(self) -> None:
        self._may_read.set()

    def is_full(self) -> bool:
        """A writer would have to wait."""
        return not select.select([], [self.fd], [], 0)[1]

    def all(self) -> bytes:
        """All, when the last writer has ended."""
        os.close(self.fd)
        self.fd = -1
        self._thread.join(30)
        assert not self._thread.is_alive(), "somebody still holds standard error"
        return bytes(self.content)

    def close(self) -> None:
        self._may_read.set()
        if self.fd >= 0:
            os.close(self.fd)

    def _live(self) -> None:
        while self._may_read.wait() and (part := os.read(self._read, 65536)):
            self.content += part
        os.close(self._read)


@pytest.fixture
def reader() -> Iterator[Reader]:
    one = Reader()
    yield one
    one.close()


# ---------------------------------------------------------------- the message


def test_the_end_of_the_command_and_its_last_lines_are_told(fleet: Fleet, file_lock: Lock) -> None:
    """What `kubectl describe pod` shows without a look at the logs."""
    one = fleet.start(
        "one",
        file_lock,
        command=shell("for i in 1 2 3 4; do echo line $i >&2; done; printf 'not ended' >&2; exit 3"),
        settings={**message_settings(fleet, stderr_lines=3), "restart": {"policy": "never"}},
    )
    assert one.ends() == 3
    first, *rest = message(fleet).splitlines()
    assert first.startswith("the command exited with 3 after ") and first.endswith("s")
    assert rest == ["line 3", "line 4", "not ended"]
    log = one.stderr
    assert f"{first}\n" in log, "the same words as in the log"
    assert log.index("line 4\n") < log.index("not ended") < log.index(first), "it comes after what the command said"


def test_a_death_by_a_signal_is_named(fleet: Fleet, file_lock: Lock) -> None:
    """An end without a last word is the one that people look for."""
    settings = {**message_settings(fleet), "restart": {"policy": "never"}}
    one = fleet.start("one", file_lock, command=shell("kill -9 $$"), settings=settings)
    assert one.ends() == 128 + signal.SIGKILL
    assert message(fleet).startswith("the command was killed by SIGKILL after ")


def test_the_stop_that_was_asked_for_is_named(fleet: Fleet, file_lock: Lock) -> None:
    """A planned end must not look like a crash."""
    one = fleet.start("one", file_lock, settings=message_settings(fleet))
    one.started()
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert message(fleet).startswith("SIGTERM: the command exited with 0 after ")


def test_a_crash_loop_that_was_given_up_is_named_with_the_lines_of_its_last_run(fleet: Fleet, file_lock: Lock) -> None:
    """All runs write through the same pipe."""
    restart = {"max_restarts": 2, "on_give_up": "exit", "backoff": {"initial": "10ms"}}
    one = fleet.start(
        "one",
        file_lock,
        command=shell(f"echo run >> {fleet.folder}/runs; echo failed $(wc -l < {fleet.folder}/runs) >&2; exit 4"),
        settings={**message_settings(fleet), "restart": restart},
    )
    assert one.ends() == 4
    first, *rest = message(fleet).splitlines()
    assert "exited with 4" in first and "3 failures in a row: giving up" in first
    assert rest == ["failed 1", "failed 2", "failed 3"]


def test_lost_leadership_is_named(fleet: Fleet, file_lock: Lock) -> None:
    """`election.on_lost: exit`: status 75 alone says nothing to who has not read the manual."""
    one = fleet.start("one", file_lock, settings={**message_settings(fleet), "election": {"on_lost": "exit"}})
    one.started()
    file_lock.take("somebody")
    assert one.ends() == 75
    assert message(fleet).startswith("leadership lost: ")


def test_a_configuration_that_cannot_be_used_is_named_where_the_variable_says(fleet: Fleet, file_lock: Lock) -> None:
    """Of a broken file nothing can be concluded, its termination_message neither."""
    path = {"AWAITELECT_TERMINATION_MESSAGE_PATH": str(fleet.folder / "message")}
    one = fleet.start("one", file_lock, settings={"stop": {"timeout": "soon"}, "umask": "9"}, environment=path)
    assert one.ends() == 78
    said = message(fleet)
    assert said.startswith("configuration: ") and said.count("\n") == 1
    assert "stop.timeout" in said and "umask" in said


def test_a_missing_command_is_named(fleet: Fleet, file_lock: Lock) -> None:
    """Status 127 of a container is an image that was built wrong."""
    one = fleet.start("one", file_lock, command=["/no/such/program"], settings=message_settings(fleet))
    assert one.ends() == 127
    assert message(fleet) == "cannot execute '/no/such/program': no such file (errno 2)\n"


def test_a_message_of_the_commands_own_is_left_alone(fleet: Fleet, file_lock: Lock) -> None:
    """Programs that know the file write a better one."""
    path = fleet.folder / "message"
    path.touch()
    one = fleet.start("one", file_lock, command=shell(f"echo mine > {path}"), settings=message_settings(fleet))
    assert one.ends() == 0
    assert message(fleet) == "mine\n"


def test_the_message_of_an_earlier_run_is_replaced(fleet: Fleet, file_lock: Lock) -> None:
    """As a whole, even where it was longer."""
    (fleet.folder / "message").write_text("old\n" * 500)
    one = fleet.start("one", file_lock, command=["true"], settings=message_settings(fleet))
    assert one.ends() == 0
    assert message(fleet).startswith("the command exited with 0") and "old" not in message(fleet)


def test_long_and_strange_lines_leave_valid_text_of_4096_bytes(fleet: Fleet, file_lock: Lock) -> None:
    """Kubernetes' limit; what is cut off are the oldest lines."""
    script = "for i in $(seq 300); do printf 'line %s \\303\\274\\377 and so on and so on\\n' $i; done >&2"
    settings = message_settings(fleet, stderr_lines=1000)
    one = fleet.start("one", file_lock, command=shell(script), settings=settings)
    assert one.ends() == 0
    content = (fleet.folder / "message").read_bytes()
    lines = content.decode().splitlines()
    assert 4000 < len(content) <= 4096
    assert lines[0].startswith("the command exited with 0")
    first = 301 - len(lines[1:])
    assert lines[1:] == [f"line {number} ü\ufffd and so on and so on" for number in range(first, 301)]


@pytest.mark.parametrize("target", ["a directory", "a pipe without a reader", "no folder"])
def test_a_message_that_cannot_be_written_changes_nothing(fleet: Fleet, file_lock: Lock, target: str) -> None:
    """And holds nobody up."""
    path = fleet.folder / "message"
    if target == "a directory":
        path.mkdir()
    elif target == "a pipe without a reader":
        os.mkfifo(path)
    else:
        path = path / "below"
    settings = {**message_settings(fleet), "termination_message": {"path": str(path)}, "restart": {"policy": "never"}}
    one = fleet.start("one", file_lock, command=shell("exit 5"), settings=settings)
    assert one.ends() == 5
    assert "cannot write the termination message" in one.stderr


@pytest.mark.parametrize("exists", [True, False])
def test_the_file_of_kubernetes_is_written_where_it_exists_and_never_made(
    fleet: Fleet, file_lock: Lock, exists: bool
) -> None:
    """On a machine without Kubernetes nothing appears in /dev. Needs root: the test has a /dev of its own."""
    said = fleet.folder / "found"
    prepare = (
        "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && "
        f'{f"touch {DEFAULT} &&" if exists else ""} "$@"; status=$?; cp {DEFAULT} {said}; exit $status'
    )
    prefix = ("unshare", "--mount", "sh", "-c", prepare, "sh")
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("needs root, and mounts")
    said.unlink(missing_ok=True)
    one = fleet.start("one", file_lock, command=shell("echo last >&2"), prefix=prefix)
    assert one.ends() == 0
    if exists:
        first, *rest = said.read_text().splitlines()
        assert first.startswith("the command exited with 0") and rest == ["last"]
    else:
        assert not said.exists()


# ---------------------------------------------------------------- what passes through us


def test_without_lines_the_command_has_our_standard_error_itself(fleet: Fleet, file_lock: Lock, reader: Reader) -> None:
    """`stderr_lines: 0` is the way to have nobody in between."""
    ours = os.fstat(reader.fd).st_ino
    for lines in (0, 1):
        script = f"readlink /proc/self/fd/2 > {fleet.folder}/stderr-{lines}"
        settings = message_settings(fleet, stderr_lines=lines)
        one = fleet.start(f"with-{lines}", file_lock, command=shell(script), settings=settings, stderr=reader.fd)
        assert one.ends() == 0
    assert (fleet.folder / "stderr-0").read_text() == f"pipe:[{ours}]\n"
    assert (fleet.folder / "stderr-1").read_text() != f"pipe:[{ours}]\n"


def test_ten_megabytes_come_through_byte_for_byte(fleet: Fleet, file_lock: Lock, reader: Reader) -> None:
    """Binary bytes, lines of all lengths, no end of line at the end; our own lines stand between its lines."""
    script = (
        "import os, random, sys; chance = random.Random(1); left = int(sys.argv[1])\n"
        "while left > 0:\n"
        "    line = b'>' + chance.randbytes(chance.randrange(2000)).replace(b'\\n', b'.') + b'\\n'\n"
        "    os.write(2, line); left -= len(line)\n"
        "os.write(2, b'>' + bytes(range(256)).replace(b'\\n', b'') + b'not ended')\n"
    )
    command = [sys.executable, "-I", "-S", "-c", script, str(MEGABYTES * 1_000_000)]
    expected = subprocess.run(command, stderr=subprocess.PIPE, check=True).stderr
    one = fleet.start("one", file_lock, command=command, settings=message_settings(fleet), stderr=reader.fd)
    while one.process.poll() is None:
        one.tell(signal.SIGWINCH)  # each is a debug line of ours
        select.select([], [], [], 0.005)
    assert one.ends() == 0
    said = reader.all()
    rest = said[said.index(b">") :]
    lines = rest.split(b"\n")
    theirs = [line for line in lines if line.startswith(b">")]
    assert b"forwarded" in said, "there were lines of ours among them"
    last = theirs.pop().partition(b"not ended")[0]
    got = b"\n".join(theirs) + b"\n" + last + b"not ended"
    assert len(got) == len(expected)
    assert hashlib.sha256(got).digest() == hashlib.sha256(expected).digest()


def test_part_of_a_line_is_seen_at_once(fleet: Fleet, file_lock: Lock, reader: Reader) -> None:
    """Progress and questions have no end of line."""
    go_on = fleet.folder / "go-on"
    script = f"printf 'how far? ' >&2; until [ -e {go_on} ]; do sleep 0.01; done; echo far >&2"
    one = fleet.start("one", file_lock, command=shell(script), settings=message_settings(fleet), stderr=reader.fd)
    eventually(lambda: b"how far? " in reader.content, "half a line comes through")
    go_on.touch()
    assert one.ends() == 0
    assert message(fleet).splitlines()[1:] == ["how far? far"]


def test_nothing_is_lost_for_a_reader_that_is_behind(fleet: Fleet, file_lock: Lock, reader: Reader) -> None:
    """What the pipe of the container's log cannot take when we end: it is made larger, and outlives us."""
    reader.pause()
    count = 180_000  # in the reader's pipe, in the keeper, and in the command's pipe
    command = shell(f"head -c {count} /dev/zero | tr '\\0' x >&2; touch {fleet.folder}/written")
    one = fleet.start("one", file_lock, command=command, settings=message_settings(fleet), stderr=reader.fd)
    began = now()
    assert one.ends() == 0
    assert now() - began < 10
    assert (fleet.folder / "written").exists()
    reader.go_on()
    assert reader.all().count(b"x") == count


def test_a_line_of_ours_waits_for_the_reader_with_those_of_the_command(
    fleet: Fleet, file_lock: Lock, reader: Reader
) -> None:
    """What we say about the command stands after what it had said before."""
    reader.pause()
    script = f"seq 30000 >&2; touch {fleet.folder}/written; read forever"
    read, write = os.pipe()
    one = fleet.start(
        "one", file_lock, command=shell(script), settings=message_settings(fleet), stderr=reader.fd, stdin=read
    )
    os.close(read)
    eventually((fleet.folder / "written").exists, "it has written more than the reader's pipe holds")
    eventually(reader.is_full, "standard error is full")
    one.tell(signal.SIGWINCH)
    main = eventually(lambda: fleet.child_running(one.pid, script), "the command runs")
    eventually(lambda: is_asleep(one.pid), "the keeper has done what is to be done")
    reader.go_on()
    eventually(lambda: b"SIGWINCH forwarded" in reader.content, "our line comes")
    assert is_alive(main)
    one.tell(signal.SIGTERM)
    one.ends()
    os.close(write)
    lines = reader.all().splitlines()
    assert [line for line in lines if line.isdigit()] == [b"%d" % number for number in range(1, 30001)]
    forwarded = next(at for at, line in enumerate(lines) if b"SIGWINCH forwarded" in line)
    assert lines.index(b"15000") < forwarded


def test_a_reader_that_stands_still_delays_the_command_and_nothing_else(
    fleet: Fleet, lock: Lock, reader: Reader
) -> None:
    """P18: no renewal, no signal and no stop; and what we keep of its output stays small."""
    reader.pause()
    script = (
        "import os, signal, sys, threading\n"
        "got = lambda number, frame: os.close(os.open(sys.argv[1] + str(number), os.O_CREAT))\n"
        "signal.signal(signal.SIGUSR1, got)\n"
        "def flood():\n"
        "    while True: os.write(2, b'y' * 65536)\n"
        "threading.Thread(target=flood, daemon=True).start()\n"
        "while True: signal.pause()\n"
    )
    sign = fleet.folder / "signal-"
    command = [sys.executable, "-I", "-S", "-c", script, str(sign)]
    one = fleet.start("one", lock, command=command, settings=message_settings(fleet), stderr=reader.fd)
    eventually(reader.is_full, "standard error is full")
    main = eventually(lambda: fleet.child_running(one.pid, str(sign)), "the command runs")
    before = resident(one.pid)
    renews(lock, 4)
    told = now()
    one.tell(signal.SIGUSR1)
    eventually(Path(f"{sign}{int(signal.SIGUSR1)}").exists, "the signal comes through")
    assert now() < told + 10
    assert is_alive(main)
    assert resident(one.pid) - before < 4_000_000
    told = now()
    one.tell(signal.SIGTERM)
    assert one.ends() == 128 + signal.SIGTERM
    assert now() < told + 9
    record = lock.record()
    assert record is not None and record.holder == ""


def test_an_orphan_that_holds_the_pipe_delays_nothing(fleet: Fleet, file_lock: Lock) -> None:
    """P15: nobody waits for the end of a stream. Here it is one that is not ours to kill: the test itself."""
    one = fleet.start("one", file_lock, settings=message_settings(fleet))
    main = one.started().pid
    held = os.open(f"/proc/{main}/fd/2", os.O_WRONLY)
    try:
        os.write(held, b"last\n")
        told = now()
        one.tell(signal.SIGTERM)
        assert one.ends() == 0
        assert now() < told + 9
    finally:
        os.close(held)
    assert message(fleet).splitlines()[1:] == ["last"]


def test_a_reader_that_has_gone_is_felt_by_the_command_alone(fleet: Fleet, file_lock: Lock) -> None:
    """As without us: SIGPIPE to who writes, and we go on."""
    read, write = os.pipe()
    os.close(read)
    script = f"sleep 0; (while :; do echo x >&2; done); echo $? > {fleet.folder}/status; sleep 1000"
    one = fleet.start("one", file_lock, command=shell(script), settings=message_settings(fleet), stderr=write)
    os.close(write)
    status = fleet.folder / "status"
    eventually(lambda: status.exists() and status.read_text(), "who writes there dies")
    assert status.read_text() == f"{128 + signal.SIGPIPE}\n"
    renews(file_lock, 2)
    one.tell(signal.SIGTERM)
    assert one.ends() == 128 + signal.SIGTERM


def test_a_command_of_another_user_can_open_its_standard_error(fleet: Fleet, file_lock: Lock) -> None:
    """Many images send a log file to /dev/stderr. Needs root."""
    if os.geteuid():
        pytest.skip("needs root")
    settings = {**message_settings(fleet), "user": "nobody", "restart": {"policy": "never"}, "working_dir": "/"}
    one = fleet.start("one", file_lock, command=shell("id -un > /dev/stderr"), settings=settings)
    assert one.ends() == 0
    assert message(fleet).splitlines()[1:] == ["nobody"]


@pytest.mark.parametrize("who", ["hook", "probe"])
def test_what_runs_beside_the_command_as_another_user_can_open_its_standard_error(
    fleet: Fleet, file_lock: Lock, reader: Reader, who: str
) -> None:
    """As the command can, and before the first command has been given it. Needs root."""
    if os.geteuid():
        pytest.skip("needs root")
    program = shell("echo by $(id -un) > /dev/stderr; exit 1")
    beside: dict[str, Any] = {"hooks": {"pre_start": program}}
    if who == "probe":
        beside = {"start": {"ready": "probe", "probe": {"exec": {"command": program}}}}
    settings = {**beside, "user": "nobody", "working_dir": "/", "restart": {"policy": "never"}}
    one = fleet.start("one", file_lock, command=["sleep", "1000"], settings=settings, stderr=reader.fd)
    eventually(lambda: b"by nobody" in reader.content, f"the {who} is heard")
    one.tell(signal.SIGTERM)
    one.ends()


def test_restarts_share_one_pipe_and_leave_no_descriptor_behind(fleet: Fleet, file_lock: Lock) -> None:
    """P19: a crash loop may go on for days."""
    restart = {"policy": "always", "backoff": {"initial": "1ms"}, "max_restarts": 1_000_000}
    settings = {**message_settings(fleet), "restart": restart}
    one = fleet.start("one", file_lock, command=shell("echo once more >&2"), settings=settings)

    def runs() -> int:
        return one.stderr.count("once more\n")

    eventually(lambda: runs() >= 5, "it runs again and again")
    before = descriptors(one)
    eventually(lambda: runs() >= 60, "and again")
    assert descriptors(one) <= before + 8  # those of the run that is there just now, not one for each of 55
    one.tell(signal.SIGTERM)
    one.ends()


def test_a_terminal_is_the_commands_own(fleet: Fleet, file_lock: Lock) -> None:
    """Programs colour what they write to a terminal, and ask it questions."""
    main, side = os.openpty()
    script = f"test -t 2; echo $? > {fleet.folder}/status"
    one = fleet.start("one", file_lock, command=shell(script), settings=message_settings(fleet), stderr=side)
    os.close(side)
    assert one.ends() == 0
    os.close(main)
    assert (fleet.folder / "status").read_text() == "0\n"
    assert message(fleet).startswith("the command exited with 0")


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def is_asleep(pid: int) -> bool:
    return state_of(pid) == "S"


def descriptors(one: Instance) -> int:
    return len(os.listdir(f"/proc/{one.pid}/fd"))
