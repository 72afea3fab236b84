"""Where the API server is found and how credentials come and go."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from awaitelect.core.lease import ABSENT
from awaitelect.errors import ConfigError, StoreUnavailable
from awaitelect.stores import kubernetes_access
from awaitelect.stores.kubernetes import KubernetesStore
from tests.envtest import ADMIN_TOKEN, TESTER_TOKEN, ControlPlane
from tests.stores.scripted import Request, found, scripted, status

T = 5.0


async def expect_refusal(match: str, **options: Any) -> None:
    """Connecting ends with a line that says why."""
    with pytest.raises(ConfigError, match=match):
        await KubernetesStore.connect("x", **options)


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration but what the test gives."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


async def test_no_configuration_anywhere_is_said(tmp_path: Path) -> None:
    """The first thing that a newcomer meets."""
    await expect_refusal(r"cannot find a cluster: .*\.kube/config")
    await expect_refusal("there is no kubeconfig /no/such", kubeconfig="/no/such")


@pytest.mark.parametrize("content", ["", "[]", "a: [", "clusters: 5", "{}", "\0"])
async def test_a_broken_kubeconfig_is_named(tmp_path: Path, content: str) -> None:
    """Whatever is in the file, it is one line with the file's name, and no traceback."""
    (tmp_path / "kc").write_text(content)
    await expect_refusal(str(tmp_path / "kc"), kubeconfig=str(tmp_path / "kc"))


async def test_an_unknown_context_is_named(cluster: ControlPlane, tmp_path: Path) -> None:
    """A typing error in `context`."""
    await expect_refusal("prod", kubeconfig=cluster.kubeconfig(tmp_path / "kc"), context="prod")


async def test_an_unknown_user_or_authority_is_named(cluster: ControlPlane, tmp_path: Path) -> None:
    """A half-copied kubeconfig, or one whose certificate stayed on another machine."""
    path = tmp_path / "kc"
    cluster.kubeconfig(path)
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**content, "users": []}))
    await expect_refusal("it has no user 'test'", kubeconfig=str(path))
    for authority in ("/no/such.crt", str(path)):
        content["clusters"][0]["cluster"]["certificate-authority"] = authority
        path.write_text(yaml.safe_dump(content))
        await expect_refusal("cannot use kubeconfig", kubeconfig=str(path))


async def test_the_namespace_is_the_given_then_the_contexts_then_default(cluster: ControlPlane, tmp_path: Path) -> None:
    """As kubectl does it."""
    plain = cluster.kubeconfig(tmp_path / "plain")
    named = cluster.kubeconfig(tmp_path / "named", namespace="storage")
    assert (await KubernetesStore.connect("x", "given", named)).lock == "kubernetes:given/x"
    assert (await KubernetesStore.connect("x", None, named)).lock == "kubernetes:storage/x"
    assert (await KubernetesStore.connect("x", None, plain)).lock == "kubernetes:default/x"


async def test_kubeconfig_variable_and_home_are_used(
    cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable may name several files; the file in the home comes last."""
    (tmp_path / "home" / ".kube").mkdir(parents=True)
    cluster.kubeconfig(tmp_path / "home" / ".kube" / "config", namespace="home")
    assert (await KubernetesStore.connect("x")).lock == "kubernetes:home/x"
    monkeypatch.setenv("KUBECONFIG", f"/no/such:{cluster.kubeconfig(tmp_path / 'kc', namespace='variable')}")
    assert (await KubernetesStore.connect("x")).lock == "kubernetes:variable/x"


async def test_a_client_certificate_is_enough(cluster: ControlPlane, tmp_path: Path) -> None:
    """As a file and inside the kubeconfig, whose copies for OpenSSL do not stay on the disk."""
    certificate, key = cluster.folder / "admin.crt", cluster.folder / "admin.key"
    inside = {
        "client-certificate-data": base64.b64encode(certificate.read_bytes()).decode(),
        "client-key-data": base64.b64encode(key.read_bytes()).decode(),
    }
    for user in ({"client-certificate": str(certificate), "client-key": str(key)}, inside):
        store = await KubernetesStore.connect("none", "default", cluster.kubeconfig(tmp_path / "kc", user))
        assert await store.read(T) == ABSENT
        await store.close()
    for path in Path(tempfile.gettempdir()).glob("tmp*"):
        with suppress(OSError):  # others' come and go
            assert not path.is_file() or path.read_bytes() != key.read_bytes()


async def test_in_cluster_files_are_used_and_followed(
    cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet replaces the token within its life, and the new one is used before the old one is refused (it is only
    not allowed, here); a new line at its end is not part of it.
    """
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(cluster.port))
    (tmp_path / "ca.crt").write_bytes(cluster.ca.read_bytes())
    (tmp_path / "namespace").write_text("kube-system\n")
    (tmp_path / "token").write_text(f"{TESTER_TOKEN}\n")
    store = await KubernetesStore.connect("none", service_account=tmp_path)
    assert store.lock == "kubernetes:kube-system/none"
    with pytest.raises(StoreUnavailable, match="not allowed"):
        await store.read(T)
    (tmp_path / "token").write_text(f"  {ADMIN_TOKEN}\n")
    assert await store.read(T) == ABSENT
    await store.close()


