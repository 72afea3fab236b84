"""The single sources of settings: command line, variables, file. Each gives values by key and says where they stand.

Nothing is judged here but what a source itself gets wrong: an unknown key or variable, text that is no YAML. Problems
are appended to a list, so that all of them are told at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from awaitelect.config.kinds import shown, suggestion
from awaitelect.config.model import LEAVES, SECTIONS, VARIABLES, Leaf
from awaitelect.config.process_kinds import COMMAND, split_command
from awaitelect.config.text_file import Unreadable, read_text
from awaitelect.config.variables import CONFIG, configuring
from awaitelect.values import Value

if TYPE_CHECKING:
    from awaitelect.config.yaml_text import Node

COMMAND_LINE = "command line"

_SUGGESTIONS = 100
"""So many problems may say what was perhaps meant: to find that out takes a millisecond each."""

_OPTIONS = {"identity": "election.identity", "log_level": "log.level", "log_format": "log.format"}


class Found(Value):
    """A value from one source."""

    value: Any
    origin: str
    """Where it stands: an option, a variable, or FILE:LINE."""
    node: Node | None = None
    """In a file: the value with the lines of its parts."""

    def place(self, at: tuple[str | int, ...]) -> str:
        """Where a part of the value stands."""
        node, path = self.node, self.origin.rpartition(":")[0]
        line = node.line if node else 0
        for step in at:
            inner: Any = node.value if node else None
            known = inner if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
            if step not in known:
                break
            node = inner[step]
            line = node.line
        return f"{path}:{line}" if node else self.origin


Layer = dict[str, Found]


def options_layer(options: Mapping[str, str], command: list[str], problems: list[str]) -> Layer:
    """What stands on the command line."""
    layer: Layer = {}
    for option, key in _OPTIONS.items():
        if option in options:
            layer[key] = Found(options[option], "--" + option.replace("_", "-"))
    if command:
        layer["command"] = Found(command, COMMAND_LINE)
    if "lock" in options:
        layer |= _lock(options["lock"], problems)
    return layer


def _lock(text: str, problems: list[str]) -> Layer:
    backend, _, rest = text.partition(":")
    layer: Layer = {"lock.backend": Found(backend, "--lock")}
    if backend == "file" and rest:
        # The option names the whole lock: what else says which Lease it is does not count.
        layer |= {f"lock.{name}": Found(None, "--lock") for name in ("name", "namespace", "kubeconfig", "context")}
        return layer | {"lock.path": Found(rest, "--lock")}
    if backend == "kubernetes" and rest:
        namespace, slash, name = rest.rpartition("/")
        layer |= {"lock.path": Found(None, "--lock"), "lock.name": Found(name, "--lock")}
        return layer | ({"lock.namespace": Found(namespace, "--lock")} if slash else {})
    near = suggestion(backend, ("kubernetes", "file")) if backend not in ("kubernetes", "file") else ""
    problems.append(
        f"--lock: found {shown(text)}, expected kubernetes:NAMESPACE/NAME, kubernetes:NAME or file:PATH{near}"
    )
    # Whichever lock was meant: that its parts are missing is no second problem.
    return {f"lock.{name}": Found(None, "--lock") for name in ("name", "path")}


def variables_layer(environ: Mapping[str, str], problems: list[str], warnings: list[str]) -> Layer:
    """What AWAITELECT_* says."""
    layer: Layer = {}
    for variable in configuring(environ):
        leaf = VARIABLES.get(variable)
        if leaf:
            _variable(leaf, environ[variable], layer, problems, warnings)
        elif variable != CONFIG:
            near = suggestion(variable, VARIABLES, 0.75) if len(problems) < _SUGGESTIONS else ""
            problems.append(f"{variable}: unknown variable; expected one that names a setting{near}")
    return layer


def _variable(leaf: Leaf, text: str, layer: Layer, problems: list[str], warnings: list[str]) -> None:
    if not text and leaf.key != "status.listen":
        warnings.append(f"{leaf.variable} is set but empty, which counts as not set")
        return
    value: Any = text
    try:
        if leaf.kind.decode:
            value = leaf.kind.decode(text)
        elif leaf.kind is COMMAND and not text.lstrip().startswith("["):
            value = split_command(text)
        elif leaf.key != "env_file" or text.lstrip()[:1] in ("[", "{"):
            value = _yaml(text, leaf.variable).plain()
    except Unreadable as error:
        problems.extend(error.reasons)
        layer[leaf.key] = Found(None, leaf.variable)
        return
    except ValueError as error:
        problems.append(f"{leaf.variable}: found text that a shell could not divide ({str(error).lower()})")
        layer[leaf.key] = Found(None, leaf.variable)
        return
    layer[leaf.key] = Found(value, leaf.variable) if value is not None else Found("null", leaf.variable)


def config_path(options: Mapping[str, str], environ: Mapping[str, str]) -> str | None:
    """The path of the configuration file, if there is one."""
    return options["config"] if "config" in options else environ.get(CONFIG) or None


def file_layer(path: str, problems: list[str], doubtful: set[str]) -> Layer:
    """What the YAML file says. `doubtful` gets the keys that it perhaps meant to give."""
    layer: Layer = {}
    try:
        root = _yaml(read_text(path, "the configuration"), path)
        if not isinstance(root.value, dict):
            found = "an empty file" if root.value is None else shown(root.value)
            raise Unreadable(f"{path}:{root.line}: found {found}, expected a mapping such as 'lock: {{name: demo}}'")
    except Unreadable as error:
        problems.extend(error.reasons)
        doubtful.update(LEAVES)
        return layer
    _section(root, "", path, layer, problems, doubtful)
    return layer


def _yaml(text: str, where: str) -> Node:
    from awaitelect.config.yaml_text import parse  # slow to import, and not needed by those who have variables alone

    return parse(text, where)


def _section(section: Node, at: str, path: str, layer: Layer, problems: list[str], doubtful: set[str]) -> None:
    for name, node in section.value.items():
        key = f"{at}.{name}" if at else str(name)
        origin = f"{path}:{node.line}"
        if not isinstance(name, str) or name not in SECTIONS[at]:
            problems.append(f"{origin}: {_unknown(name, at, doubtful, len(problems))}")
        elif key in LEAVES:
            try:
                value = node.plain()
            except Unreadable as error:
                problems.append(f"{origin}: {key}: {error}")
                doubtful.add(key)
                continue
            if value is not None or LEAVES[key].default is not None:
                layer[key] = Found(value, origin, node)
        elif isinstance(node.value, dict):
            _section(node, key, path, layer, problems, doubtful)
        elif node.value is not None:  # All keys of a section may be commented out.
            keys = ", ".join(sorted(SECTIONS[key]))
            problems.append(f"{origin}: {key}: found {shown(node.value)}, expected a mapping with any of {keys}")
            doubtful.update(one for one in LEAVES if one.startswith(key + "."))


def _unknown(name: Any, at: str, doubtful: set[str], told: int) -> str:
    where = f" in {at}" if at else ""
    if not isinstance(name, str):
        return f"found {shown(name)} as a key{where}, expected a word"
    near = suggestion(name, SECTIONS[at]) if told < _SUGGESTIONS else ""
    if near:
        meant = f"{at}.{near.split(chr(39))[1]}".lstrip(".")
        doubtful.update(key for key in LEAVES if key == meant or key.startswith(meant + "."))
    else:
        elsewhere = [key for key in LEAVES if key.split(".")[-1] == name.lower()]
        near = f"; did you mean {elsewhere[0]!r}?" if elsewhere else f"; expected {', '.join(sorted(SECTIONS[at]))}"
    key = f"{at}.{name}" if at else name
    return f"{shown(key)[1:-1]}: unknown key{near}"


def host_name() -> str:
    """This machine's name, in a container the pod's."""
    return os.uname().nodename
