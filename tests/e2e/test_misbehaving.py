"""E14, E16, E17: an API server, and a network before it, that misbehave.

Whatever is over before the renew deadline costs the command nothing, and whatever lasts longer ends it in time. The
troubles of a test are had by as many instances at once, each with a lease of its own.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.instances import Fleet, Instance, Watched, eventually, is_alive, kill, now, renews
from tests.e2e.locks import KubernetesLock
from tests.envtest import ControlPlane
from tests.misbehaving import LOSE, Asked, Gate, Wire
from tests.stores.scripted import raw, status

# What a time-out has cut off is taken apart whenever the garbage collector comes to it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _tidied() -> Iterator[None]:
    """It is not to come to it in somebody else's test."""
    yield
    gc.collect()


NAMESPACE = "e2e"
HTML = "<html><body>Bad gateway</body></html>"
ANSWERS: dict[str, bytes | None] = {
    "401": status(401, "Unauthorized"),
    "403": status(403, "Forbidden"),
    "404 of the namespace": status(404, "NotFound", name=NAMESPACE),
    "409 of a proxy": raw(409, HTML),
    "429, come again in a minute": status(429, "TooManyRequests", headers="Retry-After: 60\r\n"),
    "500": status(500, "InternalError"),
    "503, come again in a second": status(503, "ServiceUnavailable", headers="Retry-After: 1\r\n"),
    "200 with a page": raw(200, HTML),
    "204, empty": raw(204, ""),
    "written, reply lost": LOSE,
}
LONG = {"lease_duration": 16, "renew_deadline": 14, "retry_period": 0.5}
"""An election with time for a trouble that is over before the deadline."""


class Site:
    """One lease, and the way to it that is in trouble."""

    def __init__(self, cluster: ControlPlane, folder: Path, trouble: str, stack: contextlib.ExitStack) -> None:
        folder.mkdir()
        self.trouble = trouble
        self.fleet = Fleet(folder)
        self._answer: bytes | None = None
        self.way: Wire | Gate = Gate(cluster, lambda asked: self._answer) if trouble in ANSWERS else Wire(cluster.port)
        stack.enter_context(self.way)
        stack.enter_context(self.fleet)
        self.direct = KubernetesLock(
            cluster, cluster.create_namespace(NAMESPACE), f"lease-{uuid.uuid4().hex[:8]}", folder
        )
        stack.callback(self.direct.proxy.close)
        self._config = cluster.kubeconfig(folder / "through", server=f"https://127.0.0.1:{self.way.port}")

    def start(self, name: str, **election: Any) -> Instance:
        """An instance whose only way to the lease is the troubled one."""
        section = {**self.direct.section(), "kubeconfig": self._config}
        return self.fleet.start(name, None, settings={"lock": section, "election": election})

    def begin(self) -> None:
        if isinstance(self.way, Gate):
            self._answer = ANSWERS[self.trouble]
        else:
            self.way.break_down(self.trouble)

    def end(self) -> None:
        self._answer = None
        if isinstance(self.way, Wire):
            self.way.heal()


Sites = Callable[..., list[Site]]


@pytest.fixture
def sites(cluster: ControlPlane, tmp_path: Path) -> Iterator[Sites]:
    with contextlib.ExitStack() as stack:
        yield lambda *troubles: [
            Site(cluster, tmp_path / f"site-{number}", trouble, stack) for number, trouble in enumerate(troubles)
        ]


def test_what_is_over_before_the_deadline_costs_nothing(sites: Sites) -> None:
    """No answer, a late one, a wrong one: none says that the lease is lost."""
    those = sites(*Wire.TROUBLES, "429, come again in a minute")
    instances = [site.start("one", **LONG) for site in those]
    starts = [one.started() for one in instances]
    for site in those:
        site.begin()
    harmless = {"half-open": "no answer from", "delay": "", "drip": "no answer from"}
    for site, one in zip(those, instances, strict=True):
        one.says(harmless.get(site.trouble, "cannot renew the lease"))
    for site in those:
        site.end()
    for site, one, start in zip(those, instances, starts, strict=True):
        renews(site.direct, 2)
        assert one.entries("start") == [start] and one.signals() == [] and is_alive(start.pid), site.trouble
        assert "stepping down" not in one.stderr, site.trouble


def test_a_silence_longer_than_one_request_costs_no_term_even_if_its_connections_stay_dead(sites: Sites) -> None:
    """The second attempt's connection was made in it, and is as dead as the first; the third has one of its own."""
    (site,) = sites("deaf")
    assert isinstance(site.way, Wire)
    one = site.start("one", lease_duration=13, renew_deadline=11, retry_period=1)
    start = one.started()
    renews(site.direct, 1)
    site.begin()
    eventually(lambda: site.way.deaf, "a second attempt has a connection that is dead")
    site.end()
    renews(site.direct, 2)
    assert one.stderr.count("cannot renew the lease: cannot update") == 2
    assert one.entries("start") == [start] and one.signals() == []


