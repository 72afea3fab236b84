"""The nine rules of the protocol between keeper and elector, each alone.

Where one of the two has to keep a rule, the other is the test: whatever is said at the wrong moment is said on purpose.
"""

from __future__ import annotations

import os
import re
import select
import signal
from pathlib import Path

import pytest

from awaitelect import protocol
from awaitelect.keeper.shim import PATIENCE
from awaitelect.protocol import Ack, Alive, Gone, Grant, Leave, Settings, Shutdown, Spawned, Stop
from awaitelect.values import changed
from tests.e2e.instances import (
    RETRY,
    Fleet,
    Watched,
    eventually,
    is_alive,
    kill,
    now,
    renews,
    stop,
)
from tests.e2e.locks import FileLock, KubernetesLock, Lock
from tests.e2e.test_kill_modes import needs_freezer
from tests.guard.halves import ElectorAlone, KeeperAlone
from tests.guard.places import FIRM, LONG, electors_of, places, seen_from_here, start, watched_of

# ---------------------------------------------------------------------- 1: each grant has a number


def test_rule_1_the_elector_sends_no_grant_while_one_is_unacknowledged(elector: ElectorAlone, tmp_path: Path) -> None:
    """A keeper that was stopped must not find a queue of old ones when it goes on. Renewals go on meanwhile."""
    elector.greet("true", lock=f"file:{tmp_path}/lease", identity="me", config=configured(tmp_path))
    first = elector.hears(Grant)
    renews(FileLock(tmp_path), 4)
    assert not [said for said in elector.has_said() if isinstance(said, Grant)]
    elector.says(Ack(first.number))
    second = elector.hears(Grant)
    assert second.number == first.number + 1 and second.term_by > first.term_by


def configured(folder: Path) -> str:
    """A file with a long election and frequent renewals."""
    path = folder / "elector.yaml"
    path.write_text(f"election: {{lease_duration: 700, renew_deadline: 600, retry_period: {RETRY}, kill_margin: 1}}\n")
    return str(path)


def test_rule_1_the_keeper_acknowledges_each_grant_once_and_passes_over_older_ones(keeper: KeeperAlone) -> None:
    """The acknowledgement is its heartbeat, and what came late counts for nothing."""
    keeper.says(Settings(keeper.settings()))
    for number in (1, 2):
        keeper.grant(number)
        assert keeper.hears(Ack).number == number
    keeper.grant(1, lasts=0.0)  # it would end the command
    keeper.grant(2, lasts=0.0)
    keeper.grant(3)
    assert keeper.hears(Ack).number == 3
    eventually(lambda: keeper.entries("start"), "the command runs")
    assert keeper.entries("signal") == []


def test_rule_1_a_keeper_stopped_for_a_moment_changes_nothing(fleet: Fleet, file_lock: Lock) -> None:
    """No acknowledgement comes meanwhile; patience lasts until the grant's own date."""
    one = fleet.start("one", file_lock, settings={"election": LONG})
    begun = one.started()
    elector = one.elector
    for _ in range(3):
        stop(one.pid)
        renews(file_lock, 2)
        kill(one.pid, signal.SIGCONT)
        renews(file_lock, 2)
    assert one.entries("start") == [begun] and one.signals() == [] and one.elector == elector


# ---------------------------------------------------------------------- 2: gone(n) is a promise


def test_rule_2_the_elector_releases_only_when_its_last_grant_is_gone(elector: ElectorAlone, tmp_path: Path) -> None:
    """A `gone` that crossed with a newer grant says nothing about what is started by that."""
    elector.greet("true", lock=f"file:{tmp_path}/lease", identity="me", config=configured(tmp_path))
    lock = FileLock(tmp_path)
    first = elector.hears(Grant)
    elector.says(Ack(first.number))
    second = elector.hears(Grant)
    elector.says(Gone(first.number, "gave_up"))
    renews(lock, 3)
    record = lock.record()
    assert record is not None and record.holder == "me"
    assert not [said for said in elector.has_said() if isinstance(said, Stop)]
    elector.says(Gone(second.number, "gave_up"))
    eventually(lambda: (seen := lock.record()) and seen.holder == "", "the lease is released")


def test_rule_2_a_new_elector_believes_no_gone_from_before_its_own_first_grant(
    elector: ElectorAlone, tmp_path: Path
) -> None:
    """It was meant for the elector before it: under the new grant a command may be running already."""
    lock = FileLock(tmp_path)
    number = 5
    elector.greet("true", number=number, kill_by=now() + 50, lock=f"file:{tmp_path}/lease", config=configured(tmp_path))
    grant = elector.hears(Grant)
    assert grant.number == number + 1
    elector.says(Gone(number, "deadline"))
    elector.says(Ack(grant.number))
    assert elector.hears(Grant).number == number + 2
    renews(lock, 2)
    assert lock.record().holder  # type: ignore[union-attr]


