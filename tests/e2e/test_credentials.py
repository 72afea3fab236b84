"""E22: credentials that rotate, end and fail under a running command, and that nobody ever reads."""

from __future__ import annotations

import base64
import gc
import os
import signal
import socket
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.instances import Fleet, Instance, eventually, is_alive, kill
from tests.envtest import ADMIN_TOKEN, LEASE_VERBS, ControlPlane
from tests.misbehaving import Asked, Gate, Tunnel
from tests.pods import need_root, token_of, with_account
from tests.stores.scripted import status

# What a time-out has cut off is taken apart whenever the garbage collector comes to it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _tidied() -> Iterator[None]:
    """It is not to come to it in somebody else's test."""
    yield
    gc.collect()


NAMESPACE = "e2e-credentials"
LONG = {"lease_duration": 10, "renew_deadline": 8, "retry_period": 0.3}
SECRET = "sesame-open-sesame"
PLUGIN = f"""
import json, sys, time
from datetime import datetime, UTC
from pathlib import Path
mode, ends = Path(sys.argv[1]).read_text(), time.time() + 1.5
token = f"T-{{ends}}-{SECRET}"
if mode == "hang":
    time.sleep(100)
if mode == "rubbish":
    sys.exit(print("token:", token))
told = {{"token": token, "expirationTimestamp": datetime.fromtimestamp(ends, UTC).isoformat()}}
print(json.dumps({{"kind": "ExecCredential", "status": told}}))
sys.exit(3 if mode == "fail" else 0)
"""


class Account:
    """The files of a service account, exchanged as a kubelet does it: all at once, by one link."""

    def __init__(self, folder: Path, cluster: ControlPlane, namespace: str, token: str) -> None:
        self.folder = folder
        folder.mkdir()
        self._content = {"ca.crt": cluster.ca.read_bytes(), "namespace": namespace.encode()}
        self.write(token)
        for name in ("token", *self._content):
            (folder / name).symlink_to(f"..data/{name}")

    def write(self, token: str) -> None:
        version = f"..{uuid.uuid4().hex}"
        (self.folder / version).mkdir()
        for name, content in {**self._content, "token": token.encode()}.items():
            (self.folder / version / name).write_bytes(content)
        (self.folder / "..next").symlink_to(version)
        (self.folder / "..next").rename(self.folder / "..data")


def bound(cluster: ControlPlane, namespace: str, account: str) -> None:
    """A ServiceAccount with the rights on leases that the documentation asks for."""
    cluster.create_namespace(namespace)
    cluster.allow(namespace, *LEASE_VERBS)
    answer = cluster.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": account}})
    assert answer[0] in (201, 409), answer
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tester-leases"}
    subjects = [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]
    binding = {"metadata": {"name": account}, "roleRef": role, "subjects": subjects}
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"
    assert cluster.call("POST", path, binding)[0] in (201, 409)


def holds_no_secret(instance: Instance, *secrets: str) -> None:
    """In nothing that it has said."""
    for one in secrets:
        assert one not in instance.stderr


