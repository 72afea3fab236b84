"""Real instances of awaitelect, and the signs that their commands and their logs give, stamped by the kernel.

Standard output and standard error of each instance are datagram sockets: what is written there comes with the instant
at which it was sent and with the pid of the sender, however late the bench gets to read it. All instants are seconds of
CLOCK_BOOTTIME.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

T = TypeVar("T")

PROGRAM = str(Path(sys.executable).parent / "awaitelect")
COMMAND = ("/bin/sh", "-c", "trap 'echo last; exit 0' TERM; echo first; read forever")
"""Built-ins only: from its exec to its first sign it needs about a millisecond. It waits on standard input."""
PATIENCE = 30.0
"""Seconds until the bench gives up on something that has to happen."""
_SO_TIMESTAMPNS = 35
_SET_CHILD_SUBREAPER = 36
_PACE = 0.0002
"""Seconds between two looks at something that nobody tells of."""


def now() -> float:
    """This instant."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def eventually(question: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """The first answer that is true."""
    until = now() + patience
    while True:
        answer = question()
        if answer:
            return answer
        if now() > until:
            raise TimeoutError(f"not within {patience:g} s: {what}")
        time.sleep(_PACE)


class Sign(NamedTuple):
    """Something that was written by an instance or its command."""

    at: float
    pid: int
    text: str


class Signs:
    """The reading end of one stream."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._theirs = theirs
        self.seen: list[Sign] = []

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def writing_fd(self) -> int:
        return self._theirs.fileno()

    def take(self) -> None:
        """Read all that has come."""
        while True:
            try:
                content, notes, _, _ = self._socket.recvmsg(65536, 256)
            except BlockingIOError:
                return
            ahead = now() - time.clock_gettime(time.CLOCK_REALTIME)
            at, pid = now(), 0
            for _, kind, value in notes:
                if kind == _SO_TIMESTAMPNS:
                    seconds, nanoseconds = struct.unpack("qq", value)
                    at = seconds + nanoseconds / 1e9 + ahead
                elif kind == socket.SCM_CREDENTIALS:
                    pid = struct.unpack("iii", value)[0]
            self.seen += [Sign(at, pid, line) for line in content.decode(errors="replace").splitlines()]

    def close(self) -> None:
        self._socket.close()
        self._theirs.close()