def test_rule_2_a_keeper_that_will_not_use_a_grant_says_gone_again(keeper: KeeperAlone) -> None:
    """Else its elector would lead for ever with nothing running: here, after too many failures of the command."""
    keeper.says(Settings(keeper.settings("after=0", "exit=3", max_restarts=0)))
    keeper.grant(1, term=7)
    gone = keeper.hears(Gone)
    assert (gone.number, gone.cause, gone.status) == (1, "gave_up", 3)
    keeper.grant(2, term=7)
    assert keeper.hears(Gone).number == 2
    keeper.grant(3, may_start=False, term=7)
    assert keeper.hears(Gone).number == 3
    assert len(keeper.entries("start")) == 1
    keeper.grant(4, term=8)
    assert keeper.hears(Ack).number == 4
    eventually(lambda: len(keeper.entries("start")) == 2, "another term may start it")


# ---------------------------------------------------------------------- 3: nothing starts late


def test_rule_3_the_keeper_starts_nothing_after_term_by(keeper: KeeperAlone) -> None:
    """A grant that is late is answered, and used for nothing."""
    keeper.says(Settings(keeper.settings()))
    keeper.grant(1, lasts=-0.001)
    refused = keeper.hears_any()
    assert isinstance(refused, Gone) and refused.number == 1, "no order is given to start it"
    keeper.grant(2)
    assert keeper.hears(Ack).number == 2
    eventually(lambda: keeper.entries("start"), "the next one is used")
    assert len(keeper.entries("start")) == 1


def test_rule_3_the_shim_reads_the_clock_just_before_the_exec(keeper: KeeperAlone) -> None:
    """The order was given in time and is followed late: with the keeper stopped, nobody else can prevent it."""
    keeper.says(Settings(keeper.settings()))
    shim = keeper.shim
    stop(shim)
    grant = keeper.grant(1, lasts=5.0)
    keeper.says(changed(grant, number=2))
    while keeper.hears(Ack).number != 2:
        pass  # by then the order is given
    stop(keeper.instance.pid)
    assert is_alive(shim) and now() < grant.term_by, "the keeper has not ended it"
    eventually(lambda: now() > grant.term_by, "it is too late now")
    ended = Watched(shim)
    kill(shim, signal.SIGCONT)
    ended.wait()
    assert keeper.entries() == []
    kill(keeper.instance.pid, signal.SIGCONT)
    assert keeper.hears(Gone).number == 2


def test_rule_3_the_keeper_ends_a_shim_that_has_not_followed_its_order_in_time(keeper: KeeperAlone) -> None:
    """One that somebody has stopped would look at the clock only when it goes on; until then nothing is gone."""
    keeper.says(Settings(keeper.settings(stop_timeout=1000.0)))
    shim = keeper.shim
    stop(shim)
    ended = Watched(shim)
    keeper.grant(1, lasts=5.0, grace=1000.0)
    assert keeper.hears(Ack).number == 1
    assert keeper.hears(Gone).number == 1
    ended.wait()
    assert keeper.entries() == []


# ---------------------------------------------------------------------- 4: the pidfd goes to the elector


def test_rule_4_the_keeper_hands_over_the_pidfd_of_each_run(keeper: KeeperAlone) -> None:
    """It is readable when the command has ended, zombie or not, and no recycled number is ever meant."""
    backoff = protocol.BackoffSettings(initial=0.01)
    keeper.says(Settings(keeper.settings(restart_policy="always", backoff=backoff)))
    keeper.grant(1)
    for _ in range(2):
        spawned = keeper.hears(Spawned)
        (pidfd,) = keeper.fds
        told = Path(f"/proc/self/fdinfo/{pidfd}").read_text().split("Pid:\t")[1].split()[0]
        assert int(told) == spawned.pid
        assert not select.select([pidfd], [], [], 0)[0]
        kill(spawned.pid)
        assert select.select([pidfd], [], [], 30)[0]
        os.close(pidfd)


