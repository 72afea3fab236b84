"""The verdict over a torture: what it must find, and what it must not."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from awaitelect.core.lease import Record
from tests.torture import report
from tests.torture.faults import Blow
from tests.torture.history import FileHistory, Version
from tests.torture.judgement import Facts, bound, judge, lost_statuses, never_struck, overlaps, runs_of, unproven
from tests.torture.lives import Life
from tests.torture.plan import KINDS, Strike, episodes, kinds_for
from tests.torture.seats import SECOND, Exit
from tests.torture.session import TIMING


def at(seconds: float) -> int:
    return round(seconds * SECOND)


def life(run: str, begin: float, end: float, role: str = "main", token: int = 1) -> Life:
    """A process that was alive from `begin` to `end`, and was seen dead 1 ms later."""
    one = Life(at(begin), run.partition("-")[0], run, hash((run, role)) % 30000, role)
    one.alive_at = one.last_stamp = at(end)
    one.ended_by = at(end) + 1_000_000
    one.instance, one.token = (f"instance of {one.name}", token) if role == "main" else ("", 0)
    return one


def version(number: int, seconds: float, holder: str) -> Version:
    """The lease comes to a holder."""
    record = Record(holder=holder, duration=4, instance=f"instance of {holder}", instance_holder=holder)
    return Version(at(seconds) + 3_000_000, number, record, at(seconds))


def facts(lives: list[Life], versions: list[Version] | None = None, until: float = 10, **changes: object) -> Facts:
    """What was seen, of an instance that was sound all along."""
    seen = Facts(lives, versions or [], [], [], {"ada": [(0, at(until))]}, 0, at(until))
    return seen._replace(**changes)  # type: ignore[arg-type]


def failures(seen: Facts) -> list[str]:
    return list(judge(seen, TIMING, 0)["failures"])


def test_runs_one_after_the_other_do_not_overlap() -> None:
    """Else nothing that follows would mean anything."""
    runs = runs_of([life("ada-1", 0, 5), life("bob-1", 5.002, 10, token=2)])
    assert overlaps(runs) == [] and unproven(runs) == [0]


def test_a_daemon_that_outlives_its_command_by_a_millisecond_is_found() -> None:
    """The main processes alone would look well."""
    lives = [life("ada-1", 0, 5), life("ada-1", 1, 5.003, "hidden"), life("bob-1", 5.002, 10, token=2)]
    assert "bob-1 began at 5.002s, 1.000 ms before the last sign of ada-1 (hidden" in failures(facts(lives))[0]


def test_an_overlap_over_several_runs_is_found_with_each() -> None:
    """The one that lived on is not forgotten when a shorter one comes between."""
    lives = [life("ada-1", 0, 9), life("bob-1", 2, 3, token=2), life("cyd-1", 5, 10, token=3)]
    assert len(overlaps(runs_of(lives))) == 2


def test_what_cannot_be_told_apart_is_said() -> None:
    """It was seen dead 1 ms after its last sign, and the other began in between."""
    doubts = unproven(runs_of([life("ada-1", 0, 5), life("bob-1", 5.0004, 10, token=2)]))
    assert [round(one, 1) for one in doubts] == [0.6]


def test_a_command_that_lives_when_another_instance_may_start_is_found_before_that_starts_anything() -> None:
    """The other may have been lucky to be slow."""
    held = [version(1, 0, "ada"), version(2, 2, "ada")]
    seen = facts([life("ada-1", 0.1, 5), life("bob-1", 6, 8, token=7)], [*held, version(7, 4.9, "bob")])
    assert len(failures(seen)) == 1
    assert failures(seen)[0].startswith("lived past: ada-1 (main ") and failures(seen)[0].endswith(" by 100.000 ms")
    assert judge(seen, TIMING, 0)["lived past max"] == 0.1
    late = facts(list(seen.lives), [*held, version(7, 5.5, "bob")])
    assert failures(late) == [] and judge(late, TIMING, 0)["lived past max"] == -0.5


def test_a_command_that_outlives_its_lease_is_found_even_if_nobody_takes_that() -> None:
    """The others may have had troubles of their own."""
    alone = facts([life("ada-1", 0.1, 6.5)], [version(1, 0, "ada"), version(2, 2, "ada")])
    assert [one.startswith("lived past: ada-1") for one in failures(alone)] == [True]
    assert judge(alone, TIMING, 0)["lived past max"] == 0.497, "after 4 s, counted from when we saw it"
    renewed = facts(list(alone.lives), [*alone.versions, version(3, 4, "ada")])
    assert failures(renewed) == []


def test_a_lease_that_its_holder_renews_or_takes_back_is_nobody_elses() -> None:
    """Only another instance's term ends it."""
    deleted = Version(at(4), 5, None, None)
    seen = facts([life("ada-1", 0.1, 8)], [version(1, 0, "ada"), version(3, 2, "ada"), deleted, version(6, 4, "ada")])
    assert failures(seen) == [] and judge(seen, TIMING, 0)["terms"] == 1


