"""What the README shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from awaitelect.config.sources import load

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = str(Path(sys.executable).parent)


def between(mark: str) -> str:
    """What stands between two marks of this name, without its fences."""
    found = re.search(rf"<!-- {mark}:begin -->\s*```\w*\n(.*?)```\s*<!-- {mark}:end -->", README, re.DOTALL)
    assert found, f"no block {mark}"
    return found[1]


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables, "PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)


def words(help_text: str) -> list[str]:
    return help_text.replace("-c FILE, --config FILE", "-c, --config FILE").split()


def test_the_help_in_the_readme_is_what_the_program_prints() -> None:
    """`COLUMNS=100 awaitelect --help` renews it. Pythons differ in how they lay it out."""
    printed = run("awaitelect", "--help", COLUMNS="100").stdout
    assert words(between("help")) == words(printed)


def test_the_quick_start_shows_a_hand_over() -> None:
    """The first thing that a newcomer runs: the second line of the README's command."""
    assert "sh conf/quickstart.sh" in README
    shown = run("sh", "conf/quickstart.sh").stdout
    lines = [line.strip() for line in shown.splitlines() if line.startswith("    ")]
    who = [line.split(":")[0] for line in lines]
    assert lines.index("alice: stopping") < who.index("bob"), "bob has not begun before alice had stopped"
    assert "alice" not in who[who.index("bob") :]
    assert lines[-1] == "bob: stopping"
    tokens = [int(token) for token in re.findall(r"token (\d+)", shown)]
    assert tokens == sorted(tokens) and len(set(tokens)) == 2, "the fencing token grows with the term"


def test_every_file_that_the_readme_links_to_is_there() -> None:
    """A dead link is the first thing that a reader tries."""
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)


def test_the_configuration_that_the_readme_starts_can_be_used() -> None:
    """`awaitelect --config conf/awaitelect.yaml`, as far as --check goes."""
    shown = run("awaitelect", "--check", "--config", "conf/awaitelect.yaml").stdout
    assert "another instance may start its own" in shown


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
def test_each_piece_of_configuration_in_the_readme_can_be_used(tmp_path: Path, block: str) -> None:
    """Without a warning: what is pasted works."""
    path = tmp_path / "a.yaml"
    path.write_text(block)
    assert load({"config": str(path), "lock": f"file:{tmp_path}/x"}, ["true"], {}).warnings == []
