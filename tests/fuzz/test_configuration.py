"""Whatever the file and the variables contain, load() returns or raises ConfigError, and soon."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from awaitelect.config.check import render
from awaitelect.config.env_file import parse_env_file
from awaitelect.config.model import LEAVES, SECTIONS, VARIABLES
from awaitelect.config.sources import load
from awaitelect.config.text_file import LARGEST, Unreadable
from awaitelect.errors import ConfigError
from tests.fuzz.effort import examples, no_file, soon

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
                     "\t", "|\n", "# ", "---\n", "? ", "%YAML 1.1\n", "\0", "é", "\ufeff", "\x85", "\u2028"]),
    max_size=40,
).map("".join)  # fmt: skip
ODD = st.sampled_from(
    ["9" * 400, "-1", "1e999", "-.inf", ".nan", "0x" + "f" * 17, "0o17", "1_000", "2001-01-01", "2001-01-01T00:00:00Z",
     "12:30:45", "!!binary aGk=", "!!python/object/apply:os.system [true]", "!!timestamp x", "&x 1", "*x", "=", "~",
     "|\n    text", "a" * 5000, "'\\0'", '"\\0"', '"\\ud800"', "'\U0001f600'", "[[[[[[]]]]]]", "{? {} : {}}",
     "''", "9999999h", "1ns", "-5s", ":0", ":99999", "[::1%eth0]:1", "../../etc/passwd", "/dev/zero", "SIGRTMIN+99",
     "4294967296"]
)  # fmt: skip
KEYED = st.dictionaries(st.sampled_from(sorted(LEAVES)), ODD | TREES.map(json.dumps), min_size=1, max_size=6)
OLD = [
    "K8S_AWAIT_ELECTION_" + name
    for name in (
        "ENABLED",
        "NAME",
        "LOCK_NAME",
        "LOCK_NAMESPACE",
        "IDENTITY",
        "LEASE_DURATION",
        "RENEW_DEADLINE",
        "STATUS_ENDPOINT",
        "SERVICE_NAME",
        "SERVICE_PORTS_JSON",
        "POD_IP",
    )
]
# As the kernel has them: bytes that are no UTF-8 come as lone surrogates, and no NUL.
RAW = st.binary(max_size=12).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
VALUES = st.just("") | st.text(max_size=12) | RAW | YAML_BITS | ODD | TREES.map(json.dumps)
NAMES = st.sampled_from([*VARIABLES, *OLD, "POD_NAME", "POD_NAMESPACE", "POD_IP", "NODE_NAME", "POD_UID"])
NEAR = st.tuples(NAMES, st.sampled_from(["", "_", "S", "X"])).map("".join) | RAW.map("AWAITELECT_".__add__)
ENVIRONS = st.dictionaries(NAMES | NEAR, VALUES, max_size=6).filter(lambda one: "AWAITELECT_ENV_FILE" not in one)
OPTIONS = st.dictionaries(st.sampled_from(["lock", "identity", "log_level", "log_format"]), st.text(max_size=12) | RAW)


def attempt(options: dict[str, str], command: list[str], environ: dict[str, str]) -> list[str]:
    """What is wrong, each in one line; none where the configuration can be used."""
    try:
        with soon():
            loaded = load(options, command, environ, tries=False)
    except ConfigError as error:
        assert error.problems and all(problem.isprintable() for problem in error.problems)
        return error.problems
    assert loaded.settings.election.enabled is False or loaded.timing.problems() == []
    assert loaded.command_settings().argv
    assert render(loaded).encode()
    return []


@examples(80)
@given(options=OPTIONS, command=st.lists(st.text(max_size=5) | RAW, max_size=2), environ=ENVIRONS)
@example(
    {}, ["a"], {"AWAITELECT_LOCK_NAME": "a", "K8S_AWAIT_ELECTION_ENABLED": "", "AWAITELECT_ENV": '{"A": "\udcff"}'}
)
@example({"lock": "file:/x"}, ["a\udcff"], {"POD_NAME": "\udcff"})
def test_no_environment_breaks_it(options: dict[str, str], command: list[str], environ: dict[str, str]) -> None:
    """A traceback at start-up helps nobody. Bytes that are no UTF-8, empty values, both prefixes at once included."""
    attempt(options, command, environ)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file, written anew for each example."""
    return tmp_path_factory.mktemp("fuzz") / "a.yaml"


@examples(40)
@given(tree=st.dictionaries(st.sampled_from(WORDS), TREES, max_size=6))
def test_no_tree_of_values_breaks_it(path: Path, tree: dict[str, Any]) -> None:
    """JSON is YAML, so any tree can be said."""
    path.write_text(json.dumps(tree))
    attempt({"config": str(path), "lock": "file:/x"}, ["a"], {})


@examples(120)
@given(keyed=KEYED)
def test_no_odd_value_of_a_known_key_breaks_it(path: Path, keyed: dict[str, str]) -> None:
    """Near the schema is where people make their mistakes. What is refused is told with the line that it stands in."""
    keyed.pop("env_file", None)  # what it names is read
    sections: dict[str, Any] = {}
    for key, text in keyed.items():
        *above, last = key.split(".")
        section = sections
        for name in above:
            section = section.setdefault(name, {})
        section[last] = text
    path.write_text(_lines(sections, ""), errors="surrogatepass")
    for problem in attempt({"config": str(path), "lock": "file:/x"}, ["a"], {}):
        # Of some it is only known when they are put together.
        assert problem.startswith((f"{path}:", str(path), "env, env_file")) or " (" in problem or ": missing" in problem


