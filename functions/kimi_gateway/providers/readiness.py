"""Whether requests can be served now, by what earlier ones met: for GET /health. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kimi_gateway.providers.tokens.outages import OF_BREAKER, News

UNREACHED = OF_BREAKER | {"timeout"}
REMEMBERED = 300  # seconds that a failure to reach the upstream counts, unless an answer came since
WORDS = {
    "authentication": "refused",
    "quota": "without credit",
    "rate": "rate limited",
    "overload": "overloaded",
}


def troubles(known: Sequence[Sequence[News]], unreached: float, now: float) -> list[str]:
    """`known`: what is known against each token, for all models. `unreached`: when the last outcome in this
    process was that the upstream did not answer."""
    out = [[bad.cause for bad in news if _counts(bad, now)] for news in known]
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


def _counts(bad: News, now: float) -> bool:
    """An open breaker lets single requests through after seconds; until one is answered it counts on."""
    return bad.holds(now) or (bad.cause in OF_BREAKER and 0 <= now - bad.until < REMEMBERED)
