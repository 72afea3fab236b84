"""The environment of k8s-await-election: K8S_AWAIT_ELECTION_*.

It counts only where K8S_AWAIT_ELECTION_ENABLED is not empty; any other value enables, `0` and `false` too. What
k8s-await-election refuses with status 1 is refused here as ConfigError, status 78, in its words.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

from awaitelect.values import Value

PREFIX = "K8S_AWAIT_ELECTION_"
ENABLED = PREFIX + "ENABLED"

_REQUIRED = {
    "NAME": "election.name",
    "LOCK_NAME": "lock.name",
    "LOCK_NAMESPACE": "lock.namespace",
    "IDENTITY": "election.identity",
}
"""In the order in which k8s-await-election looks at them."""

_SECONDS = {
    "LEASE_DURATION": ("election.lease_duration", 15),
    "RENEW_DEADLINE": ("election.renew_deadline", 10),
    "RETRY_PERIOD": ("election.retry_period", 2),
}

_SERVICE = {
    "SERVICE_NAME": "service.name",
    "SERVICE_NAMESPACE": "service.namespace",
    "POD_IP": "service.pod_ip",
    "NODE_NAME": "service.node_name",
}
_PORT_KEYS = {"name": "name", "port": "port", "protocol": "protocol", "appprotocol": "app_protocol"}

_ATOI = re.compile(r"[+-]?[0-9]+", re.ASCII)


class Compat(Value):
    """What these variables say."""

    values: dict[str, tuple[Any, str]]
    """Setting → value and variable."""
    missing: list[tuple[str, str]]
    """Required ones that are missing or empty, in order: setting and variable."""
    warnings: list[str]


def is_enabled(environ: Mapping[str, str]) -> bool:
    """The variables of k8s-await-election count."""
    return bool(environ.get(ENABLED))


def atoi(text: str) -> int | None:
    """A whole number as Go's strconv.Atoi reads it; None where it does not."""
    if not _ATOI.fullmatch(text) or len(text) > 4000:
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def read(environ: Mapping[str, str]) -> Compat:
    """The settings that K8S_AWAIT_ELECTION_* gives; nothing where it is not enabled."""
    found = Compat({}, [], [])
    if not is_enabled(environ):
        return found
    found.values["election.enabled"] = (True, ENABLED)
    for name, key in _REQUIRED.items():
        value = environ.get(PREFIX + name, "")
        if value:
            found.values[key] = (value, PREFIX + name)
        else:
            found.missing.append((key, PREFIX + name))
    if "lock.name" in found.values:
        found.values["lock.backend"] = ("kubernetes", PREFIX + "LOCK_NAME")
    if environ.get(PREFIX + "STATUS_ENDPOINT"):
        found.values["status.listen"] = (environ[PREFIX + "STATUS_ENDPOINT"], PREFIX + "STATUS_ENDPOINT")
    _durations(environ, found)
    if environ.get(PREFIX + "SERVICE_NAME"):
        _service(environ, found)
    return found


def _service(environ: Mapping[str, str], found: Compat) -> None:
    for name, key in _SERVICE.items():
        value = environ.get(PREFIX + name, "")
        if value:
            found.values[key] = (value, PREFIX + name)
    ports = PREFIX + "SERVICE_PORTS_JSON"
    found.values["service.ports"] = (ports_of_json(environ.get(ports, "")), ports)


def ports_of_json(text: str) -> Any:
    """The ports in JSON as Go reads it: keys in any case, unknown ones ignored, null as if not said.

    The text itself where it is no JSON: whoever judges it will say so.
    """
    import json  # Only routing needs it.

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        ports = json.loads(text, object_pairs_hook=tuple, parse_constant=refuse)
    except (ValueError, RecursionError):
        return text
    if ports is None:
        return []
    # An object is a tuple of pairs here: of two keys that differ in case only, the later one counts.
    if not isinstance(ports, list) or any(not isinstance(one, tuple) for one in ports):
        return text
    return [
        {_PORT_KEYS[key.casefold()]: value for key, value in one if key.casefold() in _PORT_KEYS and value is not None}
        for one in ports
    ]


def _durations(environ: Mapping[str, str], found: Compat) -> None:
    for name, (key, default) in _SECONDS.items():
        text = environ.get(PREFIX + name, "")
        if not text:
            continue
        seconds = atoi(text)
        if seconds is None:
            found.warnings.append(
                f"{PREFIX}{name}: found {text[:40]!r}, expected whole seconds such as {default}; "
                f"the default of {default}s is used, as k8s-await-election does"
            )
            # Said rather than left out: there it would not be another source's value either.
            seconds = default
        found.values[key] = (seconds, PREFIX + name)


def required_problems(found: Compat, given: Container[str], over_file: bool) -> list[str]:
    """Required variables that are missing and whose setting no other source gives either, in order."""
    return [
        f"missing required environment variable: '{variable}'"
        for key, variable in found.missing
        if key not in given and not (over_file and key.startswith("lock."))
    ]


def fitting_margin(values: Mapping[str, float]) -> float | None:
    """The kill_margin for durations that k8s-await-election accepts but that leave no room for the default of 1s.

    None where the default fits, or where nothing does.
    """
    room = values["election.lease_duration"] - values["election.renew_deadline"]
    return room / 2 if 0 < room <= 1 else None
