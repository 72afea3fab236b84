"""What several folders of tests share."""

from __future__ import annotations

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
