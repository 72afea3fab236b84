"""In the place of k8s-await-election: its environment, its Role and both names of the program, on a real API server.

The rights are exactly those of its example (get, watch, list, create, update on leases and endpoints) and the access is
in-cluster, as it knows no other. What can be told without a cluster is in tests/test_cli.py (passing through, no
argument), tests/config/test_compat.py (each variable, as Go reads it), tests/config/test_kinds.py (listen addresses),
tests/status/test_http.py (when a leader is "expired") and tests/e2e/test_outages.py (partitions).
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from awaitelect.config.model import LEAVES, VARIABLES
from tests.e2e.instances import MARK, PROGRAM, Fleet, Instance, children_of, eventually, now, state_of
from tests.envtest import LEASE_VERBS, TESTER_TOKEN, ControlPlane
from tests.pods import need_root, with_account, write_account

LEGACY = str(Path(PROGRAM).parent / "k8s-await-election")
P = "K8S_AWAIT_ELECTION_"
SHORT = {"LEASE_DURATION": "12", "RENEW_DEADLINE": "9", "RETRY_PERIOD": "1"}
"""Seconds: other durations than the defaults, with which a request may be slow on a busy machine, without a warning."""
WELL_BELOW = 10.0
"""Seconds: on a busy machine, and still no lease of 15 s has been waited for."""
ROUTED = {
    "SERVICE_NAME": "web",
    "SERVICE_NAMESPACE": "",
    "SERVICE_PORTS_JSON": '[{"name":"rest","port":3370,"protocol":"TCP"}]',
    "POD_IP": "10.244.0.5",
    "NODE_NAME": "node-1",
}


class Site:
    """A namespace with the Role of k8s-await-election, and the instances in it."""

    def __init__(self, cluster: ControlPlane, fleet: Fleet) -> None:
        self.cluster, self.fleet = cluster, fleet
        self.namespace = cluster.create_namespace(f"drop-in-{uuid.uuid4().hex[:8]}")
        cluster.allow(self.namespace, *LEASE_VERBS)
        cluster.allow(self.namespace, *LEASE_VERBS, group="", resource="endpoints")
        self.account = write_account(cluster, fleet.folder / "account", self.namespace, TESTER_TOKEN)
        # RBAC takes a moment to know: what comes first must not be refused for that.
        eventually(lambda: cluster.call("GET", self.leases, token=TESTER_TOKEN)[0] == 200, "the Role holds", pace=0.05)
        path = f"/api/v1/namespaces/{self.namespace}/endpoints"
        eventually(lambda: cluster.call("GET", path, token=TESTER_TOKEN)[0] == 200, "the Role holds", pace=0.05)

    @property
    def leases(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"

    def start(
        self,
        name: str,
        *actor: str,
        program: str = LEGACY,
        command: Sequence[str] | None = None,
        own: dict[str, str] | None = None,
        prefix: Sequence[str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        **variables: str,
    ) -> Instance:
        """An instance with its variables, those in `variables` changed; `own` are any others."""
        said = self.fleet.folder / f"{name}.stderr"
        argv = list(command) if command is not None else self.fleet.actor(name, *actor)
        prefix = with_account(self.account) if prefix is None else prefix
        with open(said, "ab") as file:
            process = subprocess.Popen(
                [*prefix, program, *argv],
                env=self.environment(name, **variables) | {MARK: self.fleet.mark} | (own or {}),
                stdin=stdin,
                stdout=stdout,
                stderr=file,
            )
        instance = Instance(self.fleet, name, process, said)
        self.fleet.instances.append(instance)
        return instance

    def environment(self, name: str, **variables: str) -> dict[str, str]:
        given = {
            "ENABLED": "1",
            "NAME": "controller",
            "LOCK_NAME": "lock",
            "LOCK_NAMESPACE": self.namespace,
            "IDENTITY": name,
            **SHORT,
            **variables,
        }
        return {
            "PATH": os.environ["PATH"],
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.cluster.port),
            **{P + key: value for key, value in given.items()},
        }

    def lease(self) -> dict[str, Any]:
        """Its spec; empty where there is none."""
        status, answer = self.cluster.call("GET", f"{self.leases}/lock")
        return answer["spec"] if status == 200 else {}

    def holder(self) -> str:
        return str(self.lease().get("holderIdentity") or "")

    def take(self, holder: str) -> None:
        """Make somebody else its holder, as a person could."""
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 1}
        status, answer = self.cluster.call("PATCH", f"{self.leases}/lock", {"spec": spec})
        assert status == 200, answer

    def endpoints(self) -> dict[str, Any]:
        status, answer = self.cluster.call("GET", f"/api/v1/namespaces/{self.namespace}/endpoints/web")
        return answer if status == 200 else {}

    def addresses(self) -> list[str]:
        """Where the Service's traffic goes by its Endpoints."""
        subsets = self.endpoints().get("subsets") or []
        return [one["ip"] for subset in subsets for one in subset.get("addresses") or []]

    def slices(self) -> list[dict[str, Any]]:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"
        return list(self.cluster.call("GET", path)[1]["items"])


