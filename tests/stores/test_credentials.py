"""How a real API server is reached, and what becomes of credentials while a lease is held."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import os
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from awaitelect.core.lease import ABSENT
from awaitelect.errors import ConfigError, StoreUnavailable
from awaitelect.stores import kubernetes_access
from awaitelect.stores.kubernetes import KubernetesStore
from tests.envtest import ADMIN_TOKEN, ControlPlane, write_kubeconfig
from tests.misbehaving import Asked, Gate, Tunnel
from tests.stores.scripted import Request, found, scripted, status

# What a time-out has cut off is taken apart whenever the garbage collector comes to it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _tidied() -> Iterator[None]:
    """It is not to come to it in somebody else's test."""
    yield
    gc.collect()


T = 5.0
SECRET = "sesame-open-sesame"


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration but what the test gives."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def write(path: Path, user: dict[str, Any], **cluster: Any) -> str:
    """A kubeconfig with these in its user and its cluster."""
    write_kubeconfig(path, "https://127.0.0.1:1", user, None, None)
    content = yaml.safe_load(path.read_text())
    content["clusters"][0]["cluster"].update({key.replace("_", "-"): value for key, value in cluster.items()})
    path.write_text(yaml.safe_dump(content))
    return str(path)


@asynccontextmanager
async def connected(kubeconfig: str, context: str | None = None) -> AsyncIterator[KubernetesStore]:
    store = await KubernetesStore.connect("none", "default", kubeconfig, context)
    try:
        yield store
    finally:
        await store.close()


async def read_through(kubeconfig: str) -> None:
    async with connected(kubeconfig) as store:
        await store.read(T)


def plugin(path: Path, script: str, **settings: Any) -> dict[str, Any]:
    """A user of a kubeconfig whose credentials come from this script."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path), **settings}}


def credential(**status: str) -> str:
    """What a plugin prints."""
    return json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})


def inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


# ------------------------------------------------------------------ ways to the server


async def test_the_authority_may_stand_in_the_kubeconfig_or_beside_it(cluster: ControlPlane, tmp_path: Path) -> None:
    """Beside it: by a path from the folder of the kubeconfig, wherever one runs."""
    (tmp_path / "ca.crt").write_bytes(cluster.ca.read_bytes())
    for authority in (
        {"certificate_authority_data": inline(cluster.ca)},
        {"certificate_authority": str(cluster.ca)},
        {"certificate_authority": "ca.crt"},
    ):
        config = write(tmp_path / "kc", {"token": ADMIN_TOKEN}, server=cluster.url, **authority)
        async with connected(config) as store:
            assert await store.read(T) == ABSENT


async def test_a_server_of_another_authority_is_not_believed(cluster: ControlPlane, tmp_path: Path) -> None:
    """Without the CA the system's are used, and they do not know this one; the token never goes out."""
    async with connected(write(tmp_path / "kc", {"token": ADMIN_TOKEN}, server=cluster.url)) as store:
        with pytest.raises(StoreUnavailable, match="its certificate is not trusted"):
            await store.read(T)


async def test_verification_is_skipped_only_where_that_is_said(cluster: ControlPlane, tmp_path: Path) -> None:
    """`insecure-skip-tls-verify`."""
    user = {"token": ADMIN_TOKEN}
    config = write(tmp_path / "kc", user, server=cluster.url, insecure_skip_tls_verify=True)
    async with connected(config) as store:
        assert await store.read(T) == ABSENT
    config = write(tmp_path / "kc", user, server=cluster.url, insecure_skip_tls_verify=False)
    async with connected(config) as store:
        with pytest.raises(StoreUnavailable, match="not trusted"):
            await store.read(T)


