"""A real Kubernetes API server on this machine, from the binaries in KUBEBUILDER_ASSETS.

`with ControlPlane() as cluster:` starts etcd and kube-apiserver on free loopback ports with certificates of their own,
and ends them, by their ids, at the end. RBAC is on; the token `admin-token` may do everything, `tester-token` nothing
that no Role grants. It needs openssl.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

ADMIN_TOKEN = "admin-token"
TESTER_TOKEN = "tester-token"
LEASE_VERBS = ("get", "watch", "list", "create", "update")


def assets() -> Path | None:
    """The folder with the binaries; None where there is none."""
    named = os.environ.get("KUBEBUILDER_ASSETS")
    folder = Path(named) if named else None
    return folder if folder and all((folder / name).is_file() for name in ("etcd", "kube-apiserver")) else None


class ControlPlane:
    """etcd and kube-apiserver. `audit=True` writes one JSON line a request to `audit_log`.

    `patience`: seconds that they may take until they are ready.
    """

    def __init__(self, audit: bool = False, arguments: tuple[str, ...] = (), patience: float = 60.0) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="envtest-"))
        self.port, self._etcd_port, self._peer_port = _free_ports(3)
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca = self.folder / "ca.crt"
        self.audit_log = self.folder / "audit.log"
        self._audit = audit
        self._arguments = arguments
        self._patience = patience
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> ControlPlane:
        try:
            _make_certificates(self.folder)
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start both and return when the API server is ready. Raises RuntimeError with the end of its log."""
        binaries = assets()
        if binaries is None:
            raise RuntimeError("KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver")
        self.processes = [self._spawn([str(binaries / name), *flags]) for name, flags in self._commands()]
        self._wait()

    @property
    def server(self) -> subprocess.Popen[bytes]:
        """The API server's process."""
        return self.processes[1]

    def restart_server(self) -> None:
        """Kill the API server and start it again on the same port; return when it is ready.

        It is killed at the end of the thread that calls this, as at the end of the process.
        """
        command = list(map(str, self.server.args))  # type: ignore[arg-type]
        self.server.kill()
        self.server.wait()
        self.processes[1] = self._spawn(command)
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + self._patience
        while time.monotonic() < until:
            for process in self.processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{process.args!r} ended:\n{self.log()[-3000:]}")
            try:
                # The namespace comes a moment after the server calls itself ready.
                if self.call("GET", "/readyz")[0] == 200 and self.call("GET", "/api/v1/namespaces/default")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"the API server is not ready after {self._patience:g} s:\n{self.log()[-3000:]}")

    def stop(self) -> None:
        """End both and remove their files."""
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def call(self, method: str, path: str, body: Any = None, token: str = ADMIN_TOKEN) -> tuple[int, Any]:
        """The status and the parsed JSON (or the text) of one request."""
        request = urllib.request.Request(self.url + path, method=method, headers={"Authorization": f"Bearer {token}"})
        if body is not None:
            request.data = json.dumps(body).encode()
            patch = "application/merge-patch+json"
            request.add_header("Content-Type", patch if method == "PATCH" else "application/json")
        context = ssl.create_default_context(cafile=str(self.ca))
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as response:
                status, content = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content.decode(errors="replace")

    def create_namespace(self, name: str) -> str:
        status, answer = self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        assert status in (201, 409), answer
        return name

    def allow(self, namespace: str, *verbs: str, group: str = "coordination.k8s.io", resource: str = "leases") -> None:
        """Let the tester do exactly that with the resource in the namespace (RBAC takes a moment to know)."""
        name = f"tester-{resource}"
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        rules = [{"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}]
        status, answer = self.call("POST", f"{rbac}/roles", {"metadata": {"name": name}, "rules": rules})
        if status == 409:
            status, answer = self.call("PATCH", f"{rbac}/roles/{name}", {"rules": rules})
        assert status in (200, 201), answer
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "User", "name": "tester", "apiGroup": "rbac.authorization.k8s.io"}],
        }
        status, answer = self.call("POST", f"{rbac}/rolebindings", binding)
        assert status in (201, 409), answer

    def kubeconfig(self, path: Path, user: dict[str, Any] | None = None, **changes: Any) -> str:
        """Write a kubeconfig with one context, `test`, and return its path. `changes`: server, namespace."""
        server = changes.get("server", self.url)
        write_kubeconfig(path, server, user or {"token": ADMIN_TOKEN}, str(self.ca), changes.get("namespace"))
        return str(path)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        if shutil.which("setpriv") and command[0] != "setpriv":
            command = ["setpriv", "--pdeathsig", "KILL", *command]  # a run of tests that is killed leaves no server
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def _commands(self) -> list[tuple[str, list[str]]]:
        etcd, peer, keys = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}", self.folder
        audit: list[str] = []
        if self._audit:
            policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
            (keys / "audit.yaml").write_text(yaml.safe_dump(policy))
            audit = [f"--audit-policy-file={keys}/audit.yaml", f"--audit-log-path={self.audit_log}"]
        return [
            (
                "etcd",
                f"--name=t --data-dir={keys}/etcd --unsafe-no-fsync --log-level=warn --listen-client-urls={etcd} "
                f"--advertise-client-urls={etcd} --listen-peer-urls={peer} --initial-advertise-peer-urls={peer} "
                f"--initial-cluster=t={peer}".split(),
            ),
            (
                "kube-apiserver",
                [
                    f"--etcd-servers={etcd}",
                    "--bind-address=127.0.0.1",
                    "--advertise-address=127.0.0.1",
                    f"--secure-port={self.port}",
                    f"--tls-cert-file={keys}/server.crt",
                    f"--tls-private-key-file={keys}/server.key",
                    f"--client-ca-file={self.ca}",
                    f"--token-auth-file={keys}/tokens.csv",
                    "--authorization-mode=RBAC",
                    "--service-account-issuer=https://kubernetes.default.svc",
                    f"--service-account-key-file={keys}/account.pub",
                    f"--service-account-signing-key-file={keys}/account.key",
                    "--service-cluster-ip-range=10.0.0.0/24",
                    "--endpoint-reconciler-type=none",
                    *_gates(),
                    *audit,
                    *self._arguments,
                ],
            ),
        ]


