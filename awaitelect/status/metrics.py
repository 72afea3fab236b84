"""The metrics: what each is called, what it means, and its value in a snapshot.

Boundary: only this module imports prometheus_client, and only when somebody asks for metrics.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

from awaitelect import __version__
from awaitelect.core.machine import State
from awaitelect.status.snapshot import Histogram, Snapshot
from awaitelect.values import Value

Samples = Iterable[tuple[dict[str, str], Any]]
"""Labels beside `name`, and a value: a number, or a Histogram."""


class Metric(Value):
    """One metric. Each has the label `name`, the election's name, and those in `labels`."""

    name: str
    kind: str
    """gauge, counter or histogram."""
    meaning: str
    samples: Callable[[Snapshot, float], Samples]
    """Its samples in a snapshot, at an instant."""
    labels: tuple[str, ...] = ()


def _one(value: Callable[[Snapshot, float], Any]) -> Callable[[Snapshot, float], Samples]:
    """The only sample, which is left out where there is no value."""

    def samples(snapshot: Snapshot, now: float) -> Iterator[tuple[dict[str, str], Any]]:
        found = value(snapshot, now)
        if found is not None:
            yield {}, found

    return samples


def _until(instant: float | None, now: float) -> float | None:
    return None if instant is None else instant - now


METRICS: tuple[Metric, ...] = (
    Metric(
        "leader_election_master_status",
        "gauge",
        "1 on the instance that leads, else 0: client-go's metric, for dashboards that exist.",
        _one(lambda one, now: int(one.state == State.LEADER)),
    ),
    Metric(
        "leader_election_slowpath_total",
        "counter",
        "Renewals that had to read the lease first: client-go's metric.",
        _one(lambda one, now: one.counts.slow_renewals),
    ),
    Metric(
        "awaitelect_build_info",
        "gauge",
        "Always 1; the labels tell what runs.",
        lambda one, now: [({"version": __version__, "python_version": platform.python_version()}, 1)],
        ("version", "python_version"),
    ),
    Metric(
        "awaitelect_state",
        "gauge",
        "1 for the state of the state machine that the instance is in, 0 for the others.",
        lambda one, now: [({"state": state.value}, int(one.state == state)) for state in State],
        ("state",),
    ),
    Metric(
        "awaitelect_terms_total",
        "counter",
        "How often this instance has acquired the lease.",
        _one(lambda one, now: one.counts.terms),
    ),
    Metric(
        "awaitelect_terms_ended_total",
        "counter",
        "Terms that have ended, by the event that ended them.",
        lambda one, now: [({"cause": cause}, count) for cause, count in sorted(one.counts.ends.items())],
        ("cause",),
    ),
    Metric(
        "awaitelect_renewals_total",
        "counter",
        "Attempts to renew the lease, by result: success, conflict, error.",
        lambda one, now: [({"result": result}, count) for result, count in sorted(one.counts.renewals.items())],
        ("result",),
    ),
    Metric(
        "awaitelect_renewal_duration_seconds",
        "histogram",
        "From sending a renewal to its confirmation.",
        _one(lambda one, now: one.counts.renewal),
    ),
    Metric(
        "awaitelect_last_renewal_age_seconds",
        "gauge",
        "Time since the last confirmed renewal was sent; only where the lease is held.",
        _one(lambda one, now: None if one.renewed_at is None else now - one.renewed_at),
    ),
    Metric(
        "awaitelect_lease_remaining_seconds",
        "gauge",
        "Time until the lease runs out unless it is renewed; only where it is held.",
        _one(lambda one, now: None if one.renewed_at is None else one.renewed_at + one.lease_duration - now),
    ),
    Metric(
        "awaitelect_stop_remaining_seconds",
        "gauge",
        "Time until the command is stopped unless the lease is renewed; only where it is held.",
        _one(lambda one, now: _until(one.term_by, now)),
    ),
    Metric(
        "awaitelect_command_running",
        "gauge",
        "1 where the command runs, else 0.",
        _one(lambda one, now: int(one.pid > 0)),
    ),
    Metric(
        "awaitelect_command_ready",
        "gauge",
        "1 where the command runs and is ready for its users, else 0.",
        _one(lambda one, now: int(one.is_ready)),
    ),
    Metric(
        "awaitelect_command_restarts_total",
        "counter",
        "How often the command was started again; counted by the keeper, over all its electors.",
        _one(lambda one, now: one.restarts),
    ),
    Metric(
        "awaitelect_command_start_duration_seconds",
        "histogram",
        "From sending the write that acquired the lease to the command's running: our part of a hand-over.",
        _one(lambda one, now: one.counts.start),
    ),
    Metric(
        "awaitelect_step_down_duration_seconds",
        "histogram",
        "From the decision to step down to the lease's release, the command's stop in between: the other part.",
        _one(lambda one, now: one.counts.step_down),
    ),
    Metric(
        "awaitelect_elector_restarts_total",
        "counter",
        "How often the keeper has replaced its elector; the other counters begin at 0 with each one.",
        _one(lambda one, now: one.electors),
    ),
)


def is_prepared() -> bool:
    """What is needed has been imported."""
    return bool(_library.cache_info().currsize)


def prepare() -> None:
    """Import what is needed: some tens of milliseconds, once, best spent in a thread."""
    _library()


def render(snapshot: Snapshot, now: float, accepts: str = "") -> tuple[str, bytes]:
    """The content type and the text of all metrics: Prometheus' format, or OpenMetrics where `accepts` asks for it."""
    library = _library()
    encode, content_type = library.exposition.choose_encoder(accepts)
    text: bytes = encode(_Collected(_families(library, snapshot, now)))
    return content_type, text


class _Collected:
    """What the library takes for a registry."""

    def __init__(self, families: Iterable[Any]) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        return self._families


@cache
def _library() -> Any:
    import prometheus_client
    import prometheus_client.exposition
    import prometheus_client.metrics_core

    return prometheus_client


def _families(library: Any, snapshot: Snapshot, now: float) -> Iterator[Any]:
    kinds = {
        "gauge": library.metrics_core.GaugeMetricFamily,
        "counter": library.metrics_core.CounterMetricFamily,
        "histogram": library.metrics_core.HistogramMetricFamily,
    }
    for metric in METRICS:
        family = kinds[metric.kind](metric.name, metric.meaning, labels=("name", *metric.labels))
        for labels, value in metric.samples(snapshot, now):
            values = [snapshot.name, *(labels[label] for label in metric.labels)]
            if isinstance(value, Histogram):
                family.add_metric(values, buckets=_buckets(library, value), sum_value=value.total)
            else:
                family.add_metric(values, value)
        yield family


def _buckets(library: Any, histogram: Histogram) -> list[tuple[str, float]]:
    """Its buckets as Prometheus has them: each counts the smaller ones too."""
    below = 0
    found = []
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        below += count
        found.append((library.utils.floatToGoString(bound), float(below)))
    return found
