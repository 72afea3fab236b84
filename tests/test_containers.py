"""What is in containers/: the image's steps, and the manifests on a real API server, started as they are written.

The image takes a minute or two, and Debian's packages, so it is not made in the normal run:
`python -m pytest -m image tests/test_containers.py`, as root, with debootstrap installed.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from awaitelect.config.model import Settings
from awaitelect.config.service_kinds import Port
from awaitelect.config.sources import DRAIN_TIME, load
from awaitelect.keeper import guard, loop, stderr_tail
from tests import images
from tests.e2e.instances import PROGRAM, eventually
from tests.envtest import ControlPlane, write_kubeconfig
from tests.pods import Pod, need_root, resolved_environment, token_of, write_account

ROOT = Path(__file__).resolve().parent.parent
CONTAINERS = ROOT / "containers"
DOCKERFILES = (CONTAINERS / "Dockerfile", CONTAINERS / "example/Dockerfile")
MANIFESTS = tuple(sorted((CONTAINERS / "kubernetes").glob("*.yaml")))
FIELDS = {"metadata.namespace": "default", "spec.nodeName": "node-1"}


def objects(name: str) -> list[dict[str, Any]]:
    """What a manifest holds."""
    return list(yaml.safe_load_all((CONTAINERS / "kubernetes" / f"{name}.yaml").read_text("utf-8")))


def named(name: str, kind: str) -> dict[str, Any]:
    (found,) = (one for one in objects(name) if one["kind"] == kind)
    return found


POD_SPEC: dict[str, Any] = named("deployment", "Deployment")["spec"]["template"]["spec"]
(CONTAINER,) = POD_SPEC["containers"]


def instruction(dockerfile: Path, name: str) -> str:
    """The last one of that name."""
    return [one.text for one in images.instructions_of(dockerfile) if one.name == name][-1]


def install_requires() -> list[Requirement]:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return [Requirement(line) for line in settings["options"]["install_requires"].split()]


# ---------------------------------------------------------------------- the image


def test_every_image_is_made_of_a_named_and_replaceable_base() -> None:
    """`latest` would be another one tomorrow; with a digest in the argument it is the same for ever."""
    for dockerfile in DOCKERFILES:
        first, *rest = images.instructions_of(dockerfile)
        assert first.name == "ARG"
        variable, _, default = first.text.partition("=")
        assert re.fullmatch(r"[a-z0-9./-]+:[a-z0-9.-]*[0-9][a-z0-9.-]*", default), default
        bases = [one.text.split()[0] for one in rest if one.name == "FROM"]
        assert bases and set(bases) == {f"${{{variable}}}"}


def test_the_container_is_nobody_s_and_starts_awaitelect() -> None:
    """By number: with a name Kubernetes cannot see that it is not root."""
    dockerfile = DOCKERFILES[0]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instruction(dockerfile, "USER"))
    assert instruction(dockerfile, "ENTRYPOINT") == '["awaitelect"]'
    example = {one.name for one in images.instructions_of(DOCKERFILES[1])}
    assert not example & {"ENTRYPOINT", "USER"}, "what is on top of it keeps both"


def test_what_comes_from_outside_is_pinned_by_hashes() -> None:
    """Whoever takes over an index must not get into the image."""
    installs = [
        line
        for one in images.instructions_of(DOCKERFILES[0])
        if one.name == "RUN"
        for line in one.text.split("&&")
        if re.search(r"\bpip\b.*\b(install|wheel|download)\b", line)
    ]
    assert len(installs) == 4
    for line in installs:
        assert "--no-index" in line or "--require-hashes" in line, line
    for name in ("requirements.txt", "requirements-build.txt"):
        text = (CONTAINERS / name).read_text("utf-8").replace("\\\n", "")
        for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
            assert re.match(r"[a-z0-9.-]+==\S+\s+--hash=sha256:[0-9a-f]{64}\b", line), line


def test_the_pinned_versions_are_those_that_the_package_asks_for() -> None:
    """A dependency that was added, or raised, and is not in the image would be found out there."""
    pinned = dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (CONTAINERS / "requirements.txt").read_text("utf-8"), re.M))
    for one in install_requires():
        assert one.name.lower() in pinned, f"{one.name}: renew containers/requirements.txt"
        assert one.specifier.contains(pinned[one.name.lower()]), f"{one}: {pinned[one.name.lower()]} is pinned"


def test_the_pins_are_for_the_python_of_the_base() -> None:
    """Wheels are made for one version of Python."""
    header = re.search(r"with Python (\d+\.\d+)", (CONTAINERS / "requirements.txt").read_text("utf-8"))
    base = images.instructions_of(DOCKERFILES[0])[0].text
    assert header and f"python:{header[1]}." in base


def test_what_is_taken_out_of_the_image_is_never_imported(tmp_path: Path) -> None:
    """With a kubeconfig, in-cluster, and with the Service: each module that the elector may load is loaded here."""
    (removed,) = (one.text for one in images.instructions_of(DOCKERFILES[0]) if " rm " in one.text)
    prefixes = tuple(f"kubernetes.{path.replace('/', '.')}" for path in removed.partition("rm -r ")[2].split())
    assert len(prefixes) == 3
    code = (
        "import importlib, pkgutil, sys, awaitelect\n"
        "for one in pkgutil.walk_packages(awaitelect.__path__, 'awaitelect.'):\n"
        "    if not one.name.endswith('__main__'): importlib.import_module(one.name)\n"
        "from awaitelect.stores import kubernetes_access as access\n"
        "access._import_kubeconfig()\n"
        "import asyncio\n"
        "print(type(asyncio.run(access.AccessSource(sys.argv[1], None).current())).__name__)\n"
        "print(*sys.modules)\n"
    )
    user: dict[str, Any] = {"token": "t"}
    write_kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", user, None, None)
    argv = [sys.executable, "-c", code, str(tmp_path / "kubeconfig")]
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    assert shown[0] == "Access"
    loaded = shown[1].split()
    assert "kubernetes.aio.config.kube_config" in loaded
    assert [name for name in loaded if any(name == one or name.startswith(f"{one}.") for one in prefixes)] == []


# ---------------------------------------------------------------------- the manifests, as they are written


def test_each_pod_fits_the_restricted_profile() -> None:
    """Of Kubernetes' Pod Security Standards."""
    pod, container = POD_SPEC["securityContext"], CONTAINER["securityContext"]
    assert pod["runAsNonRoot"] is True and pod["seccompProfile"]["type"] == "RuntimeDefault"
    assert container["allowPrivilegeEscalation"] is False and container["capabilities"] == {"drop": ["ALL"]}
    assert container["readOnlyRootFilesystem"] is True
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & POD_SPEC.keys()
    assert instruction(DOCKERFILES[0], "USER") == f"{pod['runAsUser']}:{pod['runAsGroup']}"


