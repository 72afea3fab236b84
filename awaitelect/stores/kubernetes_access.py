"""Where the API server is and how it knows us: service account, kubeconfig, tokens and certificates that rotate.

Boundary: only this module reads credentials, and it alone decides what is imported of the `kubernetes` package.

`import kubernetes.aio` runs the package's synchronous half and every API and model, of which nothing is used here. So
the parents are put into sys.modules as bare packages first: their submodules are found, their own code never runs. It
is undone for nobody, so a process that imports this module has no `kubernetes.client`.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import os
import signal
import ssl
import sys
import types
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from awaitelect.errors import AwaitelectError, ConfigError, StoreUnavailable
from awaitelect.stores import lean_aiohttp  # noqa: F401  # before the client imports it whole

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
BARE_PACKAGES = ("kubernetes", "kubernetes.aio", "kubernetes.aio.config")
PLUGIN_TIMEOUT = 30.0
"""Seconds that a credential plugin of a kubeconfig may take."""
_EARLY = timedelta(seconds=30)
"""How long before its end a plugin's credential is replaced."""


def _import(name: str) -> Any:
    """A module of the client, its parents bare unless somebody has imported them in full."""
    for package in BARE_PACKAGES:
        if package in sys.modules:
            continue
        if package == "kubernetes":
            found = importlib.util.find_spec(package)
            folders = list(found.submodule_search_locations or []) if found else []
        else:
            parent, _, last = package.rpartition(".")
            folders = [os.path.join(folder, last) for folder in sys.modules[parent].__path__]
        bare = types.ModuleType(package)
        bare.__path__ = folders
        sys.modules[package] = bare
    return importlib.import_module(name)


def _import_kubeconfig() -> Any:
    """The client's reader of kubeconfigs, without the generated API client.

    It names ApiClient for functions that are not used here, and by that alone would have it made: 80 ms.
    """
    client = _import("kubernetes.aio.client")
    lent = "ApiClient" not in vars(client)
    if lent:
        client.ApiClient = None
    try:
        return _import("kubernetes.aio.config.kube_config")
    finally:
        if lent:
            del client.ApiClient


rest: Any = _import("kubernetes.aio.client.rest")
_configuration: Any = _import("kubernetes.aio.client.configuration")


@dataclass(frozen=True, slots=True, eq=False)
class Access:
    """How to reach the API server, as it was read from files and plugins at one moment."""

    configuration: Any
    """The client's Configuration, complete."""
    template: Any
    """A REST client of the configuration, without connections, whose TLS context is made."""
    namespace: str
    """What the service account or the context names; `default` where neither does."""
    sources: tuple[str, ...]
    """The files that it was read from."""
    stamps: tuple[tuple[int, ...], ...]
    expires_at: datetime | None = None
    """When a plugin's credential ends, by the wall clock of those who made it."""

    @property
    def tls(self) -> ssl.SSLContext:
        """The certificates, as they were when they were read."""
        context: ssl.SSLContext = self.template.ssl_context
        return context

    @property
    def authorization(self) -> str:
        """The Authorization header; empty where a client certificate or nothing is shown."""
        return str(self.configuration.api_key.get("BearerToken", ""))

    @property
    def is_stale(self) -> bool:
        """A file has changed since, or the credential ends soon."""
        ends = self.expires_at is not None and datetime.now(UTC) + _EARLY >= self.expires_at
        return ends or _stamps(self.sources) != self.stamps


