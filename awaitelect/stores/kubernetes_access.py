"""Where the API server is and how it knows us: service account, kubeconfig, tokens and certificates that rotate.

Boundary: only this module reads credentials, and it alone decides what is imported of the `kubernetes` package.

`import kubernetes.aio` runs the package's synchronous half and every API and model, of which nothing is used here. So
the parents are put into sys.modules as bare packages first: their submodules are found, their own code never runs. It
is undone for nobody, so a process that imports this module has no `kubernetes.client`.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import ssl
import sys
import types
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from awaitelect.errors import AwaitelectError, ConfigError, StoreUnavailable
from awaitelect.stores import lean_aiohttp  # noqa: F401  # before the client imports it whole

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
BARE_PACKAGES = ("kubernetes", "kubernetes.aio", "kubernetes.aio.config")
PLUGIN_TIMEOUT = 30.0
"""Seconds that a credential plugin of a kubeconfig may take."""
_EARLY = timedelta(seconds=30)
"""How long before its end a plugin's credential is replaced, at most; one of a short life later, by a fifth of it."""
_AGAIN = 2.0
"""Seconds after a plugin has failed until it is run again, while there is a credential to go on with."""

_log = logging.getLogger("awaitelect.stores")


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
    renew_at: datetime | None = None
    """When a plugin's credential is to be replaced, by the wall clock of those who made it."""

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
        ends = self.renew_at is not None and datetime.now(UTC) >= self.renew_at
        return ends or _stamps(self.sources) != self.stamps

    @property
    def proxy(self) -> str:
        """The proxy's host and port; empty where there is none."""
        return urlsplit(str(self.template.proxy or "")).netloc.rpartition("@")[2]


