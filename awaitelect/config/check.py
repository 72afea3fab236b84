"""A configuration shown to people: every value and its origin, and what follows from the durations."""

from __future__ import annotations

import shlex
from typing import Any

from awaitelect.config import rules
from awaitelect.config.model import LEAVES, value_of
from awaitelect.config.process_kinds import COMMAND, EnvFile, signal_name
from awaitelect.config.sources import Loaded
from awaitelect.protocol import Probe

_WIDEST = 48


def render(loaded: Loaded) -> str:
    """The whole configuration as text. The values of env and env_file are secrets and are left out."""
    parts = [_table(loaded)]
    if loaded.variables:
        parts.append("variables set for the command, without their values: " + ", ".join(sorted(loaded.variables)))
    parts.append(_timeline(loaded))
    if loaded.warnings:
        parts.append("\n".join(["warnings:", *(f"  - {one}" for one in loaded.warnings)]))
    return "\n\n".join(parts) + "\n"


def _table(loaded: Loaded) -> str:
    rows = [(key, _shown(key, value_of(loaded.settings, key)), loaded.origins[key]) for key in LEAVES]
    first = max(len(key) for key, _, _ in rows)
    second = min(_WIDEST, max(len(value) for _, value, _ in rows))
    return "\n".join(f"{key:<{first}}  {value:<{second}}  {origin}" for key, value, origin in rows)


def _shown(key: str, value: Any) -> str:
    kind = LEAVES[key].kind
    if value is None or value in ((), {}):
        return "-"
    if kind.secret:
        return ", ".join(value)
    if key == "umask":
        return f"{value:03o}"
    if kind is COMMAND:
        return _printable(shlex.join(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    match kind.name, value:
        case "duration", float():
            return rules.seconds(value)
        case "mapping of limits", dict():
            return "; ".join(f"{name} {limit}" for name, limit in value.items())
        case "signal", int():
            return signal_name(value)
        case "mapping of signals", dict():
            return ", ".join(f"{signal_name(one)} → {signal_name(to) if to else 'none'}" for one, to in value.items())
    if isinstance(value, tuple) and value and isinstance(value[0], EnvFile):
        return ", ".join(one.path + ("" if one.required else " (may be missing)") for one in value)
    if isinstance(value, Probe):
        what = shlex.join(value.argv) if value.kind == "exec" else f"{value.host}:{value.port}"
        path = value.path if value.kind == "http_get" else ""
        return _printable(f"{value.kind} {what}{path} every {rules.seconds(value.period)}")
    if type(value) is tuple:
        return ", ".join(map(str, value))
    return _printable(f"{value:g}" if isinstance(value, float) else str(value))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _timeline(loaded: Loaded) -> str:
    if not loaded.settings.election.enabled:
        return "there is no election: the command starts at once, and awaitelect becomes it"
    timing, stop, show = loaded.timing, loaded.settings.stop, rules.seconds
    stop_by, kill_by = timing.renew_deadline, timing.lease_duration - timing.kill_margin
    cut = min(stop.timeout, rules.grace_when_lost(timing))
    steps = [
        ("0s", "a renewal is sent"),
        (f"+{show(timing.retry_period)}", "the next one is sent, and so on; without any that is confirmed:"),
        (f"+{show(stop_by)}", f"the command gets {signal_name(stop.signal)}"),
        (f"+{show(stop_by + cut)}", "what is left of it gets SIGKILL"),
        (f"+{show(kill_by)}", "nothing of it is alive, at the latest"),
        # Others wait whole seconds: the record has no fractions.
        (f"+{show(timing.wire_duration)}", "another instance may start its own"),
    ]
    width = max(len(at) for at, _ in steps) + 2
    lines = [f"{at:>{width}}  {what}" for at, what in steps]
    lines.append(f"the command has {show(cut)} to stop when leadership is lost, {show(stop.timeout)} in a planned stop")
    return "\n".join(["after a confirmed renewal:", *lines])