def test_in_a_cluster_the_token_may_rotate_on_time_or_late(fleet: Fleet, cluster: ControlPlane, tmp_path: Path) -> None:
    """The real paths, the real variables and a real token. A rotation on time is not noticed; where the old token has
    ended before the new one is there, the command goes on up to the deadline.
    """
    need_root()
    bound(cluster, NAMESPACE, "member")
    tokens = [token_of(cluster, NAMESPACE, "member")]
    while len(tokens) < 3:  # two of the same second are the same
        known = tokens[-1]
        tokens.append(
            eventually(lambda known=known: (new := token_of(cluster, NAMESPACE, "member")) != known and new, "a token")
        )
    accepted = {tokens[0]}
    refused: list[str] = []

    def answer(asked: Asked) -> bytes | None:
        if asked.token in accepted:
            return None
        refused.append(asked.token)
        return status(401, "Unauthorized", f"{asked.token} is over")

    account = Account(tmp_path / "account", cluster, NAMESPACE, tokens[0])
    name = f"lease-{uuid.uuid4().hex[:8]}"
    with Gate(cluster, answer) as gate:
        one = fleet.start(
            "one",
            settings={"election": LONG, "lock": {"backend": "kubernetes", "name": name}},
            prefix=with_account(account.folder),
            environment={"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(gate.port)},
        )
        start = one.started()

        def written_with(token: str) -> int:
            return sum(asked.method == "PUT" and asked.token == token for asked in gate.asked)

        accepted.add(tokens[1])
        account.write(tokens[1])
        eventually(lambda: written_with(tokens[1]) > 1, "it renews with the second token")
        assert refused == []
        accepted.clear()
        accepted.add(tokens[2])
        one.says("our credentials are not accepted (401)", 2)
        account.write(tokens[2])
        eventually(lambda: written_with(tokens[2]) > 1, "it renews with the third token")
    assert one.entries("start") == [start] and one.signals() == [] and is_alive(start.pid)
    lease = cluster.call("GET", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{name}")
    assert lease[0] == 200, "the namespace is the service account's"
    holds_no_secret(one, *(token.rpartition(".")[2] for token in tokens))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_plugin_in_trouble_and_a_credential_that_ends_cost_nothing_before_the_deadline(
    fleet: Fleet, cluster: ControlPlane, tmp_path: Path
) -> None:
    """It fails, prints something else or hangs, while what it gave last ends. Through a proxy with a password, at debug
    level, with a crash: what is secret stands in none of the logs, pages and metrics.
    """
    mode = tmp_path / "mode"
    (tmp_path / "plugin.py").write_text(PLUGIN)

    def set_mode(text: str) -> None:
        (tmp_path / "next").write_text(text)
        (tmp_path / "next").rename(mode)

    def answer(asked: Asked) -> bytes | None:
        if time.time() > float(f"{asked.token}-0-0".split("-")[1]):
            return status(401, "Unauthorized")
        asked.headers["authorization"] = f"Bearer {ADMIN_TOKEN}"
        return None

    set_mode("good")
    port = free_port()
    with Gate(cluster, answer) as gate, Tunnel(gate.port, f"me:{SECRET}") as tunnel:
        user: dict[str, Any] = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": sys.executable,
                "args": ["-I", str(tmp_path / "plugin.py"), str(mode)],
                "env": [{"name": "CREDENTIAL", "value": SECRET}],
            },
            "client-certificate-data": base64.b64encode((cluster.folder / "admin.crt").read_bytes()).decode(),
            "client-key-data": base64.b64encode((cluster.folder / "admin.key").read_bytes()).decode(),
        }
        path = Path(cluster.kubeconfig(tmp_path / "kubeconfig", user))
        content = yaml.safe_load(path.read_text())
        content["clusters"][0]["cluster"].update(
            {"proxy-url": f"http://me:{SECRET}@127.0.0.1:{tunnel.port}", "tls-server-name": "kubernetes.default.svc"}
        )
        path.write_text(yaml.safe_dump(content))
        lock = {"backend": "kubernetes", "name": f"lease-{uuid.uuid4().hex[:8]}", "kubeconfig": str(path)}
        settings = {"election": LONG, "lock": lock, "status": {"listen": f"127.0.0.1:{port}"}}
        one = fleet.start("one", settings=settings)
        start = one.started()

        def renewed() -> None:
            known = len(gate.asked)
            accepted = lambda: [a for a in gate.asked[known:] if a.method == "PUT" and a.token == ADMIN_TOKEN]  # noqa: E731
            eventually(lambda: len(accepted()) > 1, "it is renewed")

        for trouble, said in (
            ("fail", "it ended with 3"),
            ("rubbish", "its answer is not JSON"),
            ("hang", "our credentials are not accepted|no credentials from"),
        ):
            times = {text: one.stderr.count(text) for text in said.split("|")}
            set_mode(trouble)
            eventually(
                lambda times=times: any(one.stderr.count(text) > count for text, count in times.items()), trouble
            )
            if trouble == "hang":  # a plugin that hangs is ended in half a minute: somebody ends it here
                eventually(lambda: (found := plugins(one)) and [kill(pid) for pid in found], "the plugin hangs")
            set_mode("good")
            renewed()
            assert one.entries("start") == [start] and one.signals() == [], trouble
        pages = [
            urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5).read().decode()
            for page in ("status", "metrics")
        ]
        crashed = one.elector
        kill(crashed, signal.SIGABRT)
        one.other_elector(crashed)
        renewed()
        assert one.entries("start") == [start] and one.signals() == [] and is_alive(start.pid)
    key = (cluster.folder / "admin.key").read_text().splitlines()[1]
    for secret in (SECRET, base64.b64encode(f"me:{SECRET}".encode()).decode(), key, user["client-key-data"][:60]):
        holds_no_secret(one, secret)
        assert all(secret not in page for page in pages)


def plugins(instance: Instance) -> list[int]:
    """The credential plugins that the instance's elector has running."""
    elector, found = instance.elector, []
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[1] == str(elector):
                found.append(int(name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("missing", ["user", "context", "plugin"])
def test_a_kubeconfig_that_cannot_work_ends_it_and_is_not_quoted(
    fleet: Fleet, cluster: ControlPlane, tmp_path: Path, missing: str
) -> None:
    """78, with the file's name and what is wrong."""
    path = Path(cluster.kubeconfig(tmp_path / "kubeconfig", {"token": SECRET}))
    content = yaml.safe_load(path.read_text())
    if missing == "user":
        content["users"] = [{"name": "test", "token": SECRET}]
    elif missing == "plugin":
        content["users"][0]["user"]["exec"] = {"apiVersion": "v1", "command": "no-such-plugin", "args": [SECRET]}
    path.write_text(yaml.safe_dump(content))
    lock = {"backend": "kubernetes", "name": "unused", "namespace": "default", "kubeconfig": str(path)}
    one = fleet.start("one", settings={"lock": {**lock, **({"context": "prod"} if missing == "context" else {})}})
    assert one.ends() == 78
    assert {"user": "Expected key user", "context": "prod", "plugin": "no-such-plugin"}[missing] in one.stderr
    holds_no_secret(one, SECRET)
