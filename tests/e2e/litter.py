"""A command that forks a hundred orphans twice removed, and ends well once its parent has reaped them all.

Of the parent's children only the command, the elector and the shim that waits may be left, and no zombie.
"""

import os
import random
import sys
import time

for _ in range(100):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(random.uniform(0, 0.3))
        os._exit(0)
    os.wait()
parent = os.getppid()
until = time.monotonic() + 20
left = []
while time.monotonic() < until:
    with open(f"/proc/{parent}/task/{parent}/children") as file:
        left = file.read().split()
    if len(left) <= 3:
        sys.exit(0)
    time.sleep(0.02)
sys.exit(f"{len(left)} children are left: {left}")
