"""What libraries log, as lines of ours: it must not block either."""

from __future__ import annotations

import logging

from awaitelect.logs import Log


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else record.levelname.lower()
        self._log.write(level, record.getMessage())


def route(log: Log) -> None:
    """Send the lines of the stores to `log`, and of other libraries those from warning on."""
    logging.getLogger().addHandler(_Handler(log))
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("awaitelect").setLevel(logging.DEBUG)
