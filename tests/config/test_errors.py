"""What is wrong is told at once, with its place, what was found and what would be accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from awaitelect.config.sources import load
from awaitelect.errors import ConfigError

SECONDS = "expected a duration such as 15s, 1m30s or 500ms, or a number of seconds, not negative"
BASE = "lock: {backend: file, path: /x}\ncommand: [a]\n"


def problems_of(tmp_path: Path, text: str | bytes, environ: dict[str, str] | None = None) -> list[str]:
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load({"config": str(path)}, [], environ or {})
    assert all("\n" not in problem for problem in caught.value.problems)
    return [problem.replace(f"{tmp_path}/", "") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("election: {enabled: yes}", "election.enabled: found 'yes', expected true or false; did you mean true?"),
        ("election: {enabled: 1}", "election.enabled: found the number 1, expected true or false"),
        ("election: {name: ''}", "election.name: found '', expected a text of one line, not empty"),
        ("election: {lease_duration: -1}", f"election.lease_duration: found the number -1, {SECONDS}"),
        ("election: {lease_duration: .nan}", f"election.lease_duration: found the number nan, {SECONDS}"),
        ("election: {lease_duration: true}", f"election.lease_duration: found true, {SECONDS}"),
        ("election: {lease_duration: 1d}", f"election.lease_duration: found '1d', {SECONDS}"),
        (
            "election: {lease_duration: '20'}",
            f"election.lease_duration: found '20', {SECONDS}; without quotes, or with a unit as in 20s",
        ),
        ("restart: {backoff: {max: []}}", f"restart.backoff.max: found a list, {SECONDS}"),
        (
            "restart: {policy: on-failur}",
            "restart.policy: found 'on-failur', expected one of on-failure, always, on-abnormal, never; "
            "did you mean 'on-failure'?",
        ),
        ("restart: {max_restarts: 1.5}", "restart.max_restarts: found the number 1.5, "
         "expected a whole number from 0 to 1000000"),
        ("restart: {backoff: {factor: 0.5}}", "restart.backoff.factor: found the number 0.5, "
         "expected a number from 1 to 1000"),
        ("umask: 027", "umask: found the number 27, expected three octal digits in quotes such as \"027\"; "
         "a number without quotes may be decimal or octal"),
        ("umask: '9'", "umask: found '9', expected three octal digits in quotes such as \"027\""),
        ("stop: {signal: SIGTREM}", "stop.signal: found 'SIGTREM', expected a signal such as SIGTERM, TERM or 15; "
         "did you mean 'SIGTERM'?"),
        ("start: {probe: {http_gte: {port: 1}}}", "start.probe.http_gte: found the key 'http_gte', expected http_get, "
         "tcp_socket, exec, initial_delay_seconds, period_seconds, timeout_seconds, success_threshold, "
         "failure_threshold; did you mean 'http_get'?"),
        ("start: {probe: {tcp_socket: {port: 70000}}}", "start.probe.tcp_socket.port: found the number 70000, "
         "expected a whole number from 1 to 65535"),
        ("start: {probe: {http_get: {path: x, port: 1}}}", "start.probe.http_get.path: found 'x', "
         "expected a path such as /healthz"),
        ("probes: {liveness: {periodSeconds: 0, exec: {command: [a]}}}", "probes.liveness.periodSeconds: "
         "found the number 0, expected a whole number from 1 to 86400"),
        ("probes: {liveness: {exec: {command: [a]}, tcp_socket: {port: 1}}}", "probes.liveness: found exec and "
         "tcp_socket, expected one of http_get, tcp_socket and exec, such as {http_get: {path: /healthz, port: 8080}}"),
        ("hooks: {pre_start: [1]}", "hooks.pre_start[0]: found the number 1, expected a text; put it in quotes"),
        ("stop: {signal: 0}", "stop.signal: found the number 0, expected a signal such as SIGTERM, TERM or 15"),
        ("signals: {rewrite: {KILL: TERM}}", "signals.rewrite.KILL: found the key 'KILL', "
         "expected a signal that can be caught and forwarded"),
        ("signals: {rewrite: {HUP: 1, SIGHUP: 2}}", "signals.rewrite.SIGHUP: found the key 'SIGHUP', "
         "expected each signal only once"),
        ("signals: {rewrite: {HUP: 0}}", "signals.rewrite.HUP: found the number 0, "
         "expected a signal such as SIGTERM, TERM or 15, or none to drop it"),
        ("env: {TOKEN: 1234}", "env.TOKEN: found a number, expected a text; put it in quotes"),
        ("env: {A B: x}", "env.A B: found the name 'A B', expected letters, digits and _ as in LOG_LEVEL"),
        ("env: secret", "env: found a text, expected a mapping of variables such as {LOG_LEVEL: debug}"),
        ("env_file: {pth: /a}", "env_file.pth: found the key 'pth', expected path or required; did you mean 'path'?"),
        ("success_exit_codes: [0, 256]", "success_exit_codes[1]: found the number 256, "
         "expected an exit code from 0 to 255"),
        ("success_exit_codes: 0", "success_exit_codes: found the number 0, "
         "expected a list of exit codes such as [0, 3]"),
        ("stop: 5", "stop: found the number 5, "
         "expected a mapping with any of cgroup, command, kill_mode, signal, timeout"),
        ("stop: {timout: 5}", "stop.timout: unknown key; did you mean 'timeout'?"),
        ("lease_duration: 5", "lease_duration: unknown key; did you mean 'election.lease_duration'?"),
        ("stop: {zzz: 5}", "stop.zzz: unknown key; expected cgroup, command, kill_mode, signal, timeout"),
        ("stop: {true: 5}", "found true as a key in stop, expected a word"),
        ("log: {level: WARNING}", "log.level: found 'WARNING', expected one of debug, info, warning, error; "
         "did you mean 'warning'?"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_hold_is_told_with_its_line(tmp_path: Path, line: str, problem: str) -> None:
    """One look at the message must be enough to repair the file."""
    found = problems_of(tmp_path, f"{BASE}{line}\n")
    assert f"a.yaml:3: {problem}" in found


@pytest.mark.parametrize("key", ["services", "pod_labels", "on"])
def test_keys_without_effect_are_not_accepted(tmp_path: Path, key: str) -> None:
    """A setting that is accepted and ignored is a lie."""
    (problem,) = problems_of(tmp_path, f"{BASE}{key}: x\n")
    assert problem.startswith(f"a.yaml:3: {key}: unknown key")


def test_the_line_is_that_of_the_part_that_is_wrong(tmp_path: Path) -> None:
    """In a long list, the line of the list alone would be a riddle."""
    text = "lock: {backend: file, path: /x}\ncommand:\n  - a\n  - 5\nenv:\n  A: x\n  B: 7\n"
    assert problems_of(tmp_path, text) == [
        "a.yaml:4: command[1]: found the number 5, expected a text; put it in quotes",
        "a.yaml:7: env.B: found a number, expected a text; put it in quotes",
    ]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """Each start that fails costs somebody a deployment."""
    found = problems_of(
        tmp_path,
        "election: {lease_duration: 5s, identiy: x}\nrestart: {backoff: {initial: 1h}}\numask: 8\n",
        {"AWAITELECT_STOP_TIMEOUT": "soon", "AWAITELECT_NAME": "x"},
    )
    text = "\n".join(found)
    parts = ["identiy", "umask", "AWAITELECT_STOP_TIMEOUT: stop.timeout", "AWAITELECT_NAME: unknown"]
    parts += ["command: missing", "lock.name: missing", "restart.backoff.initial", "election.renew_deadline"]
    for part in parts:
        assert part in text
    assert len(found) == 8


def test_a_refused_value_is_not_reasoned_about(tmp_path: Path) -> None:
    """A lease_duration that cannot be read says nothing about the relation to the others."""
    (problem,) = problems_of(tmp_path, BASE + "election: {lease_duration: x, renew_deadline: 20s}\n")
    assert "election.lease_duration: found 'x'" in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a.yaml:1: found an empty file, expected a mapping such as 'lock: {name: demo}'"),
        ("# nothing\n", "a.yaml:1: found an empty file, expected a mapping such as 'lock: {name: demo}'"),
        ("- a\n", "a.yaml:1: found a list, expected a mapping such as 'lock: {name: demo}'"),
        ("words\n", "a.yaml:1: found 'words', expected a mapping such as 'lock: {name: demo}'"),
        ("log: {}\n---\nlog: {}\n", "a.yaml:2:1: a second document begins here; expected one"),
        ("log: *a\n", "a.yaml:1:6: no value is anchored as &a before this"),
        ("log: &a [*a]\n", "a.yaml:1:10: no value is anchored as &a before this"),
        ("log: !!python/name:os.system x\n", "a.yaml:1:6: the tag 'python/name:os.system' is not understood; "
         "expected the value without it"),
        ("command: !!python/object/apply:os.system [x]\n", "a.yaml:1:10: the tag "
         "'python/object/apply:os.system' is not understood; expected the value without it"),
        ("log: !!set {a: null}\n", "a.yaml:1:6: the tag 'set' is not understood; expected the value without it"),
        ("log: !!seq {a: null}\n", "a.yaml:1:6: the tag 'seq' is not understood; expected the value without it"),
        ("[a, b]: c\n", "a.yaml:1:1: a list stands as a key; expected a word"),
        ("<<: 5\n", "a.yaml:1:1: '<<' merges mappings; expected an alias of one"),
        ("log: {level: info}\nstop: {}\nlog: {}\n",
         "a.yaml:3:1: the key 'log' stands here again, first in line 1; expected it once"),
        (b"log: \xff\xfe\n", "a.yaml:1:6: cannot read the configuration: it is not a text in UTF-8"),
        ("x: \x01\n", "a.yaml: found a character that YAML does not allow"),
        ("[" * 300_000, "a.yaml:1:34: nested deeper than 32 levels"),
    ],
)  # fmt: skip
def test_a_broken_file_is_told_with_its_place(tmp_path: Path, text: str | bytes, problem: str) -> None:
    """And nothing else: that the lock is missing too does not follow."""
    assert [one for one in problems_of(tmp_path, text) if "command: missing" not in one] == [problem]


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [("log:\n\tlevel: x\n", "a.yaml:2:1:", "has a tab, expected spaces"), ("a: 'x\n", "a.yaml:", "not YAML"),
     ("a: b: c\n", "a.yaml:1:5:", "not YAML")],
)  # fmt: skip
def test_bad_syntax_is_told_with_line_and_column(tmp_path: Path, text: str, place: str, part: str) -> None:
    """The words are libyaml's, so only the place and the hint are ours to promise."""
    (problem,) = problems_of(tmp_path, text)
    assert problem.startswith(place) and part in problem


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing mount is the commonest mistake of all."""
    for path, reason in [("none", "no such file or directory"), (".", "it is a directory"), ("a\0", "embedded null")]:
        with pytest.raises(ConfigError) as caught:
            load({"config": f"{tmp_path}/{path}"}, ["a"], {})
        (problem,) = caught.value.problems
        assert "cannot read the configuration" in problem and reason in problem


def test_an_unreadable_or_endless_file_does_not_stop_us(tmp_path: Path) -> None:
    """A device or a pipe in the file's place must not hang the start."""
    with pytest.raises(ConfigError, match="no regular file"):
        load({"config": "/dev/zero"}, ["a"], {})
    (problem,) = problems_of(tmp_path, b"#" * 1_000_001)
    assert "larger than 1000000 bytes" in problem


