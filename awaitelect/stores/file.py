"""The lease in a folder of this machine, for instances that run side by side on it.

Boundary: only this module knows the files. Nothing is locked, so a stopped or killed process stands in nobody's way.

Each version is a file of its own. Version n follows version n-1 by link(2) of a fully written file to the name n, which
fails if that name exists: of all who write on top of n-1, one succeeds. The highest number counts. The first version
has the name 0, so that of all who create the lease, one succeeds; its number stands inside and is the wall clock's
microseconds, so that it is above all that there was before a deletion. It is kept as long as the lease exists: files
numbered below it belong to a deleted lease and count for nothing, and without it there is no lease.

There is no fsync: after a crash of the machine no command runs any more, and any version that is left will do.

The time-outs of the protocol are not needed here: the calls are short and local, and cannot be cut short.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from awaitelect.config.text_file import SpecialFile, read_bytes
from awaitelect.core.lease import ABSENT, Observed, Record
from awaitelect.errors import Conflict, StoreUnavailable
from awaitelect.stores import inotify
from awaitelect.stores.wire import merge_record, parse_record, parse_version

_log = logging.getLogger("awaitelect.stores")

_NAME = re.compile(r"(\d{19})\.json", re.ASCII)
_FIRST = 0
_KEEP = 4
"""How many older versions stay, for people to look at."""
_ABANDONED = 60.0
"""Seconds after which an unfinished file is taken for a dead writer's; one that was only stopped gets a Conflict."""
_LARGEST = 3_000_000
"""Bytes of a version at most, twice what a cluster would store."""
_TRIES = 100
_LOOK_AGAIN = 1.0
"""Seconds to the next look where the last one failed: what was wrong may be mended without a trace in the folder."""


