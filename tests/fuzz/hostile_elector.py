"""Electors that say what they like, and a keeper that has some of them before it gets a sound one.

hostile_elector.py keeper FOLDER SEED CONFIG COMMAND…    the keeper
hostile_elector.py -P -m awaitelect.elector              what it takes for its elector: the descriptor 3 is the socket
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
from pathlib import Path

HOSTILE = 4
"""So many before the sound one."""
FOLDER, SEED = "HOSTILE_FOLDER", "HOSTILE_SEED"


def main() -> None:
    if sys.argv[1] == "keeper":
        folder, seed, config, *command = sys.argv[2:]
        program = Path(folder) / "python"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
        program.chmod(0o755)
        os.environ |= {FOLDER: folder, SEED: seed}
        sound = sys.executable
        sys.executable = str(program)  # by which it starts its electors
        from awaitelect.cli import main as awaitelect

        os.environ["HOSTILE_SOUND"] = sound
        sys.argv = ["awaitelect", "-c", config, "--", *command]
        awaitelect()
    count = Path(os.environ[FOLDER]) / "count"
    before = len(count.read_text()) if count.exists() else 0
    if before >= HOSTILE:
        os.execv(os.environ["HOSTILE_SOUND"], [os.environ["HOSTILE_SOUND"], *sys.argv[1:]])
    count.write_text("x" * (before + 1))
    _say(random.Random(f"{os.environ[SEED]}/{before}"))


def _say(chance: random.Random) -> None:
    with socket.socket(fileno=3) as keeper:
        keeper.setblocking(True)
        hello = json.loads(keeper.recv(131_072))
        sound = {"is": "Settings", "command": {"argv": hello["command"] or ["true"], "termination_lines": 0}}
        messages = [json.dumps(sound).encode()]
        messages += [_message(chance, sound) for _ in range(chance.randrange(1, 12))]
        messages.append(b'{"is":"Grant","number":[],"term_by":0,"kill_by":0}')
        try:
            for message in messages:
                keeper.send(message)
            while keeper.recv(131_072):
                pass
        except OSError:
            pass


def _message(chance: random.Random, settings: dict[str, object]) -> bytes:
    """Of kinds and of fields that exist, with what may or may not fit. No grant that lets anything start."""
    odd = ["x", "", -1, 0, 1, 99, 2**63, 2**80, 1.5, None, True, [], {}, [1], {"A": "b"}, {"a": 1}, ["true"]]
    sound: list[dict[str, object]] = [
        {"is": "Grant", "number": chance.randrange(5), "term_by": 1, "kill_by": 2, "may_start": chance.random() < 0.5},
        {"is": "Stop", "cause": "lease_lost", "grace": chance.random() < 0.5},
        {"is": "Alive", "state": "follower", "status": "x" * chance.randrange(5000)},
        {"is": "Drained"},
        {"is": "Ready"},
        {"is": "Gone", "number": 3, "cause": "finished"},
        {"is": "Hello", "instance": "x", "number": 0},
        {"is": "Ack", "number": 7},
        {"is": "Failed", "reason": "for no reason"},
        {"is": "Novelty"},
        settings,
    ]
    message = dict(chance.choice(sound))
    if chance.random() < 0.15:
        message[chance.choice(sorted(message))] = chance.choice(odd)
    raw = json.dumps(message).encode()
    if chance.random() < 0.05:
        raw = raw[: chance.randrange(1, len(raw))]
    return raw


if __name__ == "__main__":
    main()