class AccessSource:
    """Reads the access, and again when it has become stale or was refused."""

    def __init__(self, kubeconfig: str | None, context: str | None, service_account: Path = SERVICE_ACCOUNT) -> None:
        """An explicit kubeconfig wins, a context means a kubeconfig; else in-cluster, KUBECONFIG, ~/.kube/config."""
        self._context = context
        self._service_account = service_account
        inside = (service_account / "token").is_file() and os.environ.get("KUBERNETES_SERVICE_HOST")
        self._in_cluster = bool(inside) and kubeconfig is None and context is None
        self._paths = kubeconfig or os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")
        self._refused = False
        self._loading: asyncio.Task[Access] | None = None
        self._access: Access | None = None

    async def current(self) -> Access:
        """The access as of now. Raises ConfigError the first time it cannot be read, StoreUnavailable later."""
        known = self._access
        if known is not None and not self._refused and not known.is_stale:
            return known
        # A plugin may take longer than the caller has: it goes on, and the next caller finds what it brought.
        if self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._load())
            self._loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        task = self._loading
        try:
            self._access = await asyncio.shield(task)
            self._refused = False
        except AwaitelectError as error:
            if known is None:
                raise
            reason = "; ".join(str(error).splitlines())
            raise StoreUnavailable(reason, uncertain=False) from error
        finally:
            if task.done():
                self._loading = None
        return self._access

    @property
    def known(self) -> Access | None:
        """The access as it was last read."""
        return self._access

    def refuse(self, access: Access) -> None:
        """The server did not accept it: read everything again before the next request."""
        if access is self._access:
            self._refused = True

    def close(self) -> None:
        """End a plugin that still runs."""
        if self._loading is not None:
            self._loading.cancel()

    async def _load(self) -> Access:
        where = str(self._service_account) if self._in_cluster else f"kubeconfig {self._paths}"
        try:
            return self._load_in_cluster() if self._in_cluster else await self._load_kubeconfig()
        except AwaitelectError:
            raise
        except Exception as error:
            # The client's loader stumbles over a malformed file in many ways.
            raise ConfigError([f"cannot use {where}: {_one_line(error)}"]) from error

    def _load_in_cluster(self) -> Access:
        token, authority = self._service_account / "token", self._service_account / "ca.crt"
        sources = (str(token), str(authority))
        stamps = _stamps(sources)
        configuration = _configuration.Configuration()
        loader = _import("kubernetes.aio.config.incluster_config").InClusterConfigLoader(
            token_filename=str(token), cert_filename=str(authority), try_refresh_token=False
        )
        loader.load_and_set(configuration)
        named = self._service_account / "namespace"
        namespace = named.read_text().strip() if named.is_file() else ""
        return _finish(configuration, namespace, sources, stamps)

    async def _load_kubeconfig(self) -> Access:
        module = _import_kubeconfig()
        loader, sources = self._read_kubeconfig(module)
        stamps = _stamps(sources)
        await _run_plugin(module, loader)
        configuration = _configuration.Configuration()
        try:
            await loader.load_and_set(configuration)
            namespace = str(loader.current_context["context"].get("namespace") or "")
            ends = getattr(loader, "exec_plugin_expiry", None)
            return _finish(configuration, namespace, sources, stamps, ends)
        finally:
            # Keys that stood inside the kubeconfig were written to files for OpenSSL, which has read them now.
            module._cleanup_temp_files()

    def _read_kubeconfig(self, module: Any) -> tuple[Any, tuple[str, ...]]:
        """The client's loader with the context chosen, and all files that the context needs."""
        paths = [os.path.expanduser(path) for path in self._paths.split(":") if path]
        if not any(map(os.path.exists, paths)):
            raise ConfigError([f"cannot find a cluster: not in one, and there is no kubeconfig {self._paths}"])
        merged = module.KubeConfigMerger(self._paths).config
        loader = module.KubeConfigLoader(config_dict=merged, active_context=self._context, config_base_path=None)
        context = loader.current_context["context"]
        if loader._user is None:
            if context.get("user"):
                raise ConfigError([f"cannot use kubeconfig {self._paths}: it has no user {context['user']!r}"])
            loader._user = module.ConfigNode("user", {}, paths[0])
        for node, keys in (
            (loader._user, ("tokenFile", "client-certificate", "client-key")),
            (loader._cluster, ("certificate-authority",)),
        ):
            base = os.path.dirname(os.path.abspath(node.path))
            paths += [os.path.join(base, node.value[key]) for key in keys if node.value.get(key)]
        return loader, tuple(paths)


async def _run_plugin(module: Any, loader: Any) -> None:
    """Have the kubeconfig's credential plugin run without a terminal and with an end, its failure an error.

    The client's own call waits for ever, shares our stdin with the plugin, and goes on without credentials if it fails.
    """
    if "exec" not in loader._user or loader.provider is not None:
        return
    provider = _import("kubernetes.aio.config.exec_provider").ExecProvider(loader._user["exec"])
    name = os.path.basename(str(provider.args[0]))
    try:
        async with asyncio.timeout(PLUGIN_TIMEOUT):
            answer = await _output(provider)
    except TimeoutError as error:
        raise ConfigError([f"cannot get credentials: {name} gave none within {PLUGIN_TIMEOUT:g} s"]) from error
    except (OSError, ValueError) as error:
        raise ConfigError([f"cannot get credentials from {name}: {_one_line(error)}"]) from error
    status = answer.get("status") if isinstance(answer, dict) else None
    if not isinstance(status, dict) or not (status.get("token") or status.get("clientCertificateData")):
        raise ConfigError([f"cannot get credentials from {name}: its answer has neither token nor certificate"])
    plain = {key: value for key, value in loader._user.value.items() if key != "exec"}
    if status.get("token"):
        plain["token"] = status["token"]
    if status.get("clientCertificateData"):
        plain["client-certificate"] = module._create_temp_file_with_content(status["clientCertificateData"])
        plain["client-key"] = module._create_temp_file_with_content(status.get("clientKeyData", ""))
    loader._user = module.ConfigNode("user", plain, loader._user.path)
    if status.get("expirationTimestamp"):
        loader.exec_plugin_expiry = datetime.fromisoformat(status["expirationTimestamp"])


async def _output(provider: Any) -> Any:
    """What the plugin prints, parsed. Raises OSError and ValueError; leaves nothing of it behind when cancelled."""
    asked = {"apiVersion": provider.api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
    process = await asyncio.create_subprocess_exec(
        *provider.args,
        env={**provider.env, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise ValueError(f"it ended with {process.returncode}: {complaint.decode(errors='replace').strip()}")
    return json.loads(output)


def _finish(
    configuration: Any,
    namespace: str,
    sources: tuple[str, ...],
    stamps: tuple[tuple[int, ...], ...],
    expires_at: datetime | None = None,
) -> Access:
    key = configuration.api_key
    if "BearerToken" in key:
        kind, _, secret = key["BearerToken"].partition(" ")
        secret = secret.strip()
        if not secret.isascii() or not secret.isprintable():
            raise ConfigError(["cannot use the token: it has characters that no token has"])
        key["BearerToken"] = f"{kind.capitalize()} {secret}"
    return Access(
        configuration, rest.RESTClientObject(configuration), namespace or "default", sources, stamps, expires_at
    )


def _stamps(paths: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(map(_stamp, paths))


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