class AccessSource:
    """Reads the access, and again when it has become stale or was refused."""

    def __init__(self, kubeconfig: str | None, context: str | None, service_account: Path = SERVICE_ACCOUNT) -> None:
        """An explicit kubeconfig wins, a context means a kubeconfig; else in-cluster, KUBECONFIG, ~/.kube/config."""
        self._context = context
        self._service_account = service_account
        inside = (service_account / "token").is_file() and os.environ.get("KUBERNETES_SERVICE_HOST")
        self._in_cluster = bool(inside) and kubeconfig is None and context is None
        self._paths = kubeconfig or os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")
        self._plugin = ""
        self._is_prepared = False
        self._refused = False
        self._again_at = 0.0
        self._complaint = ""
        self._loading: asyncio.Task[Access] | None = None
        self._access: Access | None = None

    async def prepare(self) -> str:
        """Read the configuration for the first time, and return the namespace that it names, `default` for none.

        A credential plugin is begun and not waited for: what it needs may be as far away as the API server. Raises
        ConfigError.
        """
        if not self._in_cluster:
            with self._explained():
                loader, _ = self._read_kubeconfig(_import_kubeconfig())
                self._plugin = _plugin_of(loader)
                namespace = str(loader.current_context["context"].get("namespace") or "default")
            if self._plugin:
                self._is_prepared = True
                self._begin()
                return namespace
        return (await self.current()).namespace

    async def current(self) -> Access:
        """The access as of now. Only where it could never be read yet, raises ConfigError, or StoreUnavailable where a
        plugin is to blame.

        What was read before is used until there is something newer: a file that is just being written or a plugin that
        fails costs nothing as long as the server takes what we have.
        """
        known = self._access
        must = known is None or self._refused
        if self._loading is None and (must or (known is not None and known.is_stale)):
            if known is not None and asyncio.get_running_loop().time() < self._again_at:
                return known
            self._begin()
        task = self._loading
        # A plugin may take longer than the caller has: it goes on, and the next caller finds what it brought.
        if task is not None and (must or not self._plugin):
            try:
                return await asyncio.shield(task)
            except AwaitelectError as error:
                if known is None and self._is_prepared:
                    raise StoreUnavailable("; ".join(str(error).splitlines()), uncertain=False) from error
                if known is None:
                    raise
        if self._access is None:
            raise StoreUnavailable("there are no credentials yet", uncertain=False)
        return self._access

    @property
    def known(self) -> Access | None:
        """The access as it was last read."""
        return self._access

    @property
    def waits_for(self) -> str:
        """The plugin that still runs; empty for none."""
        return self._plugin if self._loading is not None else ""

    def refuse(self, access: Access) -> None:
        """The server did not accept it: read everything again before the next request."""
        if access is self._access:
            self._refused = True

    def close(self) -> None:
        """End a plugin that still runs."""
        if self._loading is not None:
            self._loading.cancel()

    def _begin(self) -> None:
        self._loading = asyncio.get_running_loop().create_task(self._load())
        self._loading.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Access]) -> None:
        self._loading = None
        self._refused = False
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._access, self._complaint, self._again_at = task.result(), "", 0.0
        elif self._access is not None:
            if self._plugin:
                self._again_at = asyncio.get_running_loop().time() + _AGAIN
            complaint = "; ".join(str(error).splitlines())
            if complaint != self._complaint:
                self._complaint = complaint
                _log.warning("%s; going on with the credentials that we have", complaint)

    async def _load(self) -> Access:
        with self._explained():
            return self._load_in_cluster() if self._in_cluster else await self._load_kubeconfig()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever goes wrong within, in many ways for a malformed file, leaves as an error that names the file."""
        where = str(self._service_account) if self._in_cluster else f"kubeconfig {self._paths}"
        try:
            yield
        except AwaitelectError:
            raise
        except Exception as error:
            # Never as its cause: the client's errors quote what stands in the file, tokens too.
            raise ConfigError([f"cannot use {where}: {_one_line(error)}"]) from None

    def _load_in_cluster(self) -> Access:
        token, authority = self._service_account / "token", self._service_account / "ca.crt"
        sources = (str(token), str(authority))
        _refuse_odd_files(sources)
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
        self._plugin = _plugin_of(loader)
        stamps = _stamps(sources)
        renew_at = await _run_plugin(module, loader) if self._plugin else None
        configuration = _configuration.Configuration()
        with ExitStack() as files:
            for node in (loader._user, loader._cluster):
                _unfold(node, files)
            await loader.load_and_set(configuration)
            if loader._user.value.get("tokenFile") and "BearerToken" not in configuration.api_key:
                raise ConfigError([f"cannot use the token: {loader._user.value['tokenFile']} is empty"])
            namespace = str(loader.current_context["context"].get("namespace") or "")
            return _finish(configuration, namespace, sources, stamps, renew_at)

    def _read_kubeconfig(self, module: Any) -> tuple[Any, tuple[str, ...]]:
        """The client's loader with the context chosen, and all files that the context needs."""
        paths = [os.path.expanduser(path) for path in self._paths.split(":") if path]
        if not any(map(os.path.exists, paths)):
            raise ConfigError(
                [f"cannot find a cluster: {self._not_inside()}, and there is no kubeconfig {self._paths}"]
            )
        _refuse_odd_files(paths)
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
            for key in ("token", *keys, *(f"{key}-data" for key in keys)):
                if isinstance(node.value.get(key), (dict, list)):
                    raise ConfigError([f"cannot use kubeconfig {node.path}: its {key} must be a text"])
            for key in keys:
                if node.value.get(key):
                    # Of several kubeconfigs, the one that says it counts; the client takes the cluster's for all.
                    node.value[key] = os.path.join(base, node.value[key])
                    paths.append(node.value[key])
        _refuse_odd_files(paths)
        if loader._user.value.get("tokenFile"):
            loader._user.value.pop("token", None)  # as kubectl has it, the file wins
        return loader, tuple(paths)

    def _not_inside(self) -> str:
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            return f"in one, but without a token in {self._service_account}"
        return "not in one"


