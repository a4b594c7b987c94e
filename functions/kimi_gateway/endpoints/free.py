"""The free endpoints: models, token check, token count, balance, credits, health. None is charged."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kimi_gateway.accounts import keys
from kimi_gateway.accounts.bucket import BoundedDict, Buckets, SlidingWindow
from kimi_gateway.accounts.gate import Gate
from kimi_gateway.accounts.store import Store, StoreDown
from kimi_gateway.accounts.values import NEVER, Account, Key, UsageRow
from kimi_gateway.catalog.catalog import Catalog
from kimi_gateway.catalog.models import Model
from kimi_gateway.dialects.messages import request as anthropic
from kimi_gateway.errors import PermissionDenied, RateLimited, Unavailable
from kimi_gateway.flow.apart import apart
from kimi_gateway.flow.conversation_cache import ConversationCache
from kimi_gateway.http import Request, Response, sendable
from kimi_gateway.net import jsonio
from kimi_gateway.pivot import fields, token_estimate
from kimi_gateway.pivot.dialect import Dialect
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers.directory import Directory
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.provider import Token, Upstream

COUNTING = 5.0  # seconds that the upstream has to count tokens
CHECKED = 600  # seconds that the answer of a token check holds
CHECKS_KEPT = 10_000
CHECKS = 600  # a minute from an address, known tokens and broken bodies included
HOUR, DAY = 3_600, 86_400
ASKING = 32  # token checks upstream at a time, in each process
PROBED = 1.0  # seconds that what the store said to a probe holds
LONGEST_TOKEN = 4_096
# Under an entry of the upstream's list, so that each has the members of the K2 contract.
_LISTED = {"object": "model", "created": 0, "owned_by": "moonshot", "permission": [], "parent": None}


@dataclass(slots=True)
class Endpoints:
    gate: Gate
    store: Store
    catalog: Catalog
    directory: Directory
    upstream: Callable[[], Upstream]
    problems: Callable[[], list[str]]
    clock: Callable[[], float] = time.time
    counting: float = COUNTING
    _checks: BoundedDict[tuple[float, bool]] = field(default_factory=lambda: BoundedDict(CHECKS_KEPT))
    _askers: Buckets = field(default_factory=lambda: Buckets(rate=CHECKS / 60, burst=CHECKS))
    _unknown_tokens: SlidingWindow = field(default_factory=lambda: SlidingWindow(most=60, seconds=60))
    _strangers: Buckets = field(default_factory=lambda: Buckets(rate=10, burst=300))  # of all addresses
    _asking: int = 0
    _probing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _probed: tuple[float, str] = (-math.inf, "")  # when, and the store's trouble

    async def _key(self, request: Request) -> Key:
        key = await self.gate.authenticate_free(request.headers, request.client)
        request.notes.update(key=key.id, account=key.account)
        return key

    async def models(self, request: Request) -> Response:
        """OpenAI's list and Anthropic's page in one. All are on one page, whatever `limit` says."""
        key = await self._key(request)
        entries = await self._entries(key)
        ends = {"first_id": entries[0]["id"], "last_id": entries[-1]["id"]} if entries else {}
        return answer({"object": "list", "data": entries, "has_more": False, **ends})

    async def model(self, request: Request, name: str) -> Response:
        """Ids of the list, and every alias of the operator's, under the name asked for."""
        key = await self._key(request)
        row = await self._resolved(key, name)
        listed = {entry["id"]: entry for entry in await self._entries(key)}
        return answer({**listed.get(row.id, entry_of(row)), "id": name})

    async def _resolved(self, key: Key, name: str) -> Model:
        return await self.directory.resolve(name, self.catalog, partial(self.gate.has_credit, key))

    async def _entries(self, key: Key) -> list[dict[str, Any]]:
        """Without credits: as the upstream's list was last known."""
        listed = self.directory.listed
        if not self.directory.fresh() and await self.gate.has_credit(key):
            with self.gate.places.held(key.account):
                listed = await self.directory.live()
        known = [entry_of(row) for row in self.catalog.rows.values()]
        names = {row["id"] for row in known}
        return known + [_listed(id, entry) for id, entry in listed.items() if id not in names]

    async def check_token(self, request: Request) -> Response:
        """Open to all: the token proves itself. Answers are kept, new questions are limited by address."""
        now = self.clock()
        wait = self._askers.take(request.client, now)
        if wait:
            raise RateLimited("Too many token checks from this address.", retry_after=math.ceil(wait))
        token = fields.json_object(await request.body()).values.get("token")
        fields.string(token, "token")
        digest = hashlib.sha256(str(token).encode()).hexdigest()
        asked_at, live = self._checks.get(digest, (-math.inf, False))
        if now - asked_at >= CHECKED:
            wait = self._unknown_tokens.take(request.client, now)
            if wait:
                raise RateLimited("Too many unknown tokens from this address.", retry_after=math.ceil(wait))
            live = await self._is_live(str(token))
            self._checks[digest] = (now, live)
        elif live and str(token).startswith(keys.PREFIX):
            live = await self._is_live(str(token))  # a key of ours that is revoked is so at once
        return answer({"live": live})

    async def _is_live(self, token: str) -> bool:
        if token.startswith(keys.PREFIX):
            try:
                key = await self.store.find_key(keys.digest(token))
            except StoreDown as exc:
                raise Unavailable("The token cannot be checked at present.", cause=exc.cause) from exc
            return key is not None and not key.revoked
        if len(token) > LONGEST_TOKEN or not sendable(token):
            return False
        wait = 1.0 if self._asking >= ASKING else self._strangers.take("", self.clock())
        if wait:
            raise RateLimited("Too many token checks at present.", retry_after=math.ceil(wait))
        self._asking += 1
        try:
            return await self.directory.is_live(Token.of(token))
        except UpstreamFailure as failure:
            raise Unavailable("The token cannot be checked at present.", cause=failure.cause) from failure
        finally:
            self._asking -= 1

    async def estimate(self, request: Request) -> Response:
        """The upstream's count; an estimate for an account without credits."""
        key = await self._key(request)
        raw = await request.body()
        body = (await apart(len(raw), lambda: fields.json_object(raw))).values
        for name, check in {"model": fields.string, "messages": fields.array}.items():
            check(body.get(name), name)
        row = await self._resolved(key, body["model"])
        if not await self.gate.has_credit(key):
            total = await apart(len(raw), lambda: token_estimate.of_messages(body["messages"]))
            return answer({"data": {"total_tokens": total}})
        try:
            with self.gate.places.held(key.account):
                total = await self.directory.estimate(row, body["messages"])
        except UpstreamFailure as failure:
            known = self.catalog.find(body["model"]) is not None
            raise failure.shown(known, request.id, row.window if known else None) from failure
        return answer({"data": {"total_tokens": total}})

    async def count_tokens(self, request: Request) -> Response:
        """Anthropic's count: the upstream's of the messages and an estimate of the tools, which it does not
        count. An estimate of all for an account without credits, and where the upstream does not answer:
        clients ask before each turn."""
        key = await self._key(request)
        raw = await request.body()
        chat = (await apart(len(raw), lambda: anthropic.read(raw, counting=True))).chat
        return answer({"input_tokens": await self._count(key, chat, len(raw))})

    async def count_input(self, request: Request, dialect: Dialect, thoughts: ConversationCache) -> Response:
        """The same count for a Responses request, with what it goes on from."""
        key = await self._key(request)
        raw = await request.body()
        ask = await apart(len(raw), lambda: dialect.read(raw))
        found = await thoughts.recall(key.account, ask.needs, renew=False) if ask.needs else {}
        chat = (await apart(len(raw), lambda: ask.complete(found))).chat
        count = await self._count(key, chat, len(raw) + chat.recalled)
        return answer({"object": "response.input_tokens", "input_tokens": count})

    async def _count(self, key: Key, chat: ChatRequest, size: int) -> int:
        """`size` is the request's in bytes."""
        messages = chat.body["messages"]
        count = await apart(size, lambda: token_estimate.of_messages(messages))
        row = await self._resolved(key, chat.model)
        if await self.gate.has_credit(key):
            with (
                suppress(UpstreamFailure, Unavailable, RateLimited, TimeoutError),
                self.gate.places.held(key.account),
            ):
                async with asyncio.timeout(self.counting):
                    count = await self.directory.estimate(row, messages)
        return max(1, count + token_estimate.of_messages([], chat.body.get("tools")))

    async def balance(self, request: Request) -> Response:
        """As the upstream says; as it said last for an account without credits."""
        key = await self._key(request)
        if not key.see_balance:
            raise PermissionDenied("This key may not see the upstream balance.")
        try:
            data = await self._balance(key)
        except UpstreamFailure as failure:
            raise failure.shown(request=request.id) from failure
        return answer({"code": 0, "data": data, "scode": "0x0", "status": True})

    async def _balance(self, key: Key) -> dict[str, float]:
        if await self.gate.has_credit(key):
            with self.gate.places.held(key.account):
                return await self.directory.balance()
        if self.directory.last_balance is None:
            raise Unavailable(
                "The upstream balance is not known yet, and this account has no credits to ask for it.",
                cause="no_credit",
            )
        return self.directory.last_balance

    async def credits(self, request: Request) -> Response:
        key = await self._key(request)
        now = int(self.clock())
        try:
            account = await self.store.account(key.account, now)
            rows = await self.store.usage(now // DAY * DAY - 30 * DAY, key.account)
        except StoreDown as exc:
            raise Unavailable("The account cannot be read at present.", cause=exc.cause) from exc
        return answer(credits_of(account, rows, now))

    async def ping(self, request: Request) -> Response:
        return Response(200, [("content-type", "text/plain; charset=utf-8")], b"pong")

    async def health(self, request: Request) -> Response:
        """Whether requests can be served: `unready` (503) where the store or the tokens cannot be read,
        `degraded` where earlier requests met an upstream or tokens that fail. Never asks the upstream."""
        problems = self.problems()
        if trouble := await self._probe():
            problems.append(f"store: {trouble}")
        if problems:
            return answer({"status": "unready", "problems": problems}, 503)
        upstream = self.upstream()
        troubles = await upstream.tokens.troubles()
        status = "degraded" if troubles else "ok"
        return answer({"status": status, "provider": upstream.provider.name, "problems": troubles})

    async def _probe(self) -> str:
        """The store's trouble. It is asked once a second at most, whoever wants to know."""
        async with self._probing:
            now = self.clock()
            if not 0 <= now - self._probed[0] < PROBED:
                trouble = ""
                try:
                    await self.store.find_key("")
                except StoreDown as exc:
                    trouble = str(exc) or "down"
                self._probed = (now, trouble)
            return self._probed[1]


def answer(body: dict[str, Any], status: int = 200) -> Response:
    return Response(status, [("content-type", "application/json")], jsonio.dumps(body))


def _listed(id: str, entry: dict[str, Any]) -> dict[str, Any]:
    """A model that only the upstream's list has. It names no output limit but the window."""
    created, window = entry.get("created"), entry.get("context_length")
    window = window if type(window) is int else None
    known = _in_anthropic(id, created if type(created) is int else 0, window, window)
    return {**_LISTED, "root": id, **known, **entry}


def _in_anthropic(id: str, created: int, window: int | None, output: int | None) -> dict[str, Any]:
    """The members of Anthropic's model object (its SDK 2.13, 2026-11)."""
    return {
        "type": "model",
        "display_name": " ".join(part[:1].upper() + part[1:] for part in id.split("-")),
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(max(created, 0), NEVER))),
        "max_input_tokens": window,
        "max_tokens": output,
    }


