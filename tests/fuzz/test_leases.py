"""Whatever stands in the lease, an instance reads it, says something about it, and takes part."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from awaitelect.core import messages
from awaitelect.core.election import Election
from awaitelect.core.lease import MOST_TRANSITIONS, Observed, Record, Timing, named, stamp
from awaitelect.core.machine import State
from awaitelect.errors import StoreError, StoreUnavailable
from awaitelect.protocol import MAX_MESSAGE, encode
from awaitelect.status import metrics, pages
from awaitelect.status.journal import Journal
from awaitelect.stores.file import FileStore
from awaitelect.stores.kubernetes import KubernetesStore
from awaitelect.stores.wire import HOLDER, INSTANCE, RELEASED_BY, merge_record, parse_record
from tests.fuzz.effort import examples, no_file, soon
from tests.stores.scripted import Request, raw, scripted, status, stream

# aiohttp would rather send a megabyte in pieces.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIMING = Timing(15, 10, 2, 1)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


class Long(str):
    """A text that is shown by its length."""

    def __repr__(self) -> str:
        return f"Long({self[:1]!r} * {len(self)})"


NAMES = st.sampled_from(
    ["me", "other", "", "run-1", "run-2", Long("a" * 2**20), Long("\U0001f600" * 50_000), "x\n\x1b[31m\0", "\ud800"]
)
TIMES = st.sampled_from(
    ["9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00.000000Z",
     "2026-01-01", "1e9", "now", "2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "9999-12-31T23:59:59-14:00"]
)  # fmt: skip
COUNTS = st.sampled_from([0, 1, -1, 15, 0.5, 1e300, 2**31 - 1, 2**31, -(2**31), 2**63, 10**400, "15", True])
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "holderIdentity": NAMES | JUNK,
        "leaseDurationSeconds": COUNTS | JUNK,
        "leaseTransitions": COUNTS | JUNK,
        "acquireTime": TIMES | JUNK,
        "renewTime": TIMES | JUNK,
        "strategy": JUNK,
        "preferredHolder": NAMES,
    },
)
ANNOTATIONS = st.dictionaries(st.sampled_from([INSTANCE, HOLDER, RELEASED_BY, "awaitelect.io/x"]), NAMES | JUNK)
METADATA = st.fixed_dictionaries(
    {}, optional={"annotations": ANNOTATIONS | JUNK, "resourceVersion": COUNTS.map(str) | JUNK, "labels": JUNK}
)
LEASES = (
    st.fixed_dictionaries({"spec": SPECS, "metadata": METADATA})
    | st.fixed_dictionaries({}, optional={"spec": SPECS | JUNK, "metadata": METADATA | JUNK, "kind": JUNK})
    | JUNK
)


def _as_it_comes(lease: Any) -> Any:
    """Plain texts, as a store has them."""
    return json.loads(json.dumps(lease))


class Instance:
    """The core of one, its journal, and the pages that are made of it."""

    def __init__(self) -> None:
        self.election = Election("me", "run-1", TIMING, lambda: 0.5)
        self.journal = Journal()
        self.now = 1000.0
        self.version = 0
        self.asked: list[messages.Action] = []

    def feed(self, event: messages.Event) -> None:
        self.now += 0.01
        before = self.election.state
        self.asked = self.election.handle(event, self.now)
        self.journal.note(event, before, self.asked, self.election, self.now)
        self.show()

    def show(self) -> None:
        """All that people and the keeper are told."""
        assert len(encode(self.journal.alive(self.election))) < MAX_MESSAGE / 8
        snapshot = self.journal.snapshot(self.election, "file:/x", "x")
        for path in ("/status", "/readyz", "/leader", "/livez"):
            page = pages.page("GET", path, snapshot, self.now)
            assert len(page.body) < 20_000
            json.loads(page.body)
        for one in self.asked:
            if isinstance(one, messages.Report):
                assert len(one.text) < 4000

    def sees(self, lease: Any) -> None:
        """The store answers with this, in a version of its own."""
        lease = _as_it_comes(lease)
        self.version += 1
        self.feed(messages.LeaseRead(Observed(self.version, parse_record(lease), lease)))

    def write(self) -> messages.WriteLease | None:
        """What it wants to have written, made into an object that a store can be given."""
        for one in self.asked:
            if isinstance(one, messages.WriteLease):
                record = stamp(one.record, one.base.record, NOW)
                merged = merge_record(one.base.raw, record)
                json.dumps(merged)
                assert 0 <= merged["spec"]["leaseTransitions"] <= MOST_TRANSITIONS
                return one
        return None


@examples(80)
@given(st.lists(LEASES, min_size=1, max_size=4))
@example([{"spec": {"holderIdentity": "me", "renewTime": "9999-12-31T23:59:59.999999Z"}}])
@example([{"spec": {"holderIdentity": "", "leaseTransitions": 2**31 - 1}}])
@example([{"spec": {"leaseDurationSeconds": 10**400}}])
@example([{"spec": {"holderIdentity": Long("a" * 2**20), "renewTime": "2026-01-01"}}])
def test_no_lease_breaks_the_one_who_reads_it(leases: list[Any]) -> None:
    """It follows, takes what is free, and writes what a server would take."""
    one = Instance()
    one.feed(messages.Started())
    with soon():
        for lease in leases:
            one.sees(lease)
            while (wake_at := one.election.wake_at) is not None and one.election.state == State.FOLLOWER:
                one.now = max(one.now, wake_at)
                one.feed(messages.Woke())
                if any(isinstance(asked, messages.ReadLease) for asked in one.asked):
                    break
            wanted = one.write()
            if wanted is not None:
                one.feed(messages.WriteConflicted())
                if one.election.wake_at is not None:
                    one.now = max(one.now, one.election.wake_at)
                    one.feed(messages.Woke())


@examples(60)
@given(LEASES)
def test_no_lease_breaks_its_leader(lease: Any) -> None:
    """Somebody edits the lease that we hold: we go on, take it back, or step down; nothing else."""
    one = Instance()
    one.feed(messages.Started())
    one.feed(messages.LeaseRead(Observed()))
    wanted = one.write()
    assert wanted is not None
    one.version += 1
    stored = stamp(wanted.record, None, NOW)
    one.feed(messages.WriteConfirmed(Observed(one.version, stored, merge_record({}, stored)), one.now))
    assert one.election.state == State.LEADER
    one.version += 1
    lease = _as_it_comes(lease)
    one.feed(messages.LeaseObserved(Observed(one.version, parse_record(lease), lease)))
    held = one.election.state == State.LEADER
    assert held or any(isinstance(asked, messages.StopCommand) and not asked.grace for asked in one.asked)
    holder = parse_record(lease).holder
    assert held == (not holder or (parse_record(lease).holder_instance == "run-1" and holder == "me"))
    one.write()


@pytest.mark.parametrize(
    "before", [NOW, NOW + timedelta(seconds=30), NOW + timedelta(days=400), datetime.max.replace(tzinfo=UTC)]
)
def test_a_renewal_is_always_another_time_than_the_one_before(before: datetime) -> None:
    """A time at the end of the calendar was once counted on from, which ends it."""
    base = Record("me", 15, renew_time=before)
    renewed = stamp(Record("me", 15), base, NOW).renew_time
    assert renewed is not None and renewed.replace(microsecond=0) != before.replace(microsecond=0)


def test_a_count_of_holders_that_is_full_begins_anew() -> None:
    """A server refuses more than 2³¹ − 1, and then nobody would ever lead again."""
    one = Instance()
    one.feed(messages.Started())
    one.sees({"spec": {"holderIdentity": "", "leaseTransitions": MOST_TRANSITIONS}})
    wanted = one.write()
    assert wanted is not None and wanted.record.transitions == 0


def test_a_name_of_a_megabyte_is_said_in_a_line() -> None:
    """The keeper takes 128 KiB at a time; log lines end at 4,000 bytes."""
    assert named("a" * 2**20) == repr("a" * 252 + "…")
    assert named("short") == "'short'"


def test_metrics_are_made_of_any_snapshot() -> None:
    """Prometheus refuses a page with one bad line whole."""
    one = Instance()
    one.feed(messages.Started())
    one.sees({"spec": {"holderIdentity": "a\n\x00" * 1000, "leaseTransitions": MOST_TRANSITIONS}})
    metrics.prepare()
    _, text = metrics.render(one.journal.snapshot(one.election, "file:/x\n", 'n"\\'), one.now, "")
    assert text.endswith(b"\n")


# ---------------------------------------------------------------------- in a folder


CONTENTS = (
    st.binary(max_size=40)
    | LEASES.map(lambda one: json.dumps(one).encode("utf-8", "surrogatepass"))
    | st.sampled_from(
        [b"", b"{", b"[" * 100_000, b'{"metadata":{"resourceVersion":"' + b"9" * 19 + b'"}}', b"\xff\xfe{}"]
    )
)
FILE_NAMES = st.sampled_from([0, 1, 7, 10**15, 10**19 - 1]).map(lambda number: f"{number:019d}.json")


@examples(50)
@given(st.dictionaries(FILE_NAMES, CONTENTS, min_size=1, max_size=3))
async def test_no_bytes_in_its_files_break_the_file_store(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    """What cannot be understood is told with the file's name, and nobody takes the lease for free."""
    folder = tmp_path_factory.mktemp("lease")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    await _reads_or_refuses(folder)