@pytest.fixture
def site(cluster: ControlPlane, fleet: Fleet) -> Iterator[Site]:
    need_root()
    return Site(cluster, fleet)


@pytest.fixture
def port() -> int:
    """One that is free, on both families."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as one:
        return int(one.getsockname()[1])


def ask(address: str, path: str = "/", method: str = "GET") -> tuple[int, str]:
    """The status and the text of an answer; (0, "") where nobody listens."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{address}{path}", method=method), timeout=5) as one:
            return one.status, one.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def complaints(instance: Instance) -> list[str]:
    """The warnings and errors that it has written."""
    return [line for line in instance.stderr.splitlines() if "WARN" in line or "ERROR" in line]


# ---------------------------------------------------------------------- what it does, and we do too


@pytest.mark.parametrize("program", [PROGRAM, LEGACY])
def test_its_environment_and_its_role_are_enough(site: Site, program: str) -> None:
    """One word of the image changes, or none where the program is put in its place."""
    one = site.start("a", program=program)
    one.started()
    spec = site.lease()
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("a", 12, 0)
    before = spec["renewTime"]
    eventually(lambda: site.lease()["renewTime"] != before, "it is renewed", pace=0.1)
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert complaints(one) == []


def test_nothing_to_run_is_told_before_everything_else(site: Site) -> None:
    """A broken environment would come second."""
    one = site.start("a", command=[], LOCK_NAME="")
    assert one.ends() == 1
    assert one.stderr == "k8s-await-election: need at least one argument to run\n"


def test_the_first_argument_is_the_command_whatever_it_looks_like(site: Site) -> None:
    """There are no options under the old name."""
    one = site.start("a", command=["--version"])
    assert one.ends() == 127 and "'--version'" in one.stderr


def test_switched_off_its_other_variables_do_not_matter(site: Site) -> None:
    """The same process, with the standard input that we were given; and the lease is left alone."""
    one = site.start("a", command=["sh", "-c", 'read -r line; echo "$line $$"'], ENABLED="", stdin=-1, stdout=-1)
    said, _ = one.process.communicate(b"typed\n", timeout=30)
    assert said.decode() == f"typed {one.pid}\n" and site.lease() == {}


def test_required_variables_that_are_empty_are_told_in_its_words(site: Site) -> None:
    """All of them, in its order, with 78 in the place of 1: it need not be tried again."""
    names = ("NAME", "LOCK_NAME", "LOCK_NAMESPACE", "IDENTITY")
    one = site.start("a", **dict.fromkeys(names, ""))
    assert one.ends() == 78
    told = [one.stderr.index(f"missing required environment variable: '{P}{name}'") for name in names]
    assert told == sorted(told)
    assert one.entries() == [] and site.lease() == {}


def test_durations_are_read_as_go_reads_them(site: Site) -> None:
    """What it can't read is the default there, silently; here with a warning that names it."""
    one = site.start("a", LEASE_DURATION="20s", RENEW_DEADLINE="+10", RETRY_PERIOD="1")
    one.started()
    assert site.lease()["leaseDurationSeconds"] == 15
    (warning,) = (line for line in complaints(one) if P in line)
    assert f"{P}LEASE_DURATION: found '20s'" in warning and "default of 15s" in warning


