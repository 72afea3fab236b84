"""A fleet of instances for each test, and the lease that they share."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.instances import Fleet
from tests.e2e.locks import FileLock, KubernetesLock, Lock

NAMESPACE = "e2e"


@pytest.fixture(scope="session", autouse=True)
def _default_signals() -> Iterator[None]:
    """What was ignored when the tests were started (nohup, a shell's &) would be for every command too."""
    changed = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)}
    for number, action in changed.items():
        if action == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, action in changed.items():
        signal.signal(number, action)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Ends whatever the test has started, and fails it if two commands ever ran at once."""
    with Fleet(tmp_path) as one:
        yield one


@pytest.fixture
def file_lock(tmp_path: Path) -> Lock:
    return FileLock(tmp_path)


@pytest.fixture(params=["file", "kubernetes"])
def lock(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lock]:
    """A lease in a folder, and one on a real API server."""
    if request.param == "file":
        yield FileLock(tmp_path)
        return
    cluster = request.getfixturevalue("cluster")
    lock = KubernetesLock(cluster, cluster.create_namespace(NAMESPACE), f"lease-{uuid.uuid4().hex[:8]}", tmp_path)
    try:
        yield lock
    finally:
        lock.proxy.close()
