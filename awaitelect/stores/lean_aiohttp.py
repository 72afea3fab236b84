"""aiohttp, imported without the certificates of the system.

As it is imported, it makes two TLS contexts of its own and reads the system's whole CA bundle into each: more than a
third of its time. Our connections bring their own context, made when this is over.
"""

from __future__ import annotations

import ssl
import sys
from typing import Any


def _nothing(*_: Any) -> None:
    pass


if "aiohttp" not in sys.modules:
    _kept = ssl.SSLContext.load_default_certs
    ssl.SSLContext.load_default_certs = _nothing  # type: ignore[method-assign, assignment]
    ssl.SSLContext.set_default_verify_paths = _nothing  # type: ignore[method-assign, assignment]  # hides the inherited
    try:
        import aiohttp
    finally:
        ssl.SSLContext.load_default_certs = _kept  # type: ignore[method-assign]
        del ssl.SSLContext.set_default_verify_paths
else:
    import aiohttp

__all__ = ["aiohttp"]