def test_durations_that_cannot_be_are_refused(site: Site) -> None:
    """As there, with 78; each of them is in tests/config/test_compat.py."""
    one = site.start("a", RETRY_PERIOD="-1")
    assert one.ends() == 78 and f"{P}RETRY_PERIOD" in one.stderr
    assert site.lease() == {}


@pytest.mark.parametrize("host", ["", "[::1]", "localhost"])
def test_its_status_endpoint_is_where_its_variable_says(site: Site, host: str, port: int) -> None:
    """Without a host it is every address, of both families: others ask."""
    site.start("a", STATUS_ENDPOINT=f"{host}:{port}")
    for one in [host] if host else ["127.0.0.1", "[::1]"]:
        eventually(lambda one=one: ask(f"{one}:{port}") == (200, '{"status": "ok"}'), f"{one} answers", pace=0.05)


def test_the_status_is_ok_for_a_follower_too_and_on_any_path(site: Site, port: int) -> None:
    """Before it contends; a liveness probe must not end those who wait."""
    site.start("a").started()
    follower = site.start("b", STATUS_ENDPOINT=f"127.0.0.1:{port}")
    follower.follows()
    eventually(lambda: ask(f"127.0.0.1:{port}")[0], "it answers", pace=0.05)
    for method in ("GET", "POST", "DELETE"):
        assert ask(f"127.0.0.1:{port}", "/any/thing?x=1", method) == (200, '{"status": "ok"}')
    assert ask(f"127.0.0.1:{port}", "/leader")[0] == 503
    assert follower.entries() == []


def test_an_init_container_and_the_main_one_share_an_identity(site: Site) -> None:
    """One after the other, as piraeus-operator has them: the second leads at once, as the first has released."""
    first = site.start("same", command=["true"], **dict.fromkeys(SHORT, ""))
    assert first.ends() == 0
    began = now()
    started = site.start("same", **dict.fromkeys(SHORT, "")).started().at
    print(f"the second container's command started after {started - began:.2f}s")
    assert started - began < WELL_BELOW
    assert site.lease()["leaseTransitions"] == 1


def test_the_same_identity_takes_the_lease_of_a_dead_container_again(site: Site) -> None:
    """It is watched first, in case a twin is alive: for 2.9 s from when it was first seen, and not for the whole lease
    (15 s). What comes before is the start, which takes as long as the machine lets it.
    """
    first = site.start("same", **dict.fromkeys(SHORT, ""))
    first.started()
    first.wipe_out()
    site.fleet.end()
    began = now()
    second = site.start("same", **dict.fromkeys(SHORT, ""))
    second.says("following 'same'")
    seen = now()
    started = second.started(2).at
    print(f"the lease was seen {seen - began:.2f}s after the start, the command started {started - seen:.2f}s later")
    assert started - began > 2.9 and started - seen < WELL_BELOW
    assert site.holder() == "same"


def test_a_command_that_ends_well_ends_us_so(site: Site) -> None:
    """And the lease is free, which it was not."""
    one = site.start("a", command=["true"])
    assert one.ends() == 0
    assert site.holder() == ""


# ---------------------------------------------------------------------- what we change on purpose


def test_told_to_end_the_command_ends_first_and_the_next_one_starts_at_once(site: Site) -> None:
    """With its own durations of 15, 10 and 2 s, where the next one took 17 s there, beside the orphan."""
    leader = site.start("a", "linger=0.2", **dict.fromkeys(SHORT, ""))
    leader.started()
    follower = site.start("b", **dict.fromkeys(SHORT, ""))
    follower.follows()
    leader.tell(signal.SIGTERM)
    assert leader.ends() == 0
    started = follower.started()
    assert leader.signals() == [signal.SIGTERM]
    last = leader.entries()[-1]
    assert last.what == "end" and 0 < started.at - last.at < WELL_BELOW


@pytest.mark.parametrize("way", ["follow", "exit"])
def test_a_lost_lease_ends_the_command_and_makes_a_follower(site: Site, way: str) -> None:
    """`exit` is the old way, with 75, so that it can be told from the command's own status."""
    one = site.start("a", own={"AWAITELECT_ELECTION_ON_LOST": way})
    one.started()
    site.take("somebody")
    if way == "exit":
        assert one.ends() == 75
        return
    one.started(2)  # the other one never renews
    assert one.process.poll() is None and site.holder() == "a"


