"""An end for want of memory is named as one, by a real limit."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from awaitelect.cgroup import own_directory
from tests.e2e.instances import Fleet, eventually, kill
from tests.e2e.locks import Lock

MEMORY = own_directory("memory")
LIMIT = 200 * 2**20
"""Bytes: several times what awaitelect itself needs, so that the kernel chooses the command."""


@pytest.fixture
def limited() -> Iterator[Path]:
    """A memory cgroup of version 1 with that limit."""
    folder = Path(MEMORY) / f"awaitelect-test-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(str(LIMIT))
    yield folder
    eventually(lambda: (folder / "cgroup.procs").read_text() == "", "it is empty")
    folder.rmdir()


@pytest.mark.skipif(
    not os.access(f"{MEMORY}/memory.oom_control", os.W_OK), reason="needs the memory controller of cgroup version 1"
)
def test_a_command_killed_for_want_of_memory_is_said_to_be(fleet: Fleet, file_lock: Lock, limited: Path) -> None:
    """Its status is that of any SIGKILL, and the next run's end by another's signal is not taken for the same."""
    marker = fleet.folder / "has-grown"
    grow = f"import os\nif os.path.exists({str(marker)!r}): os.execvp('sleep', ['sleep', '1000'])\n"
    grow += f"open({str(marker)!r}, 'w').close()\nkept = bytearray({2 * LIMIT})\nos.write(1, kept)"
    prefix = ["sh", "-c", f'echo $$ > {limited}/cgroup.procs; exec "$@"', "sh"]
    settings = {"restart": {"max_restarts": 1, "on_give_up": "exit", "backoff": {"initial": "50ms"}}}
    command = [sys.executable, "-I", "-S", "-c", grow]
    one = fleet.start("one", file_lock, command=command, prefix=prefix, settings=settings)
    one.says("the command was killed for want of memory (oom_kill of its cgroup rose) after")
    one.says("command started", times=2)
    kill(eventually(lambda: fleet.child_running(one.pid, "sleep"), "it runs again"))
    assert one.ends() == 128 + 9
    assert one.stderr.count("want of memory") == 1
    assert "the command was killed by SIGKILL" in one.stderr