def test_the_time_that_a_pod_has_to_end_is_what_ours_add_up_to() -> None:
    """Shorter, and the kubelet kills what is about to release the lease; the comment names each of the parts."""
    parts = (DRAIN_TIME, Settings().stop.timeout, guard.STUCK_AFTER, loop.ELECTOR_TIME, stderr_tail.LAST_WAIT)
    assert POD_SPEC["terminationGracePeriodSeconds"] == sum(parts)
    text = (CONTAINERS / "kubernetes/deployment.yaml").read_text("utf-8")
    comment = text[: text.index("terminationGracePeriodSeconds")].rsplit("\n\n", 1)[-1]
    assert tuple(float(one) for one in re.findall(r"\((\d+)\)", comment)) == parts


def test_the_probes_ask_pages_that_there_are_on_the_status_port() -> None:
    """And give an instance that starts the time for it."""
    environment = resolved_environment(CONTAINER, {**FIELDS, "metadata.name": "a", "status.podIP": "10.0.0.7"})
    listen = load({}, ["true"], environment).settings.status.listen
    ports = {one["name"]: one["containerPort"] for one in CONTAINER["ports"]}
    assert listen is not None and ports["status"] == listen.port
    asked = {one: CONTAINER[one]["httpGet"] for one in ("livenessProbe", "readinessProbe")}
    assert asked["livenessProbe"] == {"path": "/livez", "port": "status"}
    assert asked["readinessProbe"] == {"path": "/readyz", "port": "status"}


