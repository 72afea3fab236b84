"""The blocks of the README that are made from the code: the commands that renew them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from awaitelect.readme import Block

ROOT = Path(__file__).resolve().parents[1]


def page(block: str) -> str:
    return f"# Before\n\n{block}\n\nafter\n"


@pytest.mark.parametrize(("module", "name"), [("core.diagram", "diagram"), ("status.document", "metrics")])
def test_writing_replaces_the_block_and_nothing_else(tmp_path: Path, module: str, name: str) -> None:
    """And a second time changes nothing."""
    path, run = tmp_path / "README.md", [sys.executable, "-m", f"awaitelect.{module}"]
    path.write_text(page(Block(name, "old").text), encoding="utf-8")
    environment = {"PYTHONPATH": str(ROOT)}
    printed = subprocess.run(run, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    for _ in range(2):
        subprocess.run([*run, "--write"], cwd=tmp_path, env=environment, check=True)
        assert path.read_text(encoding="utf-8") == page(Block(name, printed.removesuffix("\n")).text)


def test_a_page_without_the_marks_is_refused(tmp_path: Path) -> None:
    """Else the block would be stale for ever and nobody know it."""
    path = tmp_path / "README.md"
    path.write_text("<!-- other:begin -->\n<!-- other:end -->\n<!-- one:begin -->\n")
    with pytest.raises(ValueError, match="not found"):
        Block("one", "new").put_into(path)
