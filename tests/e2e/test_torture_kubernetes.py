"""Two minutes of torture with a Lease on a real API server: see tests/torture. By hand, for as long as wanted:
`python -m tests.torture --instances 3 --minutes 60 --store kubernetes`.
"""

from __future__ import annotations

import pytest

from tests.envtest import assets
from tests.torture.short import survives


@pytest.mark.skipif(assets() is None, reason="KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver")
def test_two_minutes_of_torture_with_a_lease_on_a_cluster() -> None:
    """Never two commands at once, and nothing left behind, whatever strikes. By hand the seed is another each time."""
    survives("kubernetes", 2)