async def test_the_server_may_be_known_by_another_name(cluster: ControlPlane, tmp_path: Path) -> None:
    """`tls-server-name`: the address is one thing, the name in the certificate another."""
    known = {"server": f"https://127.0.0.2:{cluster.port}", "certificate_authority": str(cluster.ca)}
    with Tunnel(cluster.port) as tunnel:  # nothing listens on 127.0.0.2: the tunnel connects to the right place
        known["proxy_url"] = f"http://127.0.0.1:{tunnel.port}"
        for name, is_right in (("kubernetes.default.svc", True), ("elsewhere.example.org", False)):
            config = write(tmp_path / "kc", {"token": ADMIN_TOKEN}, tls_server_name=name, **known)
            async with connected(config) as store:
                if is_right:
                    assert await store.read(T) == ABSENT
                else:
                    with pytest.raises(StoreUnavailable, match="not trusted"):
                        await store.read(T)


async def test_a_proxy_is_asked_for_a_tunnel(cluster: ControlPlane, tmp_path: Path) -> None:
    """`proxy-url`, for what is read, written and watched; the proxy sees no more than the server's address."""
    with Tunnel(cluster.port) as tunnel:
        proxy = f"http://127.0.0.1:{tunnel.port}"
        known = {"server": "https://kubernetes.default.svc:6443", "certificate_authority": str(cluster.ca)}
        async with connected(write(tmp_path / "kc", {"token": ADMIN_TOKEN}, proxy_url=proxy, **known)) as store:
            assert await store.read(T) == ABSENT
            assert await store.read(T) == ABSENT
        assert tunnel.asked == ["CONNECT kubernetes.default.svc:6443"]


async def test_a_proxy_that_wants_credentials_gets_them_and_nobody_reads_them(
    cluster: ControlPlane, tmp_path: Path
) -> None:
    """They stand in the URL; an error names the proxy without them."""
    known = {"server": cluster.url, "certificate_authority": str(cluster.ca)}
    with Tunnel(cluster.port, f"me:{SECRET}") as tunnel:
        for who, is_right in ((f"me:{SECRET}", True), (f"me:{SECRET}x", False)):
            proxy = f"http://{who}@127.0.0.1:{tunnel.port}"
            async with connected(write(tmp_path / "kc", {"token": ADMIN_TOKEN}, proxy_url=proxy, **known)) as store:
                if is_right:
                    assert await store.read(T) == ABSENT
                    continue
                with pytest.raises(StoreUnavailable, match=r"its proxy refuses \(407\)") as caught:
                    await store.read(T)
                assert not caught.value.uncertain and SECRET not in str(caught.value)
    proxy = f"http://me:{SECRET}@127.0.0.1:{tunnel.port}"  # nobody listens there any more
    async with connected(write(tmp_path / "kc", {"token": ADMIN_TOKEN}, proxy_url=proxy, **known)) as store:
        with pytest.raises(StoreUnavailable, match=f"no connection to the proxy 127.0.0.1:{tunnel.port}") as caught:
            await store.read(T)
        assert SECRET not in str(caught.value)


