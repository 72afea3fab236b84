"""Nothing secret is in what awaitelect says: in its log at debug level, in its pages, in what it leaves behind."""

from __future__ import annotations

import os
import signal
import sys
import urllib.request
from pathlib import Path

import yaml

from tests.e2e.instances import LASTING, Fleet, eventually, kill
from tests.e2e.locks import Lock
from tests.status.test_http import free_port

SECRET = "sesame-open-sesame"


def test_no_secret_of_the_command_is_in_log_pages_or_termination_message(
    fleet: Fleet, file_lock: Lock, tmp_path: Path
) -> None:
    """Variables from the file, from an env_file and from our own environment; through a crash of the command and of the
    elector, and a configuration that is broken afterwards.
    """
    (tmp_path / "variables").write_text(f"FROM_FILE={SECRET}\n")
    port = free_port()
    one = fleet.start(
        "one",
        file_lock,
        settings={
            "election": LASTING,  # the elector's successor has time to start
            "env": {"PASSWORD": SECRET},
            "env_file": str(tmp_path / "variables"),
            "status": {"listen": f"127.0.0.1:{port}"},
            "termination_message": {"path": str(tmp_path / "message")},
        },
        environment={"INHERITED": SECRET},
    )
    first = one.started()
    environment = Path(f"/proc/{first.pid}/environ").read_bytes()
    assert all(f"{name}={SECRET}".encode() in environment for name in ("PASSWORD", "FROM_FILE", "INHERITED"))
    kill(first.pid)
    one.started(2)
    before = one.elector
    kill(before)
    one.other_elector(before)
    one.says("leading again")

    def pages() -> bytes:
        try:
            return b"".join(
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read()
                for path in ("/status", "/metrics", "/livez")
            )
        except OSError:
            return b""

    assert SECRET.encode() not in eventually(pages, "the pages are there")
    settings = yaml.safe_load((tmp_path / "one.yaml").read_text())
    (tmp_path / "one.yaml").write_text(yaml.safe_dump({**settings, "env": {"PASSWORD": [SECRET]}}))
    kill(one.elector)
    one.says("env.PASSWORD")
    one.tell(signal.SIGTERM)
    one.ends()
    assert SECRET not in one.stderr
    assert SECRET not in (tmp_path / "message").read_text()
    record = file_lock.record()
    assert record is not None and SECRET not in repr(record)


def test_no_credential_is_in_the_log(fleet: Fleet, tmp_path: Path) -> None:
    """A token, a plugin's answer and its complaints, a proxy's password, while nothing of it works."""
    plugin = tmp_path / "plugin"
    answer = f'{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": "{SECRET}"}}'
    plugin.write_text(f"#!{sys.executable}\nprint('''{answer}''')\n")
    plugin.chmod(0o755)
    users = {
        "token": {"token": SECRET},
        "plugin": {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}},
    }
    for name, user in users.items():
        cluster = {"server": "https://127.0.0.1:1"}
        if name == "token":
            cluster["proxy-url"] = f"http://somebody:{SECRET}@127.0.0.1:1"
        config = {
            "current-context": "c",
            "clusters": [{"name": "k", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        }
        path = tmp_path / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        lock = {"backend": "kubernetes", "name": "x", "kubeconfig": str(path)}
        one = fleet.start(name, None, settings={"lock": lock})
        one.says("cannot read the lease")
        before = one.elector
        os.kill(before, signal.SIGABRT)
        one.other_elector(before)
        one.says("cannot read the lease", times=2)
        one.tell(signal.SIGTERM)
        assert one.ends() == 0
        assert SECRET not in one.stderr
