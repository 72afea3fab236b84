"""The torture of a normal run of the tests: short, beside others that need the machine too."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

SLACK = 60
"""Seconds that a new leader may come late: what is bounded here is that one comes at all."""
GRACE = 400
"""Seconds that it may take over its time: for the start, the end, and the last episode."""
_DAY = 86400


def survives(store: str, minutes: int) -> None:
    """Fails with the report and the command to repeat it."""
    seed = int(time.time() // _DAY)
    words = ["--store", store, "--minutes", str(minutes), "--seed", str(seed), "--slack", str(SLACK)]
    words += ["--without", "busy machine"]  # the other tests are that
    argv = [sys.executable, "-m", "tests.torture", *words]
    try:
        done = subprocess.run(
            argv,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60 * minutes + GRACE,
        )
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"the torture has not ended: {error}")
    print(done.stdout, done.stderr)
    assert done.returncode == 0
