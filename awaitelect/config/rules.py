"""What is said about several settings together: errors, and warnings about those that have no effect."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Container, Mapping

from awaitelect.config.model import LEAVES, Settings, value_of
from awaitelect.core.lease import Timing
from awaitelect.protocol import KILL_LEAD

_TIMING = re.compile(r"\b(?:lease_duration|renew_deadline|retry_period|kill_margin)\b")

DURATIONS = ("election.lease_duration", "election.renew_deadline", "election.retry_period", "election.kill_margin")

PUBLISHED = ("service.name", "pod_label.key", "events")
"""The settings that ask for something to be published on the cluster."""


def timing_of(settings: Settings) -> Timing:
    """The durations of the election."""
    one = settings.election
    return Timing(one.lease_duration, one.renew_deadline, one.retry_period, one.kill_margin)


def seconds(value: float) -> str:
    """A duration as it is shown."""
    return f"{value:.6g}s"


def problems(
    settings: Settings, origins: Mapping[str, str], unknown: Container[str], legacy: bool, command: str
) -> list[str]:
    """Why these settings cannot be used together, one line each.

    `unknown` are the keys whose own value was refused or could not be read: nothing is concluded from them.
    """
    found = []
    if not settings.command and "command" not in unknown:
        found.append("Need at least one argument to run" if legacy else command)
    if settings.election.enabled:
        found += _lock(settings, origins, unknown)
        found += _timing(settings, origins, unknown)
        found += _published(settings, origins, unknown)
    if settings.start.ready == "probe" and not settings.start.probe and "start.probe" not in unknown:
        found.append(
            f"start.probe: missing, and start.ready is probe ({origins['start.ready']}); expected one such as "
            "{http_get: {path: /ready, port: 8080}}"
        )
    if settings.probes.liveness and settings.probes.liveness.success_threshold != 1:
        found.append(
            f"{_named(('probes.liveness',), origins)}: found success_threshold "
            f"{settings.probes.liveness.success_threshold}, expected 1: one good answer shows life"
        )
    back = settings.restart.backoff
    keys = ("restart.backoff.initial", "restart.backoff.max")
    if back.initial > back.max and not any(key in unknown for key in keys):
        found.append(
            f"{_named(keys, origins)}: found initial {seconds(back.initial)} and max {seconds(back.max)}, "
            f"expected initial to be at most max"
        )
    return found


def _lock(settings: Settings, origins: Mapping[str, str], unknown: Container[str]) -> list[str]:
    backend, lock = settings.lock.backend, settings.lock
    needed, example = ("name", "kubernetes:NAMESPACE/NAME") if backend == "kubernetes" else ("path", "file:PATH")
    if getattr(lock, needed) or f"lock.{needed}" in unknown or "lock.backend" in unknown:
        return []
    key = LEAVES[f"lock.{needed}"]
    other, its = ("file", "path") if backend == "kubernetes" else ("kubernetes", "name")
    meant = ""
    if getattr(lock, its):
        meant = (
            f"; or, as lock.{its} is set ({origins[f'lock.{its}']}), lock.backend: {other}, "
            f"{LEAVES['lock.backend'].variable}={other}"
        )
    return [
        f"{key.key}: missing, and lock.backend is {backend} ({origins['lock.backend']}); expected {key.key} in the "
        f"file, {key.variable}, or --lock {example}{meant}"
    ]


def _published(settings: Settings, origins: Mapping[str, str], unknown: Container[str]) -> list[str]:
    asked = [key for key in PUBLISHED if value_of(settings, key)]
    found = []
    if settings.lock.backend == "file" and "lock.backend" not in unknown:
        found += [
            f"{key} ({origins[key]}): needs a cluster, and lock.backend is file ({origins['lock.backend']}); expected "
            "lock.backend kubernetes"
            for key in asked
        ]
    for key, needed, variable in (
        ("service.name", "service.pod_ip", "POD_IP"),
        ("pod_label.key", "pod.name", "POD_NAME"),
    ):
        if key in asked and not value_of(settings, needed) and needed not in unknown:
            found.append(
                f"{needed}: missing, and {key} is {value_of(settings, key)} ({origins[key]}); expected {needed} in the "
                f"file, {LEAVES[needed].variable}, or {variable} from the downward API"
            )
    return found


def _timing(settings: Settings, origins: Mapping[str, str], unknown: Container[str]) -> list[str]:
    if any(key in unknown for key in DURATIONS):
        return []
    found = []
    for problem in timing_of(settings).problems():
        keys = [key for key in DURATIONS if key.split(".")[1] in _TIMING.findall(problem)]
        text = _TIMING.sub(lambda name: f"election.{name[0]}", problem)
        found.append(f"{_named(keys, origins)}: {text}")
    return found


def _named(keys: list[str] | tuple[str, ...], origins: Mapping[str, str]) -> str:
    return ", ".join(f"{key} ({origins[key]})" for key in keys)


def warnings(settings: Settings, origins: Mapping[str, str], is_set: Callable[[str], bool]) -> list[str]:
    """What will not act as its setting reads, one line each; `is_set`: somebody has given this setting."""

    def inert(key: str, other: str, value: str) -> str:
        return f"{key} ({origins[key]}) has no effect while {other} is {value} ({origins[other]})"

    found = []
    backend = settings.lock.backend
    others = ("path",) if backend == "kubernetes" else ("name", "namespace", "kubeconfig", "context")
    if settings.election.enabled:
        found += [inert(f"lock.{one}", "lock.backend", backend) for one in others if is_set(f"lock.{one}")]
        # The default is cut with most durations: said of it at every start, it would teach people to overlook warnings.
        found += _grace(settings, origins) if is_set("stop.timeout") else []
        found += _exposed(settings, origins)
    found += _supervision(settings, origins, is_set)
    for section, needed in (("service", "service.name"), ("pod_label", "pod_label.key")):
        if not value_of(settings, needed) or not settings.election.enabled:
            why = f"{needed} is not set" if settings.election.enabled else "election.enabled is false"
            idle = [key for key in LEAVES if key.startswith(f"{section}.") and is_set(key)]
            found += [f"{_named(idle, origins)}: without effect while {why}"] if idle else []
    if settings.restart.policy == "never":
        keys = (key for key in LEAVES if re.match(r"restart\.(backoff|max_restarts|on_give_up)", key))
        found += [inert(key, "restart.policy", "never") for key in keys if is_set(key)]
    elif settings.restart.max_restarts == 0:
        keys = (key for key in LEAVES if key.startswith("restart.backoff."))
        found += [inert(key, "restart.max_restarts", "0") for key in keys if is_set(key)]
    return found


def _exposed(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    """A folder of leases that others may write to. One that is not there yet is made for its maker alone."""
    path = settings.lock.path
    if settings.lock.backend != "file" or not path:
        return []
    try:
        found = os.stat(path)
    except OSError:
        return []  # whoever uses it says what is wrong with it
    why = []
    if found.st_uid not in (0, os.geteuid()):
        why.append(f"belongs to user {found.st_uid}")
    if found.st_mode & stat.S_IWOTH:
        why.append(f"has mode {stat.S_IMODE(found.st_mode):04o}")
    text = f"lock.path ({origins['lock.path']}): {path} {' and '.join(why)}: whoever may write to it decides who leads"
    return [f"{text}; expected a folder of the user that runs awaitelect, mode 0700"] if why else []


def _supervision(settings: Settings, origins: Mapping[str, str], is_set: Callable[[str], bool]) -> list[str]:
    """Of what goes on beside the command: that which nothing will ever run or heed."""
    if not settings.election.enabled:
        keys = [
            key
            for key in LEAVES
            if re.match(r"(restart|stop|signals|start|probes|hooks|status)\.|events$", key) and is_set(key)
        ]
        return [f"{_named(keys, origins)}: without effect while election.enabled is false"] if keys else []
    start, hooks = settings.start, settings.hooks
    found: list[tuple[str, str, str]] = []
    if start.ready != "probe" and start.probe:
        found.append(("start.probe", "start.ready", start.ready))
    if start.ready == "exec" and start.timeout != LEAVES["start.timeout"].default:
        found.append(("start.timeout", "start.ready", "exec"))
    if not (hooks.pre_start or hooks.post_start or hooks.pre_stop or hooks.post_stop or settings.stop.command):
        if hooks.timeout != LEAVES["hooks.timeout"].default:
            return [*_inert(found, origins), f"{_named(('hooks.timeout',), origins)} has no effect: there is no hook"]
    return _inert(found, origins)


def _inert(found: list[tuple[str, str, str]], origins: Mapping[str, str]) -> list[str]:
    return [
        f"{key} ({origins[key]}) has no effect while {other} is {value} ({origins[other]})"
        for key, other, value in found
    ]


def grace_when_lost(timing: Timing) -> float:
    """Seconds that the command has to stop, at least, when the lease can no longer be renewed."""
    return max(0.0, timing.lease_duration - timing.kill_margin - KILL_LEAD - timing.renew_deadline)


def _grace(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    grace = grace_when_lost(timing_of(settings))
    if settings.stop.timeout <= grace:
        return []
    return [
        f"stop.timeout ({origins['stop.timeout']}) is {seconds(settings.stop.timeout)}, but when leadership is lost "
        f"election.lease_duration ({origins['election.lease_duration']}) leaves "
        f"{seconds(settings.election.lease_duration)} − {seconds(settings.election.kill_margin)} − "
        f"{seconds(settings.election.renew_deadline)} − {seconds(KILL_LEAD)} = {seconds(grace)}: "
        "it is cut to that then, and whole in a planned stop"
    ]
