"""From the settings to the numbers that the keeper gives the command's process, tried before anything is contended for.

What the kernel would refuse is found by asking it: a child of ours takes the attributes on and says where it failed.
"""

from __future__ import annotations

import os
from collections.abc import Container, Mapping

from awaitelect.attributes import Attributes, exceeds, in_child, limit_text, our_limits, refusals
from awaitelect.config.accounts import Account, Unknown, account, group_number
from awaitelect.config.attribute_kinds import Limit
from awaitelect.config.kinds import shown
from awaitelect.config.model import Settings
from awaitelect.values import Value, changed

KILL, SETGID, SETUID, PTRACE = 5, 6, 7, 19
"""Numbers of capabilities(7)."""

_CHANGES_USER = {SETUID, SETGID, KILL}


class Resolved(Value):
    """What the settings come to."""

    attributes: Attributes
    login: dict[str, str]
    """The variables of the command's user."""
    problems: list[str]
    warnings: list[str]


def resolve(settings: Settings, origins: Mapping[str, str], unknown: Container[str], tries: bool) -> Resolved:
    """The attributes, and why they cannot be had, one line each.

    `unknown`: the keys whose own value was refused. `tries`: ask the kernel too, which blocks while a working directory
    on a network file system does.
    """
    return _Resolution(settings, origins, unknown).resolved(tries)


