"""As a service of systemd: what its manager is told by real instances, and the unit."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from awaitelect.errors import EXIT_CONFIG
from tests.e2e.instances import LASTING, PROGRAM, Fleet, eventually, kill, now, state_of
from tests.e2e.locks import Lock
from tests.notify import Inbox

UNIT = Path(__file__).parents[2] / "conf" / "awaitelect.service"
MOST_EXPOSED = 25
"""Tenths of what `systemd-analyze security` calls the exposure level, from 0 to 10; below 5 it says OK."""
WATCHDOG = 0.4
"""Seconds; a sign of life is due twice as often."""

RELOADER = """
import os, signal, socket, sys
name = os.environ["NOTIFY_SOCKET"]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect("\\0" + name[1:] if name[0] == "@" else name)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
s.send(b"READY=1")
while signal.sigwait({signal.SIGHUP}):
    s.send(b"RELOADING=1")
    if "dies" in sys.argv:
        sys.exit(3)
    s.send(b"READY=1")
"""


@pytest.fixture(params=["path", "abstract"])
def inbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Inbox]:
    with Inbox(tmp_path, abstract=request.param == "abstract") as one:
        yield one


@pytest.fixture
def one_inbox(tmp_path: Path) -> Iterator[Inbox]:
    with Inbox(tmp_path) as one:
        yield one


def test_a_leader_and_a_follower_are_up_and_say_what_they_are(fleet: Fleet, file_lock: Lock, inbox: Inbox) -> None:
    """All of it comes from the keeper, the unit's main process: NotifyAccess=main hears nobody else."""
    one = fleet.start("one", file_lock, environment=inbox.environment())
    inbox.hears("READY", "1")
    # The command may run before it is told here that we lead: nothing stands between grant and start.
    status = re.compile(r"leading, fencing token \d+; the command runs")
    eventually(
        lambda: (inbox.read(), any(status.fullmatch(message.get("STATUS", "")) for message in inbox.got))[1],
        "it says that it leads and that the command runs",
    )
    assert inbox.senders == {one.pid}
    one.started()
    one.tell(signal.SIGTERM)
    assert "EXTEND_TIMEOUT_USEC" in inbox.hears("STOPPING", "1")
    assert one.ends() == 0
    inbox.read()
    assert [message for message in inbox.got if "READY" in message] == [{"READY": "1"}]


def test_a_follower_is_up(fleet: Fleet, file_lock: Lock, one_inbox: Inbox) -> None:
    """Waiting is its work. When it leads, it says so."""
    leader = fleet.start("leader", file_lock)
    leader.started()
    one = fleet.start("one", file_lock, environment=one_inbox.environment())
    one_inbox.hears("READY")
    one_inbox.hears("STATUS", "following 'leader'")
    leader.tell(signal.SIGTERM)
    one_inbox.hears("STATUS", "leading")
    one.started()


def test_who_cannot_read_the_lease_is_not_up_yet_and_says_why(fleet: Fleet, file_lock: Lock, one_inbox: Inbox) -> None:
    """Nor is it dead: `systemctl status` shows what it waits for."""
    leader = fleet.start("leader", file_lock)
    leader.started()
    with file_lock.outage():
        fleet.start("one", file_lock, environment=one_inbox.environment())
        one_inbox.hears("STATUS", "waiting for the lease: ")
        assert not any("READY" in message for message in one_inbox.got)
    one_inbox.hears("READY")


def test_a_configuration_that_cannot_be_used_is_never_up(fleet: Fleet, one_inbox: Inbox) -> None:
    """And ends with the status after which the unit is not started again."""
    one = fleet.start("one", options=["--lock", "nonsense"], environment=one_inbox.environment())
    assert one.ends() == EXIT_CONFIG
    assert not any("READY" in message for message in one_inbox.read())


def test_signs_of_life_go_on_while_a_hung_elector_is_replaced(fleet: Fleet, file_lock: Lock, one_inbox: Inbox) -> None:
    """The keeper is the remedy: it must not be killed for it."""
    election = {"lease_duration": 13, "renew_deadline": 12}
    one = fleet.start("one", file_lock, settings={"election": election}, environment=one_inbox.environment(WATCHDOG))
    began = now()
    one_inbox.hears("STATUS", "the command runs")
    hung = one.elector
    kill(hung, signal.SIGSTOP)
    again = "again after a restart of the elector"
    # Read meanwhile: the socket holds no more than ten of them.
    eventually(lambda: (one_inbox.read(), again in one.stderr)[1], "another elector leads")
    signs = sum("WATCHDOG" in message for message in one_inbox.got)
    assert signs * WATCHDOG > now() - began, "the service manager would have killed it meanwhile"
    assert len(one.entries("start")) == 1


