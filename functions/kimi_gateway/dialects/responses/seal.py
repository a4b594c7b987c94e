"""Reasoning in a form that comes back with the conversation, so that no store is needed: the
`encrypted_content` of Responses, and the `signature` of a Messages block whose text is not shown.

It is an encoding, not a cipher: the text is the client's own, who may also send it in clear, and it gives no
access to another account. So it needs no proof of origin.
"""

from __future__ import annotations

import base64
import binascii

_OURS = "kg1."
_LONGEST = 8_000_000  # characters; more than any answer's reasoning


def seal(reasoning: str) -> str:
    return _OURS + base64.urlsafe_b64encode(reasoning.encode("utf-8", "surrogatepass")).decode()


def is_seal(content: object) -> bool:
    return isinstance(content, str) and content.startswith(_OURS)


def unseal(content: object) -> str | None:
    """The reasoning; None if the content is not ours or was damaged."""
    if not isinstance(content, str) or not content.startswith(_OURS) or len(content) > _LONGEST:
        return None
    try:
        raw = base64.b64decode(content.removeprefix(_OURS).encode(), altchars=b"-_", validate=True)
        return raw.decode()
    except (binascii.Error, ValueError):
        return None
