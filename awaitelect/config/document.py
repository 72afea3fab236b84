"""What people and editors read about the settings, generated from the model.

`python -m awaitelect.config.document --write` renews conf/awaitelect.schema.json and the table in README.md.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from awaitelect.config import rules
from awaitelect.config.model import LEAVES, Leaf, Settings
from awaitelect.config.process_kinds import signal_name
from awaitelect.readme import Block
from awaitelect.values import Value

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = "conf/awaitelect.schema.json"


@cache
def _meanings(section: type) -> dict[str, str]:
    """The docstrings under the fields. Read here only: reading source is too slow for every start."""
    tree = ast.parse(inspect.getsource(section)).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = inspect.cleandoc(ast.literal_eval(below.value))
    return found


def meaning(leaf: Leaf) -> str:
    """What a setting is for, in one sentence."""
    return _meanings(leaf.section)[leaf.path[-1]]


def default_value(leaf: Leaf) -> Any:
    """The default as YAML has it; None where there is none."""
    value = leaf.default
    if leaf.kind.name == "duration":
        return rules.seconds(value)
    if leaf.kind.name == "signal":
        return signal_name(value)
    return list(value) if isinstance(value, tuple) else value


def settings_table() -> str:
    """All settings as a Markdown table."""
    rows = ["| key | variable | type | default | meaning |", "| --- | --- | --- | --- | --- |"]
    for leaf in LEAVES.values():
        value = default_value(leaf)
        default = "" if value in (None, [], {}) else f"`{value if isinstance(value, str) else json.dumps(value)}`"
        rows.append(f"| `{leaf.key}` | `{leaf.variable}` | {leaf.kind.name} | {default} | {meaning(leaf)} |")
    return "\n".join(rows)


def schema() -> dict[str, Any]:
    """A JSON schema that accepts what the loader accepts in a file, value by value."""
    top: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "awaitelect",
        "description": "Settings of awaitelect: a command that runs only while its instance leads.",
        **_section(Settings),
    }
    for leaf in LEAVES.values():
        properties = top["properties"]
        for step in leaf.path[:-1]:
            properties = properties[step]["properties"]
        properties[leaf.path[-1]] = _leaf(leaf)
    return top


def _section(section: type[Value]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, default in section.DEFAULTS.items():
        # A leaf only holds its place here, so that keys stand in the model's order.
        properties[name] = {}
        if isinstance(default, Value):
            inner = type(default)
            properties[name] = {"description": inspect.getdoc(inner), **_section(inner)}
    # null: all keys below may be commented out.
    kinds: Any = "object" if section is Settings else ["object", "null"]
    return {"type": kinds, "additionalProperties": False, "properties": properties}


def _leaf(leaf: Leaf) -> dict[str, Any]:
    accepted = leaf.kind.schema
    value = default_value(leaf)
    if value is None:
        accepted = {"anyOf": [*accepted.get("anyOf", [accepted]), {"type": "null"}]}
    found = {"description": meaning(leaf), **accepted}
    return found if value in (None, [], {}) else {**found, "default": value}


def schema_text() -> str:
    """The schema as its file has it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def block() -> Block:
    """The table's of the README."""
    return Block("settings", settings_table())


def main(arguments: list[str]) -> int:
    """Write the generated files, or say how to."""
    if arguments != ["--write"]:
        sys.stderr.write("usage: python -m awaitelect.config.document --write\n")
        return 2
    (ROOT / SCHEMA).write_text(schema_text(), encoding="utf-8")
    readme = ROOT / "README.md"
    if readme.exists():
        block().put_into(readme)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
