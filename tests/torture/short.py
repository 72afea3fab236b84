"""The torture of a normal run of the tests: short, beside others that need the machine too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SLACK = 60
"""Seconds that a new leader may come late: what is bounded here is that one comes at all."""
GRACE = 400
"""Seconds that it may take over its time: for the start, the end, and the last episode."""
SEED = 1


def survives(store: str, minutes: int) -> None:
    """Fails with the report and the command to repeat it."""
    words = ["--store", store, "--minutes", str(minutes), "--seed", str(SEED), "--slack", str(SLACK)]
    words += ["--without", "busy machine"]  # the other tests are that
    argv = [sys.executable, "-m", "tests.torture", *words]
    root = Path(__file__).parents[2]
    with subprocess.Popen(argv, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said, _ = process.communicate(timeout=60 * minutes + GRACE)
        except subprocess.TimeoutExpired:
            process.terminate()
            said, _ = process.communicate()
            pytest.fail(f"the torture has not ended:\n{said}")
    print(said)
    assert process.returncode == 0
