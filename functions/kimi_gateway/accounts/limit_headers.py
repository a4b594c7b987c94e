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
    return (
        ("x-ratelimit-limit", str(window.limit)),
        ("x-ratelimit-remaining", str(window.remaining)),
        ("x-ratelimit-reset", str(window.reset)),
    )


def _as_openai(kind: str, window: Window | None, now: float) -> tuple[tuple[str, str], ...]:
    """The same in OpenAI's names; `reset` is a time from now, such as 12s."""
    if window is None:
        return ()
    left = max(0, math.ceil(window.reset - now))
    return (
        (f"x-ratelimit-limit-{kind}", str(window.limit)),
        (f"x-ratelimit-remaining-{kind}", str(window.remaining)),
        (f"x-ratelimit-reset-{kind}", f"{left}s"),
    )


def admission_headers(admission: Admission, released: bool = False) -> list[tuple[str, str]]:
    """Headers with limits and balance after this request; `released` if its credit was given back."""
    headers = list(window_headers(admission.window))
    headers += _as_openai("requests", admission.window, admission.asked)
    headers += _as_openai("tokens", admission.tokens, admission.asked)
    if admission.spendable is not None:
        remaining = admission.spendable + (admission.cost if released else 0)
        headers.append((CREDITS, str(remaining)))
    return headers