def test_nobody_leading_is_found_only_where_somebody_could() -> None:
    """While the store is away nobody can be blamed; once it is back the time begins to count."""
    limit = bound(TIMING, 0)
    lives = [life("ada-1", 0, 5), life("ada-2", 5 + limit + 1, 30)]
    assert "no leader for" in failures(facts(lives, until=30))[0]
    outage = Blow(Strike(next(one for one in KINDS if one.scope == "store"), 0, 0, True, 0), 1)
    outage.struck_at, outage.healed_at = at(6), at(8)
    assert failures(facts(lives, until=30, blows=[outage])) == []
    assert failures(facts(lives, until=30, sound={"ada": [(0, at(9)), (at(10), at(30))]})) == []


def test_daemons_alone_are_no_leader() -> None:
    """Somebody has to do the work."""
    lives = [life("ada-1", 0, 5), life("ada-1", 1, 30, "forked")]
    assert "no leader for" in failures(facts(lives, until=30))[0]


def test_a_change_is_put_down_to_the_fault_that_was_in_force() -> None:
    """Not to one before it, that nobody had noticed."""
    runs = [life("ada-1", 0, 5), life("bob-1", 7, 10, token=2)]
    first, second = (Blow(Strike(KINDS[number], 0, 0, True, 0), number) for number in (0, 1))
    first.struck_at = first.healed_at = at(3)
    second.struck_at = second.healed_at = at(4.5)
    first.run = second.run = "ada-1"
    rows = {row["fault"]: row for row in judge(facts(runs, blows=[first, second]), TIMING, 0)["faults"]}
    assert [rows[one.name]["changes"] for one in KINDS[:2]] == [0, 1]
    assert rows[KINDS[1].name]["new leader max"] == 2.5


def test_a_status_that_is_not_the_commands_is_found() -> None:
    """Where nothing but the SIGTERM can have had to do with it."""
    ended = Exit("ada", 0, 42, ("SIGTERM instance",), 0, 42, True)
    assert lost_statuses([ended, ended._replace(command_status=None, status=137)]) == []
    assert lost_statuses([ended._replace(status=0)]) == ["ada ended with 0, its command with 42"]
    assert lost_statuses([ended._replace(status=0, deeds=("SIGTERM instance", "SIGKILL elector"))]) == []


def test_a_status_that_a_command_has_given_after_the_sigterm_is_the_only_one() -> None:
    """A death by SIGKILL or SIGTERM is one only where no status was given, or no command was there."""
    ended = Exit("ada", 0, 42, ("SIGTERM both",), at(1), 42, True, at(2))
    assert lost_statuses([ended]) == []
    for wrong in (0, 137, 143):
        assert lost_statuses([ended._replace(status=wrong)]) == [f"ada ended with {wrong}, its command with 42"]
    killed = ended._replace(command_status=None, status=137)
    assert lost_statuses([killed]) == [] and len(lost_statuses([killed._replace(status=143)])) == 1
    follower = ended._replace(ran=False, command_last=at(0.5))
    assert lost_statuses([follower._replace(status=one) for one in (0, 42, 137, 143)]) == []
    assert len(lost_statuses([follower._replace(status=1)])) == 1


def test_a_sigterm_to_the_command_or_the_elector_alone_ends_no_instance() -> None:
    """Only a command that has finished does: one that has failed is started again."""
    ended = Exit("ada", 0, 0, ("SIGTERM command", "SIGTERM elector"), None, 0, False, at(2))
    assert lost_statuses([ended]) == []
    assert lost_statuses([ended._replace(status=42, command_status=42)]) == ["ada ended with 42, its command with 42"]
    assert lost_statuses([ended._replace(status=143, command_status=None)]) == [
        "ada ended with 143, its command with None"
    ]
    assert lost_statuses([ended._replace(command_status=42)]) == ["ada ended with 0, its command with 42"]


