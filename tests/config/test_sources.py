"""Merging the sources: who wins, what is derived, and what the keeper is told."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

import pytest

from awaitelect.config.listen import Listen
from awaitelect.config.model import LEAVES, VARIABLES
from awaitelect.config.process_kinds import EnvFile
from awaitelect.config.sources import Loaded, load
from awaitelect.config.variables import configuring
from awaitelect.errors import ConfigError
from awaitelect.protocol import BackoffSettings
from awaitelect.values import as_dict

FILE_LOCK = {"lock": "file:/run/demo.lease"}
OLD = {
    "K8S_AWAIT_ELECTION_ENABLED": "1",
    "K8S_AWAIT_ELECTION_NAME": "old",
    "K8S_AWAIT_ELECTION_LOCK_NAME": "old-lock",
    "K8S_AWAIT_ELECTION_LOCK_NAMESPACE": "old-space",
    "K8S_AWAIT_ELECTION_IDENTITY": "from-old",
}


def started(environ: dict[str, str] | None = None, **options: str) -> Loaded:
    return load({**FILE_LOCK, **options}, ["true"], environ or {})


def refused(options: dict[str, str], environ: dict[str, str], command: list[str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(options, ["true"] if command is None else command, environ)
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


@pytest.mark.parametrize("present", [pair for size in (1, 2, 4) for pair in combinations(range(4), size)])
def test_of_two_sources_the_stronger_one_wins(tmp_path: Path, present: tuple[int, ...]) -> None:
    """The order is a promise: command line, AWAITELECT_*, K8S_AWAIT_ELECTION_*, file."""
    path = tmp_path / "a.yaml"
    path.write_text("election: {identity: from-file}\n" if 3 in present else "lock: {name: x}\n")
    options = {"config": str(path)} | ({"identity": "from-line"} if 0 in present else {})
    environ = {"AWAITELECT_ELECTION_IDENTITY": "from-variable"} if 1 in present else {}
    environ |= OLD if 2 in present else {"AWAITELECT_LOCK_NAME": "x"}
    loaded = load(options, ["true"], environ)
    expected = [
        ("from-line", "--identity"),
        ("from-variable", "AWAITELECT_ELECTION_IDENTITY"),
        ("from-old", "K8S_AWAIT_ELECTION_IDENTITY"),
        ("from-file", f"{path}:1"),
    ][min(present)]
    assert (loaded.identity, loaded.origins["election.identity"]) == expected


def test_every_setting_says_where_it_comes_from() -> None:
    """--check shows an origin for each value, so none may be missing."""
    loaded = started({"AWAITELECT_STOP_TIMEOUT": "3"}, log_level="debug", log_format="json")
    assert set(loaded.origins) == set(LEAVES)
    assert loaded.origins["stop.timeout"] == "AWAITELECT_STOP_TIMEOUT"
    assert loaded.origins["log.level"] == "--log-level" and loaded.settings.log.level == "debug"
    assert loaded.origins["log.format"] == "--log-format" and loaded.settings.log.format == "json"
    assert loaded.origins["lock.path"] == loaded.origins["lock.backend"] == "--lock"
    assert loaded.origins["command"] == "command line"
    assert loaded.origins["umask"] == "default"


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("ELECTION_ENABLED", "off", False),
        ("ELECTION_LEASE_DURATION", "1m30s", 90.0),
        ("ELECTION_LEASE_DURATION", "20", 20.0),
        ("COMMAND", "sh -c 'echo a b'", ("sh", "-c", "echo a b")),
        ("COMMAND", '["sh", "-c", "x"]', ("sh", "-c", "x")),
        ("ENV", "{A: b, C: yes}", {"A": "b", "C": "yes"}),
        ("ENV", '{"A": "1"}', {"A": "1"}),
        ("ENV_FILE", "[{path: /nowhere/x, required: false}]", (EnvFile("/nowhere/x", False),)),
        ("INHERIT_ENV", "No", False),
        ("UMASK", "027", 0o27),
        ("RESTART_BACKOFF_FACTOR", "1.5", 1.5),
        ("RESTART_MAX_RESTARTS", "7", 7),
        ("SUCCESS_EXIT_CODES", "[0, 3]", (0, 3)),
        ("STOP_SIGNAL", "int", 2),
        ("STOP_SIGNAL", "2", 2),
        ("SIGNALS_REWRITE", "{HUP: none, SIGUSR1: 12, 28: null}", {1: 0, 10: 12, 28: 0}),
        ("STATUS_LISTEN", "", None),
        ("STATUS_LISTEN", "[::1]:80", Listen("::1", 80)),
    ],
)
def test_a_variable_gives_a_setting(variable: str, text: str, value: object) -> None:
    """Each leaf has a variable, and its text is understood by the kind of the setting."""
    leaf = VARIABLES["AWAITELECT_" + variable]
    options = {} if leaf.key == "election.enabled" else FILE_LOCK
    loaded = load(options, [] if leaf.key == "command" else ["true"], {leaf.variable: text})
    found: object = loaded.settings
    for step in leaf.path:
        found = getattr(found, step)
    assert found == value


def test_an_empty_variable_counts_as_not_set_and_is_said() -> None:
    """Manifests often expand to nothing; it must not be an error, nor pass in silence."""
    loaded = started({"AWAITELECT_ELECTION_NAME": ""})
    assert loaded.name == "demo.lease"
    assert loaded.warnings == ["AWAITELECT_ELECTION_NAME is set but empty, which counts as not set"]


@pytest.mark.parametrize(
    "variable",
    [
        "AWAITELECT_FENCING_TOKEN",
        "AWAITELECT_IDENTITY",
        "AWAITELECT_LOCK",
        "AWAITELECT_LEASE_TRANSITIONS",
        "AWAITELECT_INSTANCE",
        "AWAITELECT_HOOK",
        "AWAITELECT_STOP_CAUSE",
        "AWAITELECT_SERVICE_HOST",
        "AWAITELECT_SERVICE_PORT",
        "AWAITELECT_SERVICE_PORT_HTTP",
        "AWAITELECT_PORT",
        "AWAITELECT_PORT_80_TCP_ADDR",
        "AWAITELECT_DEMO_SERVICE_HOST",
        "AWAITELECT_DEMO_PORT_80_TCP",
    ],
)
def test_variables_that_are_no_settings_are_left_alone(variable: str) -> None:
    """awaitelect may run under awaitelect, and beside a Service of that name."""
    assert started({variable: "anything"}).settings == started().settings


def test_no_setting_is_taken_for_somebody_elses_variable() -> None:
    """Kubernetes' names for a Service are a pattern: a setting that it fits could not be given."""
    assert configuring(VARIABLES) == sorted(VARIABLES)


