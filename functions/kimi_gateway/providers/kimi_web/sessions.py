"""The sessions of one's own kimi.com account: from a stored token to one that requests can use now.

A stored token is a refresh token, or an access token (also pasted as the cookie `kimi-auth`). Refreshing one
changes it, so the newest is kept beside the store; the stored one stays the token's name. Facts:
docs/kimi-web.md.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import Protocol

from kimi_gateway.dataclass import dataclass
from kimi_gateway.net import jsonio
from kimi_gateway.observe import redact
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Token

AHEAD = 120.0  # seconds before its end in which an access token is renewed
LASTS = 300.0  # seconds of an access token that does not tell its end
LONGEST = 8 * 1024  # characters of a token
HIDDEN = "[redacted]"
_COOKIE = "kimi-auth="


@dataclass(frozen=True, slots=True)
class Pair:
    access: str = field(repr=False)
    refresh: str = field(repr=False)


Refresh = Callable[[str], Awaitable[Pair]]  # raises UpstreamFailure


class Newest(Protocol):
    """The newest refresh token of each stored one, by the id of the stored one."""

    def read(self, id: str) -> str | None: ...

    def write(self, id: str, refresh: str) -> None: ...


class InMemory:
    """Implements `Newest` for a process that keeps nothing."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def read(self, id: str) -> str | None:
        return self._known.get(id)

    def write(self, id: str, refresh: str) -> None:
        self._known[id] = refresh


@dataclass(slots=True)
class Session:
    """`ends` is the unix second at which `access` ends; `task` renews it, for all who wait."""

    access: str = field(default="", repr=False)
    ends: float = -math.inf
    task: asyncio.Task[None] | None = None


class Sessions:
    """One session for each stored token. `clock` returns unix seconds."""

    def __init__(self, refresh: Refresh, newest: Newest, clock: Callable[[], float]) -> None:
        self._refresh = refresh
        self._newest = newest
        self._clock = clock
        self._sessions: dict[str, Session] = {}

    async def access(self, token: Token, refused: str = "") -> str:
        """A usable access token. `refused` is one that the service did not accept. Raises UpstreamFailure, to
        all who wait for the same renewal; then nothing is remembered."""
        text = plain(token.secret)
        claims = claims_of(text)
        if claims.get("typ") == "access":
            if text == refused or not self._clock() < _end(claims, math.inf):
                raise UpstreamFailure("authentication", "the access token has ended; store a refresh token")
            return text
        session = self._sessions.setdefault(token.id, Session())
        fresh = self._clock() < session.ends - AHEAD and session.access != refused
        if not fresh:
            if session.task is None:
                session.task = asyncio.create_task(self._renew(token.id, text, session))
                session.task.add_done_callback(_looked_at)
            await asyncio.shield(session.task)
        return session.access

    async def _renew(self, id: str, stored: str, session: Session) -> None:
        try:
            pair = await self._renewed(id, stored)
        finally:
            session.task = None
        session.ends = _end(claims_of(pair.access), self._clock() + LASTS)
        if session.ends - AHEAD <= self._clock():
            session.ends = self._clock() + AHEAD + LASTS / 10  # else each request would renew it
        session.access = pair.access

    async def _renewed(self, id: str, stored: str) -> Pair:
        """With the newest token, else with one that another process has got meanwhile, else with the stored
        one."""
        tried, failure = set[str](), UpstreamFailure("authentication", "the refresh token is refused")
        for _ in range(3):
            text = next(
                (each for each in (self._newest.read(id), stored) if each and each not in tried), None
            )
            if text is None:
                break
            tried.add(text)
            try:
                pair = await self._refresh(text)
            except UpstreamFailure as exc:
                if exc.cause != "authentication":
                    raise
                failure = exc
                continue
            # Each renewal brings new ones, so those that are hidden by their shape are not learned.
            redact.learn(each for each in (pair.access, pair.refresh) if redact(each) != HIDDEN)
            if pair.refresh != text:
                await asyncio.to_thread(self._newest.write, id, pair.refresh)  # may wait for a lock
            return pair
        raise failure


def sendable(text: str) -> bool:
    """Whether a header can carry it."""
    return len(text) <= LONGEST and text.isascii() and text.isprintable() and " " not in text


def _looked_at(task: asyncio.Task[None]) -> None:
    """Read a failure that nobody waits for any more; else asyncio reports it."""
    if not task.cancelled():
        task.exception()


def plain(text: str) -> str:
    """The token in what people paste: a cookie, or the array that a browser shows for a refresh token."""
    at = text.find(_COOKIE)
    if at >= 0:
        text = text[at + len(_COOKIE) :].partition(";")[0]
    if text.startswith("["):
        try:
            parts = json.loads(text[:LONGEST])
        except ValueError:
            parts = None
        if isinstance(parts, list) and all(isinstance(part, str) for part in parts):
            text = ".".join(parts)
    return text.strip()


def claims_of(text: str) -> dict[str, object]:
    """The claims of a JWT, unchecked; empty if it is none."""
    parts = text.split(".")
    if len(parts) != 3 or len(text) > LONGEST:
        return {}
    try:
        claims = jsonio.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _end(claims: dict[str, object], otherwise: float) -> float:
    ends = claims.get("exp")
    return float(ends) if isinstance(ends, int | float) and math.isfinite(ends) else otherwise