class _Resolution:
    def __init__(self, settings: Settings, origins: Mapping[str, str], unknown: Container[str]) -> None:
        self._settings, self._origins, self._unknown = settings, origins, unknown
        self._problems: list[str] = []
        self._account: Account | None = None

    def resolved(self, tries: bool) -> Resolved:
        one = self._settings
        limits = {name: self._limit(name, limit) for name, limit in one.ulimits.items()}
        attributes = Attributes(
            limits={name: limit for name, limit in limits.items() if limit},
            nice=one.nice,
            oom_score_adj=one.oom_score_adj,
            working_dir=one.working_dir,
            umask=one.umask,
        )
        attributes = self._with_user(attributes)
        if tries:
            self._problems += self._refused(attributes)
        login = self._account.login() if self._account else {}
        return Resolved(attributes, login, self._problems, self._warnings(attributes))

    def _with_user(self, rest: Attributes) -> Attributes:
        """With numbers for user and groups, or without them where a name is nobody's."""
        one, before = self._settings, len(self._problems)
        gid = groups = None
        try:
            self._account = account(one.user) if one.user is not None else None
        except Unknown as error:
            self._tell("user", shown(one.user), str(error))
        try:
            gid = group_number(one.group) if one.group is not None else None
        except Unknown as error:
            self._tell("group", shown(one.group), str(error))
        if one.supplementary_groups is not None:
            groups = self._group_numbers(one.supplementary_groups)
        user = self._account
        changes = user is not None and user.uid != os.getuid()
        if user is not None and changes:
            if gid is None and user.gid is None and one.group is None and "group" not in self._unknown:
                self._tell("user", shown(one.user), "a user of this machine, or group too: its own is not known")
            gid = user.gid if gid is None else gid
            if groups is None and gid is not None:
                groups = user.groups(gid)
            if os.geteuid() != 0 or not capabilities() >= _CHANGES_USER:
                self._tell(
                    "user",
                    shown(one.user),
                    f"{_ourselves()}, or awaitelect to run as root with the capabilities SETUID, SETGID and KILL",
                )
        if len(self._problems) > before:
            return changed(rest, working_dir=None)  # whose rights would count is not known
        uid = user.uid if user is not None and changes else None
        return changed(rest, uid=uid, gid=gid, groups=groups)

    def _group_numbers(self, named: tuple[str | int, ...]) -> list[int]:
        found = []
        for at, group in enumerate(named):
            try:
                found.append(group_number(group))
            except Unknown as error:
                self._tell("supplementary_groups", shown(group), str(error), f"[{at}]")
        return found

    def _limit(self, name: str, limit: Limit) -> list[int]:
        """Soft and hard limit as numbers; nothing where they do not go together."""
        our_soft, our_hard = our_limits(name)
        hard = our_hard if limit.hard is None else limit.hard
        soft = limit.soft
        if soft is None:
            soft = hard if exceeds(our_soft, hard) else our_soft
        elif exceeds(soft, hard):  # the file has said the soft one alone
            self._tell("ulimits", f"soft {limit_text(soft)}", f"at most {self._ours(name)}, or hard too", f".{name}")
            return []
        return [soft, hard]

    @staticmethod
    def _ours(name: str) -> str:
        return f"{limit_text(our_limits(name)[1])}, the hard limit of awaitelect itself"

    def _refused(self, attributes: Attributes) -> list[str]:
        """What the kernel refuses."""
        if attributes == Attributes(umask=attributes.umask):
            return []
        try:
            found = in_child(lambda: refusals(attributes))
        except OSError:
            return []  # that is not the settings' fault: what is wrong with them shows at the start
        said = []
        for setting, number in found:
            what, expected = self._expectation(setting, attributes)
            said.append(f"{self._place(setting)}: found {what}, expected {expected} ({_reason(number)})")
        return said

    def _expectation(self, setting: str, attributes: Attributes) -> tuple[str, str]:
        one = self._settings
        key, _, name = setting.partition(".")
        if key == "ulimits":
            most = self._ours(name)
            if name == "nofile" and (ceiling := _nr_open()) is not None:
                if exceeds(attributes.limits[name][1], ceiling):
                    most = f"{ceiling}, which is fs.nr_open of this kernel"
            return str(one.ulimits[name]), f"at most {most}; more takes the capability SYS_RESOURCE"
        if key == "nice":
            least = os.getpriority(os.PRIO_PROCESS, 0)
            return str(one.nice), f"at least {least}, as awaitelect itself has; less takes the capability SYS_NICE"
        if key == "oom_score_adj":
            least = _our_oom_score_adj()
            more = "less takes the capability SYS_RESOURCE"
            return str(one.oom_score_adj), f"at least {least}, as awaitelect itself has; {more}"
        if key == "working_dir":
            whom = f"the user {self._account.name}" if self._account else "awaitelect"
            return shown(one.working_dir), f"a directory that {whom} can enter"
        if key == "group":
            given = one.group if one.group is not None else f"the group {attributes.gid} of the user {one.user}"
            return str(given), f"that of awaitelect itself, {os.getgid()}, or the capability SETGID for it"
        if key == "supplementary_groups":
            return str(attributes.groups), "the groups of awaitelect itself, or the capability SETGID for it"
        return shown(one.user), f"{_ourselves()}, or a user that awaitelect may become for good"

    def _warnings(self, attributes: Attributes) -> list[str]:
        if attributes.uid is None or os.getppid() == 1 or PTRACE in capabilities():
            return []
        return [
            f"{self._place('user')}: awaitelect has not the capability SYS_PTRACE and is not PID 1: should it be "
            "killed, it cannot find the processes that a command of another user has left behind"
        ]

    def _tell(self, key: str, found: str, expected: str, inside: str = "") -> None:
        if key not in self._unknown:
            self._problems.append(f"{self._place(key + inside)}: found {found}, expected {expected}")

    def _place(self, setting: str) -> str:
        """The origin of a setting and its name: of user, where it says what its groups are too."""
        key = setting.partition(".")[0].partition("[")[0]
        if getattr(self._settings, key) is None:
            key = setting = "user"
        return f"{self._origins[key]}: {setting}"


def capabilities() -> frozenset[int]:
    """The numbers of this process's effective capabilities (capabilities(7))."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        held = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    return frozenset(number for number in range(64) if held >> number & 1)


def _ourselves() -> str:
    return f"the user that awaitelect runs as, {os.getuid()}"


def _reason(number: int) -> str:
    return f"{os.strerror(number).lower()}, errno {number}"


def _nr_open() -> int | None:
    try:
        with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _our_oom_score_adj() -> int:
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        return int(file.read())