def _lines(section: dict[str, Any], indent: str) -> str:
    """The section in block style, each value as it is."""
    lines = [
        f"{indent}{name}:\n{_lines(one, indent + '  ')}" if isinstance(one, dict) else f"{indent}{name}: {one}\n"
        for name, one in section.items()
    ]
    return "".join(lines)


@pytest.mark.parametrize(
    "kind", ["object/apply:os.mkdir [{}]", "object/new:os.mkdir [{}]", "object/apply:os.mkdir {{args: [{}]}}"]
)
def test_no_tag_runs_anything(path: Path, kind: str) -> None:
    """YAML's tags once made objects of any class, and called anything."""
    trace = path.parent / "made"
    path.write_text("command: !!python/" + kind.format(trace) + "\n")
    (problem,) = attempt({"config": str(path), "lock": "file:/x"}, ["a"], {})
    assert problem.startswith(f"{path}:1:10: the tag ")
    assert not trace.exists()


@examples(100)
@given(text=YAML_BITS)
def test_no_text_breaks_it(path: Path, text: str) -> None:
    """Half-written files happen."""
    path.write_text(text)
    attempt({"config": str(path)}, ["a"], {})


@examples(150)
@given(raw=st.binary(max_size=60), mark=st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"lock: ", b"a: \xff"]))
def test_no_bytes_break_it(path: Path, raw: bytes, mark: bytes) -> None:
    """Nor does a file of another kind, or in another encoding."""
    path.write_bytes(mark + raw)
    problems = attempt({"config": str(path)}, ["a"], {})
    assert problems and any(str(path) in problem or "lock." in problem for problem in problems)


@examples(100)
@given(text=YAML_BITS | st.text() | st.text("A=a'\"\\ \n\r#;\0"))
def test_no_variables_file_breaks_it(text: str) -> None:
    """It is written by others, for others."""
    try:
        variables, warnings = parse_env_file(text, "file")
    except Unreadable as error:
        assert all(one.startswith("file:") for one in error.reasons)
        return
    assert not any("\0" in value for value in variables.values())
    assert all(one.startswith("file:") for one in warnings)


MERGED = "env: &a\n" + "".join(f"  k{n}: x\n" for n in range(19_000)) + "restart:\n  <<: [" + "*a, " * 30_000 + "]\n"
LAUGHS = "a: &a0 [x]\n" + "".join(f"b{n}: &a{n + 1} [{f'*a{n}, ' * 10}]\n" for n in range(9)) + "command: *a9\n"
BOMBS = {
    "merges": MERGED,
    "aliases": LAUGHS,
    "an alias of itself": "env: &a {A: *a}\n",
    "lists in lists": "[" * 400_000,
    "mappings in mappings": "".join(" " * n + f"k{n}:\n" for n in range(1200)),
    "flow in flow": "{a: " * 100_000,
    "unknown keys": "".join(f"electio{n}: 1\n" for n in range(9000)),
    "the same key": "lock: {name: a}\n" * 60_000,
    "many values": "success_exit_codes: [" + "1," * 400_000 + "]\n",
    "many mistakes": "service: {name: a, ports: [" + "{}," * 18_000 + "]}\n",
    "a long line": "lock: {name: " + "a" * 900_000 + "}\n",
    "a large number": "restart: {max_restarts: " + "9" * 900_000 + "}\n",
    "long anchors": "command: [" + "".join(f"&{'a' * 1000}{n} x," for n in range(800)) + "]\n",
    "comments": "# a\n" * 240_000,
    "one word in quotes": 'identity: "' + "\\\n" * 400_000 + '"',
    "tabs": "\t" * 900_000,
    "too large": "a" * (LARGEST + 1),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_file_within_the_limit_takes_long_to_be_refused(path: Path, bomb: str) -> None:
    """Text of a megabyte can ask for hours of work. Whoever may write it could also write a sound one, but an instance
    that hangs before its first word is worse than one that says what is wrong.
    """
    path.write_text(BOMBS[bomb])
    problems = attempt({"config": str(path), "lock": "file:/x"}, ["a"], {})
    assert all(str(path) in problem for problem in problems)


@pytest.mark.parametrize(
    "text",
    ["a=1\n" * 100_000, "x\n" * 100_000, "a='" + "\n" * 900_000, "a=" + "\\\n" * 400_000],
    ids=["variables", "nonsense", "an open quote", "one line"],
)
def test_no_variables_file_within_the_limit_takes_long(tmp_path: Path, text: str) -> None:
    """The line of each entry was once counted from the beginning."""
    (tmp_path / "env").write_text(text)
    with soon():
        attempt({"lock": "file:/x"}, ["a"], {"AWAITELECT_ENV_FILE": str(tmp_path / "env")})


def test_no_number_of_unknown_variables_takes_long() -> None:
    """Each is compared with all that are known, to find out which was meant."""
    problems = attempt({"lock": "file:/x"}, ["a"], {f"AWAITELECT_ELECTION_LEASE_{n}": "1" for n in range(30_000)})
    assert len(problems) == 30_000, "each is named all the same"


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "device", "nothing", "unreadable name"])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    """A named pipe waits for its writer, /dev/zero never ends."""
    path = tmp_path / "config"
    if kind == "unreadable name":
        path = tmp_path / "\udcff"
    elif kind != "nothing":
        no_file(path, kind)
    for sources in ({"config": str(path)}, {}):
        environ = {} if sources else {"AWAITELECT_ENV_FILE": str(path), "AWAITELECT_LOCK_PATH": "/x"}
        problems = attempt({"lock": "file:/x", **sources}, ["a"], environ)
        assert any(str(tmp_path) in problem or "AWAITELECT_ENV_FILE" in problem for problem in problems)