@places
def test_rule_4_the_elector_ends_by_its_pidfd_a_command_that_carries_no_mark(
    fleet: Fleet, file_lock: Lock, place: str
) -> None:
    """With its environment emptied, without a cgroup, and free of PDEATHSIG: nothing else leads to it."""
    command = ["env", "-i", "setpriv", "--pdeathsig", "clear", *fleet.actor("one")]
    settings = {"election": FIRM, "stop": {"cgroup": "off"}}
    one = start(place, fleet, "one", file_lock, command=command, settings=settings)
    begun = one.started()
    watched = Watched(seen_from_here(one, begun.pid))
    other = fleet.start("other", file_lock)
    other.follows()
    stop(one.pid)
    watched.wait()
    assert one.last_sign() < other.started().at


# ---------------------------------------------------------------------- 5: the keeper first, then the tree


@needs_freezer
def test_rule_5_the_elector_kills_a_silent_keeper_before_the_tree_is_gone(
    fleet: Fleet, file_lock: Lock, frozen: Path
) -> None:
    """So that nothing wakes up later. The tree, in state D, cannot die before the test lets it: the keeper has to."""
    script = f"sleep 1000 & echo $! > {frozen}/cgroup.procs; wait"
    one = fleet.start("one", file_lock, command=["sh", "-c", script], settings={"election": FIRM})
    pid = int(eventually(lambda: (frozen / "cgroup.procs").read_text().split(), "it is frozen")[0])
    other = fleet.start("other", file_lock)
    other.follows()
    stop(one.pid)
    assert one.ends() == -signal.SIGKILL
    assert is_alive(pid) and other.entries() == []
    (frozen / "freezer.state").write_text("THAWED")
    other.started()
    assert not is_alive(pid)


def test_rule_5_a_pid_1_that_goes_on_after_its_tree_was_ended_starts_nothing(fleet: Fleet, file_lock: Lock) -> None:
    """Nobody can kill it. One that goes on before `term_by` restarts its command; one that does later, nothing."""
    settings = {"election": LONG, "restart": {"policy": "always", "backoff": {"initial": "10ms"}}}
    one = start("init", fleet, "one", file_lock, settings=settings)
    first = seen_from_here(one, one.started().pid)
    renews(file_lock, 2)
    stop(one.pid)
    renews(file_lock, 2)
    kill(first)
    kill(one.pid, signal.SIGCONT)
    again = Watched(seen_from_here(one, one.started(2).pid))
    other = fleet.start("other", file_lock)
    other.follows()
    stop(one.pid)
    again.wait()
    started = other.started().at
    assert max(each.at for each in one.entries()) < started
    kill(one.pid, signal.SIGCONT)
    one.ends()
    assert len(one.entries("start")) == 2


def test_rule_5_the_elector_of_pid_1_waits_until_its_keeper_starts_nothing_more(fleet: Fleet, file_lock: Lock) -> None:
    """Not even a hook: one that goes on between `term_by` and `kill_by` runs post_stop, when the elector, if it had
    killed early, would have found the tree empty and have released.
    """
    settings = {
        "election": {"lease_duration": 22, "renew_deadline": 6, "retry_period": 0.4, "kill_margin": 1},
        "hooks": {"post_stop": fleet.actor("one", "ignore=SIGTERM"), "timeout": "60s"},
    }
    one = start("init", fleet, "one", file_lock, settings=settings)
    command = Watched(seen_from_here(one, one.started().pid))
    other = fleet.start("other", file_lock)
    other.follows()
    stop(one.pid)
    one.says("ending the command in its place")
    soon = now() + 4  # a quarter of what is left until `kill_by`, and time enough for a tree to be killed and released
    eventually(lambda: now() > soon or not is_alive(command.pid) or other.entries(), "it acts, or waits")
    assert is_alive(command.pid) and other.entries() == []
    kill(one.pid, signal.SIGCONT)
    hook = one.started(2)
    assert other.entries() == []
    Watched(seen_from_here(one, hook.pid)).wait()
    begun = eventually(lambda: other.entries("start") or one.entries("start")[2:], "somebody leads again")[0]
    assert one.last_sign(hook.run) < begun.at


# ---------------------------------------------------------------------- 6: a third pair of eyes


@places
def test_rule_6_the_waiting_shim_ends_what_neither_of_the_two_can(fleet: Fleet, file_lock: Lock, place: str) -> None:
    """Both are stopped: at the grant's last date it takes the keeper for dead, finds all by the mark, and kills it."""
    settings = {"election": FIRM, "stop": {"cgroup": "off"}}
    one = start(place, fleet, "one", file_lock, "ignore=SIGTERM", "daemons=2", settings=settings)
    watched = watched_of(one, 2)
    other = fleet.start("other", file_lock)
    other.follows()
    assert one.shim
    stop(one.elector, one.pid)
    stopped = now()
    gone = max(each.wait() for each in watched)
    assert gone < stopped + FIRM["lease_duration"]
    assert one.last_sign() < other.started().at
    assert one.signals() == []