def test_the_configuration_in_the_manifest_gives_no_warning_and_fits_the_service() -> None:
    environment = resolved_environment(CONTAINER, {**FIELDS, "metadata.name": "a", "status.podIP": "10.0.0.7"})
    loaded = load({}, CONTAINER["args"], environment)
    service = named("service", "Service")
    assert loaded.warnings == [] and loaded.identity == "a"
    assert "selector" not in service["spec"], "whoever has one is overwritten by the cluster"
    assert loaded.settings.service.name == service["metadata"]["name"]
    ports = [Port(one["name"], one["targetPort"], one["protocol"]) for one in service["spec"]["ports"]]
    assert list(loaded.settings.service.ports) == ports


def test_the_role_allows_no_more_than_what_is_asked_for() -> None:
    """What can be limited to a name is; the names are those of the lease and of the Service's slices."""
    for rule in named("rbac", "Role")["rules"]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert ("create" in rule["verbs"]) == ("resourceNames" not in rule)
    names = {name for rule in named("rbac", "Role")["rules"] for name in rule.get("resourceNames", [])}
    assert names == {"billing", "billing-awaitelect-ipv4", "billing-awaitelect-ipv6"}


# ---------------------------------------------------------------------- on a real API server


def for_old_servers(text: str) -> str:
    """The flow control of the test's API server (1.20) has another version, and another name for the shares."""
    text = text.replace("flowcontrol.apiserver.k8s.io/v1\n", "flowcontrol.apiserver.k8s.io/v1beta1\n")
    return text.replace("nominalConcurrencyShares:", "assuredConcurrencyShares:")


