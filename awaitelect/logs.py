"""Log lines that never block.

A reader of our stderr that stands still must delay no renewal and no stop, so a line that cannot be written now is
dropped and counted. O_NONBLOCK on the shared descriptor would change the command's stderr too, so we write to a
description of our own where the kernel gives one.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import stat
import time
from collections.abc import Callable

LEVELS = ("debug", "info", "warning", "error")
_COLOURS = {"debug": "\x1b[2m", "info": "", "warning": "\x1b[33m", "error": "\x1b[31m"}
_LONGEST = 4000
"""Bytes of one line: a pipe takes up to 4096 at once or not at all."""

Value = str | int | float | None


class Outlet:
    """A descriptor to write to without ever waiting."""

    def __init__(self, fd: int) -> None:
        self.is_terminal = os.isatty(fd)
        self.dropped = 0
        self._socket: socket.socket | None = None
        self._own = False
        self._fd = fd
        try:
            kind = os.fstat(fd).st_mode
            if stat.S_ISSOCK(kind):
                self._socket = socket.socket(fileno=os.dup(fd))
            elif stat.S_ISREG(kind):
                self._own = True  # never blocks, and another description would not share its offset
            else:
                self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
                self._own = True
        except OSError:
            pass  # another user's pipe: we ask poll() before each write instead

    def write(self, line: bytes) -> None:
        """Write the whole line now, or drop it."""
        if self.dropped:
            line = b"(%d log lines could not be written)\n" % self.dropped + line
        if self._try(line):
            self.dropped = 0
        else:
            self.dropped += 1

    def fileno(self) -> int:
        """The descriptor to poll for room."""
        return self._socket.fileno() if self._socket else self._fd

    def send(self, content: bytes) -> int:
        """Write what can be written now; how many bytes that was. Raises OSError for all but a lack of room."""
        try:
            if self._socket:
                return self._socket.send(content, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            if not self._own:
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                if not poll.poll(0):
                    return 0
                content = content[: select.PIPE_BUF]  # there is room for as much
            return self._write(content)
        except BlockingIOError:
            return 0

    def widen(self, size: int) -> None:
        """Have a pipe hold so many bytes more, if the kernel allows it; what is in it outlives us."""
        try:
            held = fcntl.fcntl(self._fd, fcntl.F_GETPIPE_SZ)
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, held + size + select.PIPE_BUF)
        except OSError:
            pass

    def _try(self, line: bytes) -> bool:
        try:
            return self.send(line) > 0
        except OSError:
            return False

    def _write(self, content: bytes) -> int:
        """A pipe without a reader raises SIGPIPE, a file that is too large SIGXFSZ: not meant for the command."""
        raised = {signal.SIGPIPE, signal.SIGXFSZ}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, raised)
        try:
            return os.write(self._fd, content)
        except OSError:
            signal.sigtimedwait(raised, 0)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class Log:
    """Leveled lines as text, JSON or logfmt, to standard error."""

    def __init__(self, *, level: str = "info", form: str = "auto", fd: int = 2, **fields: Value) -> None:
        """`fields` stand on every line of JSON and logfmt."""
        self.outlet = Outlet(fd)
        """Where the lines go, unless `write_by` says otherwise."""
        self._write_line: Callable[[bytes], None] = self.outlet.write
        self._fields = fields
        self.configure(level, form)

    def configure(self, level: str, form: str, **fields: Value) -> None:
        """Another level, format (auto, text, json, logfmt), more fields. What is unknown counts as the default."""
        self._least = LEVELS.index(level) if level in LEVELS else 1
        self._form = form if form in ("json", "logfmt") else "text"
        self._fields = {**self._fields, **fields}

    def write_by(self, write: Callable[[bytes], None]) -> None:
        """Give each line, its end included, to this function from now on; it must not block."""
        self._write_line = write

    def debug(self, text: str, **fields: Value) -> None:
        self.write("debug", text, **fields)

    def info(self, text: str, **fields: Value) -> None:
        self.write("info", text, **fields)

    def warning(self, text: str, **fields: Value) -> None:
        self.write("warning", text, **fields)

    def error(self, text: str, **fields: Value) -> None:
        self.write("error", text, **fields)

    def write(self, level: str, text: str, **fields: Value) -> None:
        if LEVELS.index(level) >= self._least:
            line = self._line(level, text, {**self._fields, **fields})
            self._write_line(line.encode("utf-8", "replace")[:_LONGEST].rstrip(b"\n") + b"\n")

    def _line(self, level: str, text: str, fields: dict[str, Value]) -> str:
        seconds = time.time()
        whole = time.gmtime(seconds)
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', whole)}.{int(seconds % 1 * 1000):03d}Z"
        known = {name: value for name, value in fields.items() if value is not None and value != ""}
        if self._form == "json":
            import json

            return json.dumps({"time": stamp, "level": level, "message": text, **known}, ensure_ascii=False)
        if self._form == "logfmt":
            pairs = {"time": stamp, "level": level, "msg": text, **known}
            return " ".join(f"{name}={_quoted(str(value))}" for name, value in pairs.items())
        text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
        who = str(fields.get("name") or "awaitelect")
        if self.outlet.is_terminal:
            local = time.strftime("%H:%M:%S", time.localtime(seconds))
            colour = _COLOURS[level]
            return f"\x1b[2m{local}.{int(seconds % 1 * 1000):03d} {who}:\x1b[0m {colour}{text}\x1b[0m"
        return f"{stamp} {level.upper():7} {who}: {text}"


def _quoted(value: str) -> str:
    if value and not any(c in ' "=\\' or not c.isprintable() for c in value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in escaped) + '"'
