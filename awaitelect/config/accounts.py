"""Users and groups, looked up: their numbers, and the variables that a login would set.

Boundary: only this module asks the system's user database, which may block for as long as a network directory likes.
"""

from __future__ import annotations

import os

from awaitelect.config.kinds import suggestion
from awaitelect.values import Value

_NO_LOGIN = {"nologin", "false", "true"}


class Unknown(Exception):
    """There is no such user or group; the text says what would be accepted."""


class Account(Value):
    """A user of this machine."""

    name: str
    uid: int
    gid: int | None
    """None: a number without an entry in the user database."""
    home: str = "/"
    shell: str = ""

    def login(self) -> dict[str, str]:
        """HOME, USER and LOGNAME, and SHELL unless it lets nobody in; as systemd sets them with User=."""
        variables = {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}
        if self.shell.startswith("/") and os.path.basename(self.shell) not in _NO_LOGIN:
            variables["SHELL"] = self.shell
        return variables

    def groups(self, gid: int) -> list[int]:
        """The supplementary groups that a login with this main group would have."""
        return [gid] if self.gid is None else os.getgrouplist(self.name, gid)


def account(user: str | int) -> Account:
    """The user of this name or number. Raises Unknown for a name that nobody has."""
    import pwd  # few have need of it

    try:
        entry = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except (KeyError, ValueError):
        if isinstance(user, int):
            return Account(str(user), user, None)
        raise Unknown(f"a user of this machine{suggestion(user, _names('/etc/passwd'))}") from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir or "/", entry.pw_shell)


def group_number(group: str | int) -> int:
    """The number of the group of this name or number. Raises Unknown for a name that no group has."""
    import grp

    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise Unknown(f"a group of this machine{suggestion(group, _names('/etc/group'))}") from None


def _names(path: str) -> list[str]:
    """The names of a local database: to list those of a network directory can take minutes."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.split(":")[0] for line in file]
    except OSError:
        return []
