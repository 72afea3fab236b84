"""Kills by the kernel for want of memory, by the counters of cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from awaitelect.keeper.oom import OomCounter, read

V2 = "low 0\nhigh 7\nmax 12\noom 2\noom_kill {}\noom_group_kill 0\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


@pytest.mark.parametrize(
    ("name", "text"), [("memory.events.local", V2), ("memory.events", V2), ("memory.oom_control", V1)]
)
def test_a_count_that_rose_since_the_mark_is_a_strike(tmp_path: Path, name: str, text: str) -> None:
    """Earlier ones are another run's."""
    file = tmp_path / name
    file.write_text(text.format(3))
    counter = OomCounter()
    counter.mark_in([str(tmp_path)])
    assert not counter.has_struck()
    file.write_text(text.format(4))
    assert counter.has_struck()
    counter.mark_in([str(tmp_path)])
    assert not counter.has_struck()


def test_the_first_directory_with_a_counter_counts_and_its_local_events(tmp_path: Path) -> None:
    """The command's cgroup may have no memory controller; and what is killed in containers below us is not ours."""
    (tmp_path / "run").mkdir()
    (tmp_path / "own").mkdir()
    local, events = tmp_path / "own" / "memory.events.local", tmp_path / "own" / "memory.events"
    local.write_text(V2.format(0))
    events.write_text(V2.format(0))
    counter = OomCounter()
    counter.mark_in([str(tmp_path / "run"), str(tmp_path / "own")])
    events.write_text(V2.format(1))
    assert not counter.has_struck()
    local.write_text(V2.format(1))
    assert counter.has_struck()


def test_where_nothing_counts_nothing_has_struck(tmp_path: Path) -> None:
    """No memory controller, no counter in an old kernel's file, or a cgroup that was removed meanwhile."""
    counter = OomCounter()
    assert not counter.has_struck()
    counter.mark_in([str(tmp_path)])
    assert not counter.has_struck()
    file = tmp_path / "memory.oom_control"
    file.write_text("oom_kill_disable 0\nunder_oom 0\n")
    assert read(str(file)) is None
    file.write_text(V1.format(1))
    counter.mark_in([str(tmp_path)])
    file.unlink()
    assert not counter.has_struck()