def _gates() -> list[str]:
    """What each newer server does, and one of 1.20 only when asked: a node's name and all conditions of a slice."""
    program = str((assets() or Path()) / "kube-apiserver")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    gates = "EndpointSliceNodeName=true,EndpointSliceTerminatingCondition=true"
    return [f"--feature-gates={gates}"] if version.startswith("Kubernetes v1.20.") else []


def write_kubeconfig(path: Path, server: str, user: dict[str, Any], ca: str | None, namespace: str | None) -> None:
    """A kubeconfig with one context, `test`."""
    cluster = {"server": server, **({"certificate-authority": ca} if ca else {})}
    context = {"cluster": "test", "user": "test", **({"namespace": namespace} if namespace else {})}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": context}],
        "current-context": "test",
    }
    path.write_text(yaml.safe_dump(content))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _make_certificates(folder: Path) -> None:
    names = "IP:127.0.0.1,IP:10.0.0.1,DNS:localhost,DNS:kubernetes.default.svc"
    (folder / "server.ext").write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth\n")
    (folder / "admin.ext").write_text("extendedKeyUsage=clientAuth\n")
    (folder / "tokens.csv").write_text(f'{ADMIN_TOKEN},admin,1,"system:masters"\n{TESTER_TOKEN},tester,2,"testers"\n')
    key = "openssl ecparam -name prime256v1 -genkey -noout -out"
    sign = "openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 30"
    for command in (
        f"{key} ca.key",
        "openssl req -x509 -new -key ca.key -subj /CN=envtest -days 30 -out ca.crt",
        f"{key} server.key",
        "openssl req -new -key server.key -subj /CN=kube-apiserver -out server.csr",
        f"{sign} -in server.csr -extfile server.ext -out server.crt",
        f"{key} admin.key",
        "openssl req -new -key admin.key -subj /O=system:masters/CN=admin-certificate -out admin.csr",
        f"{sign} -in admin.csr -extfile admin.ext -out admin.crt",
        "openssl genrsa -out account.key 2048",
        "openssl rsa -in account.key -pubout -out account.pub",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