def test_without_a_word_of_an_election_the_settings_of_the_process_hold() -> None:
    """As with election.enabled: false; what the default comes from is said."""
    loaded = load({"alone": "1"}, [], {"AWAITELECT_COMMAND": "echo hi", "AWAITELECT_UMASK": "027"})
    assert not loaded.settings.election.enabled and loaded.settings.command == ("echo", "hi")
    assert loaded.origins["election.enabled"] == "default: nothing asks for an election"
    assert loaded.attributes.umask == 0o027 and loaded.warnings == []


def test_an_unknown_variable_is_an_error_with_a_suggestion() -> None:
    """A misspelt variable that is ignored would be found in production."""
    assert refused(FILE_LOCK, {"AWAITELECT_LOCK_NAMESPCE": "x"}) == [
        "AWAITELECT_LOCK_NAMESPCE: unknown variable; expected one that names a setting; "
        "did you mean 'AWAITELECT_LOCK_NAMESPACE'?"
    ]


def test_the_identity_is_the_pods_name_and_else_the_hosts() -> None:
    """Both differ in each replica, which is all that an identity needs."""
    lock = "kubernetes:space/demo"
    assert started({"POD_NAME": "demo-0"}, lock=lock).identity == "demo-0"
    assert started({"POD_NAME": "demo-0"}, lock=lock).origins["election.identity"] == "POD_NAME"
    assert started(lock=lock).identity == os.uname().nodename
    assert started(lock=lock).origins["election.identity"] == "default: the host name"


@pytest.mark.parametrize("environ", [{}, {"POD_NAME": "demo-0"}])
def test_instances_that_share_a_file_and_a_name_are_told_apart(environ: dict[str, str]) -> None:
    """Else one would take the lease of the other, that is silent for three seconds, for its own of an earlier run."""
    one, other = (load(FILE_LOCK, ["true"], environ, instance=each) for each in ("0123456789", "1234567890"))
    again = load(FILE_LOCK, ["true"], environ, instance="0123456789")
    assert one.identity == f"{environ.get('POD_NAME', os.uname().nodename)}-01234567"
    assert one.identity != other.identity and one.identity == again.identity, "that of each elector of a keeper"
    assert one.origins["election.identity"].endswith(", and a part for each run")
    assert started(environ).identity.endswith("-RUN"), "where nothing is started"
    assert started(environ, identity="me").identity == "me"
    long = load(FILE_LOCK, ["true"], {"POD_NAME": "x" * 253}, instance="0123456789").identity
    assert long.endswith("x-01234567") and len(long) == 253


def test_the_election_is_named_after_its_lock() -> None:
    """Log lines and metrics need a name, and the lock always has one."""
    assert started().name == "demo.lease"
    assert load({"lock": "kubernetes:demo"}, ["true"], {}).name == "demo"


