"""Text files of the configuration, and what is wrong with one."""

from __future__ import annotations

import os
import stat

LARGEST = 1_000_000
"""Bytes of a file at most."""


class Unreadable(Exception):
    """A text or file that cannot be read; every reason is one line that begins with the place."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


def read_text(path: str, what: str) -> str:
    """The text of a regular file. Raises Unreadable with a line that names the file; FileNotFoundError is its cause."""
    try:
        # O_NONBLOCK: opening a named pipe must not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path}: cannot read {what}: {_reason(error)}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
            raise Unreadable(f"{path}: cannot read {what}: it is {kind}")
        raw = b""
        while len(raw) <= LARGEST and (more := os.read(descriptor, LARGEST + 1)):
            raw += more
    except OSError as error:
        raise Unreadable(f"{path}: cannot read {what}: {_reason(error)}") from error
    finally:
        os.close(descriptor)
    if len(raw) > LARGEST:
        raise Unreadable(f"{path}: cannot read {what}: it is larger than {LARGEST} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise Unreadable(f"{path}:{line}:{column}: cannot read {what}: it is not a text in UTF-8") from error


def _reason(error: OSError | ValueError) -> str:
    return ((error.strerror if isinstance(error, OSError) else None) or str(error)).lower()
