"""The diagram in the README is that of the table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from awaitelect.core import diagram
from awaitelect.core.machine import TABLE

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def test_the_diagram_in_the_readme_is_drawn_from_the_table() -> None:
    """Renew it with: python -m awaitelect.core.diagram --write."""
    assert diagram.BLOCK.found_in(README.read_text(encoding="utf-8")) == diagram.BLOCK.text


def test_each_row_that_moves_is_in_the_diagram() -> None:
    """With its guard."""
    lines = diagram.diagram().splitlines()
    for event, source, destination, guard, _ in TABLE:
        if destination:
            [line] = [line for line in lines if line.startswith(f"    {source} --> {destination}: ")]
            assert (f"{event} [{guard}]" if guard else event) in line.partition(": ")[2].split("<br/>")


def test_the_diagram_is_not_imported_at_run_time() -> None:
    """Nobody needs it then."""
    code = "import sys, awaitelect.core.election; assert 'awaitelect.core.diagram' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
