"""The headers that tell a client its limits and its balance, in the seed's names and in OpenAI's."""

from __future__ import annotations

import math

from kimi_gateway.accounts.values import Admission, Window


def window_headers(window: Window | None) -> tuple[tuple[str, str], ...]:
    if window is None:
        return ()
    return (
        ("x-ratelimit-limit", str(window.limit)),
        ("x-ratelimit-remaining", str(window.remaining)),
        ("x-ratelimit-reset", str(window.reset)),
    )


def _as_openai(kind: str, window: Window | None, now: float) -> list[tuple[str, str]]:
    """The same in OpenAI's names; `reset` is a time from now, such as 12s."""
    if window is None:
        return []
    return [
        (f"x-ratelimit-limit-{kind}", str(window.limit)),
        (f"x-ratelimit-remaining-{kind}", str(window.remaining)),
        (f"x-ratelimit-reset-{kind}", f"{max(0, math.ceil(window.reset - now))}s"),
    ]


def admission_headers(admission: Admission, released: bool = False) -> list[tuple[str, str]]:
    """Headers with limits and balance after this request; `released` if its credit was given back."""
    headers = list(window_headers(admission.window))
    now = admission.asked
    headers += _as_openai("requests", admission.window, now) + _as_openai("tokens", admission.tokens, now)
    if admission.spendable is not None:
        remaining = admission.spendable + (admission.cost if released else 0)
        headers.append(("x-credits-remaining", str(remaining)))
    return headers
