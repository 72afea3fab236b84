"""What every store promises, tried on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from awaitelect.core.lease import ABSENT, Observed, Record
from awaitelect.errors import Conflict
from awaitelect.stores import LeaseStore
from awaitelect.stores.wire import parse_record
from awaitelect.values import changed

T = 5.0
NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
HELD = Record("a", 15, NOW, NOW, 3, instance="run-1", instance_holder="a")
Watch = Callable[[LeaseStore, Observed], Any]


async def test_a_lease_that_does_not_exist_reads_as_absent(place: Any) -> None:
    """An absent lease is an answer, not an error: a follower may create it."""
    assert await (await place.store()).read(T) == ABSENT


async def test_a_created_lease_reads_as_it_was_written(place: Any) -> None:
    """What create returns is what everybody reads, so that no second request is needed."""
    written = await (await place.store()).create(HELD, T)
    assert written.record == HELD
    assert written.version > 0
    assert await (await place.store()).read(T) == written


async def test_a_lease_that_exists_cannot_be_created(place: Any) -> None:
    """Of two that create, one leads."""
    store = await place.store()
    await store.create(HELD, T)
    with pytest.raises(Conflict):
        await store.create(changed(HELD, holder="b"), T)
    assert (await store.read(T)).record == HELD


async def test_an_update_of_the_present_version_is_stored(place: Any) -> None:
    """A renewal, and the next on top of it without a read in between."""
    store = await place.store()
    first = await store.create(HELD, T)
    second = await store.update(first, changed(HELD, renew_time=NOW + timedelta(seconds=2)), T)
    third = await store.update(second, changed(HELD, renew_time=NOW + timedelta(seconds=4)), T)
    assert first.version < second.version < third.version
    assert await store.read(T) == third


async def test_an_update_of_an_older_version_is_a_conflict(place: Any) -> None:
    """Whoever did not see the last write may not overwrite it."""
    store = await place.store()
    first = await store.create(HELD, T)
    second = await store.update(first, changed(HELD, holder="b"), T)
    with pytest.raises(Conflict):
        await store.update(first, HELD, T)
    assert await store.read(T) == second


async def test_an_update_of_a_deleted_lease_is_a_conflict_and_creates_nothing(place: Any) -> None:
    """A deletion under its leader must be seen as such, not be undone by a renewal."""
    store = await place.store()
    first = await store.create(HELD, T)
    place.delete()
    with pytest.raises(Conflict):
        await store.update(first, HELD, T)
    assert (await store.read(T)).record is None


async def test_an_update_of_a_lease_that_was_made_anew_is_a_conflict(place: Any) -> None:
    """The new object may be another's: nothing that was true of the old one holds."""
    store = await place.store()
    old = await store.create(HELD, T)
    place.delete()
    new = await store.create(changed(HELD, holder="b"), T)
    with pytest.raises(Conflict):
        await store.update(old, HELD, T)
    assert await store.read(T) == new


async def test_an_absent_lease_cannot_be_updated(place: Any) -> None:
    """An unconditional write must not be possible by mistake."""
    store = await place.store()
    with pytest.raises(Conflict):
        await store.update(ABSENT, HELD, T)
    assert await store.read(T) == ABSENT


async def test_versions_grow_over_a_deletion(place: Any) -> None:
    """The fencing token must never come again, not even after many quick writes."""
    store = await place.store()
    last = await store.create(HELD, T)
    for _ in range(20):
        last = await store.update(last, HELD, T)
    place.delete()
    fresh = await (await place.store()).create(HELD, T)
    assert fresh.version > last.version


async def test_a_release_keeps_its_signature(place: Any) -> None:
    """The next instance starts at once only if it can read who released."""
    store = await place.store()
    released = Record("", 1, NOW, NOW, 3, instance="run-1", instance_holder="a", released_by="run-1")
    written = await store.update(await store.create(HELD, T), released, T)
    assert written.record == released
    taken = await store.update(written, HELD, T)
    assert taken.record == HELD


@pytest.mark.parametrize("micros", [0, 1, 100000, 999999])
async def test_times_keep_their_microseconds(place: Any, micros: int) -> None:
    """Zero microseconds are the case that a server refuses when they are left out."""
    when = NOW.replace(microsecond=micros).astimezone(timezone(timedelta(hours=5)))
    store = await place.store()
    written = await store.create(changed(HELD, renew_time=when), T)
    assert written.record is not None
    assert written.record.renew_time == when


