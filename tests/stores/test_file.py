"""What only the store in a folder has to stand: stopped and killed writers, full disks, operators."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from awaitelect.core.lease import ABSENT, Observed, Record
from awaitelect.errors import StoreUnavailable
from awaitelect.stores import inotify
from awaitelect.stores.file import FileStore
from awaitelect.values import changed

T = 5.0
HELD = Record("a", 15, instance="run-1", instance_holder="a")

# A writer that stops itself just before or just after its link(2), or dies there, at the wish of the test.
WRITER = """
import asyncio, os, signal, sys
from awaitelect.core.lease import Record
from awaitelect.errors import StoreError
from awaitelect.stores.file import FileStore
from awaitelect.values import changed
path, act, when, how = sys.argv[1:]
link, unlink = os.link, os.unlink
def pause():
    os.kill(os.getpid(), signal.SIGSTOP if how == "stop" else signal.SIGKILL)
def patched(source, target):
    when == "before" and pause()
    link(source, target)
    when == "after" and pause()
os.link = patched
async def main():
    store = FileStore(path)
    record = Record("stopped", 15)
    try:
        await (store.create(record, 5) if act == "create" else store.update(await store.read(5), record, 5))
        print("won")
    except StoreError as error:
        print(type(error).__name__)
asyncio.run(main())
"""


def writer(path: Path, act: str, when: str, how: str) -> subprocess.Popen[str]:
    """A writer that has come to where it was to stop or die."""
    command = [sys.executable, "-c", WRITER, str(path), act, when, how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    options = os.WSTOPPED | os.WEXITED | os.WNOWAIT
    ended = os.waitid(os.P_PID, process.pid, options)
    assert ended is not None and ended.si_status in (signal.SIGSTOP, signal.SIGKILL)
    return process


def proceed(process: subprocess.Popen[str]) -> str:
    """What the stopped writer says when it is continued."""
    process.send_signal(signal.SIGCONT)
    return process.communicate(timeout=20)[0].strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lease"


@pytest.mark.parametrize("later", [1, 20])
async def test_a_writer_stopped_before_its_link_blocks_nobody_and_loses_later(path: Path, later: int) -> None:
    """After 20 versions the name that it was about to take is free again: it must not win by that."""
    store = FileStore(str(path))
    last = await store.create(HELD, T)
    stopped = writer(path, "update", "before", "stop")
    for n in range(later):
        last = await store.update(last, changed(HELD, transitions=n), T)
    assert proceed(stopped) == "Conflict"
    assert await store.read(T) == last


async def test_a_writer_stopped_after_its_link_has_written(path: Path) -> None:
    """The others see its version and go on from there; it learns that it has been overtaken."""
    store = FileStore(str(path))
    await store.create(HELD, T)
    stopped = writer(path, "update", "after", "stop")
    seen = await store.read(T)
    assert seen.record is not None and seen.record.holder == "stopped"
    last = await store.update(seen, HELD, T)
    assert proceed(stopped) == "Conflict"
    assert await store.read(T) == last


@pytest.mark.parametrize("act", ["create", "update"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_writer_killed_in_the_middle_blocks_nobody(path: Path, act: str, when: str) -> None:
    """The lease is as before or as after the write, and the next write succeeds."""
    store = FileStore(str(path))
    if act == "update":
        await store.create(HELD, T)
    writer(path, act, when, "kill").communicate()
    seen = await store.read(T)
    assert (seen.record is not None and seen.record.holder == "stopped") == (when == "after")
    await (store.update(seen, HELD, T) if seen.record else store.create(HELD, T))
    assert (await store.read(T)).record == HELD


@pytest.mark.parametrize("recreated", [False, True])
async def test_a_writer_continued_after_a_deletion_loses(path: Path, recreated: bool) -> None:
    """Its version belongs to a lease that is no more, and must not bring it back."""
    store = FileStore(str(path))
    await store.create(HELD, T)
    stopped = writer(path, "update", "before", "stop")
    for file in path.glob("*.json"):
        file.unlink()
    fresh = await store.create(HELD, T) if recreated else ABSENT
    assert proceed(stopped) == "Conflict"
    assert await store.read(T) == fresh


async def test_a_creator_continued_after_another_created_loses(path: Path) -> None:
    """Of two that create, one leads, however long the other was stopped."""
    stopped = writer(path, "create", "before", "stop")
    store = FileStore(str(path))
    last = await store.create(HELD, T)
    for n in range(10):
        last = await store.update(last, changed(HELD, transitions=n), T)
    assert proceed(stopped) == "Conflict"
    assert await store.read(T) == last


async def test_few_files_are_kept_and_old_drafts_removed(path: Path) -> None:
    """A lease is renewed every two seconds for years."""
    store = FileStore(str(path))
    last = await store.create(HELD, T)
    (path / ".draft-1-old").touch()
    os.utime(path / ".draft-1-old", (0, 0))
    (path / ".draft-1-new").touch()
    for n in range(50):
        last = await store.update(last, changed(HELD, transitions=n), T)
    assert len(list(path.glob("*.json"))) <= 6
    assert [draft.name for draft in path.glob(".draft-*")] == [".draft-1-new"]


async def test_a_version_reads_like_a_lease(path: Path) -> None:
    """Operators look into the folder with cat."""
    await FileStore(str(path)).create(HELD, T)
    [file] = path.glob("*.json")
    lease = json.loads(file.read_text())
    assert lease["kind"] == "Lease"
    assert lease["spec"]["holderIdentity"] == "a"
    assert lease["metadata"]["annotations"]["awaitelect.io/instance"] == "run-1"


@pytest.mark.parametrize("garbage", ["", "{", "[]", "{}", "[" * 100_000])
async def test_a_spoilt_version_is_named(path: Path, garbage: str) -> None:
    """Going on with an older version would hand out the lease twice; the operator is told which file to mend."""
    store = FileStore(str(path))
    base = await store.create(HELD, T)
    [file] = path.glob("*.json")
    file.write_text(garbage)
    with pytest.raises(StoreUnavailable, match=str(file)):
        await store.read(T)
    with pytest.raises(StoreUnavailable, match=str(file)):
        await store.update(base, HELD, T)


async def test_a_file_in_the_folders_place_is_named(path: Path) -> None:
    """`--lock file:/run/x.lock` where a lock file of another program is."""
    path.touch()
    store = FileStore(str(path))
    for call in (store.read(T), store.create(HELD, T)):
        with pytest.raises(StoreUnavailable, match="not a folder") as caught:
            await call
        assert not caught.value.uncertain


async def test_a_full_disk_is_an_answer(tmp_path: Path) -> None:
    """Nothing was written, the reason names path and error, and the lease is still read."""
    if os.getuid() != 0:
        pytest.skip("mounting a tiny file system needs root")
    script = """