def _refuse_odd_files(paths: Iterable[str]) -> None:
    """Raises ConfigError for a file that would be waited for, or has no end: OpenSSL would wait in our only thread."""
    for path in paths:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ConfigError([f"cannot use {path}: it is no regular file"])


def _unfold(node: Any, files: ExitStack) -> None:
    """Have what stands inside the kubeconfig in base64 as files that OpenSSL can read, and that are on no disk."""
    for key in ("certificate-authority", "client-certificate", "client-key"):
        inside = node.value.pop(f"{key}-data", None)
        if inside:
            try:
                content = base64.b64decode(inside)
            except (ValueError, TypeError):
                raise ConfigError([f"cannot use the kubeconfig: its {key}-data is not base64"]) from None
            node.value[key] = _memory_file(content, files)


def _memory_file(content: bytes, files: ExitStack) -> str:
    """A path to the content, while `files` is open."""
    fd = os.memfd_create("awaitelect", os.MFD_CLOEXEC)
    files.callback(os.close, fd)
    os.write(fd, content)
    return f"/proc/self/fd/{fd}"


def _plugin_of(loader: Any) -> str:
    """The name of the program that the kubeconfig has for credentials; empty where it has none. Raises ConfigError."""
    if "exec" not in loader._user or loader.provider is not None:
        return ""
    command = loader._user.value["exec"].get("command")
    if not isinstance(command, str) or not command:
        raise ConfigError(["cannot use the kubeconfig: its user's exec has no command"])
    if os.path.dirname(command):
        # As kubectl has it: from the file's folder, and never from wherever we happen to run.
        command = os.path.join(os.path.dirname(os.path.abspath(loader._user.path)), command)
        loader._user.value["exec"]["command"] = command
    given = {str(one.get("name")): str(one.get("value")) for one in loader._user.value["exec"].get("env") or []}
    if shutil.which(command, path=given.get("PATH")) is None:
        raise ConfigError([f"cannot get credentials: there is no program {command}, which the kubeconfig asks for"])
    return os.path.basename(command)


async def _run_plugin(module: Any, loader: Any) -> datetime | None:
    """Have the kubeconfig's credential plugin run without a terminal and with an end, its failure an error.

    Returns when its credential is to be replaced. The client's own call waits for ever, shares our stdin with the
    plugin, and goes on without credentials if it fails.
    """
    provider = _import("kubernetes.aio.config.exec_provider").ExecProvider(loader._user["exec"])
    name = os.path.basename(str(provider.args[0]))
    wants_cluster = loader._user.value["exec"].get("provideClusterInfo") is True
    try:
        async with asyncio.timeout(PLUGIN_TIMEOUT):
            answer = await _output(provider, loader._cluster.value if wants_cluster else None)
    except TimeoutError:
        reason = f"cannot get credentials: {name} gave none within {PLUGIN_TIMEOUT:g} s"
        raise StoreUnavailable(reason, uncertain=False) from None
    except (OSError, ValueError) as error:
        raise StoreUnavailable(f"cannot get credentials from {name}: {_one_line(error)}", uncertain=False) from None
    status = answer.get("status") if isinstance(answer, dict) else None
    given = {key: value for key, value in status.items() if isinstance(value, str)} if isinstance(status, dict) else {}
    token, certificate = given.get("token"), given.get("clientCertificateData")
    if not token and not (certificate and given.get("clientKeyData")):
        reason = f"cannot get credentials from {name}: its answer has neither token nor certificate and key"
        raise StoreUnavailable(reason, uncertain=False)
    plain = {key: value for key, value in loader._user.value.items() if key != "exec"}
    if token:
        plain["token"] = token
        plain.pop("tokenFile", None)
    if certificate:
        for key, content in (("client-certificate", certificate), ("client-key", given["clientKeyData"])):
            plain[f"{key}-data"] = base64.b64encode(content.encode())
    loader._user = module.ConfigNode("user", plain, loader._user.path)
    return _renew_at(given.get("expirationTimestamp", ""))


