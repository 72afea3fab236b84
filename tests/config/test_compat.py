"""The environment of k8s-await-election is understood to the letter."""

from __future__ import annotations

import pytest

from awaitelect.config.compat import atoi
from awaitelect.config.service_kinds import Port
from awaitelect.config.sources import Loaded, load
from awaitelect.errors import ConfigError

P = "K8S_AWAIT_ELECTION_"
REQUIRED = {P + "NAME": "n", P + "LOCK_NAME": "lock", P + "LOCK_NAMESPACE": "space", P + "IDENTITY": "me"}


def old(**more: str) -> Loaded:
    return load({"legacy": "1"}, ["true"], {P + "ENABLED": "1", **REQUIRED, **{P + k: v for k, v in more.items()}})


def refused(environ: dict[str, str], **options: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(options, ["true"], environ)
    return caught.value.problems


def test_its_variables_give_a_whole_configuration() -> None:
    """An image whose entry point is changed works unchanged."""
    loaded = old(STATUS_ENDPOINT=":9999")
    assert (loaded.name, loaded.identity, loaded.lock) == ("n", "me", "kubernetes:space/lock")
    assert str(loaded.settings.status.listen) == ":9999"
    assert loaded.origins["lock.name"] == P + "LOCK_NAME"
    assert loaded.warnings == []


@pytest.mark.parametrize("text", ["0", "false", " ", "no"])
def test_any_text_enables(text: str) -> None:
    """It looks only whether the variable is empty."""
    assert load({}, ["true"], {**REQUIRED, P + "ENABLED": text}).settings.election.enabled


@pytest.mark.parametrize("environ", [{}, {P + "ENABLED": ""}])
def test_without_enabled_nothing_else_counts(environ: dict[str, str]) -> None:
    """The other variables stay in a manifest when it is switched off."""
    assert load({"lock": "file:/x"}, ["true"], {**REQUIRED, **environ}).identity != "me"


def test_required_ones_are_told_in_order_and_in_its_words() -> None:
    """Empty is missing."""
    expected = [f"missing required environment variable: '{name}'" for name in REQUIRED]
    assert refused({P + "ENABLED": "1"}) == expected
    assert refused({P + "ENABLED": "1", **REQUIRED, P + "LOCK_NAME": ""}) == [expected[1]]


def test_what_another_source_gives_is_not_missing() -> None:
    """A fleet is moved over variable by variable."""
    environ = {P + "ENABLED": "1", P + "NAME": "n", "AWAITELECT_ELECTION_IDENTITY": "me"}
    assert load({"lock": "kubernetes:a/b"}, ["true"], environ).lock == "kubernetes:a/b"
    assert load({"lock": "file:/x"}, ["true"], environ).lock == "file:/x"


@pytest.mark.parametrize(
    ("text", "number"),
    [("5", 5), ("+5", 5), ("-5", -5), ("007", 7), ("0", 0), ("9223372036854775807", 2**63 - 1),
     ("-9223372036854775808", -(2**63)), ("9223372036854775808", None), ("15s", None), (" 15", None), ("15 ", None),
     ("15\n", None), ("1.5", None), ("1_000", None), ("0x10", None), ("٣", None), ("", None), ("+", None),
     ("--5", None), ("9" * 5000, None)],
)  # fmt: skip
def test_whole_numbers_are_read_as_go_does(text: str, number: int | None) -> None:
    """strconv.Atoi is stricter than Python's int."""
    assert atoi(text) == number


def test_a_number_that_cannot_be_read_is_the_default_with_a_warning() -> None:
    """There it is silent, which hid many a typing mistake."""
    loaded = old(LEASE_DURATION="20s", RETRY_PERIOD="+3")
    assert (loaded.timing.lease_duration, loaded.timing.retry_period) == (15, 3)
    assert loaded.warnings[0] == (
        "K8S_AWAIT_ELECTION_LEASE_DURATION: found '20s', expected whole seconds such as 15; "
        "the default of 15s is used, as k8s-await-election does"
    )


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [("LEASE_DURATION", "-15", "found the number -15"), ("RETRY_PERIOD", "0", "must be more than 0s"),
     ("LEASE_DURATION", "10", "10s is not less than 10s − 1s"), ("RETRY_PERIOD", "9", "10.8s is not less than 10s")],
)  # fmt: skip
def test_durations_that_cannot_be_are_refused(name: str, text: str, part: str) -> None:
    """As there; with the variable that is to blame."""
    (problem,) = refused({P + "ENABLED": "1", **REQUIRED, P + name: text})
    assert part in problem and P + name in problem