def test_aliases_that_blow_up_are_cut_short(tmp_path: Path) -> None:
    """A kilobyte of text can mean a billion values."""
    lines = ["env:", "  a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"  {b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)]
    assert any("more than 20000 values" in one for one in problems_of(tmp_path, "\n".join(lines)))


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    """They keep repeated parts of a file in one place."""
    path = tmp_path / "a.yaml"
    path.write_text("lock: {backend: file, path: &p /x}\ncommand: [a, *p]\nlog: &l {level: debug}\nenv: {A: *p}\n")
    assert load({"config": str(path)}, [], {}).settings.command == ("a", "/x")
    path.write_text("stop: &s {timeout: 1s}\nrestart: {backoff: {<<: {max: 5s, initial: 1s}, max: 6s}}\n")
    backoff = load({"config": str(path), "lock": "file:/x"}, ["a"], {}).settings.restart.backoff
    assert (backoff.initial, backoff.max) == (1.0, 6.0)


def test_no_secret_is_ever_shown(tmp_path: Path) -> None:
    """Error lines end up in logs that many can read."""
    variables = tmp_path / "env"
    variables.write_text("PASSWORD='s3cret\n")
    text = f"env: {{A: [s3cret], B: {{x: s3cret}}}}\nenv_file: {variables}\n"
    assert "s3cret" not in "\n".join(problems_of(tmp_path, text))
    with pytest.raises(ConfigError) as caught:
        load({"lock": "file:/x"}, ["a"], {"AWAITELECT_ENV": "s3cret"})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{a", "AWAITELECT_ENV:1:3:"),
        ("{a: 1,\n", "AWAITELECT_ENV:1:7:"),
        ("a:\n  {b: 1", "AWAITELECT_ENV:2:8:"),
        ("[1]", "found a list"),
        ("null", "found a text"),
        ("a: b: c", "AWAITELECT_ENV:1:"),
    ],
)
def test_a_mapping_in_a_variable_is_judged_like_one_in_the_file(text: str, part: str) -> None:
    """The variable's name takes the file's place."""
    with pytest.raises(ConfigError) as caught:
        load({"lock": "file:/x"}, ["a"], {"AWAITELECT_ENV": text})
    (problem,) = caught.value.problems
    assert problem.startswith("AWAITELECT_ENV") and part in problem