class Applied:
    """The manifests on a cluster."""

    def __init__(self, cluster: ControlPlane, folder: Path) -> None:
        self.cluster, self._folder = cluster, folder
        kubectl = Path(os.environ["KUBEBUILDER_ASSETS"]) / "kubectl"
        if not kubectl.is_file():
            pytest.skip("KUBEBUILDER_ASSETS has no kubectl")
        self._kubectl = [str(kubectl), f"--kubeconfig={cluster.kubeconfig(folder / 'kubeconfig')}"]
        self.files = []
        for path in MANIFESTS:
            self.files.append(folder / path.name)
            self.files[-1].write_text(for_old_servers(path.read_text("utf-8")))

    def kubectl(self, *words: str) -> str:
        """What it prints. Raises AssertionError with its complaint."""
        done = subprocess.run([*self._kubectl, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pod(self, name: str, address: str, folder: Path, path: str, setup: tuple[str, ...] = (), **more: str) -> Pod:
        """The Deployment's container as it is written, under the rights of its ServiceAccount."""
        account = write_account(
            self.cluster,
            folder / "account",
            "default",
            token_of(self.cluster, "default", POD_SPEC["serviceAccountName"]),
        )
        assert "command" not in CONTAINER, "it has the image's entry point"
        argv = [*yaml.safe_load(instruction(DOCKERFILES[0], "ENTRYPOINT")), *CONTAINER["args"]]
        fields = {**FIELDS, "metadata.name": name, "status.podIP": address}
        environment = {"PATH": path, **resolved_environment(CONTAINER, fields), **more}
        return Pod(folder, name, self.cluster, account, argv, environment, setup)

    def slices(self) -> list[str]:
        """The addresses that the Service's traffic goes to."""
        _, answer = self.cluster.call(
            "GET",
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
            "?labelSelector=kubernetes.io/service-name%3Dbilling",
        )
        return [
            address
            for one in answer["items"]
            for endpoint in one["endpoints"] or []
            if endpoint["conditions"]["ready"]
            for address in endpoint["addresses"]
        ]

    def forget_lease(self) -> None:
        self.cluster.call("DELETE", "/apis/coordination.k8s.io/v1/namespaces/default/leases/billing")


@pytest.fixture(scope="module")
def applied(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applied]:
    one = Applied(cluster, tmp_path_factory.mktemp("applied"))
    words = [f"--filename={path}" for path in one.files]
    one.kubectl("create", *words)
    try:
        yield one
    finally:
        one.kubectl("delete", "--ignore-not-found", "--wait=false", *words)


def test_the_api_server_accepts_every_manifest(applied: Applied) -> None:
    """kubectl has compared each with the server's own schema: a key that it does not know is refused there."""
    for path in applied.files:
        shown = applied.kubectl("get", f"--filename={path}", "--output=name").split()
        assert len(shown) == len(list(yaml.safe_load_all(path.read_text())))


def test_a_key_that_is_misspelt_would_be_refused(applied: Applied, tmp_path: Path) -> None:
    """So that the test above can fail."""
    text = (CONTAINERS / "kubernetes/deployment.yaml").read_text("utf-8")
    (tmp_path / "x.yaml").write_text(
        text.replace("readinessProbe", "readynessProbe").replace("name: billing", "name: x")
    )
    with pytest.raises(AssertionError, match="readynessProbe"):
        applied.kubectl("create", "--dry-run=server", f"--filename={tmp_path}/x.yaml")


def test_requests_for_the_lease_have_a_queue_of_their_own(applied: Applied) -> None:
    """The API server says of each answer which flow schema it was counted under."""
    token = token_of(applied.cluster, "default", "billing")
    _, schema = applied.cluster.call("GET", "/apis/flowcontrol.apiserver.k8s.io/v1beta1/flowschemas/awaitelect")
    context = ssl.create_default_context(cafile=str(applied.cluster.ca))

    def counted_under(path: str) -> str | None:
        request = urllib.request.Request(applied.cluster.url + path, headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                return str(answer.headers["X-Kubernetes-PF-FlowSchema-UID"])
        except urllib.error.HTTPError as error:
            return str(error.headers["X-Kubernetes-PF-FlowSchema-UID"])

    lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/billing"
    # The server learns of a new flow schema a moment after it has been made.
    eventually(lambda: counted_under(lease) == schema["metadata"]["uid"], "the lease has its queue", pace=0.1)
    assert counted_under("/api/v1/namespaces/default/pods") != schema["metadata"]["uid"]


def bills(pod: Pod) -> bool:
    status, text = pod.get(8080, "/")
    return status == 200 and text.startswith(f"{pod.name} bills")


def run_as_written(applied: Applied, first: Pod, second: Pod) -> None:
    """A leader and a follower, both healthy by their probes; the leader is told to end, and traffic follows."""
    eventually(lambda: bills(first), "the first bills", pace=0.1)
    eventually(lambda: applied.slices() == ["10.244.0.5"], "traffic goes to it", pace=0.1)
    for pod in (first, second):
        for probe in ("livenessProbe", "readinessProbe"):
            page = CONTAINER[probe]["httpGet"]["path"]
            eventually(lambda pod=pod, page=page: pod.get(9999, page)[0] == 200, f"{pod.name}: {page}", pace=0.1)
    assert second.get(8080, "/")[0] == 0, "nothing runs in the follower"
    told_at = time.monotonic()
    first.tell(signal.SIGTERM)
    assert first.ends() == 0
    assert time.monotonic() - told_at < POD_SPEC["terminationGracePeriodSeconds"]
    eventually(lambda: bills(second), "the second bills", pace=0.1)
    eventually(lambda: applied.slices() == ["10.244.1.5"], "traffic goes to the second", pace=0.1)
    second.tell(signal.SIGTERM)
    assert second.ends() == 0
    eventually(lambda: applied.slices() == [], "no traffic goes to where nobody is", pace=0.1)
    for pod in (first, second):
        assert "the bill that was begun is written" in pod.output
        assert not re.search(
            r"warning(?!.*traffic is not off in time)|error|not allowed|forbidden", pod.output, re.I
        ), pod.output


def test_the_deployment_s_command_runs_as_it_is_written(applied: Applied, tmp_path: Path) -> None:
    """With its arguments and variables, in namespaces of its own as PID 1, under the rights of the manifest alone."""
    need_root()
    applied.forget_lease()
    (tmp_path / "billing").symlink_to(CONTAINERS / "example/billing.py")
    path = f"{tmp_path}:{Path(PROGRAM).parent}:/usr/bin:/bin:/usr/sbin:/sbin"
    first = applied.pod("billing-a", "10.244.0.5", tmp_path, path)
    try:
        first.says("leading")
        second = applied.pod("billing-b", "10.244.1.5", tmp_path, path)
        try:
            run_as_written(applied, first, second)
        finally:
            second.close()
    finally:
        first.close()


# ---------------------------------------------------------------------- the image, step by step


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> images.Image:
    """The example's image, on top of ours, on top of Debian's packages: no registry is asked for the base."""
    need_root()
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed")
    folder = tmp_path_factory.mktemp("images")
    tag = images.instructions_of(DOCKERFILES[0])[0].text.partition("=")[2]
    suite = tag.rpartition("-")[2]
    base = folder / "base"
    made = ["debootstrap", "--variant=minbase", "--include=python3,python3-venv", suite, str(base)]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    ours = images.build(DOCKERFILES[0], ROOT, {tag: images.Image(base, {})}, folder)
    print(f"\nthe image is {(images.size(ours.root) - images.size(base)) / 2**20:.0f} MiB over its base")
    (folder / "example").mkdir()
    own = images.instructions_of(DOCKERFILES[1])[0].text.partition("=")[2]
    return images.build(DOCKERFILES[1], DOCKERFILES[1].parent, {own: ours}, folder / "example")


@pytest.mark.image
def test_the_image_has_both_names_and_no_pip(image: images.Image) -> None:
    """What installs packages is of no use in there but to others."""
    names = {one.name for one in (image.root / "usr/local/bin").iterdir()}
    assert {"awaitelect", "k8s-await-election", "billing"} <= names
    packages = image.root / "opt/awaitelect/lib/python3.11/site-packages"
    assert (packages / "awaitelect").is_dir() and not (packages / "pip").exists()
    assert not (image.root / "build").exists() and not (image.root / "src").exists()


@pytest.mark.image
def test_the_image_runs_as_the_deployment_says(image: images.Image, applied: Applied, tmp_path: Path) -> None:
    """As nobody's user, without capabilities, on a root that cannot be written; the way a rollout would see it."""
    applied.forget_lease()
    assert (*image.entrypoint, *image.command) == ("awaitelect", *CONTAINER["args"])
    started = []
    try:
        for name, address in (("billing-a", "10.244.0.5"), ("billing-b", "10.244.1.5")):
            setup = tuple(images.in_container(image, tmp_path / f"{name}.termination"))
            path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            (tmp_path / name).mkdir()
            pod = applied.pod(name, address, tmp_path / name, path, setup)
            started.append(pod)
            pod.says("billing" if pod is started[0] else "following")
        first, second = started
        status = Path(f"/proc/{first.pid}/status").read_text()
        assert re.search(r"^Uid:\t65532\t65532\t65532\t65532$", status, re.M)
        assert re.search(r"^CapEff:\t0+$", status, re.M) and re.search(r"^NoNewPrivs:\t1$", status, re.M)
        mounts = [line.split() for line in Path(f"/proc/{first.pid}/mountinfo").read_text().splitlines()]
        writable = {one[4] for one in mounts if one[5].split(",")[0] == "rw"}
        assert not {one for one in writable if not one.startswith(("/proc", "/dev"))}, writable
        run_as_written(applied, first, second)
        assert "SIGTERM" in (tmp_path / "billing-a.termination").read_text()
    finally:
        for pod in started:
            pod.close()
