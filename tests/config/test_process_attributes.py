"""User, groups, limits and priority of the command: what is said of them before anything is contended for."""

from __future__ import annotations

import grp
import os
import pwd
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from awaitelect.attributes import UNLIMITED, Attributes
from awaitelect.config.check import render
from awaitelect.config.kinds import shown
from awaitelect.config.sources import Loaded, load
from awaitelect.errors import ConfigError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the user")

NOBODY = pwd.getpwnam("nobody")
OURS = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def loaded(environ: dict[str, str]) -> Loaded:
    return load({"lock": "file:/x"}, ["a"], {f"AWAITELECT_{name}": text for name, text in environ.items()})


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(environ)
    return caught.value.problems


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"USER": "nobod"}, "AWAITELECT_USER: user: found 'nobod', expected a user of this machine; did you mean "
         "'nobody'?"),
        ({"USER": "a b"}, "AWAITELECT_USER: user: found 'a b', expected the name of a user, or its number from 0 to "
         "4294967294"),
        ({"GROUP": "nogrup"}, "AWAITELECT_GROUP: group: found 'nogrup', expected a group of this machine; did you mean "
         "'nogroup'?"),
        ({"SUPPLEMENTARY_GROUPS": "[root, zzzzz]"}, "AWAITELECT_SUPPLEMENTARY_GROUPS: supplementary_groups[1]: found "
         "'zzzzz', expected a group of this machine"),
        ({"SUPPLEMENTARY_GROUPS": "root"}, "AWAITELECT_SUPPLEMENTARY_GROUPS: supplementary_groups: found 'root', "
         "expected a list of groups such as [audio, 1000], or [] for none"),
        ({"ULIMITS": "{nofiles: 5}"}, "AWAITELECT_ULIMITS: ulimits.nofiles: found the key 'nofiles', expected the name "
         "of a limit; did you mean 'nofile'?"),
        ({"ULIMITS": "{nofile: -1}"}, "AWAITELECT_ULIMITS: ulimits.nofile: found the number -1, expected a whole "
         "number that is not negative, or unlimited, or a mapping such as {soft: 1024, hard: unlimited}"),
        ({"ULIMITS": "{core: {soft: 2, hard: 1}}"}, "AWAITELECT_ULIMITS: ulimits.core: found soft 2 and hard 1, "
         "expected soft to be at most hard"),
        ({"ULIMITS": "{core: {soft: unlimited, hard: 1}}"}, "AWAITELECT_ULIMITS: ulimits.core: found soft unlimited "
         "and hard 1, expected soft to be at most hard"),
        ({"ULIMITS": "{core: {sft: 2}}"}, "AWAITELECT_ULIMITS: ulimits.core.sft: found the key 'sft', expected soft or "
         "hard; did you mean 'soft'?"),
        ({"ULIMITS": "{core: {}}"}, "AWAITELECT_ULIMITS: ulimits.core: found an empty mapping, expected soft, hard, or "
         "both"),
        ({"ULIMITS": f"{{nofile: {{soft: {OURS + 1}}}}}"}, f"AWAITELECT_ULIMITS: ulimits.nofile: found soft "
         f"{OURS + 1}, expected at most {OURS}, the hard limit of awaitelect itself, or hard too"),
        ({"NICE": "20"}, "AWAITELECT_NICE: nice: found the number 20, expected a whole number from -20 to 19"),
        ({"OOM_SCORE_ADJ": "-1001"}, "AWAITELECT_OOM_SCORE_ADJ: oom_score_adj: found the number -1001, expected a "
         "whole number from -1000 to 1000"),
        ({"WORKING_DIR": "/no/such"}, "AWAITELECT_WORKING_DIR: working_dir: found '/no/such', expected a directory "
         "that awaitelect can enter (no such file or directory, errno 2)"),
        ({"WORKING_DIR": "/etc/passwd"}, "AWAITELECT_WORKING_DIR: working_dir: found '/etc/passwd', expected a "
         "directory that awaitelect can enter (not a directory, errno 20)"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_told(environ: dict[str, str], problem: str) -> None:
    """S8: a typing error must not cost anybody an attempt to start."""
    assert problems(environ) == [problem]


@needs_root
def test_all_that_cannot_be_had_is_told_at_once(tmp_path: Path) -> None:
    """Each start that fails costs somebody a deployment."""
    nr_open = int(Path("/proc/sys/fs/nr_open").read_text())
    tmp_path.chmod(0o700)
    assert problems({"USER": "nobody", "WORKING_DIR": str(tmp_path), "ULIMITS": f"{{nofile: {nr_open + 1}}}"}) == [
        f"AWAITELECT_ULIMITS: ulimits.nofile: found {nr_open + 1}, expected at most {nr_open}, which is fs.nr_open of "
        "this kernel; more takes the capability SYS_RESOURCE (operation not permitted, errno 1)",
        f"AWAITELECT_WORKING_DIR: working_dir: found {shown(str(tmp_path))}, expected a directory that the user nobody "
        "can enter (permission denied, errno 13)",
    ]


def as_other(script: str, *prefix: str) -> str:
    """What a process with fewer rights finds."""
    code = (
        "import json, sys\nfrom awaitelect.config.sources import load\nfrom awaitelect.errors import ConfigError\n"
        "try:\n"
        "    found = load({'lock': 'file:/x'}, ['a'], json.loads(sys.argv[1]))\n"
        "    print('\\n'.join(found.warnings) + repr(found.attributes))\n"
        "except ConfigError as error:\n    print('\\n'.join(error.problems))\n"
    )
    done = subprocess.run([*prefix, sys.executable, "-c", code, script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


@needs_root
@pytest.mark.parametrize(
    ("setting", "text", "hint"),
    [
        ("USER", "daemon", "the user that awaitelect runs as, 65534, or awaitelect to run as root with the "
         "capabilities SETUID, SETGID and KILL"),
        ("USER", "0", "or awaitelect to run as root"),
        ("GROUP", "daemon", "expected that of awaitelect itself, 65534, or the capability SETGID for it (operation not "
         "permitted, errno 1)"),
        ("SUPPLEMENTARY_GROUPS", "[daemon]", "expected the groups of awaitelect itself, or the capability SETGID"),
        ("NICE", "-5", "as awaitelect itself has; less takes the capability SYS_NICE (permission denied, errno 13)"),
        ("OOM_SCORE_ADJ", "-900", "as awaitelect itself has; less takes the capability SYS_RESOURCE (permission "
         "denied, errno 13)"),
        ("ULIMITS", "{nofile: 900000000}", "the capability SYS_RESOURCE (operation not permitted, errno 1)"),
        ("WORKING_DIR", "/root", "expected a directory that awaitelect can enter (permission denied, errno 13)"),
    ],
)  # fmt: skip
def test_without_the_rights_for_it_a_setting_is_refused(setting: str, text: str, hint: str) -> None:
    """S8: before any lease is contended for, as another instance may be able to run the command."""
    if setting == "WORKING_DIR" and os.stat("/root").st_mode & 0o001:
        pytest.skip("everybody may enter /root here")
    found = as_other(f'{{"AWAITELECT_{setting}": "{text}"}}', *AS_NOBODY)
    assert found.startswith(f"AWAITELECT_{setting}: {setting.lower()}") and hint in found and "\n" not in found


@needs_root
def test_a_root_that_may_not_signal_other_users_may_not_change_the_user() -> None:
    """Its command could not be stopped, and the next leader would start beside it."""
    found = as_other('{"AWAITELECT_USER": "nobody"}', "setpriv", "--bounding-set=-kill", "--inh-caps=-kill")
    assert "SETUID, SETGID and KILL" in found


@needs_root
def test_a_root_that_may_not_look_into_other_users_processes_is_warned() -> None:
    """The mark of what a killed keeper leaves behind cannot be read then."""
    found = as_other('{"AWAITELECT_USER": "nobody"}', "setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")
    assert found.startswith("AWAITELECT_USER: user: awaitelect has not the capability SYS_PTRACE")
    assert "SYS_PTRACE" not in as_other('{"AWAITELECT_USER": "nobody"}')


@needs_root
def test_our_own_user_takes_no_rights() -> None:
    """A container that is started as the user of its command may say so in its file too."""
    assert as_other('{"AWAITELECT_USER": "nobody", "AWAITELECT_GROUP": "nogroup"}', *AS_NOBODY) == repr(
        Attributes(gid=grp.getgrnam("nogroup").gr_gid)
    )


@needs_root
def test_user_and_groups_become_numbers() -> None:
    """By name or number; the groups are those of a login unless others are given."""
    daemon = pwd.getpwnam("daemon")
    groups = os.getgrouplist("daemon", daemon.pw_gid)
    for user in ("daemon", str(daemon.pw_uid)):
        assert loaded({"USER": user}).attributes == Attributes(uid=daemon.pw_uid, gid=daemon.pw_gid, groups=groups)
    found = loaded({"USER": "daemon", "GROUP": "nogroup", "SUPPLEMENTARY_GROUPS": "[daemon, 4711]"}).attributes
    assert found == Attributes(uid=daemon.pw_uid, gid=grp.getgrnam("nogroup").gr_gid, groups=[daemon.pw_gid, 4711])
    assert loaded({"USER": "daemon", "SUPPLEMENTARY_GROUPS": "[]"}).attributes.groups == []


@needs_root
def test_a_number_without_an_account_needs_a_group() -> None:
    """Containers run as numbers that nobody has an entry for; which group they belong to nobody knows."""
    assert problems({"USER": "4711"}) == [
        "AWAITELECT_USER: user: found the number 4711, expected a user of this machine, or group too: its own is "
        "not known"
    ]
    found = loaded({"USER": "4711", "GROUP": "4712"})
    assert found.attributes == Attributes(uid=4711, gid=4712, groups=[4712])
    assert found.variables == {"HOME": "/", "USER": "4711", "LOGNAME": "4711"}


@needs_root
def test_the_users_variables_are_those_of_a_login_below_env_and_env_file(tmp_path: Path) -> None:
    """As systemd sets them with User=, where a shell that lets nobody in is none."""
    assert loaded({"USER": "nobody"}).variables == {"HOME": NOBODY.pw_dir, "USER": "nobody", "LOGNAME": "nobody"}
    assert loaded({"USER": "root"}).variables["SHELL"] == pwd.getpwnam("root").pw_shell
    file = tmp_path / "env"
    file.write_text("USER=file\nHOME=/file\n")
    found = loaded({"USER": "nobody", "ENV_FILE": str(file), "ENV": "{HOME: /env}"}).variables
    assert found == {"HOME": "/env", "USER": "file", "LOGNAME": "nobody"}
    assert loaded({}).variables == {}


def test_limits_are_pairs_of_numbers() -> None:
    """A number is both; what is not said of a pair stays, and the soft one never ends up above the hard one."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    limits = loaded({"ULIMITS": "{nofile: {soft: 5}, core: 0, cpu: {hard: 7}}"}).attributes.limits
    assert limits == {"nofile": [5, OURS], "core": [0, 0], "cpu": [7, 7]}
    limits = loaded({"ULIMITS": f"{{nofile: {{hard: {OURS}}}}}"}).attributes.limits
    assert limits == {"nofile": [soft, OURS]}
    if resource.getrlimit(resource.RLIMIT_CPU)[1] == resource.RLIM_INFINITY:
        assert loaded({"ULIMITS": "{cpu: unlimited}"}).attributes.limits == {"cpu": [UNLIMITED, UNLIMITED]}


def test_trying_changes_nothing_here(tmp_path: Path) -> None:
    """It is a child that takes the attributes on."""
    before = (os.getcwd(), resource.getrlimit(resource.RLIMIT_CORE), os.getpriority(os.PRIO_PROCESS, 0), os.getresuid())
    loaded({"WORKING_DIR": str(tmp_path), "ULIMITS": "{core: 0, as: 0, nofile: 0}", "NICE": "19", "UMASK": "077"})
    after = (os.getcwd(), resource.getrlimit(resource.RLIMIT_CORE), os.getpriority(os.PRIO_PROCESS, 0), os.getresuid())
    assert before == after


def test_what_has_run_before_is_not_tried_again(tmp_path: Path) -> None:
    """A directory that has vanished is no reason to end a command that was started in it."""
    environ = {"AWAITELECT_WORKING_DIR": str(tmp_path / "gone")}
    assert load({"lock": "file:/x"}, ["a"], environ, tries=False).attributes.working_dir == str(tmp_path / "gone")


def test_check_shows_limits_as_they_are_written() -> None:
    """And not the objects that stand for them."""
    text = render(loaded({"ULIMITS": "{core: 0, nofile: {soft: 5}}", "NICE": "19"}))
    assert "core 0; nofile soft 5" in text and "Limit(" not in text