async def test_a_401_has_the_token_read_again(tmp_path: Path) -> None:
    """A rotation may leave the file's looks as they were; then the refusal tells."""
    token = tmp_path / "token"
    token.write_text("old-token")
    stamp = token.stat()

    async def play(request: Request) -> bytes | None:
        if request.headers["authorization"] == "Bearer new-token":
            return found(7)
        token.write_text("new-token")
        os.utime(token, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        return status(401, "Unauthorized")

    async with scripted(play) as server:
        config = server.kubeconfig(tmp_path / "kc", {"tokenFile": str(token)})
        store = await KubernetesStore.connect("x", "ns", config)
        assert (await store.read(T)).version == 7
        await store.close()


def plugin(path: Path, script: str) -> dict[str, Any]:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path)}}


async def test_a_credential_plugin_is_run_and_run_again_when_refused(tmp_path: Path) -> None:
    """Its token may end at any time; its stdin is not ours."""
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "T$n"}}
    script = f"""read line && exit 9
echo run >>{tmp_path}/runs; n=$(wc -l <{tmp_path}/runs)
cat <<E
{json.dumps(answer)}
E"""

    async def play(request: Request) -> bytes | None:
        return found(7) if request.headers["authorization"] == "Bearer T2" else status(401, "Unauthorized")

    async with scripted(play) as server:
        config = server.kubeconfig(tmp_path / "kc", plugin(tmp_path / "plugin", script))
        store = await KubernetesStore.connect("x", "ns", config)
        assert (await store.read(T)).version == 7
        await store.close()


@pytest.mark.parametrize(
    ("script", "match"),
    [
        ("echo no luck >&2; exit 3", "plugin: it ended with 3: no luck"),
        ("echo nonsense", "cannot get credentials from plugin"),
        ("echo '{}'", "neither token nor certificate"),
        ("sleep 100", r"plugin gave none within 0\.3 s"),
    ],
)
async def test_a_plugin_that_fails_is_an_error(
    tmp_path: Path, script: str, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going on without credentials would only show as a 403 that explains nothing. It may get better by itself."""
    monkeypatch.setattr(kubernetes_access, "PLUGIN_TIMEOUT", 0.3 if script == "sleep 100" else 30.0)
    async with scripted(lambda request: asyncio.sleep(0, None)) as server:
        config = server.kubeconfig(tmp_path / "kc", plugin(tmp_path / "plugin", script))
        began = time.monotonic()
        store = await KubernetesStore.connect("x", "ns", config)
        with pytest.raises(StoreUnavailable, match=match):
            await store.read(T)
        await store.close()
        assert time.monotonic() - began < 50 and server.requests == []


async def test_reading_a_kubeconfig_leaves_the_api_client_alone(cluster: ControlPlane, tmp_path: Path) -> None:
    """It is not loaded, and whoever wants it in the same process still gets the real one."""
    script = """
import asyncio, sys
from awaitelect.stores.kubernetes import KubernetesStore
asyncio.run(KubernetesStore.connect("x", None, sys.argv[1]))
print("kubernetes.aio.client.api_client" in sys.modules)
from kubernetes.aio.client import ApiClient
print(ApiClient.__name__)
"""
    command = [sys.executable, "-c", script, cluster.kubeconfig(tmp_path / "kc")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "ApiClient"]


COST = """
import sys, time
began = time.perf_counter()
import {module}
took = time.perf_counter() - began
from pathlib import Path
pss = next(int(l.split()[1]) for l in Path("/proc/self/smaps_rollup").read_text().splitlines() if l.startswith("Pss:"))
print(len([m for m in sys.modules if m.startswith("kubernetes.")]), round(took * 1000), round(pss / 1024))
"""


def cost(module: str) -> tuple[int, int, int]:
    """Modules of the client, milliseconds, and megabytes that an import costs in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", COST.format(module=module)], capture_output=True, text=True, check=True
    )
    modules, took, memory = map(int, done.stdout.split())
    return modules, took, memory


def test_bare_parent_packages_are_still_worth_it_and_still_work() -> None:
    """Should a release of the client import its parts by need, the trick can go; should it break it, this tells."""
    ours, full = cost("awaitelect.stores.kubernetes"), cost("kubernetes.aio")
    assert ours[0] < 15
    assert full[0] > ours[0] + 10, "the parents import little now: put no bare packages into sys.modules any more"
    assert ours[2] < full[2] - 5


def test_aiohttp_reads_no_certificates_of_the_system_and_we_still_can() -> None:
    """They are half of its import; but a kubeconfig without a CA of its own needs them."""
    script = """
import ssl
import awaitelect.stores.kubernetes
import aiohttp.connector as connector
print(len(connector._SSL_CONTEXT_VERIFIED.get_ca_certs()), len(connector._SSL_CONTEXT_UNVERIFIED.get_ca_certs()))
context = ssl.create_default_context()
print("set_default_verify_paths" in vars(ssl.SSLContext), context.load_default_certs.__func__.__qualname__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "False", "SSLContext.load_default_certs"]
