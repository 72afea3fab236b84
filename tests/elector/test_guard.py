"""Acting for a keeper that is dead: what is left of the command is ended, and seen to be."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid

from awaitelect import protocol
from awaitelect.elector.guard import TreeGuard
from awaitelect.logs import Log


def test_what_is_left_is_ended_even_if_the_time_for_it_has_passed_already() -> None:
    """The machine may have slept between the decision and the first look: what wakes up with us must not stay."""
    instance = uuid.uuid4().hex
    code = "import time; print('up', flush=True); time.sleep(600)"
    environment = {**os.environ, protocol.MARK: instance}
    left = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    assert left.stdout and left.stdout.readline() == b"up\n"
    guard = TreeGuard(instance, Log(), left.pid)
    try:
        assert asyncio.run(guard.kill_tree(0.0, 0.0))
        assert left.wait() == -signal.SIGKILL
    finally:
        left.kill()
        left.stdout.close()
