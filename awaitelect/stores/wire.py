"""A record as a Lease object, the form in which every store keeps it.

Nothing here raises: an object written by somebody else says what can be understood of it, and keeps the rest.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from awaitelect.core.lease import Record

INSTANCE = "awaitelect.io/instance"
HOLDER = "awaitelect.io/holder"
RELEASED_BY = "awaitelect.io/released-by"

_MOST = 2**31 - 1
"""Kubernetes' int32; a number beyond it was not written by a Lease client."""


def parse_record(lease: Any) -> Record:
    """What the object says. A missing, odd or absurd value reads as not said: empty, 0 or None."""
    spec = _mapping(_mapping(lease).get("spec"))
    annotations = _mapping(_mapping(_mapping(lease).get("metadata")).get("annotations"))
    return Record(
        holder=_text(spec.get("holderIdentity")),
        duration=_count(spec.get("leaseDurationSeconds")),
        acquire_time=_time(spec.get("acquireTime")),
        renew_time=_time(spec.get("renewTime")),
        transitions=_count(spec.get("leaseTransitions")),
        instance=_text(annotations.get(INSTANCE)),
        instance_holder=_text(annotations.get(HOLDER)),
        released_by=_text(annotations.get(RELEASED_BY)),
    )


def merge_record(lease: Any, record: Record) -> dict[str, Any]:
    """A new object that says what the record says and, for the rest, what `lease` said."""
    merged = dict(_mapping(lease))
    metadata = dict(_mapping(merged.get("metadata")))
    spec = dict(_mapping(merged.get("spec")))
    spec["holderIdentity"] = record.holder
    spec["leaseTransitions"] = record.transitions
    # A duration of zero is refused by the API server: not said is how it is written.
    _put(spec, "leaseDurationSeconds", record.duration)
    _put(spec, "acquireTime", format_time(record.acquire_time))
    _put(spec, "renewTime", format_time(record.renew_time))
    annotations = dict(_mapping(metadata.get("annotations")))
    _put(annotations, INSTANCE, record.instance)
    _put(annotations, HOLDER, record.instance_holder)
    _put(annotations, RELEASED_BY, record.released_by)
    _put(metadata, "annotations", annotations)
    merged["metadata"] = metadata
    merged["spec"] = spec
    return merged


def format_time(instant: datetime | None) -> str:
    """RFC 3339 in UTC, always with six decimals: the API server refuses a MicroTime without them. Empty for None."""
    if instant is None:
        return ""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_version(text: Any) -> int:
    """A resourceVersion as a number; 0 where it is none."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) < 20 else 0


def _put(target: dict[str, Any], key: str, value: Any) -> None:
    if value:
        target[key] = value
    else:
        target.pop(key, None)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 < value <= _MOST else 0


def _time(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