async def test_the_proxy_of_the_environment_is_used_unless_it_is_excepted(
    cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY and NO_PROXY, as for kubectl; a ~/.netrc is no business of ours."""
    (tmp_path / ".netrc").write_text("default login somebody password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    certificate = {
        "client-certificate": str(cluster.folder / "admin.crt"),
        "client-key": str(cluster.folder / "admin.key"),
    }
    config = write(tmp_path / "kc", certificate, server=cluster.url, certificate_authority=str(cluster.ca))
    with Tunnel(cluster.port) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{tunnel.port}")
        async with connected(config) as store:
            assert await store.read(T) == ABSENT
        assert len(tunnel.asked) == 1
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with connected(config) as store:
            assert await store.read(T) == ABSENT
        assert len(tunnel.asked) == 1


async def test_the_context_that_is_asked_for_counts(cluster: ControlPlane, tmp_path: Path) -> None:
    """Cluster, user and namespace all come from it, and not from the current one."""
    path = tmp_path / "kc"
    write(path, {"token": "wrong"}, server="https://127.0.0.1:1")
    content = yaml.safe_load(path.read_text())
    right = {"server": cluster.url, "certificate-authority": str(cluster.ca)}
    content["clusters"].append({"name": "right", "cluster": right})
    content["users"].append({"name": "right", "user": {"token": ADMIN_TOKEN}})
    content["contexts"].append({"name": "right", "context": {"cluster": "right", "user": "right", "namespace": "own"}})
    path.write_text(yaml.safe_dump(content))
    store = await KubernetesStore.connect("x", None, str(path), "right")
    assert store.lock == "kubernetes:own/x"
    assert await store.read(T) == ABSENT
    await store.close()


async def test_each_of_several_kubeconfigs_has_its_files_beside_itself(
    cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's certificate is not looked for beside the file that tells of the cluster."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    for name in ("admin.crt", "admin.key"):
        (tmp_path / "two" / name).write_bytes((cluster.folder / name).read_bytes())
    user = {"client-certificate": "admin.crt", "client-key": "admin.key"}
    known = {"server": cluster.url, "certificate_authority": str(cluster.ca)}
    paths = [write(tmp_path / name / "kc", user, **known) for name in ("one", "two")]
    for path, dropped in zip(paths, ("users", "clusters"), strict=True):
        content = yaml.safe_load(Path(path).read_text())
        Path(path).write_text(yaml.safe_dump({**content, dropped: []}))
    monkeypatch.setenv("KUBECONFIG", ":".join(paths))
    store = await KubernetesStore.connect("none", "default")
    assert await store.read(T) == ABSENT
    await store.close()


async def test_keys_inside_a_kubeconfig_never_reach_the_disk(
    cluster: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be no place to write to, and what is killed in between would leave them there."""
    monkeypatch.setattr("tempfile.mkstemp", lambda *_, **__: pytest.fail("a file was made"))
    names = {"client-certificate-data": "admin.crt", "client-key-data": "admin.key"}
    user = {key: inline(cluster.folder / name) for key, name in names.items()}
    known = {"server": cluster.url, "certificate_authority_data": inline(cluster.ca)}
    open_files = len(os.listdir("/proc/self/fd"))
    source = kubernetes_access.AccessSource(write(tmp_path / "kc", user, **known), None)
    await source.prepare()
    assert len(os.listdir("/proc/self/fd")) == open_files, "nothing stays open"
    async with connected(write(tmp_path / "kc", user, **known)) as store:
        assert await store.read(T) == ABSENT


# ------------------------------------------------------------------ what is refused before anything is begun


@pytest.mark.parametrize(
    ("user", "known", "match"),
    [
        ({}, {"server": "127.0.0.1:6443"}, "the server's address"),
        ({}, {"proxy_url": "socks5://127.0.0.1:1080"}, "cannot use proxy-url"),
        ({"tokenFile": "/no/such/token"}, {}, "/no/such/token"),
        ({"tokenFile": "empty"}, {}, r"token.*empty|empty.*token"),
        ({"tokenFile": "/dev/null"}, {}, "/dev/null: it is no regular file"),
        ({"token": "  \n"}, {}, "the token: it is empty"),
        ({"client-key-data": "&&&", "client-certificate-data": "§"}, {}, "client-certificate-data is not base64"),
        ({"exec": {"apiVersion": "v1", "command": "no-such-plugin"}}, {}, "no program no-such-plugin"),
        ({"exec": {"apiVersion": "v1"}}, {}, "exec has no command"),
    ],
)
async def test_what_cannot_work_is_said_at_once(
    tmp_path: Path, user: dict[str, Any], known: dict[str, Any], match: str
) -> None:
    """A mistake in the file, and not something that gets better by waiting."""
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match=match):
        await KubernetesStore.connect("x", None, write(tmp_path / "kc", user, **known))


