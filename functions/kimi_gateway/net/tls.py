"""The TLS context of connections to others. It reads all certificates of the system, which takes longer than
a request; so it is made once a process, and on a thread."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading

ALPN = ["http/1.1"]
_making = threading.Lock()
_made: dict[tuple[str | None, str | None], ssl.SSLContext] = {}


async def context() -> ssl.SSLContext:
    """Trusts what the system trusts, or SSL_CERT_FILE and SSL_CERT_DIR. Raises OSError."""
    place = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    found = _made.get(place)
    return found if found is not None else await asyncio.to_thread(_make, place)


def _make(place: tuple[str | None, str | None]) -> ssl.SSLContext:
    with _making:
        if place not in _made:
            made = ssl.create_default_context()
            made.set_alpn_protocols(ALPN)
            _made[place] = made
        return _made[place]
