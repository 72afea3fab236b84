"""Stop a process while it writes: `stop_in_write.py FOLDER PID SECONDS`.

A writer of the file store has a draft with its pid in the name. Whoever is stopped and has one still is in the midst of
a write; whoever is not is continued, and stopped again at its next write. Status 0: it is stopped so; 1: it is not.
"""

import os
import signal
import sys
import time

folder, pid, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
draft = f".draft-{pid}-"
until = time.monotonic() + seconds


def writes() -> bool:
    try:
        return any(name.startswith(draft) for name in os.listdir(folder))
    except OSError:
        return False


def is_stopped() -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] == "T"


try:
    while time.monotonic() < until:
        if writes():
            os.kill(pid, signal.SIGSTOP)
            while not is_stopped():
                pass
            if writes():
                sys.exit(0)
            os.kill(pid, signal.SIGCONT)
except OSError:
    pass  # it has ended
sys.exit(1)
