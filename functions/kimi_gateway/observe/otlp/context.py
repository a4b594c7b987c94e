"""W3C Trace Context (Recommendation of 2021-11-23). A caller's headers are validated strictly; wrong ones
count as missing."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence

from kimi_gateway.dataclass import dataclass
from kimi_gateway.observe.otlp.options import Options

LONGEST_STATE = 4_096  # characters of tracestate that are passed on
MOST_MEMBERS = 32
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]{0,200})?")
_KEY = r"[a-z0-9][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13}"
_MEMBER = re.compile(rf"({_KEY})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
SAMPLED = 1

Randomness = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of one request: `span` is of the request, `call` of its part upstream, `parent` the caller's
    span or empty. Ids are lower-case hex."""

    id: str
    span: str
    call: str
    parent: str
    sampled: bool
    state: str = ""
    propagates: bool = True

    def outgoing(self) -> dict[str, str]:
        """Headers for the upstream."""
        if not self.propagates:
            return {}
        headers = {"traceparent": f"00-{self.id}-{self.call}-{int(self.sampled):02x}"}
        return headers | ({"tracestate": self.state} if self.state else {})


def begin(
    options: Options, parents: Sequence[str], states: Sequence[str], random: Randomness = secrets.token_hex
) -> Trace:
    """The trace of a request with these `traceparent` and `tracestate` headers."""
    caller = parsed(parents) if options.propagates else None
    span, call = random(8), random(8)
    if caller is None:
        id = random(16)
        return Trace(id, span, call, "", _sampled(options, id), "", options.propagates)
    id, parent, flags = caller
    sampled = bool(flags & SAMPLED) if options.by_parent else _sampled(options, id)
    return Trace(id, span, call, parent, sampled, state_of(states), options.propagates)


def parsed(parents: Sequence[str]) -> tuple[str, str, int] | None:
    """The trace, the caller's span and the flags; None if the header is missing, given twice or malformed."""
    if len(parents) != 1:
        return None
    match = _PARENT.fullmatch(parents[0].strip(" \t"))
    if match is None:
        return None
    version, id, span, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    if not id.strip("0") or not span.strip("0"):
        return None
    return id, span, int(flags, 16)


def state_of(states: Sequence[str]) -> str:
    """The members in order; empty if one of them is malformed or occurs twice, or if there are too many."""
    text = ",".join(states)
    if len(text) > LONGEST_STATE:
        return ""
    members = [part for each in text.split(",") if (part := each.strip(" \t"))]
    names = [match[1] for part in members if (match := _MEMBER.fullmatch(part)) is not None]
    if len(names) < len(members) or len(names) > MOST_MEMBERS or len(set(names)) < len(names):
        return ""
    return ",".join(members)


def _sampled(options: Options, id: str) -> bool:
    return int(id[16:], 16) < round(options.ratio * 2**64)
