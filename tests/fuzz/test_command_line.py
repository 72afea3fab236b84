"""Whatever is typed, set or written down: a status that says what it is, and no command that should not run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from awaitelect import cli
from tests.e2e.instances import PROGRAM
from tests.fuzz.effort import examples

WORDS = st.sampled_from(
    ["-c", "--config", "--lock", "--identity", "--log-level", "--log-format", "--check", "--version", "--help", "--",
     "-", "-h", "", "--lock=file:/x", "--lock=", "-cx", "--loc", "---", "--lock=\udcff", "\udcff", "sh", "-x",
     "file:/x", "%s"]
) | st.text(max_size=4)  # fmt: skip


@examples(150)
@given(st.lists(WORDS, max_size=6))
@example(["--config", "--"])
@example(["--identity", "\udcff", "--", "sh"])
def test_no_line_of_words_breaks_it(argv: list[str]) -> None:
    """It is understood, or refused with 2; the words of the command are left as they are."""
    try:
        options, command = cli._parse(list(argv))
    except SystemExit as ended:
        assert ended.code in (0, 2)
        return
    assert command == argv[len(argv) - len(command) :]
    assert all(isinstance(value, str) for value in options.values())


BROKEN = {
    "nothing": b"",
    "no YAML": b"lock: {name: [",
    "a list": b"- lock\n",
    "binary": b"\x00\xff\xfe\x01",
    "not UTF-8": b"lock: {backend: file, path: \xff}\n",
    "a mistyped key": b"lock: {backend: file, path: /x}\nelektion: {}\n",
    "a wrong type": b"lock: {backend: file, path: /x}\nstop: {timeout: [1s]}\n",
    "times that cannot be": b"lock: {backend: file, path: /x}\nelection: {lease_duration: 1s}\n",
    "a tag": b"lock: !!python/object/apply:os.system ['touch {marker}']\n",
    "twice": b"lock: {backend: file, path: /x}\nlock: {backend: file, path: /y}\n",
    "bomb": b"a: &a [x]\n" + b"b: [" + b"*a, " * 50_000 + b"]\n",
}


@pytest.mark.parametrize("what", BROKEN)
def test_nothing_is_started_on_a_broken_configuration(tmp_path: Path, what: str) -> None:
    """The real program: 78, the place of the mistake in each line, no traceback, and no command for a moment."""
    marker = tmp_path / "ran"
    path = tmp_path / "a.yaml"
    path.write_bytes(BROKEN[what].replace(b"{marker}", os.fsencode(marker)))
    done = _run("-c", str(path), "--", "touch", str(marker))
    assert done.returncode == 78
    assert not marker.exists()
    said = done.stderr.decode()
    assert str(path) in said or "lock." in said or "election." in said, said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "environ",
    [
        {"AWAITELECT_LOCK_NAME": "demo", "AWAITELECT_ELECTION_IDENTITY": b"\xff\xfe"},
        {"AWAITELECT_LOCK_NAME": b"\xc3\x28"},
        {"AWAITELECT_LOCK_PATH": "/x", "AWAITELECT_LOCK_BACKEND": "fiel"},
        {"AWAITELECT_LOCK_PATH": "/x", "AWAITELECT_LOCK_BACKEND": "file", "AWAITELECT_NO_SUCH": "1"},
        {"AWAITELECT_ELECTION_ENABLED": "perhaps"},
        {"K8S_AWAIT_ELECTION_ENABLED": "1", "K8S_AWAIT_ELECTION_NAME": "", "AWAITELECT_LOCK_NAME": ""},
        {"K8S_AWAIT_ELECTION_ENABLED": "1", "AWAITELECT_ELECTION_LEASE_DURATION": "1s"},
        {"AWAITELECT_CONFIG": b"/no/such/\xff"},
    ],
)
def test_nothing_is_started_on_a_broken_environment(tmp_path: Path, environ: dict[str, str | bytes]) -> None:
    """Bytes that are no UTF-8, names that nobody knows, both prefixes at once: the variable is named."""
    marker = tmp_path / "ran"
    done = _run("touch", str(marker), environ=environ)
    assert done.returncode == 78
    assert not marker.exists()
    said = done.stderr.decode()
    assert any(name in said for name in environ) or "/no/such/" in said, said
    assert "Traceback" not in said


@pytest.mark.parametrize("arguments", [("--check", "--lock", "file:/ü", "--", "true"), ("--help",), ("--version",)])
def test_a_reader_that_has_gone_is_no_traceback(arguments: tuple[str, ...]) -> None:
    """As in `awaitelect --check | head -1`, and where the words cannot be said in the reader's letters."""
    read, write = os.pipe()
    os.close(read)
    done = _run(*arguments, stdout=write)
    os.close(write)
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr
    done = _run(*arguments, environ={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and b"Traceback" not in done.stderr


def _run(
    *arguments: str, environ: dict[str, str | bytes] | None = None, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWAITELECT_", "K8S_"))}
    return subprocess.run(
        [PROGRAM, *arguments],
        env={**kept, **(environ or {})},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
    )