def entry_of(row: Model) -> dict[str, Any]:
    """OpenAI's shape with the members of the K2 contract and of Anthropic's model object, and what Kimi's own
    clients read besides."""
    return {
        "id": row.id,
        "object": "model",
        **_in_anthropic(row.id, row.created, row.window, row.max_output),
        "created": row.created,
        "owned_by": row.owned_by,
        "permission": [],
        "root": row.upstream,
        "parent": None,
        "context_length": row.window,
        "max_output_tokens": row.max_output,
        "supports_image_in": row.media,
        "supports_video_in": row.media,
        "supports_reasoning": row.thinking != "free",
    }


def credits_of(account: Account, rows: list[UsageRow], now: int) -> dict[str, Any]:
    """docs/contract.md, Limits and credits. Days of the last 30, hours of the last 24."""
    requests = sum(row.requests for row in rows)
    total = sum(row.input + row.output for row in rows)
    recent = [row for row in rows if row.hour > now // HOUR * HOUR - DAY]
    return {
        "credits_remaining": None if account.unlimited else account.credits,
        "credits_consumed": account.consumed,
        "average_tokens_per_request": round(total / requests, 1) if requests else 0,
        "usage": {
            "by_day": _summed(rows, DAY, "date", "%Y-%m-%d"),
            "by_hour": _summed(recent, HOUR, "hour", "%Y-%m-%dT%H:00:00Z"),
        },
        "expiring": [
            {
                "credits": grant.amount,
                "expires_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(grant.expires)),
            }
            for grant in account.grants
            if grant.expires < NEVER
        ],
    }


def _summed(rows: list[UsageRow], span: int, name: str, form: str) -> list[dict[str, Any]]:
    spans: dict[int, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row.hour):
        start = row.hour // span * span
        entry = spans.setdefault(
            start, {name: time.strftime(form, time.gmtime(start)), "credits": 0, "requests": 0, "tokens": 0}
        )
        entry["credits"] += row.credits
        entry["requests"] += row.requests
        entry["tokens"] += row.input + row.output
    return list(spans.values())
