"""What the command tells about itself, as services tell it to systemd (sd_notify(3)).

The socket is abstract: no file to clean up, and commands of any user reach it from within our network namespace.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

_LONGEST = 4096
_CREDENTIALS = struct.Struct("3i")


class Notices:
    """The socket whose name the command finds in NOTIFY_SOCKET."""

    def __init__(self, instance: str) -> None:
        """Raises OSError."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0awaitelect/{instance}")
        self.variable = f"@awaitelect/{instance}"
        """For NOTIFY_SOCKET."""

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def take(self, uid: int) -> Iterator[dict[str, str]]:
        """What has been said since the last call by processes of this user or of root, a notice each."""
        while True:
            try:
                # No room for descriptors: those that are sent along are closed by the kernel.
                content, notes, _, _ = self._socket.recvmsg(_LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return
            senders = [_CREDENTIALS.unpack(value)[1] for _, kind, value in notes if kind == socket.SCM_CREDENTIALS]
            if senders and senders[0] in (uid, 0, os.geteuid()):
                lines = content.decode("utf-8", "replace").splitlines()
                yield dict(line.split("=", 1) for line in lines if "=" in line)