@pytest.mark.parametrize("kind", ["pipe", "pipe with a writer", "folder", "loop", "device", "socket", "large file"])
@pytest.mark.parametrize("where", ["lease", "first version", "last version"])
async def test_what_is_no_file_stops_no_instance(tmp_path: Path, kind: str, where: str) -> None:
    """A named pipe in the place of a version was once waited for, for ever; /dev/zero has no end."""
    path = tmp_path / "lease"
    if where != "lease":
        await FileStore(str(path)).create(Record("other", 15), 5)
        path = path / (f"{0:019d}.json" if where == "first version" else f"{10**18:019d}.json")
        path.unlink(missing_ok=True)
    writer = -1
    if kind == "large file":
        path.write_bytes(b" " * 4_000_000)
    else:
        no_file(path, kind.split()[0])
    if kind == "pipe with a writer":
        writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    if (kind, where) == ("folder", "lease"):
        return  # that is what it is
    assert await _reads_or_refuses(tmp_path / "lease") is not None
    if writer >= 0:
        os.close(writer)


async def _reads_or_refuses(folder: Path) -> StoreUnavailable | None:
    store = FileStore(str(folder))
    refused = None
    with soon():
        try:
            seen = await store.read(5)
        except StoreUnavailable as error:
            refused, seen = error, Observed()
            assert str(folder) in str(error)
        for write in (store.create(Record("me", 15), 5), store.update(seen, Record("me", 15), 5)):
            try:
                await write
            except StoreError as error:
                assert str(folder) in str(error)
    return refused


