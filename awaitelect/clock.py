"""The one clock: CLOCK_BOOTTIME.

It goes on while the machine sleeps, so that a date that passed during a suspend has passed when it wakes up, and no
change of the wall clock moves it. Instants are seconds as floats; on the wire between keeper and elector, and in
nothing else, they are whole nanoseconds.
"""

import ctypes
import os
import time

CLOCK_BOOTTIME = time.CLOCK_BOOTTIME
_TFD_NONBLOCK, _TFD_CLOEXEC, _TFD_TIMER_ABSTIME = os.O_NONBLOCK, os.O_CLOEXEC, 1
_NANOSECONDS = 1_000_000_000


def now() -> float:
    """This instant, in seconds since the machine started, sleep included."""
    return time.clock_gettime(CLOCK_BOOTTIME)


def to_ns(instant: float) -> int:
    """An instant in seconds as whole nanoseconds."""
    return round(instant * _NANOSECONDS)


def from_ns(instant: int) -> float:
    """An instant in whole nanoseconds as seconds."""
    return instant / _NANOSECONDS


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Itimerspec(ctypes.Structure):
    _fields_ = [("interval", _Timespec), ("value", _Timespec)]


class Alarm:
    """A file descriptor that becomes readable at an instant of this clock (timerfd_create(2)).

    The time-outs of poll(2) and of asyncio count CLOCK_MONOTONIC, which stands still while the machine sleeps.
    """

    def __init__(self) -> None:
        """Raises OSError where the kernel gives no timer."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(CLOCK_BOOTTIME, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._at: float | None = None

    def fileno(self) -> int:
        return int(self._fd)

    def set(self, at: float | None) -> None:
        """Ring at the instant `at` in seconds, at once if it has passed, never if None. The last call counts."""
        if at == self._at:
            return
        nanoseconds = 0 if at is None else max(1, to_ns(at))
        value = _Timespec(*divmod(nanoseconds, _NANOSECONDS))
        when = _Itimerspec(_Timespec(0, 0), value)
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(when), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        self._at = at

    def clear(self) -> None:
        """Take note that it rang: it is not readable, and not set, after this. Nothing changes if it did not."""
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._at = None

    def close(self) -> None:
        os.close(self._fd)
