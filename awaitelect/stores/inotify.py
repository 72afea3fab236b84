"""Waiting for changes in a folder that may come and go, by inotify(7).

Boundary: only this module speaks to inotify. It tells that something may have changed, never what.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import struct
from collections.abc import Callable

_log = logging.getLogger("awaitelect.stores")

_CREATE, _DELETE, _MOVED_FROM, _MOVED_TO, _CLOSE_WRITE = 0x100, 0x200, 0x40, 0x80, 0x8
_DELETE_SELF, _MOVE_SELF, _IGNORED, _OVERFLOW, _ONLYDIR = 0x400, 0x800, 0x8000, 0x4000, 0x1000000
_CONTENT = _CREATE | _DELETE | _MOVED_FROM | _MOVED_TO | _CLOSE_WRITE
_FATE = _DELETE_SELF | _MOVE_SELF
_HEADER = struct.Struct("iIII")

POLL_PERIOD = 0.5
"""Seconds between looks where the kernel gives no inotify."""


class FolderWatch:
    """Wakes up when a file of interest changes in a folder, or when the folder itself is made, moved or removed.

    Where inotify is not to be had (too many instances or watches), it wakes up every POLL_PERIOD instead and says so
    once.
    """

    def __init__(self, path: str, interesting: Callable[[str], bool]) -> None:
        """Watch the absolute `path`; only names for which `interesting` is true wake up. Needs a running loop."""
        self._path = path
        self._interesting = interesting
        self._changed = asyncio.Event()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = -1
        self._watch = -1
        self._whole = False
        try:
            self._fd = self._check(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
            self._arm()
            asyncio.get_running_loop().add_reader(self._fd, self._read)
        except OSError as error:
            self._poll_instead(error)

    async def wait(self, timeout: float | None = None) -> None:
        """Return after a change since the last return, or after `timeout` seconds."""
        limits = [each for each in (timeout, POLL_PERIOD if self._fd < 0 else None) if each is not None]
        try:
            async with asyncio.timeout(min(limits, default=None)):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _arm(self) -> None:
        """Watch the folder or, while it does not exist, the nearest folder above it that does."""
        while True:
            where = self._path
            while not os.path.isdir(where) and os.path.dirname(where) != where:
                where = os.path.dirname(where)
            before = self._watch
            try:
                mask = _CONTENT | _FATE | _ONLYDIR
                self._watch = self._check(self._libc.inotify_add_watch(self._fd, os.fsencode(where), mask))
            except (FileNotFoundError, NotADirectoryError):
                continue
            if before not in (-1, self._watch):
                self._libc.inotify_rm_watch(self._fd, before)
            self._whole = where == self._path
            # What was missing may have been made between the look and the watch: look again.
            if self._whole or not os.path.isdir(os.path.join(where, os.path.relpath(self._path, where).split("/")[0])):
                return

    def _read(self) -> None:
        wake = moved = False
        try:
            events = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        at = 0
        while at < len(events):
            watch, mask, _cookie, length = _HEADER.unpack_from(events, at)
            name = os.fsdecode(events[at + _HEADER.size : at + _HEADER.size + length].rstrip(b"\0"))
            at += _HEADER.size + length
            if mask & _OVERFLOW:
                moved = True
            elif watch == self._watch:
                moved = moved or not self._whole or bool(mask & (_FATE | _IGNORED))
                wake = wake or self._interesting(name)
        if moved:
            try:
                self._arm()
            except OSError as error:
                self._poll_instead(error)
        if moved or wake:
            self._changed.set()

    def _poll_instead(self, error: OSError) -> None:
        self.close()
        _log.warning(
            "cannot watch %s by inotify: %s; looking every %s s instead", self._path, error.strerror, POLL_PERIOD
        )
        self._changed.set()

    def _check(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return int(result)
