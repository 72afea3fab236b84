"""All sources of settings, merged into one model that says where each value comes from.

Command line, then AWAITELECT_*, then K8S_AWAIT_ELECTION_*, then the YAML file, then defaults: the first that gives a
setting wins, and only its value is judged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping

from awaitelect.attributes import Attributes
from awaitelect.config import compat, layers, rules
from awaitelect.config.env_file import read_env_file
from awaitelect.config.kinds import Reason, Refused, kind_of, shown
from awaitelect.config.layers import Found, Layer
from awaitelect.config.model import LEAVES, Leaf, Settings, settings_of, value_of
from awaitelect.config.process_attributes import resolve
from awaitelect.config.text_file import Unreadable
from awaitelect.core.lease import LONGEST_NAME, Timing
from awaitelect.errors import ConfigError
from awaitelect.protocol import MAX_MESSAGE, BackoffSettings, CommandSettings
from awaitelect.values import Value, as_dict, changed

DEFAULT = "default"
ALONE = "default: nothing asks for an election"
DRAIN_TIME = 1.0
"""Seconds that the stop of the command waits at most until the Service's traffic is off."""

_NO_COMMAND = "command: missing; expected a program and its arguments on the command line, in the file, or in "

_DOWNWARD = {
    "POD_IP": "service.pod_ip",
    "NODE_NAME": "service.node_name",
    "POD_NAME": "pod.name",
    "POD_NAMESPACE": "pod.namespace",
    "POD_UID": "pod.uid",
}
"""What a pod learns by the usual variables of the downward API."""
_USES = {"service": ("service.name",), "pod": ("service.name", "pod_label.key", "events")}
"""What has to be asked for, by section, for these variables to matter."""


class Loaded(Value):
    """A configuration that can be used."""

    _unseen = frozenset({"variables"})

    settings: Settings
    origins: dict[str, str]
    """Where the value of each setting comes from, by its key."""
    warnings: list[str]
    """What will not act as it reads, one line each."""
    variables: dict[str, str] = {}
    """Of the command's user, env_file and env together. Secrets."""
    attributes: Attributes = Attributes()
    """With which the command's process runs."""

    @property
    def timing(self) -> Timing:
        """The durations of the election."""
        return rules.timing_of(self.settings)

    @property
    def identity(self) -> str:
        """This instance's name in the lease."""
        return self.settings.election.identity or ""

    @property
    def name(self) -> str:
        """The election's name, for people; empty only where there is no election."""
        return self.settings.election.name or ""

    @property
    def lock(self) -> str:
        """kubernetes:NAMESPACE/NAME or file:PATH; empty where the namespace, or the lock, is not known here."""
        lock = self.settings.lock
        if lock.backend == "file":
            return f"file:{os.path.abspath(lock.path)}" if lock.path else ""
        return f"kubernetes:{lock.namespace}/{lock.name}" if lock.namespace and lock.name else ""

    def _hooks(self) -> Iterator[tuple[str, tuple[str, ...] | None]]:
        hooks = self.settings.hooks
        for name in ("pre_start", "post_start", "pre_stop", "post_stop"):
            yield name, getattr(hooks, name)
        yield "stop", self.settings.stop.command

    def command_settings(self) -> CommandSettings:
        """What the keeper has to know."""
        one = self.settings
        environment = dict(self.variables)
        if one.election.enabled:
            environment["AWAITELECT_IDENTITY"] = self.identity
            if self.lock:
                environment["AWAITELECT_LOCK"] = self.lock
        back = one.restart.backoff
        return CommandSettings(
            argv=list(one.command),
            enabled=one.election.enabled,
            environment=environment,
            inherit_env=one.inherit_env,
            **as_dict(self.attributes),
            stop_signal=one.stop.signal,
            stop_timeout=one.stop.timeout,
            kill_mode=one.stop.kill_mode,
            cgroup=one.stop.cgroup == "auto",
            signal_target=one.signals.target,
            signal_rewrite=dict(one.signals.rewrite),
            restart_policy=one.restart.policy,
            backoff=BackoffSettings(back.initial, back.factor, back.max, back.jitter, back.reset_after),
            max_restarts=one.restart.max_restarts,
            on_give_up=one.restart.on_give_up,
            success_exit_codes=list(one.success_exit_codes),
            hooks={name: list(argv) for name, argv in self._hooks() if argv},
            hook_timeout=one.hooks.timeout,
            ready=one.start.ready,
            start_timeout=one.start.timeout,
            start_probe=one.start.probe,
            liveness=one.probes.liveness,
            drain_timeout=DRAIN_TIME if one.service.name else 0.0,
            termination_path=os.path.abspath(one.termination_message.path),
            termination_lines=one.termination_message.stderr_lines,
            renew_deadline=one.election.renew_deadline,
            kill_margin=one.election.kill_margin,
            log_level=one.log.level,
            log_format=one.log.format,
            name=self.name,
        )


