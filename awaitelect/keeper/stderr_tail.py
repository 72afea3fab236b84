"""The command's standard error on its way through us: copied byte for byte, its end kept.

A pipe takes the place of the command's descriptor 2, run after run. What comes out of it goes to our own standard error
without ever waiting: while that takes nothing we read nothing, so that the command is slowed down as it would be
without us, and nobody else is.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import socket
import stat
import termios

from awaitelect import clock
from awaitelect.logs import Outlet

CHUNK = 65536
"""Bytes that are read at once; with as many or more unsent, none are."""
KEPT = 8192
"""Bytes of the end that are kept."""
LONGEST_OWN = 4 * CHUNK
"""Bytes that may be unsent for a log line of ours still to be put among them."""
LAST_WAIT = 1.0
"""Seconds that a slow reader has at our end to take the rest."""
_READER_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN}


def is_possible(fd: int = 2) -> bool:
    """This standard error is a stream of bytes: no terminal, and no socket that keeps writes apart."""
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISSOCK(kind):
            with socket.socket(fileno=os.dup(fd)) as ours:
                return ours.type == socket.SOCK_STREAM
        return not os.isatty(fd)
    except OSError:
        return False


class StderrTail:
    """The pipe, what has come out of it and is not written yet, and the end of all that has."""

    def __init__(self, outlet: Outlet) -> None:
        """`outlet`: to our own standard error. Raises OSError where no pipe can be had."""
        self._read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_fd, False)
        self._outlet = outlet
        self._unsent = b""
        self._is_blocked = False
        """Our standard error takes no more for now."""
        self._is_over = False
        """Our standard error has lost its reader."""
        self._kept = b""
        self._watched: dict[int, int] = {}

    def attend(self, poll: select.poll) -> None:
        """Have the poll object wait for what we wait for."""
        wanted: dict[int, int] = {}
        if self._has_room:
            wanted[self._read_fd] = select.POLLIN
        if self._is_blocked:
            wanted[self._outlet.fileno()] = select.POLLOUT
        if wanted != self._watched:
            for fd in self._watched.keys() - wanted.keys():
                poll.unregister(fd)
            for fd, events in wanted.items():
                poll.register(fd, events)
            self._watched = wanted
        if self._is_over and self._read_fd >= 0:
            os.close(self._read_fd)  # the command feels it as it would without us
            self._read_fd = -1

    def is_due(self, ready: set[int]) -> bool:
        """One of the descriptors that we wait for is ready."""
        return not ready.isdisjoint(self._watched)

    def pump(self) -> None:
        """Copy a part of what is there, as far as it can be written now."""
        if self._has_room:
            self._read(CHUNK)
        # What follows the last end of a line waits for the rest of its line, if that is here already: so the log lines
        # of the elector, which go another way, stand between two lines of the command.
        whole = self._unsent.rfind(b"\n") + 1
        if whole and self._waiting():
            self._send(whole)
        else:
            self._send(len(self._unsent))

    def catch_up(self) -> None:
        """Copy what was written until now, if it can be written now."""
        left = self._waiting()
        while left > 0 and self._has_room:
            left -= self._read(min(left, CHUNK)) or left
            self._send(len(self._unsent))

    def write(self, line: bytes) -> None:
        """A line of our own: between two lines of the command, or dropped and counted."""
        if self._unsent:
            self.catch_up()
        if not self._unsent:
            self._outlet.write(line)
            return
        border = self._unsent.rfind(b"\n") + 1
        if border and len(self._unsent) < LONGEST_OWN:
            self._unsent = self._unsent[:border] + line + self._unsent[border:]
        else:
            self._outlet.dropped += 1

    def finish(self) -> int:
        """Copy all that was written until now, and return how many bytes could not be. LAST_WAIT seconds at most.

        Whoever still holds the pipe is not waited for.
        """
        left = self._waiting()
        while left > 0:
            left -= self._read(min(left, CHUNK)) or left
        self._send(len(self._unsent))
        if self._unsent:
            self._outlet.widen(2 * len(self._unsent))  # each line may begin a page
        poll = select.poll()
        poll.register(self._outlet.fileno(), select.POLLOUT)
        by = clock.now() + LAST_WAIT
        while self._send(len(self._unsent)) and (left_time := by - clock.now()) > 0:
            poll.poll(left_time * 1000)
        return len(self._unsent)

    def last_lines(self, count: int) -> list[bytes]:
        """The last lines, without their ends; the first may lack its beginning where they are long."""
        return self._kept.removesuffix(b"\n").split(b"\n")[-count:] if count and self._kept else []

    # ------------------------------------------------------------------

    @property
    def _has_room(self) -> bool:
        return len(self._unsent) < CHUNK and self._read_fd >= 0 and not self._is_over

    def _waiting(self) -> int:
        """Bytes in the pipe."""
        if self._read_fd < 0 or self._is_over:
            return 0
        count = array.array("i", [0])
        fcntl.ioctl(self._read_fd, termios.FIONREAD, count)
        return count[0]

    def _read(self, size: int) -> int:
        """Bytes that were read."""
        try:
            part = os.read(self._read_fd, size)
        except BlockingIOError:
            return 0
        self._unsent += part
        self._kept = (self._kept + part[-KEPT:])[-KEPT:]
        return len(part)

    def _send(self, size: int) -> int:
        """Write the first `size` of the unsent bytes, as far as that can be done now; how many of them are left.

        By whole lines, in pieces that a pipe takes at once or not at all: others write there too.
        """
        done = 0
        self._is_blocked = False
        while done < size and not self._is_blocked:
            end = min(done + select.PIPE_BUF, size)
            border = self._unsent.rfind(b"\n", done, end) + 1
            end = border if end < size and border else end
            try:
                sent = self._outlet.send(self._unsent[done:end])
            except OSError as error:
                # A full disk is the command's loss, as it would be without us: it must not come to stand still for it.
                sent = end - done
                self._is_over = self._is_over or error.errno in _READER_GONE
            done += sent
            self._is_blocked = done < end
        self._unsent = b"" if self._is_over else self._unsent[done:]
        return 0 if self._is_over else size - done