async def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(cluster: ControlPlane, tmp_path: Path) -> None:
    """OpenSSL would wait for somebody at the terminal, for ever."""
    command = f"openssl ec -aes128 -passout pass:x -in {cluster.folder}/admin.key -out {tmp_path}/locked.key"
    made = await asyncio.create_subprocess_shell(command, stderr=asyncio.subprocess.DEVNULL)
    assert await made.wait() == 0
    user = {"client-certificate": str(cluster.folder / "admin.crt"), "client-key": str(tmp_path / "locked.key")}
    known = {"server": cluster.url, "certificate_authority": str(cluster.ca)}
    with pytest.raises(ConfigError, match="passphrase"):
        await KubernetesStore.connect("x", None, write(tmp_path / "kc", user, **known))


async def test_no_secret_is_in_what_is_said_about_a_malformed_kubeconfig(tmp_path: Path) -> None:
    """A key that is mis-indented or forgotten must not have the token beside it quoted in the log."""
    sound = yaml.safe_load(Path(write(tmp_path / "kc", {"token": SECRET})).read_text())
    users: list[Any] = [
        [{"name": "test", "token": SECRET}],
        [{"name": "test", "user": SECRET}],
        [{"name": "test", "user": [SECRET]}],
        [{"name": "test", "user": {"token": {SECRET: SECRET}}}],
        [{"name": "test", "user": {"token": f"{SECRET}\u00e4"}}],
        [{"name": "test", "user": {"client-key-data": SECRET, "client-certificate-data": SECRET}}],
        [{"name": "test", "user": {"username": SECRET, "password": 5}}],
        [{"name": "test", "user": {"exec": {"env": [{"value": SECRET}], "command": "true", "apiVersion": "v1"}}}],
        [{"name": "test", "user": {"exec": {"command": "true", "env": [{"name": "A", "value": SECRET}]}}}],
        [{"user": {"token": SECRET}}, {"name": "test", "user": {"token": SECRET}}],
        [{"name": "test", "user": {"auth-provider": {"name": "oidc", "config": {"id-token": SECRET}}}}],
        {"test": {"token": SECRET}},
    ]
    for one in users:
        (tmp_path / "kc").write_text(yaml.safe_dump({**sound, "users": one}))
        with pytest.raises((ConfigError, StoreUnavailable), match="cannot") as caught:
            await read_through(str(tmp_path / "kc"))
        assert SECRET not in str(caught.value), one
        assert SECRET not in "".join(traceback.format_exception(caught.value)), one
    for text in (f"users: [{{token: {SECRET}", f"users:\n- token: {SECRET}\n  x: y: z", f"a: *{'x'}\ntoken: {SECRET}"):
        (tmp_path / "kc").write_text(text)
        with pytest.raises(ConfigError) as caught:
            await KubernetesStore.connect("x", None, str(tmp_path / "kc"))
        assert SECRET not in str(caught.value)


# ------------------------------------------------------------------ credentials that change


def only(*tokens: str) -> Callable[[Request], Any]:
    """A server that takes these and no others."""

    async def play(request: Request) -> bytes | None:
        is_right = request.headers["authorization"].removeprefix("Bearer ") in tokens
        return found(7) if is_right else status(401, "Unauthorized")

    return play


