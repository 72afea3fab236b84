"""The elector as the keeper sees it: a child that is spawned, listened to, and replaced when it dies or hangs."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

from awaitelect.keeper.launch import launch
from awaitelect.protocol import MAX_MESSAGE, Hello, Message, Settings, UnknownMessage, decode, encode

STARTUP = 30.0
"""Seconds in which an elector must have said its first word, and so many more for the first about the lease."""
LEAST_STARTUP = 1.0
"""Seconds that an elector's start counts at least: the machine may be busier by the time that its successor starts."""
SILENCE = 90.0
"""Seconds after which an elector that holds no grant counts as hung: a follower speaks once a minute, and while one is
hung this instance leads nothing."""
YOUNG = 5.0
"""Seconds: an elector that dies, or hangs, younger than this is followed after a pause that doubles."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
AT_ONCE = 1000
"""Messages that are taken in one go at most: more than a socket holds, and no reason to forget the time."""


class Elector:
    """The elector process and our end of the socket to it; one after the other, at most one at a time."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.spawned = 0
        """How many there have been."""
        self.spawned_at = 0.0
        self.heard_at = 0.0
        """The instant of its last message, or of its start."""
        self.startup = LEAST_STARTUP
        """Seconds from spawning one to its first word about the lease, as last measured, or LEAST_STARTUP."""
        self.restart_at: float | None = None
        self.has_spoken = False
        self.fault = ""
        """Why it was killed, if it had sent nonsense."""
        self._is_measured = False
        self.early_deaths = 0
        self._socket: socket.socket | None = None
        self._pause = FIRST_PAUSE

    def fileno(self) -> int:
        """Our end of the socket; -1 if there is none."""
        return self._socket.fileno() if self._socket else -1

    def spawn(self, hello: Hello, now: float, launched: tuple[int, int] | None = None) -> None:
        """Start an elector, or take the one just launched, and greet it. Raises OSError where no process can be had."""
        pid, fd = launched or launch()
        self.close()
        self.pid, self._socket, self.restart_at = pid, socket.socket(fileno=fd), None
        self.spawned_at = self.heard_at = now
        self.spawned += 1
        self.has_spoken = self._is_measured = False
        self.fault = ""
        self.send(hello)

    def send(self, message: Message, *fds: int) -> bool:
        """Send a message, and descriptors with it; False if that can't be done now. Never waits."""
        if self._socket is None:
            return False
        try:
            socket.send_fds(self._socket, [encode(message)], list(fds))
        except OSError:
            return False
        return True

    def receive(self, now: float) -> Iterator[Message]:
        """The messages that have come. Closes our end when the other is closed.

        One that sends what is no message is killed, and counts as failed.
        """
        for _ in range(AT_ONCE):
            if self._socket is None:
                return
            try:
                datagram = self._socket.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # said once, before what it had sent last
            except OSError:
                datagram = b""
            if not datagram:
                self.close()
                return
            self.has_spoken = True
            self.heard_at = now
            try:
                message = decode(datagram)
            except UnknownMessage:
                continue  # what we don't understand we can't act on
            except ValueError as error:
                self.fault = f"was killed, for it sent what is {error}"
                self.kill()
                self.close()
                return
            if not self._is_measured and not isinstance(message, Settings):
                # The settings come before the slow imports and the first answer of the store.
                self._is_measured = True
                self.startup = max(LEAST_STARTUP, now - self.spawned_at)
            yield message

    def kill(self) -> None:
        """SIGKILL; its end is seen when it is reaped. Nothing where it has been: its number may be another's by now."""
        if self.pid is not None:
            try:
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            os.kill(self.pid, signal.SIGKILL)

    def ended(self, now: float) -> None:
        """It has been reaped: another is due, at once after a long life, after a pause after a short one."""
        if self.has_spoken and now - self.spawned_at >= YOUNG:
            self._pause, self.early_deaths = FIRST_PAUSE, 0
            self.restart_at = now
        else:
            self.early_deaths += 1
            self.restart_at = now + self._pause
            self._pause = min(LONGEST_PAUSE, self._pause * 2)
        self.pid = None
        self.close()

    def hung_at(self, term_by: float | None, patience: float) -> float:
        """When to take it for hung and replace it, so that its successor can still renew before `term_by`.

        `term_by` None: the command does not depend on it now. `patience`: how long an elector that has trouble with the
        store may be silent, in seconds.
        """
        if not self.has_spoken:
            return self.heard_at + STARTUP
        if term_by is None:
            return self.heard_at + (SILENCE if self._is_measured else STARTUP)
        return max(term_by - 3 * self.startup, self.heard_at + patience, self.spawned_at + YOUNG)

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None