# ---------------------------------------------------------------------- on a cluster


@examples(25)
@given(st.lists(LEASES, min_size=1, max_size=4), st.sampled_from([200, 201, 204, 404, 409, 422, 500]))
async def test_no_answer_breaks_the_kubernetes_store(
    tmp_path_factory: pytest.TempPathFactory, leases: list[Any], code: int
) -> None:
    """Of a real server's objects or of what a proxy makes up: it is a lease, or an error that can be tried again."""
    answers = [raw(code, json.dumps(_named(one)), "application/json") for one in leases]

    async def play(request: Request) -> bytes | None:
        if request.is_watch:
            events = [
                {"type": kind, "object": _named(one)} for kind in ("ADDED", "BOOKMARK", "ERROR") for one in leases
            ]
            return stream(*events, b"{\n", b"\xff\n")
        return answers[len(server.requests) % len(answers)] if request.method != "DELETE" else status(404)

    async with scripted(play) as server:
        store = await KubernetesStore.connect(
            "x", "default", server.kubeconfig(tmp_path_factory.mktemp("cluster") / "kubeconfig")
        )
        try:
            seen = Observed(7, Record("other", 15), leases[0])
            with soon():
                for call in (lambda: store.read(5), lambda: store.create(Record("me", 15), 5)):
                    try:
                        seen = await call()
                    except StoreError as error:
                        assert "kubernetes:default/x" in str(error)
                try:
                    await store.update(seen, Record("me", 15), 5)
                except StoreError as error:
                    assert "kubernetes:default/x" in str(error)
        finally:
            await store.close()


def _named(lease: Any) -> Any:
    """With the right name, and mostly with a version, or it would not even be looked at."""
    if not isinstance(lease, dict) or not isinstance(lease.get("metadata"), dict):
        return lease
    return {**lease, "metadata": {"resourceVersion": "7", **lease["metadata"], "name": "x"}}