import asyncio, sys
from awaitelect.core.lease import Record
from awaitelect.errors import StoreUnavailable
from awaitelect.stores.file import FileStore
async def main():
    store = FileStore(sys.argv[1] + "/lease")
    base = await store.create(Record("a", 15), 5)
    with open(sys.argv[1] + "/fill", "wb", buffering=0) as fill:
        try:
            while True: fill.write(bytes(4096))
        except OSError: pass
    try:
        await store.update(base, Record("b", 15), 5)
    except StoreUnavailable as error:
        print(error.uncertain, error)
    assert await store.read(5) == base
asyncio.run(main())
"""
    mount = f'mount -t tmpfs -o size=64k none {tmp_path} && exec "$0" -c "$1" {tmp_path}'
    command = ["unshare", "--mount", "sh", "-c", mount, sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert done.stdout.startswith("False cannot write ") and "(ENOSPC)" in done.stdout, done.stderr


async def test_a_change_is_seen_within_milliseconds(path: Path, changes: Callable[..., Any]) -> None:
    """A hand-over costs what its notice costs. The quickest quarter counts: a busy machine delays the others, and
    polling twice a second would not get a quarter of them in time.
    """
    store = FileStore(str(path))
    last = await store.create(HELD, T)
    seen = changes(FileStore(str(path)), last)
    delays = []
    for n in range(50):
        began = time.perf_counter()
        last = await store.update(last, changed(HELD, transitions=n + 1), T)
        assert await seen.next() == last
        delays.append(time.perf_counter() - began)
    assert statistics.quantiles(delays, n=4)[0] < 0.010


async def test_a_watch_outlives_its_folder(path: Path, changes: Callable[..., Any]) -> None:
    """The folder may be removed, renamed away and made again, with those above it."""
    path = path / "a" / "b"
    store = FileStore(str(path))
    seen = changes(FileStore(str(path)), ABSENT)
    for n in range(5):
        created = await store.create(changed(HELD, transitions=n), T)
        assert await seen.until(lambda change: change.record is not None) == created
        if n % 2:
            shutil.rmtree(path.parent.parent)
        else:
            path.rename(path.parent / f"away{n}")
        assert (await seen.next()).record is None


async def test_a_watch_survives_a_flood_of_events(path: Path, changes: Callable[..., Any]) -> None:
    """The kernel drops events beyond 16384 and says so: then one looks."""
    store = FileStore(str(path))
    last = await store.create(HELD, T)
    seen = changes(FileStore(str(path)), last)
    await asyncio.sleep(0)
    for _ in range(9000):
        name = path / "0000000000000000001.json"
        name.touch()
        name.unlink()
    last = await store.update(last, changed(HELD, holder="b"), T)
    assert await seen.until(lambda change: change.version == last.version) == last


async def test_without_inotify_a_watch_polls_and_says_so_once(
    path: Path, changes: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Hosts run out of inotify instances; that must cost time, not the watch."""

    def none_left(self: inotify.FolderWatch, result: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(inotify.FolderWatch, "_check", none_left)
    store = FileStore(str(path))
    seen = changes(FileStore(str(path)), ABSENT)
    last = await store.create(HELD, T)
    assert await seen.next() == last
    last = await store.update(last, changed(HELD, holder="b"), T)
    assert await seen.next() == last
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_watch_goes_on_when_a_spoilt_file_is_mended(path: Path, changes: Callable[..., Any]) -> None:
    """A watch never ends: it says what is wrong and waits for it to be put right."""
    store = FileStore(str(path))
    await store.create(HELD, T)
    [file] = path.glob("*.json")
    good = file.read_text()
    file.write_text("{")
    seen = changes(store, ABSENT)
    await asyncio.sleep(0)
    file.write_text(good)
    change: Observed = await seen.next()
    assert change.record == HELD


def test_the_file_store_needs_no_network_libraries() -> None:
    """Somebody without a cluster pays for none."""
    script = "import sys, awaitelect.stores.file; print({'aiohttp', 'kubernetes', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


COUNTER = """
import asyncio, sys, time

from awaitelect.errors import Conflict
from awaitelect.stores.file import FileStore
from awaitelect.values import changed

async def main():
    store, end = FileStore(sys.argv[1]), time.monotonic() + 3
    while time.monotonic() < end:
        seen = await store.read(5)
        try:
            done = await store.update(seen, changed(seen.record, transitions=seen.record.transitions + 1), 5)
            print(done.version, done.record.transitions)
        except Conflict:
            pass
asyncio.run(main())
"""


async def test_no_write_is_lost_among_writers_that_are_stopped_at_random(path: Path) -> None:
    """Each version is one more than the one before it, whoever is stopped wherever: compare-and-swap holds."""
    first = await FileStore(str(path)).create(HELD, T)
    command = [sys.executable, "-c", COUNTER, str(path)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        stopped = random.choice(writers)
        stopped.send_signal(signal.SIGSTOP)
        await asyncio.sleep(random.choice([0.0005, 0.005, 0.05]))
        stopped.send_signal(signal.SIGCONT)
    lines = "".join(writer.communicate(timeout=30)[0] for writer in writers).splitlines()
    won = [tuple(map(int, line.split())) for line in lines]
    assert [process.returncode for process in writers] == [0, 0, 0, 0]
    assert len({version for version, _ in won}) == len(won) > 100
    assert all(version - first.version == count for version, count in won)