def test_durations_that_it_accepts_are_accepted() -> None:
    """It knows no kill_margin: where there is less room than ours needs by default, ours gives way."""
    loaded = old(LEASE_DURATION="11")
    assert loaded.timing.kill_margin == 0.5 and loaded.timing.problems() == []
    assert loaded.origins["election.kill_margin"] == "default: fitted to K8S_AWAIT_ELECTION_*"
    assert loaded.warnings[0].startswith("election.kill_margin is 0.5s rather than 1s, to fit between")


ROUTED = {"SERVICE_NAME": "web", "SERVICE_PORTS_JSON": "null", "POD_IP": "10.0.0.7"}


def test_its_routing_is_understood() -> None:
    """The Service's namespace is the lock's where it is not said, which it was there."""
    ports = '[{"Name":"rest","PORT":3370,"protocol":"TCP","appprotocol":"http","x":1},{"name":"b","port":1,"x":null}]'
    loaded = old(**ROUTED | {"SERVICE_PORTS_JSON": ports, "NODE_NAME": "node-1"})
    service = loaded.settings.service
    assert (service.name, service.namespace, service.api) == ("web", None, "auto")
    assert (service.pod_ip, service.node_name) == ("10.0.0.7", "node-1")
    assert service.ports == (Port("rest", 3370, "TCP", "http"), Port("b", 1))
    assert loaded.origins["service.ports"] == P + "SERVICE_PORTS_JSON"
    assert loaded.command_settings().drain_timeout == 1.0
    assert old(**ROUTED | {"SERVICE_NAMESPACE": "other"}).settings.service.namespace == "other"
    assert loaded.warnings == []


@pytest.mark.parametrize(
    ("text", "ports"),
    [("null", ()), ("[]", ()), (" [ ] ", ()), ('[{"port":80}]', (Port("", 80),)),
     ('[{"port":80,"protocol":null,"appProtocol":null}]', (Port("", 80),)),
     ('[{"port":80,"Port":81,"deep":{"a":[{"b":1}]}}]', (Port("", 81),))],
)  # fmt: skip
def test_ports_are_read_as_go_reads_them(text: str, ports: tuple[Port, ...]) -> None:
    """Keys in any case, the later of two that are alike, null as if not said, unknown ones ignored."""
    assert old(**ROUTED | {"SERVICE_PORTS_JSON": text}).settings.service.ports == ports


@pytest.mark.parametrize(
    ("text", "part"),
    [("", "found ''"), ("broken", "found 'broken'"), ("{}", "found '{}'"), ("[null]", "found '[null]'"),
     ('[{"port":1}] x', "expected a list of ports such as"), ("[NaN]", "found '[NaN]'"), ("[1]", "found '[1]'"),
     ('[{"port":"80"}]', "service.ports[0].port: found '80'"), ('[{"port":80.0}]', "found the number 80.0"),
     ('[{"port":0}]', "found the number 0"), ('[{"name":"a"}]', "service.ports[0]: found no port"),
     ('[{"port":80,"protocol":"tcp"}]', "did you mean 'TCP'?"), ("[" * 9999, "expected a list of ports")],
)  # fmt: skip
def test_broken_ports_are_refused_where_there_is_a_service(text: str, part: str) -> None:
    """It ends then too; without a Service it does not look, and neither do we."""
    environ = {P + "ENABLED": "1", **REQUIRED, **{P + key: value for key, value in ROUTED.items()}}
    (problem,) = refused({**environ, P + "SERVICE_PORTS_JSON": text})
    assert problem.startswith(f"{P}SERVICE_PORTS_JSON: service.ports") and part in problem
    for none in ({}, {"SERVICE_NAME": ""}):
        loaded = old(SERVICE_PORTS_JSON=text, POD_IP="10.0.0.7", **none)
        assert loaded.settings.service.name is None and loaded.warnings == []
        assert loaded.command_settings().drain_timeout == 0
