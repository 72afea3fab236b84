"""What is packaged is what is in the tree, and each dependency has its reason."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint, PathDistribution
from pathlib import Path

import pytest

import awaitelect

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return settings


@pytest.fixture(scope="module")
def requirements(setup_cfg: configparser.ConfigParser) -> set[str]:
    """The names in install_requires, in small letters."""
    lines = setup_cfg["options"]["install_requires"].split()
    return {re.split(r"[<>=!~\[]", line)[0].lower() for line in lines}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree in which the package and its metadata have been built, as an installation would."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("setup.py", "setup.cfg", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "awaitelect", tree / "awaitelect", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "setup.py", "-q", "egg_info", "build"], cwd=tree, check=True)
    return tree


def test_the_package_has_the_version_of_the_code(built: Path) -> None:
    """It is written down once, in awaitelect/__init__.py."""
    assert PathDistribution(built / "awaitelect.egg-info").version == awaitelect.__version__


def test_the_changelog_knows_the_version() -> None:
    """A release without an entry would go out unexplained."""
    assert awaitelect.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_module_is_in_the_package(built: Path) -> None:
    """A folder without __init__.py works in the tree, but is missing where it is installed."""
    in_the_tree = {path.relative_to(built) for path in built.glob("awaitelect/**/*.py")}
    packaged = {path.relative_to(built / "build/lib") for path in (built / "build/lib").glob("awaitelect/**/*.py")}
    assert packaged == in_the_tree


@pytest.mark.parametrize("script", ["awaitelect", "k8s-await-election"])
def test_each_command_leads_to_a_function(script: str, setup_cfg: configparser.ConfigParser) -> None:
    """An entry point is only looked up when somebody types the command."""
    lines = setup_cfg["options.entry_points"]["console_scripts"].strip().splitlines()
    targets = {name.strip(): target.strip() for name, _, target in (line.partition("=") for line in lines)}
    function = EntryPoint(script, targets[script], "console_scripts").load()
    assert callable(function)
    assert function.__module__.startswith("awaitelect.")


def test_each_dependency_has_its_reason_in_the_readme(requirements: set[str]) -> None:
    """Whoever installs us takes on all of them, and is told why."""
    section = re.search(r"^#+ Dependencies$(.*?)(?=^#+ |\Z)", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    assert section, "README.md has no section Dependencies"
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in section[1].splitlines() if "|" in line]
    reasons = {row[0].strip("`").lower() for row in rows if len(row) > 1 and row[1]}
    assert requirements <= reasons


def test_what_the_code_imports_is_declared(requirements: set[str]) -> None:
    """What is imported but only comes with another package is gone when that one drops it."""
    imported = set()
    for path in (ROOT / "awaitelect").glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    declared = {"yaml" if name == "pyyaml" else name.replace("-", "_") for name in requirements}
    assert imported - sys.stdlib_module_names - {"awaitelect"} <= declared