def test_an_elector_that_a_sigterm_ends_is_found() -> None:
    """Unless its instance ends, too, as the command has finished at that very moment."""
    blow = Blow(Strike(next(one for one in KINDS if one.name == "SIGTERM elector"), 0, 0, True, 0), 1)
    blow.struck_at, blow.healed_at = at(3), at(3.1)
    blow.seats = [SimpleNamespace(name="ada")]  # type: ignore[list-item]
    seen = facts([life("ada-1", 0, 10)], blows=[blow])
    assert failures(seen) == []
    blow.elector_ended = True
    assert failures(seen) == ["an elector has heeded a signal: SIGTERM elector (ada)"]
    finished = Exit("ada", at(4), 0, ("SIGTERM elector",), None, 0, False, at(3))
    assert failures(seen._replace(exits=[finished])) == []
    assert len(failures(seen._replace(exits=[finished._replace(name="bob")]))) == 1


def test_what_was_planned_and_never_struck_is_named() -> None:
    """Who reads that nothing was found has to know what was not tried."""
    first, second = (Blow(Strike(kind, 0, 0, True, 0), 1) for kind in KINDS[:2])
    first.struck_at = at(3)
    seen = facts([life("ada-1", 0, 10)], blows=[first, second])
    assert never_struck(seen, KINDS[:3]) == [one.name for one in KINDS[1:3]]


def test_a_change_tells_by_how_much_each_command_was_dead_in_time() -> None:
    """The most of all may be one of a kind."""
    runs = [life("ada-1", 0, 5), life("bob-1", 7, 10, token=7)]
    blow = Blow(Strike(KINDS[0], 0, 0, True, 0), 1)
    blow.struck_at, blow.healed_at, blow.run = at(4.5), at(4.5), "ada-1"
    seen = facts(runs, [version(1, 0, "ada"), version(2, 2, "ada"), version(7, 5.5, "bob")], blows=[blow])
    found = judge(seen, TIMING, 0)["faults"]
    assert [found[0][f"lived past {name}"] for name in ("p50", "p99", "max")] == [-0.5, -0.5, -0.5]
    assert report.table(found).splitlines()[0].endswith("lived past p50 | lived past p99 | lived past max")


class Broken(FileHistory):
    """Ends at once."""

    error: Exception | None = None

    def _run(self) -> None:
        if self.error:
            raise self.error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whoever_no_longer_sees_the_lease_finds_nothing_well(tmp_path: Path) -> None:
    """Else a command could live past its lease unseen."""
    with FileHistory(tmp_path) as blind:
        pass
    assert blind.failure == "it has never seen the lease"
    ended, broken = Broken(tmp_path), Broken(tmp_path)
    broken.error = KeyError("items")
    for one, why in ((ended, "its thread has ended early"), (broken, "KeyError: 'items'")):
        with one:
            one._thread.join()
        assert one.failure == why
        assert failures(facts([life("ada-1", 0, 10)], blind=one.failure))[0].endswith(why)
    assert failures(facts([life("ada-1", 0, 10)])) == []


def test_the_picture_shows_who_ran_and_what_struck_when() -> None:
    """It is well-formed, with an axis in seconds and a legend, and no wider for an hour than can be opened."""
    blow = Blow(Strike(KINDS[0], 0, 0, True, 0), 1)
    blow.struck_at = blow.healed_at = at(6)
    seen = facts([life("ada-1", 0, 5)], [version(1, 0, "ada")], blows=[blow])
    picture = ElementTree.fromstring(report.picture(seen, ["ada"], "a < b"))
    words = [one.text or "" for one in picture.iter() if one.tag.endswith(("text", "title"))]
    assert {"a < b", "0 s", "5 s", "10 s", "fault in force", "ada: command", KINDS[0].name} <= set(words)
    assert any("ada-1" in one and "0.000 to 5.000 s" in one for one in words)
    assert f"6.00 s: {KINDS[0].name}" in words
    hour = ElementTree.fromstring(report.picture(facts([life("ada-1", 0, 5)], until=3600), ["ada"], "an hour"))
    assert float(hour.attrib["width"]) < 20000


def test_the_plan_follows_from_the_seed_and_comes_to_everything() -> None:
    """What is repeated must be the same; and no fault may be left out by chance."""
    kinds = kinds_for("kubernetes")
    plan = list(islice(episodes(7, kinds, 4.0), 60))
    assert plan == list(islice(episodes(7, kinds, 4.0), 60)) != list(islice(episodes(8, kinds, 4.0), 60))
    assert {strike.kind for episode in plan for strike in episode.strikes} == set(kinds)


def test_a_lease_is_never_deleted_while_somebody_may_be_starting() -> None:
    """One who has never seen it would create it at once, by the rules."""
    for episode in islice(episodes(7, KINDS, 4.0), 500):
        kinds = [strike.kind for strike in episode.strikes]
        if any(one.upsets_newcomers for one in kinds):
            assert all(one.upsets_newcomers or one.scope == "network" for one in kinds)