def test_what_lasts_longer_ends_the_command_in_time_and_another_one_takes_over(sites: Sites) -> None:
    """Asked at `term_by`, dead before the lease runs out; who is not in trouble starts after that, and the one that was
    follows it as soon as it can.
    """
    lease, deadline, retry = 8.0, 4.0, 0.5
    election = {"lease_duration": lease, "renew_deadline": deadline, "retry_period": retry}
    those = sites("silent", "reset", "lost replies", "401", "429, come again in a minute")
    instances = [site.start("one", **election) for site in those]
    watched = [Watched(one.started().pid) for one in instances]
    # Two of them stand for all: the machine may be small.
    others = [site.fleet.start("other", site.direct, settings={"election": election}) for site in those[:2]]
    for other in others:
        other.follows()
    cuts = []
    for site in those:
        cuts.append(now())
        site.begin()
    for site, one, each, cut in zip(those, instances, watched, cuts, strict=True):
        each.wait()
        gone = one.entries()[-1].at
        asked = next(entry.at for entry in one.entries("signal"))
        assert cut - retry - 2.5 + deadline < asked < cut + deadline + 2.5, site.trouble
        assert gone < cut + lease - 0.5, site.trouble
    for one, other in zip(instances, others, strict=False):
        assert other.started().at > one.entries()[-1].at
    for site in those:
        site.end()
    for one in instances[: len(others)]:
        one.says("following 'other'")
    for one, each in zip(instances, watched, strict=True):
        assert one.process.poll() is None and not is_alive(each.pid)


def test_a_follower_with_a_dead_watch_takes_over_when_the_lease_runs_out(sites: Sites) -> None:
    """The watch is a hint: a half-open one delays a release that it would have told, and no more."""
    (site,) = sites("half-open")
    leader = site.fleet.start("leader", site.direct)
    leader.started()
    follower = site.start("follower")
    follower.follows()
    site.begin()
    leader.tell(signal.SIGTERM)
    leader.ends()
    assert follower.started().at < leader.entries("end")[-1].at + 20, "a read without a cause comes a minute later"


@contextlib.contextmanager
def frozen(cluster: ControlPlane) -> Iterator[None]:
    """The API server accepts connections, and does nothing."""
    server = cluster.server.pid
    kill(server, signal.SIGSTOP)
    try:
        yield
    finally:
        kill(server, signal.SIGCONT)


def test_a_frozen_server_is_outlived_up_to_the_deadline_and_not_longer(sites: Sites, cluster: ControlPlane) -> None:
    """It is stopped as a whole; its clients' connections stay open."""
    patient, hasty = sites("silent", "silent")
    one, two = patient.start("one", **LONG), hasty.start("two", lease_duration=6, renew_deadline=2)
    start, watched = one.started(), Watched(two.started().pid)
    begun = now()
    with frozen(cluster):
        watched.wait()
        gone = two.entries()[-1].at
        assert gone < begun + 5.5, "half a second before its lease runs out"
        one.says("cannot renew the lease")
    assert two.started(2).at > gone
    renews(patient.direct, 2)
    assert one.entries("start") == [start] and one.signals() == []


def test_a_server_that_is_restarted_costs_neither_a_term_nor_a_quick_hand_over(
    sites: Sites, cluster: ControlPlane
) -> None:
    """Connections break, then are refused, then answered by 403 and 500 as it starts; watches resume by themselves."""
    (site,) = sites("")
    long = {"lease_duration": 45, "renew_deadline": 40, "retry_period": 1}
    leader = site.start("leader", **long)
    start = leader.started()
    follower = site.start("follower", **long)
    follower.follows()
    cluster.restart_server()
    renews(site.direct, 2)
    assert leader.entries("start") == [start] and leader.signals() == []
    # The follower's watch is tried again every two seconds at most.
    renews(site.direct, 3)
    leader.tell(signal.SIGTERM)
    leader.ends()
    assert follower.started().at < leader.entries("end")[-1].at + 20


def test_answers_in_turn_break_no_term(sites: Sites) -> None:
    """Every third write gets through, the others meet something else each time."""
    (site,) = sites("401")
    assert isinstance(site.way, Gate)
    turns = [*ANSWERS.values()]
    seen: list[Asked] = []

    def answer(asked: Asked) -> bytes | None:
        if asked.method != "PUT":
            return None
        seen.append(asked)
        number = len(seen)
        return None if number % 3 == 0 else turns[number % len(turns)]

    one = site.start("one", lease_duration=10, renew_deadline=8, retry_period=0.2)
    start = one.started()
    site.way.answer = answer
    eventually(lambda: len(seen) > 3 * len(turns), "each has been answered")
    assert one.entries("start") == [start] and one.signals() == [] and is_alive(start.pid)
