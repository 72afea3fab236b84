"""Text files of the configuration, and what is wrong with one."""

from __future__ import annotations

import errno
import os
import stat

LARGEST = 1_000_000
"""Bytes of a file at most."""


class Unreadable(Exception):
    """A text or file that cannot be read; every reason is one line that begins with the place."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class SpecialFile(OSError):
    """A pipe, a device or a socket: it would be waited for, or has no end."""


def read_bytes(path: str, most: int) -> bytes:
    """The content of a regular file; of one that is larger than `most`, one byte more than that.

    Raises OSError: SpecialFile and IsADirectoryError for what is no regular file, and ValueError for a path with a NUL.
    """
    # O_NONBLOCK: opening a named pipe must not wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise SpecialFile(errno.EINVAL, "it is no regular file", path)
        raw = b""
        while len(raw) <= most and (more := os.read(descriptor, most + 1 - len(raw))):
            raw += more
        return raw
    finally:
        os.close(descriptor)


def read_text(path: str, what: str) -> str:
    """The text of a regular file. Raises Unreadable with a line that names the file; FileNotFoundError is its cause."""
    try:
        raw = read_bytes(path, LARGEST)
    except IsADirectoryError as error:
        raise Unreadable(f"{path}: cannot read {what}: it is a directory") from error
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path}: cannot read {what}: {_reason(error)}") from error
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
