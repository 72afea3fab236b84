"""What several folders of tests share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.envtest import ControlPlane, assets

LONG = ("tests/e2e/test_torture", "tests/guard/", "tests/e2e/", "tests/stores/")
"""What takes long, most of it waiting."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[ControlPlane]:
    """A real API server, started once for the whole run."""
    if assets() is None:
        pytest.skip("KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver")
    with ControlPlane(patience=180.0) as control_plane:
        yield control_plane


# The same examples in every run, so that a run that fails fails again; new ones, and more of them, with
# HYPOTHESIS_PROFILE=long. How long one takes tells of the machine.
settings.register_profile(
    "normal",
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("long", settings.get_profile("normal"), derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "normal"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: else the last of them would run alone at the end."""
    items.sort(key=lambda item: [not item.nodeid.startswith(one) for one in LONG])


def pytest_configure() -> None:
    """Say that there is no event loop: else pytest-asyncio has one made that nobody closes, and whichever test runs
    when it is collected fails for it.
    """
    asyncio.set_event_loop(None)