@pytest.mark.parametrize("broken", ["", " \n", "two words\u00e9", None])
async def test_a_token_file_that_is_being_written_costs_nothing(
    tmp_path: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Emptied, half written or away for a moment: what we have goes on being used, and the new one at once."""
    token = tmp_path / "token"
    token.write_text("first-token\n")
    async with scripted(only("first-token", "second-token")) as server:
        config = server.kubeconfig(tmp_path / "kc", {"tokenFile": "token", "token": "ignored"})
        store = await KubernetesStore.connect("x", "ns", config)
        assert (await store.read(T)).version == 7
        token.unlink()
        if broken is not None:
            token.write_text(broken)
        for _ in range(3):
            assert (await store.read(T)).version == 7
        token.write_text("second-token")
        assert (await store.read(T)).version == 7
        await store.close()
        used = [request.headers["authorization"] for request in server.requests]
    assert used == ["Bearer first-token"] * 4 + ["Bearer second-token"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1 and "going on with" in warnings[0] and "-token" not in warnings[0]


async def test_a_plugins_credential_is_replaced_before_it_ends(cluster: ControlPlane, tmp_path: Path) -> None:
    """E22: none is refused; and the plugin is not run for each request, however short what it gives lives."""
    refused, used = [], set()

    def check(asked: Asked) -> bytes | None:
        ends = float(asked.token.partition("-")[2] or 0)
        used.add(ends)
        if time.time() > ends:
            refused.append(ends)
            return status(401, "Unauthorized")
        asked.headers["authorization"] = f"Bearer {ADMIN_TOKEN}"
        return None

    script = f"""echo run >>{tmp_path}/runs
ends=$(($(date +%s) + 10)); told=$(date -u -d @$ends +%Y-%m-%dT%H:%M:%SZ)
echo '{{"status": {{"token": "T-'$ends'", "expirationTimestamp": "'$told'"}}}}'"""
    with Gate(cluster, check) as gate:
        known = {"server": f"https://127.0.0.1:{gate.port}", "certificate_authority": str(cluster.ca)}
        begun = time.monotonic()
        async with connected(write(tmp_path / "kc", plugin(tmp_path / "plugin", script), **known)) as store:
            assert await store.read(T) == ABSENT
            async with asyncio.timeout(30):
                while len(used) < 2:
                    assert await store.read(T) == ABSENT
                    await asyncio.sleep(0.05)
            took = time.monotonic() - begun
    assert refused == []
    assert took > 5, "each is used for most of its life"
    assert len((tmp_path / "runs").read_text().split()) <= 3


@pytest.mark.parametrize("failure", ["exit 3", "sleep 100", "echo rubbish", "echo '{\"status\":5}'"])
async def test_a_plugin_that_fails_in_mid_term_costs_nothing_while_the_server_takes_what_we_have(
    tmp_path: Path, failure: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal must neither fail nor wait because a login service is away."""
    monkeypatch.setattr(kubernetes_access, "_AGAIN", 60.0)
    first = credential(token=f"T1-{SECRET}", expirationTimestamp="ENDS")
    ends = "$(date -u -d '+4 seconds' +%Y-%m-%dT%H:%M:%SZ)"
    script = f"""test -e {tmp_path}/ran || {{ touch {tmp_path}/ran; echo '{first}' | sed "s/ENDS/{ends}/"; exit; }}
echo run >>{tmp_path}/runs; {failure}"""
    async with scripted(only(f"T1-{SECRET}")) as server:
        config = server.kubeconfig(tmp_path / "kc", plugin(tmp_path / "plugin", script))
        store = await KubernetesStore.connect("x", "ns", config)
        assert (await store.read(T)).version == 7
        monkeypatch.setattr(kubernetes_access, "PLUGIN_TIMEOUT", 0.5)
        async with asyncio.timeout(30):
            while "going on with" not in caplog.text:
                assert (await store.read(T)).version == 7
                await asyncio.sleep(0.02)
        for _ in range(20):
            assert (await store.read(T)).version == 7
        await store.close()
    assert "going on with the credentials that we have" in caplog.text and SECRET not in caplog.text
    assert (tmp_path / "runs").read_text().count("run") == 1, "it is not run over and over"


async def test_no_request_waits_for_a_plugin_while_there_is_a_credential(tmp_path: Path) -> None:
    """It may hang for longer than a lease lasts."""
    # Counted from when it is said: one that has ended by then is not replaced for that.
    first = credential(token="T1", expirationTimestamp="ENDS")
    ends = "$(date -u -d '+4 seconds' +%Y-%m-%dT%H:%M:%SZ)"
    script = f"""test -e {tmp_path}/ran || {{ touch {tmp_path}/ran; echo '{first}' | sed "s/ENDS/{ends}/"; exit; }}
touch {tmp_path}/hangs; sleep 100"""
    async with scripted(only("T1")) as server:
        config = server.kubeconfig(tmp_path / "kc", plugin(tmp_path / "plugin", script))
        store = await KubernetesStore.connect("x", "ns", config)
        async with asyncio.timeout(20):
            while not (tmp_path / "hangs").exists():
                assert (await store.read(T)).version == 7
                await asyncio.sleep(0.02)
        for _ in range(3):
            assert (await store.read(2.0)).version == 7
        await store.close()


async def test_a_refused_credential_is_tried_again_where_the_plugin_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that said 401 for a moment must not lock us out for as long as the plugin is broken."""
    monkeypatch.setattr(kubernetes_access, "_AGAIN", 0.2)
    is_closed = False

    async def play(request: Request) -> bytes | None:
        return status(401, "Unauthorized") if is_closed else found(7)

    script = f"test -e {tmp_path}/ran && exit 1; touch {tmp_path}/ran; echo '{credential(token='T')}'"
    async with scripted(play) as server:
        config = server.kubeconfig(tmp_path / "kc", plugin(tmp_path / "plugin", script))
        store = await KubernetesStore.connect("x", "ns", config)
        assert (await store.read(T)).version == 7
        is_closed = True
        with pytest.raises(StoreUnavailable, match="our credentials are not accepted"):
            await store.read(T)
        is_closed = False
        assert (await store.read(T)).version == 7
        await store.close()


async def test_a_plugin_that_hangs_at_the_start_is_named_and_waited_for(tmp_path: Path) -> None:
    """What it needs may not be there yet: the instance waits for it, as for the API server."""
    script = f"until test -e {tmp_path}/go; do sleep 0.02; done; echo '{credential(token='T')}'"
    async with scripted(only("T")) as server:
        config = server.kubeconfig(tmp_path / "kc", plugin(tmp_path / "plugin", script))
        store = await KubernetesStore.connect("x", "ns", config)
        with pytest.raises(StoreUnavailable, match=r"no credentials from plugin in 0\.2 s"):
            await store.read(0.2)
        (tmp_path / "go").touch()
        assert (await store.read(T)).version == 7
        await store.close()


async def test_a_plugin_is_found_beside_the_kubeconfig_and_told_of_the_cluster(tmp_path: Path) -> None:
    """`provideClusterInfo`, and a command with a path of its own, as kubectl has them."""
    script = f"printf %s \"$KUBERNETES_EXEC_INFO\" >{tmp_path}/asked; echo '{credential(token='T')}'"
    user = plugin(tmp_path / "plugin", script, provideClusterInfo=True)
    user["exec"]["command"] = "./plugin"
    async with scripted(only("T")) as server:
        config = write(tmp_path / "kc", user, server=f"http://127.0.0.1:{server.port}")
        async with connected(config) as store:
            with pytest.raises(StoreUnavailable, match="not a Kubernetes object"):  # another name's lease
                await store.read(T)
        asked = json.loads((tmp_path / "asked").read_text())["spec"]
    assert asked == {"interactive": False, "cluster": {"server": f"http://127.0.0.1:{server.port}"}}


async def test_a_plugin_may_give_a_certificate(cluster: ControlPlane, tmp_path: Path) -> None:
    """With its key, and instead of a token."""
    given = credential(
        clientCertificateData=(cluster.folder / "admin.crt").read_text(),
        clientKeyData=(cluster.folder / "admin.key").read_text(),
    )
    (tmp_path / "given").write_text(given)
    known = {"server": cluster.url, "certificate_authority": str(cluster.ca)}
    async with connected(write(tmp_path / "kc", plugin(tmp_path / "p", f"cat {tmp_path}/given"), **known)) as store:
        assert await store.read(T) == ABSENT
