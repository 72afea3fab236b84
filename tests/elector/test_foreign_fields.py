"""A lease of newer servers, and a whole term on it: what others have put into its spec goes through our hands unharmed.

The server is scripted: one that is old enough drops what it does not know before anybody could lose it.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from awaitelect import protocol
from awaitelect.stores.kubernetes import KubernetesStore
from tests.elector.test_loop import PATIENCE, Rig
from tests.stores.scripted import Request, lease, raw, scripted, status

THEIRS = {"strategy": "OldestEmulationVersion", "preferredHolder": "", "example.org/unknown": {"deep": [1, None]}}


class Server:
    """Keeps one Lease whole, as a server does that knows coordinated leader election."""

    def __init__(self) -> None:
        self.lease = lease(7, holder="")
        self.lease["spec"] |= THEIRS
        self.written: list[dict[str, Any]] = []
        self.refused = 0

    async def play(self, request: Request) -> bytes:
        if request.is_watch:
            await asyncio.Event().wait()
        if request.method == "PUT":
            if request.body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                self.refused += 1
                return status(409, "Conflict")
            self.lease = request.body
            self.written.append(request.body["spec"])
            self.change()
        return raw(200, json.dumps(self.lease), "application/json")

    def change(self, **spec: Any) -> None:
        version = str(int(self.lease["metadata"]["resourceVersion"]) + 1)
        metadata = {**self.lease["metadata"], "resourceVersion": version}
        self.lease = {**self.lease, "metadata": metadata, "spec": {**self.lease["spec"], **spec}}


async def test_strategy_and_preferred_holder_outlive_a_whole_term(tmp_path: Path) -> None:
    """E12: acquired, renewed, changed by the server's own election under our hands, renewed over that, and released."""
    state = Server()
    async with scripted(state.play) as server:
        store = await KubernetesStore.connect("x", "ns", server.kubeconfig(tmp_path / "kubeconfig"))
        rig = Rig(tmp_path, store)  # type: ignore[arg-type]  # a lease in memory is what it has elsewhere
        running = asyncio.create_task(rig.loop.run())
        try:
            for number in (1, 2, 3, 4):
                grant = await rig.hear(protocol.Grant)
                assert isinstance(grant, protocol.Grant) and grant.number == number
                if number == 2:
                    state.change(preferredHolder="somebody")
                if number < 4:  # else a fifth could come after the word that nothing starts under the fourth
                    rig.say(protocol.Ack(number))
            rig.say(protocol.Shutdown(15))
            await rig.hear(protocol.Stop)
            rig.say(protocol.Gone(rig.election._grants.last_number, "shutdown", 0))
            await rig.hear(protocol.Leave)
            await asyncio.wait_for(running, PATIENCE)
        finally:
            running.cancel()
            await store.close()
            rig.close()
    assert state.refused == 1
    holders = [spec["holderIdentity"] for spec in state.written]
    assert holders[0] == "me" and holders[-1] == "" and len(holders) >= 5
    for spec in state.written:
        assert {key: spec[key] for key in THEIRS} == {**THEIRS, "preferredHolder": spec["preferredHolder"]}
    preferred = [spec["preferredHolder"] for spec in state.written]
    assert preferred == sorted(preferred) and set(preferred) == {"", "somebody"}, "what the server has set stays"
