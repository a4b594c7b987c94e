"""Headers that tell a client its limits and its balance. `NAMES` has all of them, so that the edge can expose
them to web pages."""

from __future__ import annotations

import math

from kimi_gateway.accounts.values import Admission, Window

_PARTS = ("limit", "remaining", "reset")
_KINDS = ("requests", "tokens")  # OpenAI's names have one of them at the end
CREDITS = "x-credits-remaining"
NAMES = (
    *(f"x-ratelimit-{part}" for part in _PARTS),
    *(f"x-ratelimit-{part}-{kind}" for kind in _KINDS for part in _PARTS),
    CREDITS,
)


def window_headers(window: Window | None) -> tuple[tuple[str, str], ...]:
    if window is None:
        return ()
    return _named("", (window.limit, window.remaining, window.reset))


def _as_openai(kind: str, window: Window | None, now: float) -> tuple[tuple[str, str], ...]:
    """The same in OpenAI's names; `reset` is a time from now, such as 12s."""
    if window is None:
        return ()
    left = max(0, math.ceil(window.reset - now))
    return _named(f"-{kind}", (window.limit, window.remaining, f"{left}s"))


def _named(end: str, values: tuple[object, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((f"x-ratelimit-{part}{end}", str(value)) for part, value in zip(_PARTS, values, strict=True))


def admission_headers(admission: Admission, released: bool = False) -> list[tuple[str, str]]:
    """Headers with limits and balance after this request; `released` if its credit was given back."""
    headers = list(window_headers(admission.window))
    for kind, window in zip(_KINDS, (admission.window, admission.tokens), strict=True):
        headers += _as_openai(kind, window, admission.asked)
    if admission.spendable is not None:
        remaining = admission.spendable + (admission.cost if released else 0)
        headers.append((CREDITS, str(remaining)))
    return headers
