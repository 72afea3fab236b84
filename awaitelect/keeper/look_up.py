"""A first look at the programs, before any lease is contended for: what counts is the exec itself."""

from __future__ import annotations

import errno
import os
import stat

from awaitelect.attributes import Attributes, NotApplied, apply, in_child
from awaitelect.errors import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND
from awaitelect.protocol import CommandSettings


def look_up_all(settings: CommandSettings) -> tuple[str, int] | None:
    """What could not be executed of the command and all that runs beside it, and the exit status for it."""
    programs = {"": settings.argv}
    programs |= {
        f"{'stop.command' if name == 'stop' else f'hooks.{name}'}: ": argv for name, argv in settings.hooks.items()
    }
    for key, probe in (("start.probe", settings.start_probe), ("probes.liveness", settings.liveness)):
        if probe and probe.kind == "exec":
            programs[f"{key}: "] = probe.argv
    for key, argv in programs.items():
        missing = look_up(argv[0], settings)
        if missing:
            return key + missing[0], missing[1]
    return None


def look_up(argv0: str, settings: CommandSettings) -> tuple[str, int] | None:
    """Why this program could not be executed if it were tried now, and the exit status for it; None if it could.

    It is looked at with the rights of the command's user.
    """
    user = Attributes(uid=settings.uid, gid=settings.gid, groups=settings.groups)
    if user == Attributes():
        return _look_up(argv0, settings)

    def as_the_user() -> tuple[str, int] | None:
        try:
            apply(user)
        except NotApplied:
            return None  # the start will tell
        return _look_up(argv0, settings)

    try:
        found = in_child(as_the_user)
    except OSError:
        return None
    return (str(found[0]), int(found[1])) if found else None


def _look_up(argv0: str, settings: CommandSettings) -> tuple[str, int] | None:
    path = settings.environment.get("PATH") or (os.environ.get("PATH") if settings.inherit_env else None)
    folders = [""] if "/" in argv0 else os.get_exec_path({"PATH": path} if path else {})
    refused = ""
    for folder in folders:
        file = os.path.join(settings.working_dir or "", folder, argv0)
        try:
            is_folder = stat.S_ISDIR(os.stat(file).st_mode)
            if not is_folder and os.access(file, os.X_OK, effective_ids=True):  # as the exec asks
                return None
            reason = f"{file} is {'a directory' if is_folder else 'not executable'}"
        except PermissionError:
            is_folder, reason = True, f"{file} is in a directory that its user may not enter"
        except OSError:
            continue
        if "/" in argv0 or not is_folder:  # in PATH a folder of the name is as good as nothing
            refused = refused or reason
    if refused:
        return f"cannot execute {argv0!r}: {refused} (errno {errno.EACCES})", EXIT_NOT_EXECUTABLE
    where = "no such file" if "/" in argv0 else f"not found in PATH ({path or os.defpath})"
    return f"cannot execute {argv0!r}: {where} (errno {errno.ENOENT})", EXIT_NOT_FOUND