def test_an_open_quote_in_the_command_variable_is_told() -> None:
    """A shell would say so too."""
    with pytest.raises(ConfigError) as caught:
        load({"lock": "file:/x"}, [], {"AWAITELECT_COMMAND": "echo 'a"})
    assert caught.value.problems == [
        "AWAITELECT_COMMAND: found text that a shell could not divide (no closing quotation)"
    ]


def test_what_comes_from_the_command_line_is_judged_too() -> None:
    """It wins over all, so it is the last chance to refuse it."""
    with pytest.raises(ConfigError) as caught:
        load({"lock": "kubernetes:A_b/Demo", "identity": " ", "log_level": "loud"}, ["a"], {})
    assert [problem.partition(",")[0] for problem in caught.value.problems] == [
        "--identity: election.identity: found ' '",
        "--lock: lock.name: found 'Demo'",
        "--lock: lock.namespace: found 'A_b'",
        "--log-level: log.level: found 'loud'",
    ]


def test_under_the_old_name_a_missing_command_is_told_in_the_old_words() -> None:
    """Whoever searches for the message finds what they know."""
    with pytest.raises(ConfigError) as caught:
        load({"lock": "file:/x", "legacy": "1"}, [], {})
    assert caught.value.problems == ["Need at least one argument to run"]


def test_only_the_value_that_wins_is_judged(tmp_path: Path) -> None:
    """A variable can repair what is wrong in a file that cannot be changed just now."""
    path = tmp_path / "a.yaml"
    path.write_text(BASE + "umask: 9\n")
    assert load({"config": str(path)}, [], {"AWAITELECT_UMASK": "022"}).settings.umask == 0o22