def _renew_at(ends: str) -> datetime | None:
    """When to replace a credential with that end. One that has no end, or passed it before it came by our clock, which
    may be wrong, is replaced when the server refuses it.
    """
    try:
        instant = datetime.fromisoformat(ends)
        left = (instant if instant.tzinfo else instant.replace(tzinfo=UTC)) - datetime.now(UTC)
    except (ValueError, OverflowError):
        return None
    return datetime.now(UTC) + left - min(_EARLY, left / 5) if left > timedelta() else None


async def _output(provider: Any, cluster: dict[str, Any] | None) -> Any:
    """What the plugin prints, parsed. Raises OSError and ValueError; leaves nothing of it behind when cancelled."""
    spec: dict[str, Any] = {"interactive": False}
    if cluster is not None:
        spec["cluster"] = _cluster_for_plugin(cluster)
    asked = {"apiVersion": provider.api_version, "kind": "ExecCredential", "spec": spec}
    process = await asyncio.create_subprocess_exec(
        *map(str, provider.args),
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
    try:
        return json.loads(output)
    except (ValueError, RecursionError):
        # Not what it printed: that may be a credential in another form.
        raise ValueError("its answer is not JSON") from None


def _cluster_for_plugin(cluster: dict[str, Any]) -> dict[str, Any]:
    """The cluster as a plugin is told of it, where its user has asked for that."""
    same = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
    told = {key: cluster[key] for key in same if key in cluster}
    if "certificate-authority" in cluster:
        content = Path(cluster["certificate-authority"]).read_bytes()
        told["certificate-authority-data"] = base64.b64encode(content).decode()
    for extension in cluster.get("extensions") or []:
        if extension.get("name") == "client.authentication.k8s.io/exec":
            told["config"] = extension.get("extension")
    return told


def _finish(
    configuration: Any,
    namespace: str,
    sources: tuple[str, ...],
    stamps: tuple[tuple[int, ...], ...],
    renew_at: datetime | None = None,
) -> Access:
    key = configuration.api_key
    if "BearerToken" in key:
        kind, _, secret = key["BearerToken"].partition(" ")
        secret = secret.strip()
        if not secret:
            raise ConfigError(["cannot use the token: it is empty"])
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise ConfigError(["cannot use the token: it has characters that no token has"])
        key["BearerToken"] = f"{kind.capitalize()} {secret}"
    server = urlsplit(configuration.host)
    if server.scheme not in ("http", "https") or not server.hostname:
        raise ConfigError(["cannot use the server's address: it must be https://HOST[:PORT]"])
    if configuration.proxy and urlsplit(configuration.proxy).scheme not in ("http", "https"):
        raise ConfigError(["cannot use proxy-url: only proxies of http:// and https:// can be used"])
    if configuration.key_file and b"ENCRYPTED" in Path(configuration.key_file).read_bytes():
        # OpenSSL would ask whoever sits at the terminal, and wait.
        raise ConfigError(["cannot use the client key: it has a passphrase, and nobody is there to give it"])
    configuration.proxy = configuration.proxy or _proxy_of_environment(configuration.host)
    return Access(
        configuration, rest.RESTClientObject(configuration), namespace or "default", sources, stamps, renew_at
    )


def _proxy_of_environment(server: str) -> str | None:
    """What HTTPS_PROXY and NO_PROXY say. Left to aiohttp, it would also take credentials from a ~/.netrc."""
    address = urlsplit(server)
    return None if proxy_bypass(address.netloc.rpartition("@")[2]) else getproxies().get(address.scheme)


def _stamps(paths: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(map(_stamp, paths))


def _stamp(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _one_line(error: BaseException) -> str:
    """Without what a kubeconfig's user has: the client names a part of the file by all that stands in it."""
    text = re.sub(r"\{.*\}", "…", " ".join(str(error).split()))
    return text[:500] or type(error).__name__
