"""The diagram in the README is that of the table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from awaitelect.core import diagram
from awaitelect.core.machine import TABLE

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def test_the_diagram_in_the_readme_is_drawn_from_the_table() -> None:
    """Renew it with: python -m awaitelect.core.diagram --write."""
    if not README.exists() or diagram.BEGIN not in README.read_text(encoding="utf-8"):
        pytest.skip("there is no diagram in the README yet")
    assert diagram.block_in(README.read_text(encoding="utf-8")) == diagram.block()


def test_each_row_that_moves_is_in_the_diagram() -> None:
    """With its guard."""
    lines = diagram.diagram().splitlines()
    for event, source, destination, guard, _ in TABLE:
        if destination:
            [line] = [line for line in lines if line.startswith(f"    {source} --> {destination}: ")]
            assert (f"{event} [{guard}]" if guard else event) in line.partition(": ")[2].split("<br/>")


def test_writing_replaces_the_block_and_nothing_else(tmp_path: Path) -> None:
    """And a second time changes nothing."""
    page = tmp_path / "README.md"
    page.write_text(f"# Before\n\n{diagram.BEGIN}\nold\n{diagram.END}\n\nafter\n", encoding="utf-8")
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-m", "awaitelect.core.diagram", "--write"],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            check=True,
        )
        assert page.read_text(encoding="utf-8") == f"# Before\n\n{diagram.block()}\n\nafter\n"


def test_the_diagram_is_not_imported_at_run_time() -> None:
    """Nobody needs it then."""
    code = "import sys, awaitelect.core.election; assert 'awaitelect.core.diagram' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