@pytest.mark.parametrize(
    ("program", "command", "status"),
    [
        (LEGACY, ["sh", "-c", "exit 3"], 3),
        (PROGRAM, ["sh", "-c", "kill -9 $$"], 137),
        (LEGACY, ["no-such-program"], 127),
        (PROGRAM, ["/etc"], 126),
    ],
)
def test_the_command_s_status_is_passed_on(site: Site, program: str, command: list[str], status: int) -> None:
    """Where nothing is started again (the old way) it is told at once; there it was 1 whatever had happened."""
    one = site.start("a", command=command, program=program, own={"AWAITELECT_RESTART_POLICY": "never"})
    assert one.ends() == status
    assert site.holder() == "", "the next one need not wait"


def test_a_crash_is_answered_by_a_restart_in_place(site: Site) -> None:
    """Leadership is kept: the container, its place in the lease and its fencing token stay."""
    one = site.start("a", "exit=1", "after=0.1")
    one.started(2)
    tokens = {entry.detail.partition(",")[0] for entry in one.entries("start")}
    assert len(tokens) == 1
    assert (site.holder(), site.lease()["leaseTransitions"]) == ("a", 0)


def test_the_command_has_our_standard_input(site: Site) -> None:
    """It was /dev/null."""
    one = site.start("a", command=["cat"], stdin=-1, stdout=-1)
    said, _ = one.process.communicate(b"typed", timeout=30)
    assert said == b"typed" and one.ends() == 0