class FileStore:
    """A lease whose versions are files in the folder `path`."""

    def __init__(self, path: str) -> None:
        """Touches nothing yet; the folder and those above it are made by the first `create`."""
        self._given = path
        self._path = os.path.abspath(path)
        self._highest = 0

    @property
    def lock(self) -> str:
        """`file:PATH`, the path as it was given."""
        return f"file:{self._given}"

    async def read(self, timeout: float) -> Observed:
        """The version that counts now. Raises StoreUnavailable, which names the file."""
        return self._look()

    async def create(self, record: Record, timeout: float) -> Observed:
        """The first version. Raises Conflict where the lease exists, StoreUnavailable otherwise."""
        try:
            os.makedirs(self._path, mode=0o700, exist_ok=True)
            numbers = self._numbers()
        except FileExistsError as error:
            raise StoreUnavailable(f"cannot use {self._path}: it is not a folder", uncertain=False) from error
        except OSError as error:
            raise self._unavailable("create", self._path, error) from error
        if _FIRST in numbers:
            raise Conflict(f"cannot create {self.lock}: it exists")
        version = max(time.time_ns() // 1000, self._highest + 1, max(numbers, default=0) + 1)
        lease = _numbered(merge_record({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}, record), version)
        self._add(_FIRST, lease)
        return self._seen(lease)

    async def update(self, base: Observed, record: Record, timeout: float) -> Observed:
        """The next version. Raises Conflict where `base` is not the one that counts, StoreUnavailable otherwise."""
        if base.record is None or self._look().version != base.version:
            raise Conflict(f"cannot update {self.lock}: it has changed")
        version = base.version + 1
        lease = _numbered(merge_record(base.raw, record), version)
        self._add(version, lease)
        try:
            numbers = self._numbers()
            # A writer that was stopped before its link may have hit a name that was long used and cleaned up, or that
            # belongs to a lease that is deleted. Both show now, and nobody took its file for the present one.
            first = self._load(_FIRST) if _FIRST in numbers else None
        except OSError as error:
            raise self._unavailable("read", self._path, error, uncertain=True) from error
        if first is None or _version(first) > version or max(numbers) > version or version not in numbers:
            self._remove(version)
            raise Conflict(f"cannot update {self.lock}: it has changed")
        self._clean(numbers, version)
        return self._seen(lease)

    async def watch(self, since: Observed) -> AsyncIterator[Observed]:
        """Each version after `since`; of several in quick succession the last."""
        known, complaint = since, ""
        folder = inotify.FolderWatch(self._path, lambda name: _NAME.fullmatch(name) is not None)
        try:
            while True:
                try:
                    found = self._look()
                except StoreUnavailable as error:
                    if str(error) != complaint:
                        complaint = str(error)
                        _log.warning("cannot watch %s: %s", self.lock, error)
                    await folder.wait(_LOOK_AGAIN)
                    continue
                complaint = ""
                if found.record != known.record or (found.record and found.version != known.version):
                    known = found
                    yield found
                    continue
                await folder.wait()
        finally:
            folder.close()

    async def close(self) -> None:
        """Nothing is held between calls."""

    def _look(self) -> Observed:
        for _ in range(_TRIES):
            try:
                numbers = self._numbers()
                if _FIRST not in numbers:
                    return ABSENT
                lease = first = self._load(_FIRST)
                if max(numbers) > _version(first):
                    lease = self._load(max(numbers))
            except NotADirectoryError as error:
                raise StoreUnavailable(f"cannot use {self._path}: it is not a folder", uncertain=False) from error
            except FileNotFoundError:
                # Somebody cleaned up or removed the lease between the two looks. Each turn needs another such writer.
                continue
            except OSError as error:
                raise self._unavailable("read", str(error.filename or self._path), error) from error
            return self._seen(lease)
        raise StoreUnavailable(f"cannot read {self._path}: its files come and go, or are links to nothing")

    def _seen(self, lease: dict[str, Any]) -> Observed:
        version = _version(lease)
        self._highest = max(self._highest, version)
        return Observed(version, parse_record(lease), lease)

    def _numbers(self) -> set[int]:
        try:
            return {int(found[1]) for found in map(_NAME.fullmatch, os.listdir(self._path)) if found}
        except FileNotFoundError:
            return set()

    def _load(self, number: int) -> dict[str, Any]:
        """The lease in a version's file, with its number inside. Raises OSError, and StoreUnavailable for nonsense."""
        path = self._file(number)
        try:
            content = read_bytes(path, _LARGEST)
        except SpecialFile as error:
            raise StoreUnavailable(f"cannot read {path}: it is no regular file; remove it") from error
        if len(content) > _LARGEST:
            raise StoreUnavailable(f"cannot read {path}: it is larger than {_LARGEST} bytes; mend or remove it")
        try:
            lease = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise StoreUnavailable(f"cannot read {path}: it is not JSON; mend or remove it") from error
        if not isinstance(lease, dict):
            raise StoreUnavailable(f"cannot read {path}: it is not a lease; mend or remove it")
        if number != _FIRST:
            return _numbered(lease, number)
        if not _version(lease):
            raise StoreUnavailable(f"cannot read {path}: metadata.resourceVersion is no number; mend or remove it")
        return lease

    def _add(self, number: int, lease: dict[str, Any]) -> None:
        """Write the lease under the number's name. Raises Conflict if it is taken, StoreUnavailable for the rest."""
        draft = os.path.join(self._path, f".draft-{os.getpid()}-{secrets.token_hex(6)}")
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "w") as file:
                json.dump(lease, file, indent=1)
            os.link(draft, self._file(number))
        except FileExistsError as error:
            raise Conflict(f"cannot write {self.lock}: somebody else was first") from error
        except FileNotFoundError as error:
            # The folder was removed, or we were stopped for so long that our draft was cleaned up.
            raise Conflict(f"cannot write {self.lock}: it was removed") from error
        except OSError as error:
            raise self._unavailable("write", self._file(number), error) from error
        finally:
            with suppress(OSError):
                os.unlink(draft)

    def _clean(self, numbers: set[int], ours: int) -> None:
        """Take away what nobody needs: by the names just listed, which are all below a version that counts."""
        for number in sorted(numbers - {_FIRST, ours})[:-_KEEP]:
            self._remove(number)
        with suppress(OSError), os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name.startswith(".draft-") and time.time() - entry.stat().st_mtime > _ABANDONED:
                    os.unlink(entry.path)

    def _remove(self, number: int) -> None:
        with suppress(OSError):
            os.unlink(self._file(number))

    def _file(self, number: int) -> str:
        return os.path.join(self._path, f"{number:019d}.json")

    def _unavailable(self, verb: str, path: str, error: OSError, uncertain: bool = False) -> StoreUnavailable:
        code = errno.errorcode.get(error.errno or 0, "?")
        return StoreUnavailable(f"cannot {verb} {path}: {error.strerror} ({code})", uncertain=uncertain)


def _version(lease: dict[str, Any]) -> int:
    metadata = lease.get("metadata")
    return parse_version(metadata.get("resourceVersion")) if isinstance(metadata, dict) else 0


def _numbered(lease: dict[str, Any], version: int) -> dict[str, Any]:
    metadata = lease.get("metadata")
    return {**lease, "metadata": {**(metadata if isinstance(metadata, dict) else {}), "resourceVersion": str(version)}}
