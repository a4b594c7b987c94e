"""A TLS context for clients that never speak TLS: to make the usual one takes longer than a small test."""

from __future__ import annotations

import ssl

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
