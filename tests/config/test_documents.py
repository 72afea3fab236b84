"""What people read: --check, the table, the schema, the annotated file."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from awaitelect.config import document
from awaitelect.config.check import render
from awaitelect.config.model import LEAVES, VARIABLES
from awaitelect.config.sources import load
from awaitelect.config.yaml_text import Node, parse
from awaitelect.errors import ConfigError

EXAMPLE = document.ROOT / "conf" / "awaitelect.yaml"


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """The part of JSON schema that ours is made of."""
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if "anyOf" in schema and not any(accepts(one, value) for one in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and (value != schema["const"] or isinstance(value, bool)):
        return False
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = [
        number and (name == "number" or isinstance(value, int))
        if name in ("number", "integer")
        else isinstance(value, types[name])
        for name in names
    ]
    if names and not any(fits):
        return False
    if number and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return False
    if isinstance(value, str) and (
        not re.search(schema.get("pattern", ""), value) or len(value) < schema.get("minLength", 0)
    ):
        return False
    if isinstance(value, list):
        return len(value) >= schema.get("minItems", 0) and all(accepts(schema.get("items", {}), one) for one in value)
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties", {})
        return set(schema.get("required", [])) <= set(value) and all(
            accepts(schema.get("propertyNames", {}), key)
            and (accepts(known[key], one) if key in known else other is not False and accepts(other, one))
            for key, one in value.items()
        )
    return True


def test_generated_files_are_fresh() -> None:
    """Renew them with: python -m awaitelect.config.document --write."""
    assert (document.ROOT / document.SCHEMA).read_text() == document.schema_text()
    readme = document.ROOT / "README.md"
    if readme.exists():
        assert document.block().found_in(readme.read_text()) == document.block().text


def test_every_setting_is_in_the_table_with_a_meaning() -> None:
    """A setting that is not explained does not exist for its users."""
    table = document.settings_table()
    for leaf in LEAVES.values():
        assert f"| `{leaf.key}` | `{leaf.variable}` |" in table
        assert re.fullmatch(r"[A-Z].*\.", document.meaning(leaf))
    assert len(VARIABLES) == len(LEAVES), "no two settings share a variable"


def test_the_annotated_file_loads_without_a_warning_and_has_every_key() -> None:
    """It is the first thing that is copied."""
    loaded = load({"config": str(EXAMPLE)}, [], {})
    assert loaded.warnings == []
    assert EXAMPLE.read_text().startswith("# yaml-language-server: $schema=./awaitelect.schema.json\n")
    root = parse(EXAMPLE.read_text(), "example")
    for leaf in LEAVES.values():
        node: Node = root
        for step in leaf.path:
            node = node.value[step]


def test_the_schema_accepts_the_annotated_file() -> None:
    """The editor and the loader must agree."""
    assert accepts(document.schema(), parse(EXAMPLE.read_text(), "example").plain())


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("stop: {timeout: 1m30s}", True), ("stop: {timeout: 5}", True), ("stop: {timeout: .5}", True),
        ("stop: {timeout: -5}", False), ("stop: {timeout: '5'}", False), ("stop: {timeout: 1d}", False),
        ("stop:", True), ("stop: 5", False), ("stop: {signal: 2}", True), ("stop: {signal: INT}", True),
        ("stop: {signal: 0}", False), ("stop: {kill_mode: all}", False), ("umask: '027'", True),
        ("umask: 27", False), ("umask: 0", True), ("env_file: FILE", True),
        ("env_file: {path: FILE}", True), ("env_file: [FILE, {path: /x, required: false}]", True),
        ("env_file: {required: false}", False), ("env: {A: '1'}", True), ("env: {A: 1}", False),
        ("env: {1A: x}", False), ("lock: {namespace: null}", True), ("election: {enabled: yes}", False),
        ("signals: {rewrite: {HUP: null, USR1: none, USR2: 15}}", True), ("success_exit_codes: [256]", False),
        ("restart: {backoff: {jitter: 2}}", False), ("restart: {backoff: {max: 40, factor: 3}}", True),
        ("election: {identity: null}", True), ("election: {name: ''}", False), ("log: {level: loud}", False),
        ("command: [a, '']", True), ("command: []", False), ("command: [1]", False), ("usr: x", False),
        ("inherit_env: null", False), ("user: root", True), ("user: 0", True), ("user: 'a b'", False),
        ("user: -1", False), ("group: [root]", False), ("group: null", True), ("supplementary_groups: []", True),
        ("supplementary_groups: root", False), ("ulimits: {core: 0, nofile: {soft: 64}}", True),
        ("ulimits: {core: {soft: 0, hard: unlimited}}", True), ("ulimits: {nofiles: 1}", False),
        ("ulimits: {core: -1}", False), ("ulimits: {core: {sotf: 0}}", False), ("nice: 19", True), ("nice: 20", False),
        ("probes: {liveness: {tcp_socket: {port: 1}, period_seconds: 5}}", True), ("start: {probe: {x: 1}}", False),
        ("start: {ready: probe, probe: {httpGet: {port: 80, path: /x}, initialDelaySeconds: 0}}", True),
        ("probes: {liveness: {tcp_socket: {prot: 1}}}", False), ("probes: {liveness: {tcp: {port: 1}}}", False),
        ("probes: {liveness: {exec: {command: []}}}", False), ("hooks: {pre_start: [a]}", True),
        ("hooks: {pre_start: a}", False), ("start: {ready: maybe}", False), ("stop: {command: [a, 1]}", False),
        ("service: {ports: [{port: 80, appProtocol: http}]}", True), ("service: {ports: [{name: a}]}", False),
        ("service: {ports: [{port: 80, prot: TCP}]}", False), ("service: {ports: [{port: 80, name: A}]}", False),
        ("service: {ports: null}", False), ("service: {api: slices}", False), ("events: null", False),
        ("oom_score_adj: 1000", True), ("oom_score_adj: 1001", False),
    ],
)  # fmt: skip
def test_the_schema_and_the_loader_agree(tmp_path: Path, text: str, good: bool) -> None:
    """Whatever one of them takes and the other does not is a bug in one of them."""
    path, variables = tmp_path / "a.yaml", tmp_path / "env"
    variables.touch()
    path.write_text(text.replace("FILE", str(variables)))
    assert accepts(document.schema(), parse(path.read_text(), "x").plain()) is good
    with nullcontext() if good else pytest.raises(ConfigError):
        load({"config": str(path), "lock": "file:/x"}, [] if "command" in text else ["a"], {})


def test_the_schema_is_plain_json() -> None:
    """Editors read it."""
    assert json.loads(document.schema_text())["properties"]["election"]["additionalProperties"] is False


def test_check_shows_each_value_with_its_origin_and_the_timeline() -> None:
    """What will happen, and when, before anything does."""
    loaded = load({"lock": "file:/x"}, ["sh", "-c", "a b"], {"AWAITELECT_STOP_TIMEOUT": "20", "POD_NAME": "me"})
    lines = render(loaded).splitlines()
    rows = {line.split("  ")[0]: re.split(r" {2,}", line) for line in lines if line}
    assert rows["command"][1:] == ["sh -c 'a b'", "command line"]
    assert rows["election.identity"][1:] == ["me-RUN", "POD_NAME, and a part for each run"]
    assert rows["stop.signal"][1:] == ["SIGTERM", "default"]
    start = lines.index("after a confirmed renewal:")
    assert lines[start : start + 8] == [
        "after a confirmed renewal:",
        "      0s  a renewal is sent",
        "     +2s  the next one is sent, and so on; without any that is confirmed:",
        "    +10s  the command gets SIGTERM",
        "  +13.8s  what is left of it gets SIGKILL",
        "    +14s  nothing of it is alive, at the latest",
        "    +15s  another instance may start its own",
        "the command has 3.8s to stop when leadership is lost, 20s in a planned stop",
    ]
    assert lines[-2] == "warnings:" and lines[-1].startswith("  - stop.timeout")


def test_check_shows_no_secret(tmp_path: Path) -> None:
    """Its output is pasted into tickets."""
    variables = tmp_path / "env"
    variables.write_text("B=s3cret\n")
    environ = {"AWAITELECT_ENV": "{A: s3cret}", "AWAITELECT_ENV_FILE": str(variables)}
    loaded = load({"lock": "file:/x"}, ["a"], environ)
    assert "s3cret" not in render(loaded)
    assert "without their values: A, B" in render(loaded)


def test_check_says_when_there_is_no_election() -> None:
    """A timeline of an election that does not take place would mislead."""
    text = render(load({}, ["a"], {"AWAITELECT_ELECTION_ENABLED": "no"}))
    assert "there is no election" in text and "renewal is sent" not in text
