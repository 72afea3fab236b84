"""What the README promises: its worked example is run, and the tests that it names are there."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from awaitelect.core.lease import Record
from awaitelect.stores.file import FileStore
from tests.e2e.instances import PROGRAM
from tests.test_readme import README, ROOT, between

TOKEN = "AWAITELECT_FENCING_TOKEN"


def test_the_resource_of_the_readme_refuses_who_comes_late(tmp_path: Path) -> None:
    """Two terms bill one after the other; then a write of the first one arrives."""
    program, bills = tmp_path / "bill.py", tmp_path / "bills"
    program.write_text(between("fencing"))
    command = [sys.executable, str(program), str(bills)]
    for identity in ("alice", "bob"):
        run = [PROGRAM, "--lock", f"file:{tmp_path}/lease", "--identity", identity, "--", *command, identity]
        done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    (alice, first), (bob, second) = _bills(bills)
    assert (alice, bob) == ("alice", "bob") and first < second
    late = _bill(command, "late", first)
    assert late.returncode == 1 and f"too late: a later term than {first} has begun" in late.stderr
    assert _bill(command, "again", second).returncode == 0, "the term that goes on may write more than once"
    assert [customer for customer, _ in _bills(bills)] == ["alice", "bob", "again"]


def _bill(command: list[str], customer: str, token: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, TOKEN: str(token)}
    return subprocess.run(
        [*command, customer], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def _bills(path: Path) -> list[tuple[str, int]]:
    database = sqlite3.connect(path)
    try:
        return database.execute("SELECT customer, token FROM bill ORDER BY rowid").fetchall()
    finally:
        database.close()


async def test_the_folder_of_a_file_lease_is_its_makers_alone(tmp_path: Path) -> None:
    """Whoever can write there decides who leads."""
    store = FileStore(str(tmp_path / "lease"))
    before = os.umask(0)
    try:
        seen = await store.create(Record("me", 15), 5)
        await store.update(seen, Record("me", 15, transitions=1), 5)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "lease").stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in (tmp_path / "lease").iterdir()} == {0o644}


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[\w./]+(?:::\w+)?)`", README))))
def test_every_test_that_the_readme_names_is_there(named: str) -> None:
    """A claim without its test is a hope."""
    path, _, function = named.partition("::")
    assert (ROOT / path).exists()
    if function:
        assert re.search(rf"^(async )?def {function}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE)


def test_the_readme_gives_the_commands_that_repeat_its_figures() -> None:
    """As they are written there, as far as that they are understood."""
    for module, arguments in re.findall(r"`python -m (tests\.(?:simulation|torture)) ([^`]+)`", README):
        helped = subprocess.run(
            [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        )
        for option in re.findall(r"--[a-z-]+", arguments):
            assert option in helped.stdout, f"{module} has no {option}"