async def test_what_others_put_into_the_lease_is_kept(place: Any) -> None:
    """Labels, annotations and owners are other people's; an update may not lose them."""

    def change(lease: dict[str, Any]) -> None:
        lease["metadata"]["labels"] = {"team": "storage"}
        lease["metadata"].setdefault("annotations", {})["example.org/note"] = "keep"

    store = await place.store()
    await store.create(HELD, T)
    place.edit(change)
    written = await store.update(await store.read(T), changed(HELD, instance="", instance_holder=""), T)
    assert written.raw["metadata"]["labels"] == {"team": "storage"}
    assert written.raw["metadata"]["annotations"] == {"example.org/note": "keep"}


@pytest.mark.parametrize("writers", [2, 20])
async def test_of_concurrent_creators_exactly_one_wins(place: Any, writers: int) -> None:
    """The start of a whole fleet at once."""
    stores = [await place.store() for _ in range(writers)]
    records = [changed(HELD, holder=f"h{n}") for n in range(writers)]
    writes = (store.create(record, T) for store, record in zip(stores, records, strict=True))
    results = await asyncio.gather(*writes, return_exceptions=True)
    won = [result for result in results if isinstance(result, Observed)]
    assert len(won) == 1
    assert all(isinstance(result, Observed | Conflict) for result in results)
    assert await stores[0].read(T) == won[0]


@pytest.mark.parametrize("writers", [2, 20])
async def test_of_concurrent_updates_exactly_one_wins(place: Any, writers: int) -> None:
    """A release is seen by all followers in the same millisecond."""
    stores = [await place.store() for _ in range(writers)]
    base = await stores[0].create(HELD, T)
    for term in range(3):
        # Kubernetes takes an update that changes nothing for done, so each differs from what is there.
        records = [changed(HELD, holder=f"h{n}", transitions=10 + term) for n in range(writers)]
        writes = (store.update(base, record, T) for store, record in zip(stores, records, strict=True))
        results = await asyncio.gather(*writes, return_exceptions=True)
        won = [result for result in results if isinstance(result, Observed)]
        assert len(won) == 1
        assert all(isinstance(result, Observed | Conflict) for result in results)
        base = await stores[0].read(T)
        assert base == won[0]


async def test_a_watch_tells_creation_update_and_deletion_in_order(place: Any, changes: Watch) -> None:
    """A follower needs each of them to know whose turn it is."""
    store = await place.store()
    seen = changes(await place.store(), ABSENT)
    created = await store.create(HELD, T)
    assert await seen.next() == created
    updated = await store.update(created, changed(HELD, holder=""), T)
    assert await seen.next() == updated
    place.delete()
    assert (await seen.next()).record is None
    again = await store.create(HELD, T)
    assert await seen.next() == again


async def test_a_watch_from_an_old_version_catches_up(place: Any, changes: Watch) -> None:
    """What happens between a read and the start of its watch must not be missed."""
    store = await place.store()
    old = await store.create(HELD, T)
    last = old
    for n in range(5):
        last = await store.update(last, changed(HELD, transitions=n), T)
    seen = changes(await place.store(), old)
    assert await seen.until(lambda change: change.version == last.version) == last


async def test_a_watch_from_the_present_version_tells_nothing_old(place: Any, changes: Watch) -> None:
    """An old record told again would look like a renewal."""
    store = await place.store()
    present = await store.create(HELD, T)
    seen = changes(await place.store(), present)
    updated = await store.update(present, changed(HELD, holder="b"), T)
    assert await seen.next() == updated


async def test_two_watches_see_the_same(place: Any, changes: Watch) -> None:
    """One store may be watched more than once."""
    store = await place.store()
    watches = [changes(store, ABSENT) for _ in range(2)]
    created = await store.create(HELD, T)
    assert [await seen.next() for seen in watches] == [created, created]


@pytest.mark.parametrize(
    "odd",
    [None, [], "x", 7, {"spec": None}, {"spec": []}, {"metadata": 3, "spec": {"leaseDurationSeconds": "15"}}]
    + [{"spec": {"leaseDurationSeconds": n, "leaseTransitions": n}} for n in (-1, 10**30, True, 1e400, None, [])]
    + [{"spec": {"renewTime": t, "holderIdentity": t}} for t in (5, {}, [])]
    + [{"spec": {"renewTime": t}} for t in ("", "x", "99999-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00")]
    + [{"metadata": {"annotations": {"awaitelect.io/instance": 5}}}],
)
def test_an_odd_object_reads_as_an_empty_record(odd: Any) -> None:
    """Anybody may write into the object: that must not end the elector."""
    assert parse_record(odd) == Record()
