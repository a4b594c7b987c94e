"""Reasoning as `encrypted_content`, for clients that keep no state but what they send back. It is no secret
to them, so it is an encoding and no cipher; the prefix tells ours from another service's.
"""

from __future__ import annotations

import base64
import binascii

_OURS = "kg1."


def seal(reasoning: str) -> str:
    return _OURS + base64.urlsafe_b64encode(reasoning.encode("utf-8", "surrogatepass")).decode()


def unseal(content: object) -> str | None:
    """None for what is not ours, or was damaged on the way."""
    if not isinstance(content, str) or not content.startswith(_OURS):
        return None
    try:
        raw = base64.b64decode(content.removeprefix(_OURS).encode(), altchars=b"-_", validate=True)
        return raw.decode("utf-8", "surrogatepass")
    except (binascii.Error, ValueError):
        return None
