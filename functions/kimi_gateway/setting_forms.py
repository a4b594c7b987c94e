"""Settings with a form of their own. Each function reads the text of one and raises ValueError, which says
what is wrong. They are apart because most gateways set none of them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

LONGEST_CHAIN = 4  # models to fall back to


def chains(text: str) -> dict[str, tuple[str, ...]]:
    """`model=other,third;alias=other`."""
    parted = [chain.partition("=") for chain in text.split(";") if chain.strip()]
    found = {name.strip(): tuple(filter(None, map(str.strip, rest.split(",")))) for name, _, rest in parted}
    _refuse_twice("chain", [name.strip() for name, _, _ in parted])
    if not all(name and 1 <= len(links) <= LONGEST_CHAIN for name, links in found.items()):
        raise ValueError(f"is not model=other,third;alias=other ({LONGEST_CHAIN} others at most)")
    return found


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    """Raises ValueError for a name that stands twice, because one of the two would have no effect."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"has the {what} {name[:80]!r} twice")


def networks(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in found:
        try:
            ipaddress.ip_network(part, strict=False)
        except ValueError:
            raise ValueError(f"is not a list of addresses and networks: {part!r}") from None
    return found


def targets(text: str) -> tuple[str, ...]:
    found = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for part in found:
        host, _, port = part.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65_536:
            raise ValueError(f"is not a list of host:port: {part!r}")
    return found


def aliases(text: str) -> tuple[tuple[str, str], ...]:
    """Patterns of names with the models that they stand for: claude-*=kimi-k3,gpt-4o=kimi-k2.6."""
    found: list[tuple[str, str]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        pattern, equals, model = (each.strip() for each in part.partition("="))
        if not (equals and pattern and model) or "=" in model or not part.isprintable() or len(part) > 250:
            raise ValueError(f"is not a list such as claude-*=kimi-k3,gpt-4o=kimi-k2.6: {part[:80]!r}")
        found.append((pattern, model))
    _refuse_twice("alias", [pattern for pattern, _ in found])
    return tuple(found)


def packages(text: str) -> tuple[tuple[str, int, int | None], ...]:
    """Names with credits and months: trial=50/1m,big=90000."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([a-z0-9_-]{1,32})=([1-9][0-9]{0,8})(?:/([1-9][0-9]?)m)?", part)
        if match is None:
            raise ValueError(f"is not a list such as trial=50/1m,big=90000: {part!r}")
        found.append((match[1], int(match[2]), int(match[3]) if match[3] else None))
    _refuse_twice("package", [name for name, _, _ in found])
    return tuple(found)


def secrets(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not all(len(part) >= 16 and part.isascii() and part.isprintable() for part in found):
        raise ValueError(
            "must have at least 16 printable characters; several secrets are separated by commas"
        )
    return found


def batches(text: str) -> tuple[str, ...]:
    """The ids of keys that may run batches; `*` stands for all."""
    if text.lower() in ("on", "off"):
        return ("*",) if text.lower() == "on" else ()
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for part in found:
        if not re.fullmatch(r"key_[A-Za-z0-9]{1,64}", part):
            raise ValueError(f"is neither on, off, nor a list of ids of keys (key_…): {part[:40]!r}")
    return found


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port[:6]) > 65_535:
        raise ValueError(f"is not an address such as 127.0.0.1:9464: {text[:60]!r}")
    return host.strip("[]"), int(port)


def windows(text: str) -> tuple[int | None, int | None, int | None]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise ValueError("must be three numbers of requests: a minute, an hour, a day; 0 means no limit")
    minute, hour, day = (int(part) or None for part in parts)
    return minute, hour, day


def web_address(text: str) -> SplitResult | None:
    """The parts of an http(s) address; None if it is not one. It may be a secret, so nothing quotes it."""
    plain = text.isascii() and text.isprintable() and " " not in text
    try:
        parts = urlsplit(text)
        good = plain and parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # its text has a part of the address
        return None
    return parts if good else None


def webhook(text: str) -> str:
    """An address, which may be a secret: no error quotes it."""
    if text == "log":
        return text
    if web_address(text) is None:
        raise ValueError("is neither an http(s) address nor log")
    return text