def test_as_pid_1_it_reaps(site: Site) -> None:
    """An orphan that has ended stayed a zombie."""
    init = [*with_account(site.account), "unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    script = 'sh -c "sleep 0.1 & echo \\$! > %s"; exec sleep 60' % (site.fleet.folder / "orphan")
    one = site.start("a", command=["sh", "-c", script], prefix=init)
    eventually(lambda: (site.fleet.folder / "orphan").exists(), "the orphan has begun")
    (keeper,) = children_of(one.pid)

    def only_those_that_live() -> bool:
        children = children_of(keeper)
        try:
            names = [Path(f"/proc/{each}/comm").read_text().strip() for each in children]
        except OSError:  # one is reaped at this moment
            return False
        return names.count("sleep") == 1 and all(state_of(each) not in ("Z", "") for each in children)

    eventually(only_those_that_live, "the orphan is reaped", pace=0.05)
    os.kill(keeper, signal.SIGTERM)
    one.ends()


def test_without_the_right_to_watch_it_polls_and_says_so_once(site: Site) -> None:
    """A Role may have been cut down to what was needed."""
    site.cluster.allow(site.namespace, "get", "list", "create", "update")
    query = f"{site.leases}?watch=1&timeoutSeconds=1"
    eventually(lambda: site.cluster.call("GET", query, token=TESTER_TOKEN)[0] == 403, "the Role holds", pace=0.05)
    leader = site.start("a")
    leader.started()
    follower = site.start("b")
    follower.follows()
    leader.tell(signal.SIGTERM)
    leader.ends()
    follower.started(patience=6)
    (warning,) = complaints(follower)
    assert "watch" in warning and f"{site.namespace}/lock" in warning


def test_it_finds_a_cluster_by_a_kubeconfig_too(site: Site) -> None:
    """In a VM, and on a developer's machine."""
    path = site.cluster.kubeconfig(site.fleet.folder / "kubeconfig", {"token": TESTER_TOKEN})
    own = {"KUBECONFIG": path, "KUBERNETES_SERVICE_HOST": "", "KUBERNETES_SERVICE_PORT": ""}
    one = site.start("a", own=own, prefix=[])
    one.started()
    assert site.holder() == "a" and complaints(one) == []


# ---------------------------------------------------------------------- the Service


def make_service(site: Site) -> None:
    body = {"metadata": {"name": "web"}, "spec": {"ports": [{"name": "rest", "port": 3370}]}}
    assert site.cluster.call("POST", f"/api/v1/namespaces/{site.namespace}/services", body)[0] == 201


def test_with_its_role_traffic_goes_by_endpoints(site: Site) -> None:
    """One warning names what would allow EndpointSlices; what others have put on the object stays; it is taken off."""
    make_service(site)
    foreign = {"metadata": {"name": "web", "labels": {"a": "b"}, "annotations": {"c": "d"}}}
    assert site.cluster.call("POST", f"/api/v1/namespaces/{site.namespace}/endpoints", foreign)[0] == 201
    one = site.start("a", **ROUTED)
    one.started()
    eventually(lambda: site.addresses() == ["10.244.0.5"], "traffic goes to it", pace=0.05)
    found = site.endpoints()
    (subset,) = found["subsets"]
    assert subset["addresses"][0]["nodeName"] == "node-1"
    assert subset["ports"] == [{"name": "rest", "port": 3370, "protocol": "TCP"}]
    assert found["metadata"]["labels"]["a"] == "b" and found["metadata"]["annotations"]["c"] == "d"
    assert site.slices() == []
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert not site.endpoints().get("subsets"), "not among those that are not ready either"
    (warning,) = complaints(one)
    assert "endpointslices" in warning and "EndpointSlices need the verbs get, create and update" in warning


def test_with_more_rights_traffic_goes_by_an_endpointslice(site: Site) -> None:
    """Once the command is ready, and off before it is stopped."""
    make_service(site)
    site.cluster.allow(site.namespace, "get", "create", "update", group="discovery.k8s.io", resource="endpointslices")
    path = f"/apis/discovery.k8s.io/v1/namespaces/{site.namespace}/endpointslices/x"
    eventually(lambda: site.cluster.call("GET", path, token=TESTER_TOKEN)[0] == 404, "the Role holds", pace=0.05)
    one = site.start("a", **ROUTED)
    one.started()
    eventually(lambda: any(each["endpoints"] for each in site.slices()), "traffic goes to it", pace=0.05)
    (found,) = site.slices()
    assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    (endpoint,) = found["endpoints"]
    assert endpoint["addresses"] == ["10.244.0.5"] and endpoint["conditions"]["ready"]
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    assert [each["endpoints"] for each in site.slices()] in ([None], [[]])
    assert complaints(one) == []


def test_without_a_service_its_ports_are_not_looked_at(site: Site) -> None:
    """There, too."""
    one = site.start("a", **ROUTED | {"SERVICE_NAME": "", "SERVICE_PORTS_JSON": "broken"})
    one.started()
    assert complaints(one) == [] and site.endpoints() == {}


def test_broken_ports_of_a_service_start_nothing(site: Site) -> None:
    """Traffic would not follow the leader, which must not be found out in production."""
    one = site.start("a", **ROUTED | {"SERVICE_PORTS_JSON": json.dumps({"port": 1})})
    assert one.ends() == 78
    assert f"{P}SERVICE_PORTS_JSON" in one.stderr and site.lease() == {}


# ---------------------------------------------------------------------- the page for those who come from it

PAGE = re.search(
    r"^## Coming from k8s-await-election$(.*?)(?=^## )",
    (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8"),
    re.DOTALL | re.MULTILINE,
)


def test_each_setting_that_the_page_names_exists_and_takes_the_value() -> None:
    """A way back that is misspelt is none."""
    assert PAGE
    words = re.findall(r"`([^`\n]+)`", PAGE[1])
    settings = [re.fullmatch(r"([a-z_]+\.[a-z_.]+)(?:: (\S+))?", word) for word in words]
    said = [(one[1], one[2]) for one in settings if one]
    variables = [word.partition("=") for word in words if word.startswith("AWAITELECT_")]
    said += [(VARIABLES[name].key, value) for name, _, value in variables]
    assert len(said) >= 6
    for key, value in said:
        assert key in LEAVES, key
        if value:
            LEAVES[key].kind.parse(value)


def test_each_change_on_purpose_is_a_row_of_the_page() -> None:
    """With what it was, what it is, and how to have the old way, or that there is none."""
    assert PAGE
    table = PAGE[1].partition("<!-- migration:begin -->")[2].partition("<!-- migration:end -->")[0]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines() if "|" in line]
    assert len(rows) > 8 and all(len(row) == 3 and all(row) for row in rows)
