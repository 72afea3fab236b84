"""Launching an elector: the first thing that the program does, since the elector takes the longest to be ready.

So nothing is imported here but what the interpreter has in it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import os
import sys


def launch() -> tuple[int, int]:
    """Start an elector; its pid, and our end of the socket to it. Raises OSError where no process can be had."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_NONBLOCK)
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "awaitelect.elector"],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)],  # protocol.ELECTOR_SOCKET
            setpgroup=0,  # Ctrl-C is for the keeper, who tells it in good time
            setsigmask=_signal.valid_signals(),  # until it has its own set-up: it ends when the keeper says so
            setsigdef=(_signal.SIGPIPE, _signal.SIGXFSZ),
        )
    finally:
        theirs.close()
    return pid, ours.detach()
