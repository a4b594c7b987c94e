"""Whether requests can be served, according to earlier ones: for GET /health. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kimi_gateway.providers.tokens.outages import OF_BREAKER, Outage

UNREACHED = OF_BREAKER | {"timeout"}
REMEMBERED = 300  # seconds for which an unreachable upstream counts, unless it answered since
WORDS = {
    "authentication": "refused",
    "quota": "without credit",
    "rate": "rate limited",
    "overload": "overloaded",
}


def troubles(known: Sequence[Sequence[Outage]], unreached: float, now: float) -> list[str]:
    """Reasons why requests probably fail. `known`: outages of each token, for all models. `unreached`: time
    at which the last request of this process got no answer."""
    out = [[outage.cause for outage in outages if _counts(outage, now)] for outages in known]
    if out and all(out):
        causes = Counter(causes[0] for causes in out)
        if set(causes) <= UNREACHED:
            return [f"upstream: it does not answer ({', '.join(sorted(causes))})"]
        told = ", ".join(
            f"{count} {WORDS.get(cause, 'unreached')}" for cause, count in sorted(causes.items())
        )
        return [f"upstream: no token is available ({told})"]
    if 0 <= now - unreached < REMEMBERED:
        return ["upstream: it did not answer the last request"]
    return []


def _counts(outage: Outage, now: float) -> bool:
    """Whether an outage counts. An open breaker admits single requests after seconds, but counts until one
    succeeds."""
    return outage.holds(now) or (outage.cause in OF_BREAKER and 0 <= now - outage.until < REMEMBERED)
