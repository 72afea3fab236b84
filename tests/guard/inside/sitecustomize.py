"""What a test has done inside of a process of awaitelect: a loop, a hunger, a stop in mid-write, a jump of its clock.

On PYTHONPATH, each interpreter that awaitelect starts executes this before anything else. What it does is said by
variables and, at the moment that the test chooses, by files in the folder E2E_FOLDER. Whoever does what a file asks for
takes it away first, so that a successor is well.
"""

import ctypes
import os
import signal
import socket
import sys
import threading
import time

FOLDER = os.environ.get("E2E_FOLDER", "")
IS_ELECTOR = "awaitelect.elector" in sys.orig_argv
CLONE_NEWTIME = 0x80
GROWTH = 256 * 2**20
"""Bytes: several times the limit."""


def take(name: str) -> bool:
    """The test wants this now, and of us."""
    try:
        os.rename(f"{FOLDER}/{name}", f"{FOLDER}/{name}.taken")
    except FileNotFoundError:
        return False
    return True


def listen() -> None:
    """In a thread of the elector: go wrong when told to."""
    while True:
        if take("busy"):
            sum(range(10**15))  # in C, and the other threads wait for it
        if take("grow"):
            b"x" * GROWTH
        time.sleep(0.01)


def stop_in_write() -> None:
    """Stop ourselves in the middle of a write to the file store."""
    link, opened = os.link, os.open

    def open_or_stop(path, flags, *rest, **options):  # type: ignore[no-untyped-def]
        fd = opened(path, flags, *rest, **options)
        if ".draft-" in str(path) and take("stop at draft"):
            os.kill(os.getpid(), signal.SIGSTOP)
        return fd

    def link_or_stop(*arguments, **options):  # type: ignore[no-untyped-def]
        if take("stop before link"):
            os.kill(os.getpid(), signal.SIGSTOP)
        link(*arguments, **options)
        if take("stop after link"):
            os.kill(os.getpid(), signal.SIGSTOP)

    os.open, os.link = open_or_stop, link_or_stop


def jump() -> None:
    """When told to, go to the time namespace of a process, whose clocks have another offset, between two looks."""
    read = time.clock_gettime
    libc = ctypes.CDLL(None, use_errno=True)
    jumped = False

    def clock_gettime(clock: int) -> float:
        nonlocal jumped
        if not jumped and os.path.exists(f"{FOLDER}/jump"):
            jumped = True
            fd = os.open(f"{FOLDER}/jump", os.O_RDONLY)
            if libc.setns(fd, CLONE_NEWTIME) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            os.close(fd)
        return read(clock)

    time.clock_gettime = clock_gettime


def hand_over() -> None:
    """The test speaks in the elector's place: it gets the end of the socket, and nothing else happens here."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as to_test:
        to_test.connect(f"{FOLDER}/tap")
        socket.send_fds(to_test, [str(os.getpid()).encode()], [3])
    os.close(3)
    while True:
        signal.pause()


if os.environ.get("E2E_JUMPS"):
    jump()
if IS_ELECTOR and FOLDER:
    if os.path.exists(f"{FOLDER}/no elector"):
        os.kill(os.getpid(), signal.SIGKILL)
    if os.path.exists(f"{FOLDER}/tap"):
        hand_over()
    if os.environ.get("E2E_ELECTOR_STDERR"):
        os.dup2(os.open(os.environ["E2E_ELECTOR_STDERR"], os.O_RDWR), 2)
    if os.environ.get("E2E_WRITES"):
        stop_in_write()
    if not os.environ.get("E2E_JUMPS"):
        threading.Thread(target=listen, daemon=True).start()