def test_rule_6_the_shim_s_patience_is_over_before_others_may_start(keeper: KeeperAlone) -> None:
    """However short the margin is between a grant's last date and theirs: seen by the alarm that rings for the shim."""
    margin = 0.1
    keeper.says(Settings(keeper.settings(kill_margin=margin)))
    grant = keeper.grant(1)

    def its_alarm() -> list[float]:
        before = now()
        try:
            texts = [path.read_text() for path in Path(f"/proc/{keeper.instance.pid}/fdinfo").iterdir()]
        except OSError:
            return []  # one of them is closed by now
        found = [re.search(r"it_value: \((\d+), (\d+)\)", text) for text in texts]
        return [at for one in found if one and (at := before + int(one[1]) + int(one[2]) / 1e9) > grant.term_by + 1]

    (rings,) = eventually(its_alarm, "an alarm is set behind the grant's first date")
    assert grant.kill_by - PATIENCE - 1 < rings < grant.kill_by + margin - PATIENCE


def test_rule_6_another_shim_waits_soon_after_one_was_killed(fleet: Fleet, file_lock: Lock) -> None:
    """Whoever killed it, the command is not to run without the third pair of eyes."""
    one = fleet.start("one", file_lock)
    one.started()
    first = one.shim
    kill(first)
    eventually(lambda: one.shim != first, "another shim waits")


# ---------------------------------------------------------------------- 7: a hung elector is replaced


def test_rule_7_a_silent_elector_is_replaced_before_the_grant_runs_out(keeper: KeeperAlone) -> None:
    """Early enough for its successor to renew, which takes up the numbers where it has left them."""
    keeper.says(Settings(keeper.settings(renew_deadline=1.0)))
    grant = keeper.grant(1, lasts=30.0)
    keeper.hears(Ack)
    hung = keeper.elector
    watched = Watched(hung)
    hello = keeper.succeeds()
    assert now() < grant.term_by - 1
    assert (hello.number, hello.electors) == (1, 1)
    assert keeper.elector != hung
    watched.wait()
    eventually(lambda: keeper.entries("start"), "the command runs")
    assert keeper.entries("signal") == []


def test_rule_7_an_elector_that_speaks_is_not_replaced(keeper: KeeperAlone) -> None:
    """It waits for a store that does not answer, and a successor would have to wait as well."""
    keeper.says(Settings(keeper.settings(renew_deadline=1.0)))
    grant = keeper.grant(1, lasts=12.0)
    keeper.hears(Ack)
    pid = keeper.elector
    while now() < grant.term_by:
        keeper.says(Alive())
        select.select([], [], [], 0.2)
    assert keeper.hears(Gone).number == 1
    assert is_alive(pid) and "replacing it" not in keeper.instance.stderr


def test_rule_7_electors_that_die_at_once_follow_after_pauses_that_double(fleet: Fleet, file_lock: Lock) -> None:
    """Whatever they die of, it must not cost the machine: a tenth of a second at first, and up to five."""
    one = fleet.start("one", file_lock, settings={"election": LONG})
    one.started()
    died, pauses = 0.0, []
    for _ in range(5):
        pid = eventually(lambda: electors_of(one), "there is an elector")[0]
        if died:
            pauses.append(now() - died)
        died = now()
        kill(pid)
        eventually(lambda pid=pid: not is_alive(pid), "it is dead")
    # The first may have lived for long on a busy machine, and be followed at once; then one step is missing.
    assert all(pause > at_least * 0.8 for pause, at_least in zip(pauses[1:], [0.1, 0.2, 0.4], strict=True)), pauses
    assert one.signals() == []


# ---------------------------------------------------------------------- 8: SIGTERM


@places
def test_rule_8_the_keeper_stops_the_command_at_once_whatever_the_elector_does(
    fleet: Fleet, file_lock: Lock, place: str
) -> None:
    """It decides alone: with its elector stopped too it ends, with the command's status, after its five seconds."""
    one = start(place, fleet, "one", file_lock, "exit=7", settings={"election": LONG})
    one.started()
    stop(one.elector)
    kill(one.pid, signal.SIGTERM)
    assert one.ends() == 7
    ended = now()
    assert one.signals() == [signal.SIGTERM]
    assert "the elector has not ended within 5s" in one.stderr
    assert ended - one.entries("end")[0].at > 4.9
    record = file_lock.record()
    assert record is not None and record.holder == "one", "nobody has released it"


