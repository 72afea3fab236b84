"""The termination message: why we ended, and the last that the command wrote to standard error, in a file.

Kubernetes makes the file, reads up to 4096 bytes of it when the container has ended, and shows them with its state.
"""

from __future__ import annotations

import os
import select
import stat

from awaitelect.keeper import stderr_tail
from awaitelect.keeper.stderr_tail import StderrTail
from awaitelect.logs import Log
from awaitelect.protocol import TERMINATION_LOG, CommandSettings

LIMIT = 4096
"""Bytes that Kubernetes reads."""
_LONGEST_CAUSE = LIMIT // 2
_VARIABLE = "AWAITELECT_TERMINATION_MESSAGE_PATH"


class Termination:
    """The message of one run of the keeper, from the first instruction to the end."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lines = 0
        self._tail: StderrTail | None = None
        # A configuration that cannot be used names no path: then it is this one.
        self._note(os.environ.get(_VARIABLE) or TERMINATION_LOG)

    def configure(self, settings: CommandSettings) -> None:
        """Where the message goes, and how much of standard error with it: before the command runs."""
        if settings.termination_path != self._path:
            self._note(settings.termination_path)
        self._lines = settings.termination_lines

    def open_tail(self) -> int | None:
        """The descriptor for the command's standard error; None: ours, as what passed through would not be used."""
        if not self._lines or not self._is_wanted or not stderr_tail.is_possible():
            return None
        try:
            self._tail = StderrTail(self._log.outlet)
        except OSError as error:
            self._log.warning(f"the termination message will have no lines of the command: {error.strerror}")
            return None
        self._log.write_by(self._tail.write)
        return self._tail.write_fd

    def attend(self, poll: select.poll) -> None:
        """Have the poll object wait for what the command writes."""
        if self._tail:
            self._tail.attend(poll)

    def pump(self, ready: set[int]) -> None:
        """Copy what the command has written, where one of these descriptors says that it can be done."""
        if self._tail and self._tail.is_due(ready):
            self._tail.pump()

    def catch_up(self) -> None:
        """The command has ended: its last lines stand before what we say about it."""
        if self._tail:
            self._tail.catch_up()

    def end(self, cause: str) -> None:
        """Nothing of the command is alive: copy the rest of what it has written, and write the message. Never raises.

        Waits for a reader of standard error that is slow, for stderr_tail.LAST_WAIT seconds at most.
        """
        lines: list[bytes] = []
        if self._tail:
            lost = self._tail.finish()
            if lost:
                self._log.warning(f"nobody reads standard error: the command's last {lost} bytes are lost")
            lines = self._tail.last_lines(self._lines)
        try:
            self._write(message(cause, lines))
        except OSError as error:
            self._log.debug(f"cannot write the termination message to {self._path!r}: {error.strerror}")

    # ------------------------------------------------------------------

    def _note(self, path: str) -> None:
        self._path = path
        self._before = _state(path)

    @property
    def _is_wanted(self) -> bool:
        """That of Kubernetes only where it was when we began: elsewhere nothing appears in /dev."""
        return self._before is not None or self._path != TERMINATION_LOG

    def _write(self, content: bytes) -> None:
        if not self._is_wanted:
            return
        if _state(self._path) != self._before:
            self._log.debug(f"the command has left a termination message of its own in {self._path!r}")
            return
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(None, "it is not a regular file")
            os.pwrite(fd, content, 0)
            os.ftruncate(fd, len(content))
        finally:
            os.close(fd)


def message(cause: str, lines: list[bytes]) -> bytes:
    """The cause on one line, then as many of the last lines as fit in LIMIT bytes: UTF-8, whatever the lines are."""
    first = " ".join(cause.split()).encode("utf-8", "replace")
    if len(first) > _LONGEST_CAUSE:
        first = first[: _LONGEST_CAUSE - 4].decode("utf-8", "ignore").encode() + " …".encode()
    room = LIMIT - len(first) - 1
    kept: list[bytes] = []
    for line in reversed(lines):
        text = line.decode("utf-8", "replace").encode()
        if len(text) + 1 > room:
            if not kept:  # one line that is longer than all the room: its end
                kept.append(text[len(text) + 1 - room :].decode("utf-8", "ignore").encode())
            break
        kept.append(text)
        room -= len(text) + 1
    return b"\n".join((first, *reversed(kept))) + b"\n"


def _state(path: str) -> tuple[int, int, int] | None:
    """Changes when the file is written; None where there is none."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns
