"""Files with variables are read as systemd reads its EnvironmentFile."""

from __future__ import annotations

from pathlib import Path

import pytest

from awaitelect.config.env_file import parse_env_file, read_env_file
from awaitelect.config.process_kinds import EnvFile
from awaitelect.config.sources import load
from awaitelect.config.text_file import Unreadable
from awaitelect.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("A=b", {"A": "b"}),
        ("  A = b c  \n", {"A": "b c"}),
        ("A=\nB=1\n", {"A": "", "B": "1"}),
        ("# A=b\n; C=d\n\nE=f # no comment", {"E": "f # no comment"}),
        ("A='b  \"c'\n", {"A": 'b  "c'}),
        ('A="b \\" \\$x \\n"', {"A": 'b " $x \\n'}),
        ("A=\"one\ntwo\"\nB=3", {"A": "one\ntwo", "B": "3"}),
        ("A='b' 'c'\n", {"A": "bc"}),
        ("A=b\\\nc\nD=e", {"A": "bc", "D": "e"}),
        ("A=b\\ \n", {"A": "b "}),
        ("A=it's\n", {"A": "it's"}),
        ("A=x=y\r\nB=2\r\n", {"A": "x=y", "B": "2"}),
        ("A=$B\n", {"A": "$B"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("A=\"a\\\nb\"", {"A": "ab"}),
        ("A=b\\", {"A": "b"}),
        ("A=\\", {"A": ""}),
        ("A=1\rB=2", {"A": "1", "B": "2"}),
        ("A='1\r'", {"A": "1\r"}),
        ("# a\\\nA=1", {"A": "1"}),
        ("", {}),
    ],
)  # fmt: skip
def test_the_syntax_is_systemds(text: str, variables: dict[str, str]) -> None:
    """Files in /etc/default are shared with units."""
    assert parse_env_file(text, "f") == (variables, [])


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("A=1\nword\n", "f:2: a line without '=' is ignored; expected NAME=VALUE"),
        ("export A=1\n", "f:1: a line whose name is no variable's is ignored; expected NAME=VALUE; without 'export'"),
        ("=A\\\nA=1\n", "f:1: a line without '=' is ignored; expected NAME=VALUE"),
        ("1A=1\n", "f:1: a line whose name is no variable's is ignored; expected NAME=VALUE"),
    ],
)
def test_lines_that_systemd_ignores_are_warned_about(text: str, warning: str) -> None:
    """Without their text, which may be a secret."""
    assert parse_env_file(text, "f")[1] == [warning]


def test_an_open_quote_is_an_error() -> None:
    """Else it would swallow the rest of the file."""
    with pytest.raises(Unreadable, match="f:2: a quote is opened and never closed; expected another '"):
        parse_env_file("A=1\nB='x\nC=2\n", "f")


def test_a_missing_file_is_an_error_unless_it_is_not_required(tmp_path: Path) -> None:
    """As systemd's leading dash."""
    path = str(tmp_path / "none")
    assert read_env_file(EnvFile(path, required=False)) == ({}, [])
    with pytest.raises(ConfigError) as caught:
        load({"lock": "file:/x"}, ["a"], {"AWAITELECT_ENV_FILE": path})
    assert caught.value.problems == [
        f"AWAITELECT_ENV_FILE: env_file: {path}: cannot read the env_file: no such file or directory"
    ]
    with pytest.raises(Unreadable, match="directory"):
        read_env_file(EnvFile(str(tmp_path), required=False))


def test_later_files_win_and_env_wins_over_all(tmp_path: Path) -> None:
    """From the general to the particular."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("A=1\nB=1\nC=1\n")
    two.write_text("B=2\nC=2\n")
    environ = {"AWAITELECT_ENV_FILE": f"[{one}, {two}]", "AWAITELECT_ENV": "{C: '3'}"}
    assert load({"lock": "file:/x"}, ["a"], environ).variables == {"A": "1", "B": "2", "C": "3"}
