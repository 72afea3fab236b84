"""A candidate that does what client-go does: its algorithm, its waits, its wire format. It imports nothing of ours.

    candidate.py RECORDS NAME SERVER CA TOKEN NAMESPACE LEASE DURATION DEADLINE RETRY

What it does while it leads stands in RECORDS, in the words of the actor: start, beat, end. SIGTERM is a clean end with
a release. It waits in small steps and looks for a signal before each sign of life, so that one that was stopped shows
none after its end was asked for.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import ssl
import sys
import time
from datetime import UTC, datetime
from typing import Any

STEP = 0.01
JITTER = 1.2


class Candidate:
    def __init__(self, words: list[str]) -> None:
        path, self.me, server, ca, self.token, namespace, self.name, duration, deadline, retry = words
        self.records = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.server, self.tls = server, ssl.create_default_context(cafile=ca)
        self.leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self.duration, self.deadline, self.retry = float(duration), float(deadline), float(retry)
        self.record: dict[str, Any] = {}  # observedRecord
        self.raw = ""
        self.observed_at = 0.0
        self.lease: dict[str, Any] = {}  # the lock's cached object
        self.is_ended = False
        self.run = ""
        signal.signal(signal.SIGTERM, self.end)

    def end(self, number: int, frame: object) -> None:
        self.is_ended = True

    # ------------------------------------------------------------------ the lock

    def call(self, method: str, body: Any = None) -> tuple[int, Any]:
        """The status, 0 for none, and the object."""
        target = self.leases if method == "POST" else f"{self.leases}/{self.name}"
        connection = http.client.HTTPSConnection(self.server, context=self.tls, timeout=self.deadline / 2)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        try:
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, ValueError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()

    def get(self) -> int:
        status, lease = self.call("GET")
        if status == 200:
            self.lease = lease
        return status

    def put(self, record: dict[str, Any]) -> bool:
        self.lease["spec"] = spec_of(record)
        status, lease = self.call("PUT", self.lease)
        if status == 200:
            self.lease = lease
        return status == 200

    def post(self, record: dict[str, Any]) -> bool:
        status, lease = self.call("POST", {"metadata": {"name": self.name}, "spec": spec_of(record)})
        if status == 201:
            self.lease = lease
        return status == 201

    # ------------------------------------------------------------------ the elector

    @property
    def is_leader(self) -> bool:
        return bool(self.record) and self.record["holderIdentity"] == self.me

    def observe(self, record: dict[str, Any]) -> None:
        self.record, self.observed_at = record, time.monotonic()

    def is_valid(self) -> bool:
        return self.observed_at + self.record["leaseDurationSeconds"] > time.monotonic()

    def try_acquire_or_renew(self) -> bool:
        now = datetime.now(UTC)
        mine = {
            "holderIdentity": self.me,
            "leaseDurationSeconds": int(self.duration),
            "renewTime": now,
            "acquireTime": now,
            "leaderTransitions": 0,
        }
        if self.is_leader and self.is_valid():
            fast = {**mine, "acquireTime": self.record["acquireTime"]}
            fast["leaderTransitions"] = self.record["leaderTransitions"]
            if self.put(fast):
                self.observe(fast)
                return True
        status = self.get()
        if status == 404:
            if not self.post(mine):
                return False
            self.observe(mine)
            return True
        if status != 200:
            return False
        seen = record_of(self.lease)
        raw = raw_of(seen)
        if raw != self.raw:
            self.observe(seen)
            self.raw = raw
        if seen["holderIdentity"] and self.is_valid() and not self.is_leader:
            return False
        if self.is_leader:
            mine["acquireTime"] = self.record["acquireTime"]
            mine["leaderTransitions"] = self.record["leaderTransitions"]
        else:
            mine["leaderTransitions"] = seen["leaderTransitions"] + 1
        if not self.put(mine):
            return False
        self.observe(mine)
        return True

    def acquire(self) -> None:
        while not self.is_ended and not self.try_acquire_or_renew():
            self.wait(self.retry * (1 + random.random() * JITTER))

    def renew(self) -> None:
        while not self.is_ended:
            began = time.monotonic()
            while not self.try_acquire_or_renew():
                self.wait(self.retry)
                if self.is_ended or time.monotonic() - began > self.deadline:
                    return
            self.wait(self.retry)

    def release(self) -> None:
        while self.is_leader and self.get() == 200:
            now = datetime.now(UTC)
            empty = {
                "holderIdentity": "",
                "leaseDurationSeconds": 1,
                "renewTime": now,
                "acquireTime": now,
                "leaderTransitions": self.record["leaderTransitions"],
            }
            if self.put(empty):
                self.observe(empty)

    # ------------------------------------------------------------------ its work

    def wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.is_ended and time.monotonic() < until:
            if self.run:
                self.note("beat")
            time.sleep(STEP)

    def note(self, what: str) -> None:
        line = f"{time.clock_gettime_ns(time.CLOCK_BOOTTIME)} {self.me} {self.run} {os.getpid()} {what} -\n"
        os.write(self.records, line.encode())

    def main(self) -> None:
        self.acquire()
        if self.is_ended:
            return
        self.run = f"{self.me}-{os.getpid()}-{time.monotonic_ns()}"
        self.note("start")
        self.renew()
        self.run = ""  # the command of this candidate is gone as soon as its end is asked for
        self.release()


def spec_of(record: dict[str, Any]) -> dict[str, Any]:
    """As it is written: microseconds, UTC, the two newer fields only where they are not empty."""
    spec = {
        "holderIdentity": record["holderIdentity"],
        "leaseDurationSeconds": record["leaseDurationSeconds"],
        "acquireTime": record["acquireTime"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "renewTime": record["renewTime"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "leaseTransitions": record["leaderTransitions"],
    }
    return spec | {key: record[key] for key in ("strategy", "preferredHolder") if record.get(key)}


def record_of(lease: dict[str, Any]) -> dict[str, Any]:
    spec = lease.get("spec") or {}
    never = datetime.fromtimestamp(0, UTC)
    return {
        "holderIdentity": spec.get("holderIdentity", ""),
        "leaseDurationSeconds": spec.get("leaseDurationSeconds", 0),
        "acquireTime": datetime.fromisoformat(spec["acquireTime"]) if "acquireTime" in spec else never,
        "renewTime": datetime.fromisoformat(spec["renewTime"]) if "renewTime" in spec else never,
        "leaderTransitions": spec.get("leaseTransitions", 0),
        "strategy": spec.get("strategy", ""),
        "preferredHolder": spec.get("preferredHolder", ""),
    }


def raw_of(record: dict[str, Any]) -> str:
    """Its times have whole seconds: two renewals within one look the same."""
    cut = {key: one.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(one, datetime) else one for key, one in record.items()}
    return json.dumps(cut, sort_keys=True)


if __name__ == "__main__":
    Candidate(sys.argv[1:]).main()
