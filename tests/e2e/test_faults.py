"""Faults that come in pairs, or in the wrong moment: each once let two commands run, or ended what was well."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import yaml

from awaitelect.keeper.elector import Elector
from awaitelect.keeper.launch import launch
from awaitelect.protocol import Hello, Leave, encode
from tests.e2e.instances import Fleet, is_alive, kill
from tests.e2e.locks import Lock

LONG = {"lease_duration": 6, "renew_deadline": 4.5, "retry_period": 0.4, "kill_margin": 0.5}


def changed(fleet: Fleet, name: str, **sections: dict[str, object]) -> None:
    """Edit the configuration file of a running instance."""
    path = fleet.folder / f"{name}.yaml"
    settings = yaml.safe_load(path.read_text())
    for section, values in sections.items():
        settings[section] = {**settings.get(section, {}), **values}
    path.write_text(yaml.safe_dump(settings))


def test_an_election_that_is_switched_off_while_the_command_runs_starts_no_second_command(
    fleet: Fleet, file_lock: Lock
) -> None:
    """The file is read again by the next elector; the keeper must not become the command beside the one it has."""
    # Between the stop and the kill there is time, on a busy machine too.
    one = fleet.start("one", file_lock, settings={"election": {**LONG, "lease_duration": 10}})
    start = one.started()
    changed(fleet, "one", election={"enabled": False})
    kill(one.elector)
    one.says("needs a restart")
    assert one.ends() == 78
    assert not is_alive(start.pid)
    assert len(one.entries("start")) == 1 and one.signals() == [signal.SIGTERM]


def test_a_lock_that_is_changed_while_the_command_runs_is_refused(
    fleet: Fleet, file_lock: Lock, tmp_path: Path
) -> None:
    """Those who share the old lock would start when it runs out, while the command goes on under the new one."""
    one = fleet.start("one", file_lock, settings={"election": LONG})
    start = one.started()
    other = fleet.start("other", file_lock, settings={"election": LONG})
    other.follows()
    changed(fleet, "one", lock={"path": str(tmp_path / "elsewhere")})
    kill(one.elector)
    one.says("the lock has changed")
    other.started()
    assert not is_alive(start.pid)
    assert one.ends() == 78


def test_a_command_line_too_long_for_the_elector_is_said(file_lock: Lock, tmp_path: Path) -> None:
    """Not a silent wait for an elector that was never greeted."""
    words = ["true", *("x" * 100_000 for _ in range(3))]
    run = [str(Path(sys.executable).parent / "awaitelect"), "--lock", f"file:{tmp_path}/l", "--", *words]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78 and "command line is longer" in done.stderr


def test_last_words_are_heard_of_an_elector_that_left_something_unread() -> None:
    """The kernel says ECONNRESET once before it hands out what the other end had sent."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    elector = Elector()
    elector.spawn(Hello("instance", 0), 0.0, (os.getpid(), ours.detach()))
    theirs.send(encode(Leave(75)))
    theirs.close()
    assert list(elector.receive(1.0)) == [Leave(75)]
    assert elector.fileno() == -1


def test_an_elector_knows_its_keeper_even_if_another_has_adopted_it() -> None:
    """Else it would kill whoever has, in the keeper's place."""
    script = "import socket, os; from awaitelect.elector.channel import Channel; print(Channel(3).keeper)"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        shell = f'exec 3<&{theirs.fileno()}; {json.dumps(sys.executable)} -c "{script}"; true'
        done = subprocess.run(
            ["bash", "-c", shell], pass_fds=[theirs.fileno()], capture_output=True, text=True, check=True
        )
    assert int(done.stdout) == os.getpid()


def test_an_elector_that_nobody_greets_ends() -> None:
    """Its keeper has died before it could."""
    pid, fd = launch()
    os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
