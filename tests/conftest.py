"""What several folders of tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.envtest import ControlPlane, assets


@pytest.fixture(scope="session")
def cluster() -> Iterator[ControlPlane]:
    """A real API server, started once for the whole run."""
    if assets() is None:
        pytest.skip("KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver")
    with ControlPlane() as control_plane:
        yield control_plane


def pytest_configure() -> None:
    """Say that there is no event loop: else pytest-asyncio has one made that nobody closes, and whichever test runs
    when it is collected fails for it.
    """
    asyncio.set_event_loop(None)
