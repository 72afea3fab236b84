"""Whatever the sources contain, load() returns or raises ConfigError."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from awaitelect.config.check import render
from awaitelect.config.model import LEAVES, SECTIONS, VARIABLES
from awaitelect.config.sources import load
from awaitelect.errors import ConfigError

WORDS = sorted(
    {key.split(".")[-1] for key in LEAVES} | set(SECTIONS) | {"path", "required", "HUP", "file", "15s", "on"}
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WORDS)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(), inner, max_size=5),
    max_leaves=20,
)
YAML_BITS = st.lists(
    st.sampled_from([*WORDS, "\n", "\n  ", ": ", "- ", "[", "]", "{", "}", ",", "'", '"', "&a ", "*a", "!!int ", "<<",
                     "\t", "|\n", "# ", "---\n", "? ", "%YAML 1.1\n", "\0", "é"]),
    max_size=40,
).map("".join)  # fmt: skip
OLD = [
    "K8S_AWAIT_ELECTION_" + name
    for name in (
        "ENABLED",
        "NAME",
        "LOCK_NAME",
        "LOCK_NAMESPACE",
        "IDENTITY",
        "LEASE_DURATION",
        "STATUS_ENDPOINT",
        "SERVICE_NAME",
        "SERVICE_PORTS_JSON",
        "POD_IP",
    )
]
ENVIRONS = st.dictionaries(
    st.sampled_from([*VARIABLES, *OLD, "POD_NAME", "POD_NAMESPACE", "POD_IP", "NODE_NAME", "AWAITELECT_X"]),
    st.text(max_size=12) | YAML_BITS | TREES.map(json.dumps),
    max_size=6,
).filter(lambda environ: "AWAITELECT_ENV_FILE" not in environ)
OPTIONS = st.dictionaries(st.sampled_from(["lock", "identity", "log_level", "log_format"]), st.text(max_size=12))


def attempt(options: dict[str, str], command: list[str], environ: dict[str, str]) -> None:
    try:
        loaded = load(options, command, environ)
    except ConfigError as error:
        problems = error.problems
    else:
        assert loaded.settings.election.enabled is False or loaded.timing.problems() == []
        assert loaded.command_settings().argv
        assert render(loaded).encode()
        return
    assert problems and all(problem.isprintable() for problem in problems)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(options=OPTIONS, command=st.lists(st.text(max_size=5), max_size=2), environ=ENVIRONS)
def test_no_environment_breaks_it(options: dict[str, str], command: list[str], environ: dict[str, str]) -> None:
    """A traceback at start-up helps nobody."""
    attempt(options, command, environ)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file, written anew for each example."""
    return tmp_path_factory.mktemp("fuzz") / "a.yaml"


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(tree=st.dictionaries(st.sampled_from(WORDS), TREES, max_size=6))
def test_no_tree_of_values_breaks_it(path: Path, tree: dict[str, Any]) -> None:
    """JSON is YAML, so any tree can be said."""
    path.write_text(json.dumps(tree))
    attempt({"config": str(path), "lock": "file:/x"}, ["a"], {})


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=YAML_BITS)
def test_no_text_breaks_it(path: Path, text: str) -> None:
    """Half-written files happen."""
    path.write_text(text)
    attempt({"config": str(path)}, ["a"], {})


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(raw=st.binary(max_size=60))
def test_no_bytes_break_it(path: Path, raw: bytes) -> None:
    """Nor does a file of another kind."""
    path.write_bytes(raw)
    attempt({"config": str(path)}, ["a"], {})
