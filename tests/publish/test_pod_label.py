"""The label on our own pod: on a real API server, with its RBAC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from awaitelect.publish.pod_label import PodLabel
from awaitelect.publish.standing import Standing
from awaitelect.stores.kubernetes_client import Pool
from tests.publish.conftest import Said, Site, answered, eventually

KEY = "awaitelect.io/role"
LEADS = Standing(leads=True, token=7)
FOLLOWS = Standing()
Make = Callable[[Pool], PodLabel]


@pytest.fixture
async def make(site: Site, said: Said) -> AsyncIterator[Make]:
    made: list[PodLabel] = []

    def one(pool: Pool) -> PodLabel:
        made.append(PodLabel(KEY, "leader", "follower", "web-0", site.namespace, pool, said.log))
        return made[-1]

    yield one
    for label in made:
        await label.finish(0)


async def settled(label: PodLabel) -> None:
    await eventually(lambda: label.is_settled, "it is written")


def role(site: Site) -> str | None:
    found: str | None = site.pod()["metadata"]["labels"].get(KEY)
    return found


async def test_it_follows_leadership_with_no_more_than_the_verb_patch(site: Site, said: Said, make: Make) -> None:
    """Least privilege; other labels are not touched."""
    site.create_pod(app="web")
    label = make(await site.poor_pool({"pods": ("patch",)}))
    for standing, value in ((FOLLOWS, "follower"), (LEADS, "leader"), (FOLLOWS, "follower")):
        label.note(standing)
        await settled(label)
        assert site.pod()["metadata"]["labels"] == {"app": "web", KEY: value}
    assert said.warnings == []


async def test_what_a_crash_has_left_is_corrected_at_the_start(site: Site, make: Make) -> None:
    """The container was a leader when it died, and is a follower now."""
    site.create_pod(**{KEY: "leader"})
    label = make(await site.pool())
    label.note(FOLLOWS)
    await settled(label)
    assert role(site) == "follower"


async def test_it_does_not_fight_with_others(site: Site, make: Make) -> None:
    """Whoever writes another value means it; ours comes back with our next change only."""
    site.create_pod()
    label = make(await site.pool())
    label.note(LEADS)
    await settled(label)
    site.call("PATCH", "/api/v1/namespaces/NS/pods/web-0", {"metadata": {"labels": {KEY: "canary"}}})
    version = site.pod()["metadata"]["resourceVersion"]
    for renewed_at in range(20):
        label.note(Standing(leads=True, token=7, renewed_at=float(renewed_at)))
        assert label.is_settled
    assert site.pod()["metadata"]["resourceVersion"] == version and role(site) == "canary"
    label.note(FOLLOWS)
    await settled(label)
    assert role(site) == "follower"


async def test_a_missing_right_is_one_warning(site: Site, said: Said, make: Make) -> None:
    """It names the verb, and every further change goes on without a word; once it is allowed it works."""
    site.create_pod()
    label = make(await site.pool("tester-token"))
    for _ in range(3):
        for standing in (FOLLOWS, LEADS):
            label.note(standing)
            await settled(label)
    assert said.warnings == [f"not allowed to patch pods in namespace {site.namespace}"]
    await site.poor_pool({"pods": ("patch",)})
    label.note(FOLLOWS)
    await settled(label)
    assert role(site) == "follower" and len(said.warnings) == 1


async def test_a_pod_that_does_not_exist_is_one_warning(site: Site, said: Said, make: Make) -> None:
    """A name that is wrong: outside of a pod, say."""
    label = make(await site.pool())
    for standing in (FOLLOWS, LEADS, FOLLOWS):
        label.note(standing)
        await settled(label)
    (warning,) = said.warnings
    assert warning.startswith(f"cannot patch pods {site.namespace}/web-0: not found (404)")


async def test_the_last_word_arrives_last(site: Site, make: Make) -> None:
    """Two changes within one request: the second waits until the first has ended, and cannot overtake it."""
    site.create_pod()
    proxy = await site.holding()
    label = make(await site.pool(port=proxy.port))
    label.note(FOLLOWS)
    await settled(label)
    proxy.hold_present()
    label.note(LEADS)
    await eventually(proxy.caught.is_set, "the first is on its way")
    patches = answered(site, "pods")
    label.note(FOLLOWS)
    with suppress(AssertionError):
        await eventually(lambda: label.is_settled, "the second has overtaken the first", 1.0)
    proxy.release()
    await settled(label)
    await eventually(lambda: answered(site, "pods") >= patches + 2, "both have arrived")
    assert role(site) == "follower"
