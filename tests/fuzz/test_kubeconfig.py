"""Whatever kubeconfig and service account contain, they can be used or are refused in a line; no secret is in it."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from awaitelect.errors import ConfigError, StoreUnavailable
from awaitelect.stores import kubernetes_access
from awaitelect.stores.kubernetes_access import AccessSource
from tests.fuzz.effort import examples, no_file, soon

SECRET = "sesame-open-sesame"
JUNK = st.sampled_from([None, True, 0, -1, 1.5, "", "x", [], {}, ["y"], {"y": "z"}, [None], {"a": []}])
ODD = JUNK | st.sampled_from(
    ["\0", "/", "/dev/zero", "/proc/self/mem", "a" * 5000, "http://", "://", "http://[::1", "\ud800"]
)
PLUGIN = {"apiVersion": "client.authentication.k8s.io/v1", "command": "true"}
USERS: list[dict[str, Any]] = [
    {"token": SECRET},
    {"tokenFile": "token"},
    {"client-certificate-data": "bm8=", "client-key-data": SECRET},
    {"client-certificate": "pipe", "client-key": "pipe"},
    {"username": "me", "password": SECRET},
    {"exec": PLUGIN},
    {"exec": {**PLUGIN, "env": [{"name": "A", "value": SECRET}], "args": [SECRET], "provideClusterInfo": True}},
    {"exec": {**PLUGIN, "command": "echo", "args": [json.dumps({"status": {"token": [SECRET]}})]}},
    {"auth-provider": {"name": "oidc", "config": {"id-token": SECRET}}},
]


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration but what the test gives."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(kubernetes_access, "PLUGIN_TIMEOUT", 5.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the kubeconfig is, and what it may name."""
    made = tmp_path_factory.mktemp("kubeconfig")
    (made / "token").write_text(SECRET)
    os.mkfifo(made / "pipe")
    return made


def user_is(user: dict[str, Any]) -> dict[str, Any]:
    """A kubeconfig that is sound, unless the user isn't."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:1", "proxy-url": ""}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "n"}}],
    }


@st.composite
def kubeconfigs(draw: st.DrawFn) -> Any:
    """One that is sound but for one or two places, where something else stands or nothing."""
    config: dict[str, Any] = json.loads(json.dumps(user_is(draw(st.sampled_from(USERS)))))
    for _ in range(draw(st.integers(0, 2))):
        node: Any = config
        while True:
            keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], (dict, list)) and node[key] and draw(st.integers(0, 3)):
                node = node[key]
                continue
            if isinstance(node, dict) and draw(st.booleans()):
                del node[key]
            else:
                node[key] = copy.deepcopy(draw(ODD))  # what is chosen next may be inside
            break
    return config


async def _read(source: AccessSource) -> str:
    """What is said about it; empty where it can be used."""
    try:
        with soon():
            await source.prepare()
            await source.current()
    except (ConfigError, StoreUnavailable) as error:
        shown = "".join(traceback.format_exception(error))
        assert SECRET not in shown
        return str(error)
    finally:
        source.close()
        if source._loading is not None:
            await asyncio.wait([source._loading])
    return ""


@examples(50)
@given(kubeconfigs())
@example({"current-context": "c", "contexts": 5})
@example(user_is({"exec": {**PLUGIN, "args": {"A": SECRET}}}))  # the client quotes all of the user
@example(user_is({"token": SECRET + "\nX: y"}))
@example(user_is({"token": [SECRET]}))
async def test_no_kubeconfig_breaks_it(folder: Path, config: Any) -> None:
    """People write it by hand, and tools by halves."""
    path = folder / "config"
    path.write_text(yaml.safe_dump(config, allow_unicode=False))
    said = await _read(AccessSource(str(path), None))
    assert not said or "cannot" in said


@examples(20)
@given(st.binary(max_size=80) | st.text("{}[]:,-&*!|> \n\tab'\"", max_size=60).map(str.encode))
@example(b"[" * 5000)
@example(b"a: &a [*a]")
@example(b"\xff\xfe")
async def test_no_bytes_in_a_kubeconfig_break_it(folder: Path, content: bytes) -> None:
    """It may be half written, or be something else."""
    path = folder / "config"
    path.write_bytes(content)
    said = await _read(AccessSource(str(path), None))
    assert "cannot" in said and str(path) in said


@pytest.mark.parametrize("key", ["token", "tokenFile", "client-key-data", "client-certificate"])
@pytest.mark.parametrize("value", [[SECRET], {"a": SECRET}])
async def test_a_secret_that_is_no_text_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    """The client would make a token of what a list looks like in Python."""
    (tmp_path / "config").write_text(yaml.safe_dump(user_is({key: value})))
    assert f"its {key} must be a text" in await _read(AccessSource(str(tmp_path / "config"), None))


async def test_no_tag_in_a_kubeconfig_runs_anything(tmp_path: Path) -> None:
    """It may come from somebody else, as a download."""
    (tmp_path / "config").write_text(f"contexts: !!python/object/apply:os.mkdir [{tmp_path}/made]\n")
    assert "cannot" in await _read(AccessSource(str(tmp_path / "config"), None))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("key", ["tokenFile", "client-certificate", "client-key", "certificate-authority", "itself"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
async def test_what_is_no_file_is_not_waited_for(tmp_path: Path, key: str, kind: str) -> None:
    """A named pipe waits for its writer, and OpenSSL waits with it; /dev/zero never ends."""
    odd = tmp_path / "odd"
    no_file(odd, kind)
    user = {key: str(odd), **({"client-key": str(odd)} if key == "client-certificate" else {})}
    config = user_is({"token": SECRET} if key == "certificate-authority" else user)
    if key == "certificate-authority":
        config["clusters"][0]["cluster"][key] = str(odd)
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    path = odd if key == "itself" else tmp_path / "config"
    said = await _read(AccessSource(str(path), None))
    assert str(odd) in said and "no regular file" in said


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service account's folder."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_text("x")
    return tmp_path


KEY = SECRET.encode()
TOKENS = {
    "empty": [b"", b"\n", b" \t\r\n"],
    "that no token has": [b"a b", KEY + b" x", KEY + b"\x00", KEY + b"\r\nX: y", "\u00e4".encode()],
    "can't decode": [b"\xff\xfe", KEY + b"\xff"],
}


@pytest.mark.parametrize(("reason", "token"), [(reason, one) for reason in TOKENS for one in TOKENS[reason]])
async def test_no_token_file_breaks_it(account: Path, reason: str, token: bytes) -> None:
    """A line break in it would be a header of its own."""
    (account / "token").write_bytes(token)
    said = await _read(AccessSource(None, None, account))
    assert "cannot use" in said and reason in said


@pytest.mark.parametrize("name", ["ca.crt", "namespace"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\n", b"x" * 100_000, None])
async def test_no_other_file_of_the_service_account_breaks_it(account: Path, name: str, content: bytes | None) -> None:
    """Missing ones and pipes included."""
    (account / name).unlink(missing_ok=True)
    if content is not None:
        (account / name).write_bytes(content)
    elif name == "ca.crt":
        os.mkfifo(account / name)
    said = await _read(AccessSource(None, None, account))
    assert not said or str(account) in said


@pytest.mark.parametrize("name", ["LINES", "PORT", "HOST"])
async def test_no_address_of_the_cluster_breaks_it(account: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It comes from the environment."""
    monkeypatch.setenv(f"KUBERNETES_SERVICE_{name}", "x y\n[")
    said = await _read(AccessSource(None, None, account))
    assert "cannot use" in said