def test_a_hung_keeper_gives_no_sign_of_life(fleet: Fleet, file_lock: Lock, one_inbox: Inbox) -> None:
    one = fleet.start("one", file_lock, environment=one_inbox.environment(WATCHDOG))
    one_inbox.hears("WATCHDOG")
    kill(one.pid, signal.SIGSTOP)
    eventually(lambda: state_of(one.pid) == "T", "it is stopped")
    one_inbox.read()
    assert one_inbox.is_silent(2 * WATCHDOG)


def test_a_stop_that_takes_long_goes_on_asking_for_time(fleet: Fleet, file_lock: Lock, one_inbox: Inbox) -> None:
    """Past TimeoutStopSec= systemd would kill what is still being stopped in order."""
    settings = {"stop": {"timeout": "7s"}, "election": LASTING}
    one = fleet.start("one", file_lock, "ignore=SIGTERM", settings=settings, environment=one_inbox.environment())
    one.started()
    one.tell(signal.SIGTERM)
    one_inbox.hears("STOPPING")
    assert int(one_inbox.hears("EXTEND_TIMEOUT_USEC")["EXTEND_TIMEOUT_USEC"]) > 7e6
    one.ends()


@pytest.mark.parametrize("dies", ["", "dies"])
def test_a_reload_of_the_command_is_one_of_the_service(
    fleet: Fleet, file_lock: Lock, one_inbox: Inbox, dies: str
) -> None:
    """`systemctl reload` waits for its end, which comes even where the command dies of it."""
    one = fleet.start(
        "one",
        file_lock,
        command=[sys.executable, "-I", "-S", "-c", RELOADER, dies],
        settings={"start": {"ready": "notify"}, "restart": {"max_restarts": 0, "on_give_up": "hold"}},
        environment=one_inbox.environment(),
    )
    one.says("the command is ready")
    one_inbox.hears("STATUS", "the command runs")
    one.tell(signal.SIGHUP)
    assert one_inbox.hears("RELOADING")["MONOTONIC_USEC"].isdecimal()
    one_inbox.hears("READY")


@pytest.mark.parametrize("ready", ["exec", "notify"])
def test_without_an_election_the_command_is_the_service(fleet: Fleet, one_inbox: Inbox, ready: str) -> None:
    """It finds the socket, in the same process; one that does not speak counts as up, and as alive."""
    said = "import os, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
    said += "s.connect(os.environ['NOTIFY_SOCKET']); s.send(b'STATUS=mine')"
    one = fleet.start(
        "one",
        command=[sys.executable, "-c", said],
        settings={"election": {"enabled": False}, "start": {"ready": ready}},
        environment=one_inbox.environment(WATCHDOG),
    )
    assert one.ends() == 0
    one_inbox.read()
    ours = [] if ready == "notify" else [{"READY": "1"}, {"WATCHDOG_USEC": "0"}]
    assert one_inbox.got == [*ours, {"STATUS": "mine"}]
    assert one_inbox.senders == {one.pid}


# ---------------------------------------------------------------------- the unit


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as it would be installed where this program is."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    text = UNIT.read_text()
    assert "\nExecStart=/usr/bin/awaitelect " in text
    path = tmp_path / UNIT.name
    path.write_text(text.replace("ExecStart=/usr/bin/awaitelect", f"ExecStart={PROGRAM}"))
    return path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_systemd_has_nothing_to_say_against_the_unit(unit: Path) -> None:
    found = analyze("verify", "--man=no", str(unit))
    assert (found.returncode, found.stderr, found.stdout) == (0, "", "")


def test_the_unit_is_hardened(unit: Path) -> None:
    found = analyze("security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", str(unit))
    if "unrecognized option" in found.stderr:
        pytest.skip("this systemd-analyze does not judge files")
    assert found.returncode == 0, found.stdout


def test_the_unit_fits_the_program() -> None:
    """What both have to agree on."""
    lines = UNIT.read_text().splitlines()
    assert f"RestartPreventExitStatus={EXIT_CONFIG}" in lines
    assert {"Type=notify", "NotifyAccess=main", "KillMode=mixed", "Delegate=yes", "WatchdogSec=30s"} <= set(lines)
    assert "WatchdogSignal=SIGKILL" in lines, "the keeper catches every other one, and would not do so when it hangs"
    assert not any(line.startswith("ProtectControlGroups") for line in lines), "the command has a cgroup of its own"
