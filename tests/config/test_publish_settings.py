"""The settings of what is published: what is judged, what is taken from the downward API, and what needs what."""

from __future__ import annotations

import pytest

from awaitelect.config.service_kinds import ADDRESS, LABEL_KEY, LABEL_VALUE, PORTS, Port
from awaitelect.config.sources import Loaded, load
from awaitelect.errors import ConfigError

A = "AWAITELECT_"
CLUSTER = {"lock": "kubernetes:space/lock"}
DOWNWARD = {"POD_IP": "10.0.0.7", "NODE_NAME": "node-1", "POD_NAME": "web-0", "POD_NAMESPACE": "space", "POD_UID": "u"}


def loaded(lock: str = "kubernetes:space/lock", **environ: str) -> Loaded:
    return load({"lock": lock}, ["true"], {key.replace("SET_", A): value for key, value in environ.items()})


def refused(lock: str = "kubernetes:space/lock", **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(lock, **environ)
    return caught.value.problems


def test_the_downward_api_gives_what_a_pod_knows_of_itself() -> None:
    """No setting but the Service's name is needed in a pod that has the usual variables."""
    one = loaded(SET_SERVICE_NAME="web", **DOWNWARD)
    assert (one.settings.service.pod_ip, one.settings.service.node_name) == ("10.0.0.7", "node-1")
    assert (one.settings.pod.name, one.settings.pod.namespace, one.settings.pod.uid) == ("web-0", "space", "u")
    assert one.origins["service.pod_ip"] == "POD_IP" and one.warnings == []
    own = loaded(SET_SERVICE_NAME="web", SET_SERVICE_POD_IP="fd00::07", **DOWNWARD)
    assert own.settings.service.pod_ip == "fd00::7", "in the form in which it is compared"


def test_where_nothing_is_published_the_pod_is_not_looked_at() -> None:
    """What nobody uses can break nothing."""
    one = loaded(**{**DOWNWARD, "POD_IP": "none", "NODE_NAME": "_"})
    assert one.settings.service.pod_ip is None and one.settings.pod.name is None and one.warnings == []


def test_what_is_needed_is_named_with_all_ways_to_give_it() -> None:
    """A pod without the downward API."""
    assert refused(SET_SERVICE_NAME="web", SET_POD_LABEL_KEY="example.org/role") == [
        "service.pod_ip: missing, and service.name is web (AWAITELECT_SERVICE_NAME); expected service.pod_ip in the "
        "file, AWAITELECT_SERVICE_POD_IP, or POD_IP from the downward API",
        "pod.name: missing, and pod_label.key is example.org/role (AWAITELECT_POD_LABEL_KEY); expected pod.name in the "
        "file, AWAITELECT_POD_NAME, or POD_NAME from the downward API",
    ]


def test_without_a_cluster_nothing_can_be_published() -> None:
    """A lease in a file has no API server to tell."""
    assert refused("file:/x", SET_EVENTS="yes", SET_SERVICE_NAME="web", SET_SERVICE_POD_IP="10.0.0.7") == [
        f"{key} ({variable}): needs a cluster, and lock.backend is file (--lock); expected lock.backend kubernetes"
        for key, variable in (("service.name", "AWAITELECT_SERVICE_NAME"), ("events", "AWAITELECT_EVENTS"))
    ]


def test_settings_without_effect_are_told() -> None:
    """An address without a Service routes nothing."""
    assert loaded(SET_SERVICE_POD_IP="10.0.0.7", SET_POD_LABEL_LEADER="boss").warnings == [
        "service.pod_ip (AWAITELECT_SERVICE_POD_IP): without effect while service.name is not set",
        "pod_label.leader (AWAITELECT_POD_LABEL_LEADER): without effect while pod_label.key is not set",
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [("5", "service.ports: found the number 5, expected a list of ports"), ("[80]", "[0]: found the number 80"),
     ("[{port: 0}]", "[0].port: found the number 0, expected a whole number from 1 to 65535"),
     ("[{port: true}]", "[0].port: found true"), ("[{}]", "[0]: found no port, expected port"),
     ("[{port: 1, prt: 2}]", "[0].prt: found the key 'prt', expected name, port, protocol, app_protocol; did you mean"),
     ("[{port: 1, name: Rest}]", "[0].name: found 'Rest', expected a name of lower-case letters"),
     ("[{port: 1, app_protocol: a b}]", "[0].app_protocol: found 'a b'"),
     ("[{port: 1}, {port: 2, name: b}]", "[0]: found a port without a name, expected a name for each port"),
     ("[{port: 1, name: b}, {port: 2, name: b}]", "[1].name: found 'b', expected each name only once")],
)  # fmt: skip
def test_a_port_that_cannot_be_says_where_and_what_could(text: str, part: str) -> None:
    """Else the API server says so, when the command is ready and nobody looks."""
    (problem,) = refused(SET_SERVICE_NAME="web", SET_SERVICE_POD_IP="10.0.0.7", SET_SERVICE_PORTS=text)
    assert problem.startswith("AWAITELECT_SERVICE_PORTS: service.ports") and part in problem


@pytest.mark.parametrize("text", ["10.0.0", "10.0.0.256", "fe80::1%eth0", "localhost", "", "10.0.0.07", 5])
def test_an_address_is_no_name(text: object) -> None:
    """Neither API takes one."""
    with pytest.raises(ValueError, match="an IPv4 or IPv6 address"):
        ADDRESS.parse(text)


def test_labels_are_those_of_kubernetes() -> None:
    """Found before anything is started, and not by an API server later."""
    for key in ("role", "example.org/role", "a/B_c.d-e"):
        assert LABEL_KEY.parse(key) == key
    for key in ("", "/role", "a//b", "Example.org/role", "a b", "x" * 64):
        with pytest.raises(ValueError, match="the key of a label"):
            LABEL_KEY.parse(key)
    for value in ("", "-a", "a b", "x" * 64, True):
        with pytest.raises(ValueError, match="the value of a label"):
            LABEL_VALUE.parse(value)
    assert LABEL_VALUE.parse("Leader_1") == "Leader_1"
    assert PORTS.parse([{"port": 1, "appProtocol": "kubernetes.io/h2c"}])[0] == Port("", 1, "TCP", "kubernetes.io/h2c")
