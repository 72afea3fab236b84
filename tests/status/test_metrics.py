"""The metrics, as Prometheus' own parser reads them, and their list in the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from awaitelect.status import document
from awaitelect.status.metrics import METRICS, render
from awaitelect.status.snapshot import Counts, Histogram, Snapshot

ROOT = Path(__file__).parents[2]
NAME = 'weird "name"\\\n'
LEADER = Snapshot(
    "leader",
    "file:/x",
    "me",
    "me",
    15.0,
    98.5,
    is_ready=True,
    name=NAME,
    term_by=108.5,
    kill_by=112.5,
    token=4711,
    pid=42,
    restarts=2,
    electors=1,
    counts=Counts(
        terms=3,
        ends={"lease_lost": 2, "gave_up": 0},
        renewals={"success": 10, "conflict": 1, "error": 4},
        slow_renewals=5,
        renewal=Histogram((0.01, 0.1), (7, 2, 1), 1.5),
    ),
)
FOLLOWER = Snapshot("follower", "file:/x", "me", "other", 15.0, None, name=NAME)


def samples(snapshot: Snapshot) -> dict[str, float]:
    """Name and labels but for `name` → value."""
    found = {}
    for family in parse_text(render(snapshot, 100.0)[1].decode()):
        for sample in family.samples:
            assert sample.labels["name"] == NAME
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()) if key != "name")
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_a_leader_in_numbers() -> None:
    """Those of client-go have its names, so that dashboards for Go controllers show us too."""
    found = samples(LEADER)
    expected = {
        "leader_election_master_status": 1,
        "leader_election_slowpath_total": 5,
        "awaitelect_state{state=leader}": 1,
        "awaitelect_state{state=follower}": 0,
        "awaitelect_terms_total": 3,
        "awaitelect_terms_ended_total{cause=lease_lost}": 2,
        "awaitelect_terms_ended_total{cause=gave_up}": 0,
        "awaitelect_renewals_total{result=success}": 10,
        "awaitelect_renewals_total{result=conflict}": 1,
        "awaitelect_renewals_total{result=error}": 4,
        "awaitelect_renewal_duration_seconds_bucket{le=0.01}": 7,
        "awaitelect_renewal_duration_seconds_bucket{le=0.1}": 9,
        "awaitelect_renewal_duration_seconds_bucket{le=+Inf}": 10,
        "awaitelect_renewal_duration_seconds_count": 10,
        "awaitelect_renewal_duration_seconds_sum": 1.5,
        "awaitelect_last_renewal_age_seconds": 1.5,
        "awaitelect_lease_remaining_seconds": 13.5,
        "awaitelect_stop_remaining_seconds": 8.5,
        "awaitelect_command_running": 1,
        "awaitelect_command_ready": 1,
        "awaitelect_command_restarts_total": 2,
        "awaitelect_elector_restarts_total": 1,
    }
    assert {name: found.get(name) for name in expected} == expected


def test_a_follower_has_no_times_of_a_lease_that_it_does_not_hold() -> None:
    """A zero would read as one that has just been renewed."""
    found = samples(FOLLOWER)
    assert found["leader_election_master_status"] == 0 and found["awaitelect_command_running"] == 0
    assert not [name for name in found if "remaining" in name or "age" in name]


def test_openmetrics_reads_them_too() -> None:
    content_type, text = render(LEADER, 100.0, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert len(list(parse_openmetrics(text.decode()))) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_customs(metric: object) -> None:
    """prometheus.io/docs/practices/naming: a prefix, base units, `_total` for counters and only for them."""
    from awaitelect.status.metrics import Metric

    assert isinstance(metric, Metric)
    assert metric.name.startswith(("awaitelect_", "leader_election_"))
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(r"milli|micro|minute|percent", metric.name)
    if metric.kind == "histogram":
        assert metric.name.endswith("_seconds")
    assert metric.meaning.endswith(".") and "|" not in metric.meaning


def test_the_list_in_the_readme_is_made_from_the_metrics() -> None:
    """Renew it with: python -m awaitelect.status.document --write."""
    assert document.BLOCK.found_in((ROOT / "README.md").read_text(encoding="utf-8")) == document.BLOCK.text