class Instance:
    """One awaitelect, from its exec on."""

    def __init__(self, fleet: Fleet, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._fleet = fleet
        self.signs, self.lines = Signs(), Signs()
        silent, self._stdin = os.pipe2(os.O_CLOEXEC)
        self.executed_at = now()
        """The instant before it was asked for: nothing is left out."""
        self.pid = os.posix_spawnp(
            argv[0],
            list(argv),
            {**os.environ, **environment},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, silent, 0),
                (os.POSIX_SPAWN_DUP2, self.signs.writing_fd, 1),
                (os.POSIX_SPAWN_DUP2, self.lines.writing_fd, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )
        self.running_at = now()
        """The instant just after its exec."""
        os.close(silent)
        self._pidfd = os.pidfd_open(self.pid)
        self.status: int | None = None

    def sign(self, text: str, after: float = 0.0, patience: float = PATIENCE) -> Sign:
        """The first such line of the command after the instant; waits for it."""
        return self._fleet.until(lambda: _first(self.signs, text, after), self._wanted(text), patience)

    def line(self, text: str, after: float = 0.0, patience: float = PATIENCE) -> Sign:
        """The first line of the log with this text in it after the instant; waits for it."""
        return self._fleet.until(lambda: _first(self.lines, text, after), self._wanted(text), patience)

    def settle(self) -> None:
        """Wait until it follows, and its elector has nothing left to do: its watch is open and its connections warm."""
        self.line("following")
        self._fleet.until(self._is_calm, self._wanted("calm"))

    def _is_calm(self) -> bool:
        before = cpu_time(self.elector)
        self._fleet.rest(0.1)
        return cpu_time(self.elector) - before < 0.0002

    def _wanted(self, what: str) -> str:
        return f"{what!r} of an instance"

    def said(self) -> str:
        """Its log so far, for an error."""
        return "\n".join(one.text for one in self.lines.seen)

    @property
    def elector(self) -> int:
        """The pid of its elector, once it is that."""
        return eventually(
            lambda: next((pid for pid in children(self.pid) if b"awaitelect.elector" in command_line(pid)), 0),
            "an elector",
        )

    @property
    def command(self) -> int:
        """The pid of its command as of its last first sign."""
        return next((one.pid for one in reversed(self.signs.seen) if one.text == "first"), 0)

    @property
    def shim(self) -> int:
        """The pid of the process that waits for the next start; 0 where there is none."""
        ours = children(self.pid) - {self.elector, self.command}
        return next(iter(ours), 0)

    def processes(self) -> set[int]:
        """All of it, the command left out."""
        return {self.pid, *children(self.pid)} - {self.command}

    def say(self, content: bytes) -> None:
        """To the command's standard input."""
        os.write(self._stdin, content)

    def terminate(self) -> None:
        """SIGTERM."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for its end. The exit status, or minus the signal that killed it."""
        self._fleet.until(self._has_ended, self._wanted("the end"), patience)
        assert self.status is not None
        return self.status

    def kill_all(self) -> float:
        """SIGKILL to keeper, elector and command at once. Returns the instant before it; their ends are awaited."""
        held = {pid: os.pidfd_open(pid) for pid in (self.pid, *descendants(self.pid))}
        at = now()
        for pidfd in held.values():
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._fleet.until(self._has_ended, self._wanted("the end"))
        for pid, pidfd in held.items():
            assert select.select([pidfd], [], [], PATIENCE)[0], "a process outlives SIGKILL"
            os.close(pidfd)
            if pid != self.pid:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    pass  # another parent's
        return at

    def close(self) -> None:
        """End whatever is left of it."""
        if self.status is None:
            self.kill_all()
        os.close(self._pidfd)
        os.close(self._stdin)
        self.signs.close()
        self.lines.close()

    def _has_ended(self) -> bool:
        if self.status is None and select.select([self._pidfd], [], [], 0)[0]:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status is not None


class Fleet:
    """All instances that run now. Leaving it ends them."""

    def __init__(self) -> None:
        self._instances: list[Instance] = []
        # What loses its parent comes to us, and so to its end.
        ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for one in list(self._instances):
            self.dismiss(one)

    def start(
        self, lock: str, identity: str, environment: Mapping[str, str] = {}, prefix: Sequence[str] = ()
    ) -> Instance:
        """A new instance. `prefix`: the program that executes it."""
        return self.run([*prefix, PROGRAM, "--lock", lock, "--identity", identity, "--", *COMMAND], environment)

    def run(self, argv: Sequence[str], environment: Mapping[str, str] = {}) -> Instance:
        """Any other program that runs a command."""
        one = Instance(self, argv, environment)
        self._instances.append(one)
        return one

    def dismiss(self, one: Instance) -> None:
        """End it, if it has not ended, and forget it."""
        self._instances.remove(one)
        one.close()

    def until(self, question: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
        """The first answer that is true; what the instances write is read meanwhile."""
        end = now() + patience
        while True:
            self._read(0)
            answer = question()
            if answer:
                return answer
            if now() > end:
                logs = "\n---\n".join(one.said() for one in self._instances)
                raise TimeoutError(f"not within {patience:g} s: {what}\n{logs}")
            self._read(0.005)

    def rest(self, seconds: float) -> None:
        """Let so much time pass; what the instances write is read meanwhile."""
        end = now() + seconds
        while (left := end - now()) > 0:
            self._read(left)

    def _read(self, seconds: float) -> None:
        streams = {stream.fileno(): stream for one in self._instances for stream in (one.signs, one.lines)}
        for fd in select.select(list(streams), [], [], seconds)[0]:
            streams[fd].take()


def cpu_time(pid: int) -> float:
    """The seconds that all threads of the process have used, to the nanosecond; 0 where it has ended."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the kernel's number for the clock of another process
    except OSError:
        return 0.0


def proportional_memory(pid: int) -> float:
    """PSS in MB (of a million bytes): each shared page counts by its share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"no PSS of process {pid}")


def children(pid: int) -> set[int]:
    """The pids of its children, ended ones included."""
    try:
        lists = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return set()
    return {int(one) for text in lists for one in text.split()}


def descendants(pid: int) -> list[int]:
    """Its children, theirs, and so on."""
    return [each for child in children(pid) for each in (child, *descendants(child))]


def command_line(pid: int) -> bytes:
    """Its arguments with a zero after each; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def signal_sets(pid: int) -> tuple[int, int]:
    """Bit sets of the signals that the process blocks and catches; (0, 0) where it has ended."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            content = file.read()
    except OSError:
        return 0, 0
    at = content.index(b"SigBlk:")
    fields = content[at : at + 200].split()
    return int(fields[1], 16), int(fields[5], 16)


def _first(signs: Signs, text: str, after: float) -> Sign | None:
    return next((one for one in signs.seen if one.at > after and text in one.text), None)
