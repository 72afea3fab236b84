"""The first look at a command, before any lease is contended for."""

from __future__ import annotations

from pathlib import Path

import pytest

from awaitelect.errors import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND
from awaitelect.keeper.look_up import look_up
from awaitelect.protocol import CommandSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a program, a file that nobody may execute, and a folder in it."""
    (tmp_path / "program").write_text("#!/bin/sh\n")
    (tmp_path / "program").chmod(0o755)
    (tmp_path / "text").write_text("text")
    (tmp_path / "text").chmod(0o644)
    (tmp_path / "folder").mkdir()
    return tmp_path


def searched(*folders: object) -> CommandSettings:
    return CommandSettings(environment={"PATH": ":".join(map(str, folders))})


def test_what_can_be_executed_is_no_problem(folder: Path) -> None:
    """By its path, and by its name where PATH leads to it."""
    assert look_up(str(folder / "program"), CommandSettings()) is None
    assert look_up("program", searched("/nowhere", folder)) is None


def test_a_relative_path_counts_from_the_working_directory(folder: Path) -> None:
    """That is where the exec happens."""
    assert look_up("./program", CommandSettings(working_dir=str(folder))) is None
    found = look_up("./program", CommandSettings(working_dir=str(folder / "folder")))
    assert found is not None and found[1] == EXIT_NOT_FOUND


@pytest.mark.parametrize("name", ["text", "folder"])
def test_a_path_to_what_cannot_be_executed_is_126(folder: Path, name: str) -> None:
    """It is there: to say that it is missing would mislead."""
    found = look_up(str(folder / name), CommandSettings())
    assert found is not None and found[1] == EXIT_NOT_EXECUTABLE and str(folder / name) in found[0]


def test_a_name_in_path_is_looked_for_as_the_exec_does(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file that cannot be executed does not hide one that can; a folder of the name is as good as nothing."""
    other = tmp_path_factory.mktemp("other")
    (other / "program").write_text("text")
    (other / "program").chmod(0o644)
    assert look_up("program", searched(other, folder)) is None
    found = look_up("program", searched(other))
    assert found is not None and found[1] == EXIT_NOT_EXECUTABLE
    found = look_up("folder", searched(folder))
    assert found is not None and found[1] == EXIT_NOT_FOUND


def test_the_message_says_where_was_looked() -> None:
    """The PATH of the command, which may not be that of the shell where it was tried."""
    found = look_up("no-such-program", searched("/nowhere", "/nothing"))
    where = "not found in PATH (/nowhere:/nothing) (errno 2)"
    assert found == (f"cannot execute 'no-such-program': {where}", EXIT_NOT_FOUND)


def test_the_path_decides_nothing_by_its_words(tmp_path: Path) -> None:
    """What lies in a folder that is called so is no directory."""
    place = tmp_path / "directory"
    place.mkdir()
    (place / "program").write_text("text")
    found = look_up("program", searched(place))
    assert found is not None and found[1] == EXIT_NOT_EXECUTABLE
    assert found[0].endswith("program is not executable (errno 13)")


def test_the_reason_has_its_number(folder: Path) -> None:
    """P2."""
    for argv0, number in ((str(folder / "nothing"), 2), ("nothing", 2), (str(folder), 13), (str(folder / "text"), 13)):
        found = look_up(argv0, CommandSettings())
        assert found is not None and found[0].endswith(f"(errno {number})")
