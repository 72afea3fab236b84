"""How many examples are tried: so many in each run, a hundred times more with HYPOTHESIS_PROFILE=long."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import settings

MORE = 100 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 1
PATIENCE = 15.0
"""Seconds of processor time after which what should take milliseconds counts as hung: the machine may be slow."""


def examples(number: int) -> settings:
    """Settings for a test with so many examples."""
    return settings(max_examples=number * MORE)


@contextmanager
def soon() -> Iterator[None]:
    """What is done within is done in no time. Processor time: others may have the machine."""
    began = time.process_time()
    yield
    assert time.process_time() - began < PATIENCE, "it takes minutes where it should take milliseconds"


def no_file(path: Path, kind: str) -> None:
    """Put there what can be opened, or found, and is no regular file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        os.mknod(path, 0o600 | stat.S_IFSOCK)
    else:
        raise ValueError(kind)
