"""The end of NOTIFY_SOCKET that a service manager has."""

from __future__ import annotations

import select
import socket
import struct
import time
import uuid
from pathlib import Path
from types import TracebackType

CREDENTIALS = struct.Struct("3i")


class Inbox:
    """A real datagram socket: a file, or an abstract name."""

    def __init__(self, folder: Path, *, abstract: bool = False) -> None:
        self.variable = f"@awaitelect-test/{uuid.uuid4().hex}" if abstract else str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0{self.variable[1:]}" if abstract else self.variable)
        self.got: list[dict[str, str]] = []
        """All that has been read, a message each."""
        self.senders: set[int] = set()
        self._heard = 0

    def __enter__(self) -> Inbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()
        if kind is not None:
            print(f"--- the service manager was told:\n{self.got}")

    def read(self) -> list[dict[str, str]]:
        """What has come since the last call."""
        new = []
        while True:
            try:
                content, notes, _, _ = self._socket.recvmsg(65536, socket.CMSG_SPACE(CREDENTIALS.size))
            except BlockingIOError:
                self.got += new
                return new
            self.senders |= {CREDENTIALS.unpack(value)[0] for _, _, value in notes}
            new.append(dict(line.split("=", 1) for line in content.decode().splitlines()))

    def hears(self, name: str, value: str = "", patience: float = 30.0) -> dict[str, str]:
        """Wait for a message with this field, and this text in it, that has come after the one heard last."""
        by = time.monotonic() + patience
        while True:
            self.read()
            while self._heard < len(self.got):
                message = self.got[self._heard]
                self._heard += 1
                if name in message and value in message[name]:
                    return message
            left = by - time.monotonic()
            assert left > 0, f"not within {patience:g}s: {name}={value}"
            select.select([self._socket], [], [], left)

    def is_silent(self, seconds: float) -> bool:
        """Nothing comes for so long."""
        return not select.select([self._socket], [], [], seconds)[0]

    def environment(self, watchdog: float | None = None) -> dict[str, str]:
        """The variables that a service finds. `watchdog`: seconds."""
        period = {} if watchdog is None else {"WATCHDOG_USEC": str(round(watchdog * 1e6))}
        return {"NOTIFY_SOCKET": self.variable, **period}


def fill(variable: str) -> None:
    """Send until the receiver takes no more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as one:
        one.connect(variable)
        try:
            while True:
                one.send(b"FILL=1")
        except BlockingIOError:
            return