@pytest.mark.parametrize(
    ("lock", "pod_namespace", "expected"),
    [
        ("kubernetes:one/demo", "two", ("kubernetes:one/demo", "--lock")),
        ("kubernetes:demo", "two", ("kubernetes:two/demo", "POD_NAMESPACE")),
        ("kubernetes:demo", "", ("", "default")),
    ],
)
def test_the_namespace_is_given_or_the_pods_or_left_to_the_store(
    lock: str, pod_namespace: str, expected: tuple[str, str]
) -> None:
    """Without either, only the store can know it (service account, context), and adds AWAITELECT_LOCK then."""
    loaded = load({"lock": lock}, ["true"], {"POD_NAMESPACE": pod_namespace})
    assert (loaded.lock, loaded.origins["lock.namespace"]) == expected
    assert loaded.command_settings().environment.get("AWAITELECT_LOCK", "") == expected[0]


def test_the_option_lock_names_the_whole_lock(tmp_path: Path) -> None:
    """Who says --lock file:… must not be warned about the Lease in the file that is not used now."""
    path = tmp_path / "a.yaml"
    path.write_text("lock: {name: demo, namespace: one, context: c}\n")
    loaded = load({"config": str(path), "lock": "file:/x"}, ["true"], {})
    assert as_dict(loaded.settings.lock) == {
        "backend": "file", "name": None, "namespace": None, "kubeconfig": None, "context": None, "path": "/x",
    }  # fmt: skip
    assert loaded.warnings == [] and loaded.origins["lock.name"] == "default"
    path.write_text("lock: {backend: file, path: /x, namespace: one, context: c}\n")
    loaded = load({"config": str(path), "lock": "kubernetes:demo"}, ["true"], {})
    assert loaded.lock == "kubernetes:one/demo" and loaded.settings.lock.context == "c" and loaded.warnings == []


@pytest.mark.parametrize(
    ("lock", "end"), [("demo", ""), ("file:", ""), ("kubernetes:", ""), ("kubernets:a", "; did you mean 'kubernetes'?")]
)
def test_an_option_lock_that_names_none_is_one_problem(lock: str, end: str) -> None:
    """What follows from it (a missing name) is no second problem."""
    assert refused({"lock": lock}, {}) == [
        f"--lock: found {lock!r}, expected kubernetes:NAMESPACE/NAME, kubernetes:NAME or file:PATH{end}"
    ]


def test_the_file_is_named_by_option_and_else_by_variable(tmp_path: Path) -> None:
    """A container sets the variable; a person who tries another file uses the option."""
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("election: {name: one}\n")
    two.write_text("election: {name: two}\n")
    assert started({"AWAITELECT_CONFIG": str(one)}).name == "one"
    assert started({"AWAITELECT_CONFIG": str(one)}, config=str(two)).name == "two"
    assert started({"AWAITELECT_CONFIG": ""}).name == "demo.lease"


def test_the_keeper_is_told_all_that_concerns_the_command(tmp_path: Path) -> None:
    """A setting that does not arrive would be accepted and ignored."""
    variables = tmp_path / "env"
    variables.write_text("A=file\nB=file\n")
    path = tmp_path / "a.yaml"
    path.write_text(f"""
election: {{name: demo, identity: me, renew_deadline: 9s}}
lock: {{backend: file, path: /run/demo}}
command: [a, b]
env: {{B: own}}
env_file: {variables}
inherit_env: false
working_dir: /tmp
umask: "027"
restart:
  policy: always
  backoff: {{initial: 1, factor: 3, max: 40s, jitter: 0, reset_after: 2m}}
  max_restarts: 9
  on_give_up: hold
success_exit_codes: [0, 4]
stop: {{signal: INT, timeout: 3, kill_mode: group}}
signals: {{rewrite: {{HUP: none}}, target: group}}
log: {{level: error, format: json}}
""")
    told = load({"config": str(path)}, [], {}).command_settings()
    assert told.argv == ["a", "b"] and told.enabled and told.inherit_env is False
    assert told.environment == {
        "A": "file", "B": "own", "AWAITELECT_IDENTITY": "me", "AWAITELECT_LOCK": "file:/run/demo",
    }  # fmt: skip
    assert told.working_dir == "/tmp" and told.umask == 0o27
    assert told.backoff == BackoffSettings(1.0, 3.0, 40.0, 0.0, 120.0)
    assert (told.restart_policy, told.max_restarts, told.on_give_up) == ("always", 9, "hold")
    assert told.success_exit_codes == [0, 4]
    assert (told.stop_signal, told.stop_timeout, told.kill_mode) == (2, 3.0, "group")
    assert told.signal_rewrite == {1: 0} and told.signal_target == "group"
    assert (told.renew_deadline, told.log_level, told.log_format, told.name) == (9.0, "error", "json", "demo")


def test_without_an_election_no_lock_is_needed() -> None:
    """Switching the election off must not ask for what only it needs."""
    told = load({}, ["true"], {"AWAITELECT_ELECTION_ENABLED": "false"}).command_settings()
    assert told.enabled is False and told.environment == {}


def test_an_environment_larger_than_a_message_is_refused() -> None:
    """It could not be sent to the keeper, which would be found out too late."""
    (problem,) = refused(FILE_LOCK, {"AWAITELECT_ENV": "{A: " + "x" * 131_000 + "}"})
    assert problem.startswith("env, env_file, command: found ") and "expected at most 131072" in problem