def load(
    options: Mapping[str, str],
    command: list[str],
    environ: Mapping[str, str],
    *,
    instance: str = "",
    tries: bool = True,
) -> Loaded:
    """The configuration that these sources give together.

    `options`: any of config, lock, identity, log_level, log_format, legacy ("1": started as k8s-await-election, which
    changes the wording of a missing command and nothing else), and alone ("1": nothing asks for an election, so there
    is none). `instance`: the id of this run of awaitelect, the same for each of its electors. `tries`: also try in a
    child of this process whether the command's process could be set up so; else that shows at its start. Raises
    ConfigError with all problems at once.
    """
    return _Merge(options, environ, instance).loaded(command, tries)


class _Merge:
    """One call of load: what has been found so far."""

    def __init__(self, options: Mapping[str, str], environ: Mapping[str, str], instance: str) -> None:
        self.options, self.environ, self.instance = options, environ, instance
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.doubtful: set[str] = set()
        """Settings of which nothing can be concluded: their value was refused, or may be in a file that is broken."""
        self.found: Layer = {}

    def loaded(self, command: list[str], tries: bool) -> Loaded:
        self._merge(command)
        self._derive()
        settings = self._fit_margin(self._judge())
        self.found = {key: one for key, one in self.found.items() if one.value is not None}
        origins = {key: self.found[key].origin if key in self.found else DEFAULT for key in LEAVES}
        missing = _NO_COMMAND + LEAVES["command"].variable
        legacy = bool(self.options.get("legacy"))
        self.problems += rules.problems(settings, origins, self.doubtful, legacy, missing)
        process = resolve(settings, origins, self.doubtful, tries)
        self.problems += process.problems
        variables = process.login | self._variables(settings)
        if not self.problems:
            self.warnings += process.warnings
            self.warnings += rules.warnings(settings, origins, self._is_set)
        result = Loaded(settings, origins, [_one_line(one) for one in self.warnings], variables, process.attributes)
        size = len(json.dumps(as_dict(result.command_settings()))) + 4096
        if size > MAX_MESSAGE:
            self.problems.append(
                f"env, env_file, command: found {size} bytes together, expected at most {MAX_MESSAGE}; large values "
                f"belong in files that the command reads itself"
            )
        if self.problems:
            raise ConfigError(list(dict.fromkeys(_one_line(one) for one in self.problems)))
        return result

    def _merge(self, command: list[str]) -> None:
        """All layers, the weakest first."""
        path = layers.config_path(self.options, self.environ)
        file = {} if path is None else layers.file_layer(path, self.problems, self.doubtful)
        old = compat.read(self.environ)
        old_layer = {key: Found(value, origin) for key, (value, origin) in old.values.items()}
        own = layers.variables_layer(self.environ, self.problems, self.warnings)
        line = layers.options_layer(self.options, command, self.problems)
        self.found = file | old_layer | own | line
        self.doubtful -= set(old_layer) | set(own) | set(line)
        # A part of --lock or a variable that could not be read: told already.
        self.doubtful |= {key for key, one in self.found.items() if one.value is None and one.node is None}
        enabled = self.found.get("election.enabled")
        if enabled is None or enabled.value is not False:
            given = {*file, *own, *line, *self.doubtful}
            self.problems += compat.required_problems(old, given, self._is_over_file)
            # Told in its words: not told again in ours.
            self.doubtful |= {key for key, _ in old.missing}
        self.warnings += old.warnings

    @property
    def _is_over_file(self) -> bool:
        backend = self.found.get("lock.backend")
        return backend is not None and backend.value == "file"

    def _derive(self) -> None:
        """Values that come from other values, where nobody gives them."""
        if self.options.get("alone"):
            self.found.setdefault("election.enabled", Found(False, ALONE))
        lock_from = self.found.get("lock.name")
        pod, namespace = self.environ.get("POD_NAME"), self.environ.get("POD_NAMESPACE")
        name, origin = (pod, "POD_NAME") if pod else (layers.host_name(), "default: the host name")
        if self._is_over_file:  # its instances share a machine, and so the name
            part = self.instance[:8] or "RUN"
            name, origin = f"{name[: LONGEST_NAME - len(part) - 1]}-{part}", f"{origin}, and a part for each run"
        self.found.setdefault("election.identity", Found(name, origin))
        if self._is_over_file:
            path = self.found.get("lock.path")
            base = os.path.basename(path.value.rstrip("/")) if path and isinstance(path.value, str) else ""
            if base:
                self.found.setdefault("election.name", Found(base, "default: of lock.path"))
            return
        if namespace:
            self.found.setdefault("lock.namespace", Found(namespace, "POD_NAMESPACE"))
        for variable, key in _DOWNWARD.items():
            if self.environ.get(variable) and any(one in self.found for one in _USES[key.split(".")[0]]):
                self.found.setdefault(key, Found(self.environ[variable], variable))
        if lock_from is not None and lock_from.value is not None:
            self.found.setdefault("election.name", Found(lock_from.value, "default: of lock.name"))

    def _judge(self) -> Settings:
        """The model of all values that are accepted; the others are told, and have their default in it."""
        values, refused = {}, set()
        for key, leaf in LEAVES.items():
            found = self.found.get(key)
            if found is None or (found.value is None and found.node is None):
                continue
            try:
                values[key] = leaf.kind.parse(found.value)
            except Refused as error:
                refused.add(key)
                self._tell_refusal(leaf, found, error.reasons)
        self.doubtful |= refused
        self.found = {key: one for key, one in self.found.items() if key not in refused}
        return settings_of(values)

    def _tell_refusal(self, leaf: Leaf, found: Found, reasons: tuple[Reason, ...]) -> None:
        # A value that is only derived from a refused one is wrong for the same reason.
        told = found.origin.startswith("default: of")
        for reason in () if told else reasons:
            inside = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in reason.at)
            what = reason.found or (kind_of(found.value) if leaf.kind.secret else shown(found.value))
            self.problems.append(
                f"{found.place(reason.at)}: {leaf.key}{inside}: found {what}, expected {reason.expected}"
            )

    def _fit_margin(self, settings: Settings) -> Settings:
        """Durations that k8s-await-election accepts are accepted: the margin, which it does not have, gives way."""
        key = "election.kill_margin"
        from_old = any(self._origin(one).startswith(compat.PREFIX) for one in rules.DURATIONS)
        margin = compat.fitting_margin({one: value_of(settings, one) for one in rules.DURATIONS[:2]})
        if margin is None or not from_old or key in self.found or self.doubtful & set(rules.DURATIONS):
            return settings
        self.found[key] = Found(margin, f"default: fitted to {compat.PREFIX}*")
        self.warnings.append(
            f"{key} is {rules.seconds(margin)} rather than 1s, to fit between election.renew_deadline "
            f"({self._origin('election.renew_deadline')}) and election.lease_duration "
            f"({self._origin('election.lease_duration')})"
        )
        return changed(settings, election=changed(settings.election, kill_margin=margin))

    def _origin(self, key: str) -> str:
        return self.found[key].origin if key in self.found else DEFAULT

    def _is_set(self, key: str) -> bool:
        return key in self.found and not self.found[key].origin.startswith(DEFAULT)

    def _variables(self, settings: Settings) -> dict[str, str]:
        variables: dict[str, str] = {}
        for file in settings.env_file:
            try:
                of_file, ignored = read_env_file(file)
            except Unreadable as error:
                self.problems += [f"{self._origin('env_file')}: env_file: {reason}" for reason in error.reasons]
                continue
            variables |= of_file
            self.warnings += ignored
        return variables | settings.env


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
