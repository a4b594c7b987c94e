"""The terms of a key: whether it works at a given time, and which models it may use. Pure."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from kimi_gateway.accounts.values import Key


def refusal(key: Key, now: float) -> str | None:
    """Why the key does not work at `now` (unix seconds), as a sentence for its user; None if it works."""
    if key.maker is not None and refusal(key.maker, now) is not None:
        return "The key that made this API key does not work any more, so this one does not either."
    if key.revoked:
        return "Invalid API key provided: it was revoked. Ask the operator for a new one."
    if key.suspended:
        return "This API key is suspended. Ask the operator to resume it."
    if key.expires <= now:
        day = datetime.fromtimestamp(key.expires, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"This API key expired on {day}. Ask the operator for a new one."
    return None


def allows(key: Key, names: Collection[str]) -> bool:
    """Whether the key may use a model with one of these `names`: the id, and the alias asked for."""
    for each in key.line:
        if each.models and not any(fnmatchcase(name, one) for name in names for one in each.models):
            return False
    return True


def may_search(key: Key) -> bool:
    return key.search and (key.maker is None or key.maker.search)


def may_use_files(key: Key) -> bool:
    return key.files and (key.maker is None or key.maker.files)


def tokens(key: Key) -> int | None:
    """Tokens of input and output that one request may have; None if nothing bounds them."""
    bounds = [each.tokens for each in key.line if each.tokens is not None]
    return min(bounds) if bounds else None
