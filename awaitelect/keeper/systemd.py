"""What a service manager that has started us is told (sd_notify(3)), and the proof of life that it waits for.

Sending never waits: what finds the socket full is kept, the newest of each kind, and tried again. Not imported where
there is no NOTIFY_SOCKET.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Mapping

STOP_TIME, STOP_AGAIN = 20.0, 5.0
"""Seconds that are asked for while we are stopping, and how often."""
AGAIN = 0.1
"""Seconds until a full socket is tried again."""
_LONGEST = 500
"""Characters of a status line."""
_FULL = {errno.EAGAIN, errno.ENOBUFS}


class ServiceManager:
    """Our end of it: nothing is said twice, and nothing is lost but where nobody listens."""

    def __init__(self, environ: Mapping[str, str], pid: int, now: float) -> None:
        """`pid`: ours; a watchdog meant for another process is not heeded. `now`: this instant, in seconds."""
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._period = _period(environ, pid)
        self._watch_at = now
        self._extend_at: float | None = None
        self._again_at: float | None = None
        self._unsent: dict[str, str] = {}
        self._status = ""
        self.is_ready = False
        """It was told that the service is up."""
        self.is_reloading = False
        self._is_stopping = False

    @property
    def wake_at(self) -> float | None:
        """The instant, in seconds, at which to call `on_wake` at the latest."""
        dates = [self._extend_at, self._again_at, self._watch_at if self._period and self.is_ready else None]
        return min((at for at in dates if at is not None), default=None)

    def on_wake(self, now: float, alive_by: float) -> None:
        """A date may have come. No sign of life is given from `alive_by` on, an instant in seconds."""
        if self._period and self.is_ready and now >= self._watch_at:
            self._watch_at = now + self._period
            if now < alive_by or self._is_stopping:
                self._tell(now, WATCHDOG="1")
        if self._extend_at is not None and now >= self._extend_at:
            self._extend_at = now + STOP_AGAIN
            self._tell(now, EXTEND_TIMEOUT_USEC=str(round(STOP_TIME * 1e6)))
        if self._again_at is not None and now >= self._again_at:
            self._flush(now)

    def show(self, status: str, now: float) -> None:
        """How things stand, in a line for people."""
        line = "".join(char if char.isprintable() else "?" for char in status)[:_LONGEST]
        if line != self._status:
            self._status = line
            self._tell(now, STATUS=line)

    def ready(self, now: float) -> None:
        """The service is up, or is so again after `reloading`."""
        if self._is_stopping or (self.is_ready and not self.is_reloading):
            return
        if not self.is_ready:
            self._watch_at = now
        self.is_ready, self.is_reloading = True, False
        # Where both are still to be sent, the reload is over: told in one message, it would never end.
        self._unsent.pop("RELOADING", None)
        self._unsent.pop("MONOTONIC_USEC", None)
        self._tell(now, READY="1")

    def reloading(self, now: float) -> None:
        """The service reads its configuration again; `ready` follows."""
        if self.is_ready and not self._is_stopping:
            self.is_reloading = True
            self._unsent.pop("READY", None)
            self._tell(now, RELOADING="1", MONOTONIC_USEC=str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000))

    def stopping(self, now: float) -> None:
        """We are on our way out: asks for as much time as that takes."""
        if not self._is_stopping:
            self._is_stopping, self.is_reloading = True, False
            self._extend_at = now + STOP_AGAIN
            self._tell(now, STOPPING="1", EXTEND_TIMEOUT_USEC=str(round(STOP_TIME * 1e6)))

    def pass_on(self, now: float, *, speaks: bool) -> None:
        """We become the command. Unless it `speaks` for itself, it is up, and nobody waits for its signs of life."""
        if not speaks:
            self._period = None
            self.ready(now)
            self._tell(now, WATCHDOG_USEC="0")

    def close(self) -> None:
        self._socket.close()

    def _tell(self, now: float, **fields: str) -> None:
        self._unsent |= fields
        if self._again_at is None:
            self._flush(now)

    def _flush(self, now: float) -> None:
        self._again_at = None
        if self._address is None or not self._unsent:
            self._unsent.clear()
            return
        text = "\n".join(f"{name}={value}" for name, value in self._unsent.items())
        try:
            self._socket.sendto(text.encode("utf-8", "replace"), self._address)
        except OSError as error:
            if error.errno in _FULL:
                self._again_at = now + AGAIN
                return
        self._unsent.clear()


def _address(variable: str) -> bytes | None:
    """A path, or an abstract name, as NOTIFY_SOCKET has it; None for what is neither."""
    if variable.startswith("@"):
        return b"\0" + variable[1:].encode("utf-8", "surrogateescape")
    return variable.encode("utf-8", "surrogateescape") if variable.startswith("/") else None


def _period(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds from one sign of life to the next: half of what the watchdog waits. None: there is none for us."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0 or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(microseconds) / 1e6 / 2
