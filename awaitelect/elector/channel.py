"""Our end of the socket to the keeper."""

from __future__ import annotations

import os
import socket
import struct

from awaitelect.protocol import MAX_MESSAGE, Hello, Message, decode, encode


class Channel:
    """Messages to and from the keeper, one datagram each; nothing here ever waits but for its greeting."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def keeper(self) -> int:
        """The pid of the process that made the pair."""
        size = struct.calcsize("3i")
        pid: int = struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]
        return pid

    def greeting(self) -> Hello:
        """The keeper's first message. Raises EOFError where there is no keeper."""
        self._socket.setblocking(True)
        try:
            message = decode(self._socket.recv(MAX_MESSAGE))
        except (OSError, ValueError) as error:
            raise EOFError("no keeper has greeted us") from error
        finally:
            self._socket.setblocking(False)
        if not isinstance(message, Hello):
            raise EOFError(f"no greeting: {message}")
        return message

    def send(self, message: Message) -> bool:
        """False where it could not be sent now. Raises ValueError for a message that is too long for the socket."""
        datagram = encode(message)
        if len(datagram) > MAX_MESSAGE:
            raise ValueError(f"{len(datagram)} bytes are more than the {MAX_MESSAGE} that can be sent")
        try:
            self._socket.send(datagram)
        except OSError:
            return False
        return True

    def receive(self) -> tuple[Message, list[int]] | None:
        """The next message and the descriptors that came with it; None if there is none now.

        Raises EOFError where the keeper has closed its end: it has died.
        """
        while True:
            try:
                datagram, fds, _, _ = socket.recv_fds(self._socket, MAX_MESSAGE, 4)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                continue  # said once, before what it had sent last
            except OSError as error:
                raise EOFError("the socket to the keeper is broken") from error
            if not datagram:
                raise EOFError("the keeper has closed the socket")
            try:
                return decode(datagram), fds
            except ValueError:
                for fd in fds:
                    os.close(fd)
