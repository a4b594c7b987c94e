"""Keys and ids: creation, a checksum that needs no store, hashing, and masking."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Callable

from kimi_gateway.settings import OWN_KEY

Below = Callable[[int], int]  # a random whole number from 0 up to, not including, its argument

PREFIX = OWN_KEY
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_BASE36 = string.digits + string.ascii_lowercase
_SECRET, _CHECK, _ID = 32, 6, 10
_FORM = re.compile(rf"{PREFIX}(?P<secret>[0-9A-Za-z]{{{_SECRET}}})(?P<check>[0-9A-Za-z]{{{_CHECK}}})")


def _word(alphabet: str, length: int, below: Below) -> str:
    return "".join(alphabet[below(len(alphabet))] for _ in range(length))


def _checksum(secret: str) -> str:
    number, digits = zlib.crc32(secret.encode()), ""
    for _ in range(_CHECK):  # 62 ** 6 > 2 ** 32, so no bit of the CRC is lost
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits


def new_key(below: Below = secrets.randbelow) -> str:
    secret = _word(_BASE62, _SECRET, below)
    return PREFIX + secret + _checksum(secret)


def account_id(below: Below = secrets.randbelow) -> str:
    return "acc_" + _word(_BASE36, _ID, below)


def key_id(below: Below = secrets.randbelow, long: bool = False) -> str:
    """A new key id. `long`: it begins with a capital, which tells a store that shortens ids to use more of
    it."""
    capital = _word(string.ascii_uppercase, 1, below) if long else ""
    return "key_" + capital + _word(_BASE36, _ID - len(capital), below)


def well_formed(key: str) -> bool:
    """Whether this can be a key of ours. Mistyped and foreign keys never reach the store."""
    match = _FORM.fullmatch(key)
    return match is not None and match["check"] == _checksum(match["secret"])


def digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def masked(key: str) -> str:
    """The key for lists and logs: its last four characters, which belong to the checksum; nothing of any
    other text."""
    return f"{PREFIX}…{key[-4:]}" if well_formed(key) else "…"