def test_rule_8_the_keeper_tells_its_elector_and_waits_for_it(keeper: KeeperAlone) -> None:
    """Shutdown first, gone when all is gone; and no end before the elector has left."""
    keeper.says(Settings(keeper.settings("exit=7", "daemons=1")))
    keeper.grant(1)
    keeper.instance.daemons(1)
    keeper.instance.tell(signal.SIGTERM)
    assert keeper.hears(Shutdown).signal == signal.SIGTERM
    gone = keeper.hears(Gone)
    assert (gone.number, gone.cause, gone.status) == (1, "shutdown", 7)
    assert keeper.instance.process.poll() is None
    keeper.says(Leave())
    assert keeper.instance.ends() == 7


def test_rule_8_the_elector_finishes_the_write_in_flight_and_releases(
    fleet: Fleet, cluster: object, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What was sent may have been stored: only its answer says on which version the release has to stand."""
    lock = KubernetesLock(cluster, cluster.create_namespace("e2e"), "in-flight", tmp_path)  # type: ignore[arg-type,attr-defined]
    request.addfinalizer(lock.proxy.close)
    one = fleet.start("one", lock, settings={"election": LONG})
    one.started()
    renews(lock, 1)
    with lock.outage():
        assert lock.proxy.holds.wait(30), "a renewal is under way"
        one.tell(signal.SIGTERM)
        eventually(lambda: one.entries("end"), "the command ends meanwhile")
    assert one.ends() == 0
    record = lock.record()
    assert record is not None and record.holder == "" and record.released_by == record.instance


def test_rule_8_before_the_settings_have_come_a_stop_ends_it_at_once(keeper: KeeperAlone) -> None:
    """Nothing can be held before, so nothing is waited for."""
    elector = Watched(keeper.elector)
    keeper.instance.tell(signal.SIGTERM)
    assert keeper.instance.ends() == 0
    elector.wait()
    assert "has not ended within" not in keeper.instance.stderr
    assert keeper.entries() == []


def test_rule_8_a_stop_that_comes_with_the_settings_waits_for_the_elector(keeper: KeeperAlone) -> None:
    """It may hold the lease by then, and has to give it back: a keeper that was held up finds both at once."""
    stop(keeper.instance.pid)
    keeper.says(Settings(keeper.settings()))
    keeper.instance.tell(signal.SIGTERM)
    kill(keeper.instance.pid, signal.SIGCONT)
    assert keeper.hears(Shutdown).signal == signal.SIGTERM
    keeper.says(Leave())
    assert keeper.instance.ends() == 0
    assert keeper.entries() == []


# ---------------------------------------------------------------------- 9: status 78 of an elector


def test_rule_9_before_the_first_settings_78_is_final(fleet: Fleet, file_lock: Lock) -> None:
    """Nothing was started, nothing is held: to try again would hide the mistake."""
    one = fleet.start("one", file_lock, settings={"restart": {"polcy": "always"}})
    assert one.ends() == 78
    assert one.entries() == [] and file_lock.record() is None


def test_rule_9_later_it_is_tried_again_until_term_by_and_then_stopped_gracefully(
    fleet: Fleet, file_lock: Lock
) -> None:
    """The file was broken since: the command has all of the time that its lease leaves, and its grace."""
    one = fleet.start("one", file_lock, "linger=0.2", settings={"election": FIRM})
    one.started()
    other = fleet.start("other", file_lock)
    other.follows()
    (fleet.folder / "one.yaml").write_text("election: [broken")
    renews(file_lock, 2)
    killed = now()
    kill(one.elector)
    assert one.ends() == 78
    assert one.signals() == [signal.SIGTERM]
    assert one.entries("signal")[0].at > killed + FIRM["renew_deadline"] - 2 * RETRY - 0.5, "it was tried until then"
    assert one.stderr.count("the elector exited with 78: starting another") > 1
    assert one.entries("end"), "it has ended by itself"
    other.started()


def test_rule_9_a_file_that_is_mended_in_time_costs_nothing(fleet: Fleet, file_lock: Lock) -> None:
    """That is what it is tried again for."""
    one = fleet.start("one", file_lock, settings={"election": LONG})
    begun = one.started()
    path = fleet.folder / "one.yaml"
    settings = path.read_text()
    path.write_text("election: [broken")
    kill(one.elector)
    one.says("the elector exited with 78: starting another")
    path.write_text(settings)
    renews(file_lock, 3)
    assert one.entries("start") == [begun] and one.signals() == []
