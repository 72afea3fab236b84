"""With the controller that mirrors Endpoints: each address stands in exactly one slice of the Service."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from awaitelect.config.model import Service
from awaitelect.config.service_kinds import Port
from awaitelect.publish.service import ServiceRouting
from awaitelect.publish.standing import Standing
from tests.envtest import ControlPlane
from tests.publish.conftest import SEED_VERBS, Said, Site, eventually

READY = Standing(leads=True, token=7, is_ready=True, is_gone=False)
FOLLOWS = Standing()


@pytest.fixture(scope="module", autouse=True)
def _mirroring(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The real controller, and no other."""
    program = Path(os.environ["KUBEBUILDER_ASSETS"]) / "kube-controller-manager"
    if not program.is_file():
        pytest.skip("KUBEBUILDER_ASSETS has no kube-controller-manager")
    folder = tmp_path_factory.mktemp("controllers")
    kubeconfig = cluster.kubeconfig(folder / "kubeconfig")
    flags = ["--controllers=endpointslicemirroring", "--leader-elect=false", "--secure-port=0", "--port=0"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([program, f"--kubeconfig={kubeconfig}", *flags], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def serving(site: Site) -> list[tuple[str, str]]:
    """Each address that traffic is sent to, and who has written it there."""
    return [
        (address, one["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"].partition(".")[0])
        for one in site.slices()
        for endpoint in one["endpoints"] or []
        if endpoint["conditions"].get("ready")
        for address in endpoint["addresses"]
    ]


def make_service(site: Site) -> None:
    spec = {"ports": [{"name": "rest", "port": 3370}]}
    site.call("POST", "/api/v1/namespaces/NS/services", {"metadata": {"name": "web"}, "spec": spec})


def leave_endpoints(site: Site) -> None:
    """What k8s-await-election leaves behind, mirrored."""
    subsets = [{"addresses": [{"ip": "10.9.9.9"}], "ports": [{"name": "rest", "port": 3370}]}]
    site.call("POST", "/api/v1/namespaces/NS/endpoints", {"metadata": {"name": "web"}, "subsets": subsets})


def routing(site: Site, said: Said, pool: object, **more: str) -> ServiceRouting:
    settings = Service(name="web", pod_ip="10.1.0.1", ports=(Port("rest", 3370),), **more)
    return ServiceRouting(settings, "", site.namespace, pool, "a", False, said.log)  # type: ignore[arg-type]


OF_THE_MIRROR = ("10.1.0.1", "endpointslicemirroring-controller")


@pytest.mark.parametrize("left", [False, True])
async def test_endpoints_alone_are_mirrored_once(site: Site, said: Said, left: bool) -> None:
    """With the rights of k8s-await-election: traffic comes by the mirror, and to nobody else."""
    make_service(site)
    if left:
        leave_endpoints(site)
        await eventually(lambda: [one for one, _ in serving(site)] == ["10.9.9.9"], "it is mirrored")
    one = routing(site, said, await site.poor_pool({"endpoints": SEED_VERBS}))
    one.note(READY)
    await eventually(lambda: serving(site) == [OF_THE_MIRROR], "the mirror has it")
    one.note(FOLLOWS)
    await eventually(lambda: serving(site) == [], "the mirror has it no more")
    await one.finish(0)


@pytest.mark.parametrize("left", [False, True])
async def test_a_slice_of_ours_is_not_doubled_by_a_mirror(site: Site, said: Said, left: bool) -> None:
    """Also where k8s-await-election has left Endpoints behind, which are mirrored up to then."""
    make_service(site)
    if left:
        leave_endpoints(site)
        await eventually(lambda: [one for one, _ in serving(site)] == ["10.9.9.9"], "it is mirrored")
    one = routing(site, said, await site.pool())
    one.note(READY)
    await eventually(lambda: one.is_settled, "it is published")
    await eventually(lambda: serving(site) == [("10.1.0.1", "awaitelect")], "no mirror is left")
    if left:
        await proven(site)
        assert serving(site) == [("10.1.0.1", "awaitelect")]
    one.note(FOLLOWS)
    await eventually(lambda: serving(site) == [], "it is taken off")
    await one.finish(0)


async def proven(site: Site) -> None:
    """The controller has looked at everything that was written before: it mirrors something newer."""
    spec = {"metadata": {"name": "later"}, "spec": {"ports": [{"port": 1}]}}
    site.call("POST", "/api/v1/namespaces/NS/services", spec)
    subsets = [{"addresses": [{"ip": "10.8.8.8"}], "ports": [{"port": 1}]}]
    site.call("POST", "/api/v1/namespaces/NS/endpoints", {"metadata": {"name": "later"}, "subsets": subsets})
    await eventually(lambda: ("10.8.8.8", OF_THE_MIRROR[1]) in serving(site), "the mirror has the later one")
    site.call("DELETE", "/api/v1/namespaces/NS/services/later")
    await eventually(lambda: "10.8.8.8" not in str(serving(site)), "and has it no more")


async def test_when_the_role_grows_the_mirror_gives_way_to_a_slice(site: Site, said: Said) -> None:
    """The next term finds its own Endpoints from before, mirrored."""
    make_service(site)
    old = routing(site, said, await site.pool(), api="endpoints")
    old.note(READY)
    await eventually(lambda: serving(site) == [OF_THE_MIRROR], "the mirror has it")
    await old.finish(0)
    new = routing(site, said, await site.pool())
    new.note(Standing(leads=True, token=9, is_ready=True, is_gone=False))
    await eventually(lambda: serving(site) == [("10.1.0.1", "awaitelect")], "the slice alone has it")
    await new.finish(0)
