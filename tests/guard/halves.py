"""One of the two processes, real, with the test in the other's place: each message is the test's own."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

from awaitelect import protocol
from tests.e2e.instances import PATIENCE, Entry, Fleet, Instance, children_of, command_line, eventually, now
from tests.e2e.test_init import keeper_of, prefix_of
from tests.guard.places import inside, seen_from_here

M = TypeVar("M", bound=protocol.Message)


class Half:
    """Our end of the socket."""

    socket: socket.socket
    fds: list[int]
    """The descriptors that came with the last message."""

    def says(self, message: protocol.Message) -> None:
        self.socket.send(protocol.encode(message))

    def hears_any(self, patience: float = PATIENCE) -> protocol.Message:
        """The next message."""
        ready, _, _ = select.select([self.socket], [], [], patience)
        assert ready, f"nothing is said within {patience:g}s"
        datagram, self.fds, _, _ = socket.recv_fds(self.socket, protocol.MAX_MESSAGE, 4)
        if not datagram:
            raise EOFError("the other end is closed")
        return protocol.decode(datagram)

    def hears(self, kind: type[M]) -> M:
        """The next message of that kind; what comes before it is passed over."""
        until = now() + PATIENCE
        while now() < until:
            message = self.hears_any()
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} within {PATIENCE:g}s")

    def has_said(self) -> list[protocol.Message]:
        """All that has come so far, without waiting."""
        said = []
        while select.select([self.socket], [], [], 0)[0]:
            said.append(self.hears_any())
        return said


class ElectorAlone(Half):
    """A real elector. It must never have to act for its keeper: that would be the test."""

    def __init__(self, folder: Path) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.fds = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWAITELECT_", "K8S_"))}
        with theirs, open(folder / "stderr", "wb") as file:
            # Through a shell, which can put it at the number where the elector expects it.
            command = f'exec 3<&{theirs.fileno()} && exec "$0" -P -m awaitelect.elector'
            self.process = subprocess.Popen(
                ["bash", "-c", command, sys.executable], env=kept, stderr=file, pass_fds=(theirs.fileno(),)
            )
        self._stderr = folder / "stderr"

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def greet(self, *command: str, number: int = 0, kill_by: float | None = None, **options: str) -> None:
        self.says(protocol.Hello("instance", number, kill_by, options, list(command)))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.close()


class KeeperAlone(Half):
    """A real keeper, and the processes that it takes for electors, whose ends of the sockets are the test's."""

    def __init__(self, folder: Path, place: str = "child") -> None:
        self._fleet = Fleet(folder)
        self._tap = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._tap.bind(str(folder / "tap"))
        self._tap.listen()
        self.instance: Instance = self._fleet.start("one", prefix=prefix_of(place), environment=inside(folder))
        if place == "init":
            self.instance.pid = keeper_of(self.instance.pid)
        self.fds = []
        self.elector = 0
        """The number of the process that it takes for its elector."""
        self.hello = self.succeeds()

    def succeeds(self) -> protocol.Hello:
        """Be the next elector; what the keeper greets it with."""
        if self.elector:
            self.socket.close()
        self._tap.settimeout(PATIENCE)
        connection, _ = self._tap.accept()
        with connection:
            number, fds, _, _ = socket.recv_fds(connection, 64, 1)
        self.elector, self.socket = seen_from_here(self.instance, int(number)), socket.socket(fileno=fds[0])
        return self.hears(protocol.Hello)

    def settings(self, *words: str, **changes: object) -> protocol.CommandSettings:
        """Those of an actor with these words."""
        return protocol.CommandSettings(argv=self._fleet.actor("one", *words), log_level="debug", **changes)  # type: ignore[arg-type]

    def grant(self, number: int = 1, lasts: float = 60.0, grace: float = 30.0, **changes: object) -> protocol.Grant:
        """Send a grant that lasts so many seconds from now, and `grace` seconds more."""
        at = now()
        grant = protocol.Grant(number, at + lasts, at + lasts + grace, **changes)  # type: ignore[arg-type]
        self.says(grant)
        return grant

    def entries(self, what: str = "") -> list[Entry]:
        return self.instance.entries(what)

    @property
    def shim(self) -> int:
        """The process that waits to become the command."""

        def found() -> int:
            ours = command_line(self.instance.pid)
            each = (pid for pid in children_of(self.instance.pid) if command_line(pid) == ours)
            return next(each, 0)

        return eventually(found, "a shim waits")

    def close(self) -> None:
        self.socket.close()
        self._tap.close()
        self._fleet.__exit__()
