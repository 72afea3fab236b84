"""Pods on this machine: namespaces of their own, a service account's files where Kubernetes puts them, and the API
server at the address that the environment names.

Where no kubelet runs, this is what it would do with the container of a manifest. It needs root, and unshare.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import http.client
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.e2e.instances import MARK, children_of, eventually
from tests.e2e.locks import Proxy
from tests.envtest import ControlPlane

T = TypeVar("T")

ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "--"]
_SETUP = r"""
set -e
fifo=$1 account=$2
shift 2
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
mount --bind "$account" /run/secrets/kubernetes.io/serviceaccount
mount -o remount,bind,ro /run/secrets/kubernetes.io/serviceaccount
[ "$fifo" = none ] || read -r go < "$fifo"
exec "$@"
"""


def need_root() -> None:
    """Skip the test where namespaces can't be made."""
    if os.geteuid() != 0:
        pytest.skip("namespaces and mounts need root")


def write_account(cluster: ControlPlane, folder: Path, namespace: str, token: str) -> Path:
    """The files of a service account."""
    folder.mkdir(exist_ok=True)
    (folder / "ca.crt").write_bytes(cluster.ca.read_bytes())
    (folder / "namespace").write_text(namespace)
    (folder / "token").write_text(token)
    return folder


def token_of(cluster: ControlPlane, namespace: str, account: str) -> str:
    """A token of a ServiceAccount, as a kubelet asks for one."""
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    status, answer = cluster.call("POST", path, body)
    assert status == 201, answer
    return str(answer["status"]["token"])


def with_account(account: Path) -> list[str]:
    """What a program is started by, so that it finds this service account; its pid is that of the whole."""
    return ["unshare", "--mount", "sh", "-c", _SETUP, "sh", "none", str(account)]


def inside(pid: int, action: Callable[[], T]) -> T:
    """What `action` returns, run by a thread in the network namespace of that process."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            if libc.setns(namespace, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            results.append(action())
        except BaseException as error:
            errors.append(error)
        finally:
            os.close(namespace)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class Pod:
    """One container of a pod, as PID 1 of its namespaces."""

    def __init__(
        self,
        folder: Path,
        name: str,
        cluster: ControlPlane,
        account: Path,
        argv: Sequence[str],
        environment: Mapping[str, str],
        setup: Sequence[str] = (),
    ) -> None:
        """`setup` is what runs `argv`, in the pod's namespaces; the API server is added to the environment."""
        self.name = name
        self._said = folder / f"{name}.output"
        fifo = folder / f"{name}.fifo"
        os.mkfifo(fifo)
        where = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
        with open(self._said, "wb") as said:
            self._process = subprocess.Popen(
                [*_NAMESPACES, "sh", "-c", _SETUP, "sh", str(fifo), str(account), *setup, *argv],
                env={**environment, **where, MARK: name},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        go = eventually(lambda: self._open(fifo), f"the namespaces of {name} are made")
        self.pid: int = eventually(lambda: children_of(self._process.pid), f"{name} has begun")[0]
        """Of its PID 1, as we see it."""
        inside(self.pid, _bring_up)
        server = inside(self.pid, lambda: socket.create_server(("127.0.0.1", 6443)))
        self._api_server = Proxy(cluster.port, server)
        os.write(go, b"\n")
        os.close(go)

    def _open(self, fifo: Path) -> int | None:
        assert self._process.poll() is None, self.output
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody reads from it yet
                raise
            return None

    @property
    def output(self) -> str:
        """What it has written to standard output and standard error."""
        return self._said.read_text(errors="replace")

    def says(self, text: str) -> None:
        """Wait until it has said so."""
        eventually(lambda: text in self.output or self._process.poll() is not None, f"{self.name} says {text!r}")
        assert text in self.output, self.output

    def get(self, port: int, path: str) -> tuple[int, str]:
        """Ask it on a port of its own, as a kubelet does; (0, "") where nobody listens."""
        try:
            stream = inside(self.pid, lambda: socket.create_connection(("127.0.0.1", port), timeout=5))
        except OSError:
            return 0, ""
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.sock = stream
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def tell(self, number: int) -> None:
        os.kill(self.pid, number)

    def ends(self, patience: float = 30.0) -> int:
        """Wait for its end; its exit status."""
        return self._process.wait(patience)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._api_server.close()


def _bring_up() -> None:
    """The loopback interface, which is down in a new network namespace."""
    with socket.socket() as one:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(one, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(one, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def resolved_environment(container: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, str]:
    """The variables of a container in a manifest. `fields`: what the downward API would say, by path."""
    found = {}
    for one in container.get("env", []):
        found[one["name"]] = one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
    return found
