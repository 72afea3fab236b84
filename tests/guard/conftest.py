"""The same fleets and leases as the other tests with whole instances have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import _default_signals, file_lock, fleet, lock
from tests.e2e.test_kill_modes import frozen
from tests.guard.halves import ElectorAlone, KeeperAlone

__all__ = ["_default_signals", "file_lock", "fleet", "frozen", "lock"]


@pytest.fixture
def elector(tmp_path: Path) -> Iterator[ElectorAlone]:
    """A real elector, whose keeper is the test."""
    one = ElectorAlone(tmp_path)
    yield one
    one.close()


@pytest.fixture
def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeeperAlone]:
    """A real keeper, whose elector is the test; in the test's `place`, if it has one."""
    one = KeeperAlone(tmp_path, request.getfixturevalue("place") if "place" in request.fixturenames else "child")
    yield one
    one.close()
