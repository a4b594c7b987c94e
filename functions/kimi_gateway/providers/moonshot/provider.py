"""The official platform (Kimi Open Platform): its addresses, headers and answers. Facts: docs/upstream.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol

from kimi_gateway.catalog.models import Model
from kimi_gateway.http import Headers
from kimi_gateway.net import http, jsonio, sse
from kimi_gateway.observe import trace_headers
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.pivot.usage import MOST_COUNTED, counts
from kimi_gateway.providers import failures
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.moonshot import messages
from kimi_gateway.providers.moonshot.prepare import MessagesCall, PreparedChat, prepare
from kimi_gateway.providers.provider import Call, Token

if TYPE_CHECKING:
    from kimi_gateway.providers.moonshot.batches import MoonshotBatches
    from kimi_gateway.providers.moonshot.files import MoonshotFiles
    from kimi_gateway.providers.moonshot.search import MoonshotSearch

LONGEST_ANSWER = 4 * 2**20  # bytes of a JSON answer (models, balance, errors)
FEW, SHORT = 100, 10_000  # messages, and their characters, that are written at once
SLICE = 256  # events returned at a time, because one read may bring tens of thousands
QUICK = http.Timeouts(connect=10, first_byte=30)  # for those answers; chat has the operator's own

SIGNATURE = ("msh-request-timestamp", "msh-request-signature")


class Moonshot:
    name = "moonshot"

    def __init__(
        self,
        client: http.Client,
        base_url: str,
        timeouts: http.Timeouts,
        event_limit: int,
        native: bool = False,
    ) -> None:
        """`native`: requests in Anthropic's format go to the platform's Messages endpoint."""
        self._client = client
        self._native = native
        self._base = base_url
        self._timeouts = timeouts
        self._event_limit = event_limit
        self._files: MoonshotFiles | None = None
        self._web: MoonshotSearch | None = None
        self._batches: MoonshotBatches | None = None

    @property
    def files(self) -> MoonshotFiles:
        if self._files is None:
            from kimi_gateway.providers.moonshot.files import MoonshotFiles  # few requests need it

            self._files = MoonshotFiles(self._client, self._base, self._timeouts.connect)
        return self._files

    @property
    def batches(self) -> MoonshotBatches:
        if self._batches is None:
            from kimi_gateway.providers.moonshot.batches import MoonshotBatches  # few requests need it

            self._batches = MoonshotBatches(self._client, self._base, self._timeouts.connect)
        return self._batches

    @property
    def web(self) -> MoonshotSearch:
        if self._web is None:
            from kimi_gateway.providers.moonshot.search import MoonshotSearch  # few requests need it

            self._web = MoonshotSearch(self._client, self._base, self._timeouts.connect)
        return self._web

    def prepare(
        self, chat: ChatRequest, model: Model, headers: Headers, cheaply: bool = False
    ) -> PreparedChat:
        return prepare(chat, model, headers, cheaply, self._native)

    def stream(self, call: Call, token: Token) -> AsyncIterator[list[sse.Event]]:
        headers = {**call.headers, **_headers(token), **trace_headers(), "accept": "text/event-stream"}
        url, reader = f"{self._base}/chat/completions", None
        if isinstance(call, MessagesCall):
            url, reader = f"{self._base.removesuffix('/v1')}/anthropic/v1/messages", messages.Reader()
            headers |= messages.HEADERS
        exchange = self._client.send("POST", url, headers, call.payload, self._timeouts)
        return events(exchange, self._event_limit, call, reader)

    async def models(self, token: Token) -> list[dict[str, Any]]:
        return entries(await self._json("GET", "/models", token))

    async def live(self, token: Token) -> bool:
        try:
            await self._json("GET", "/users/me/balance", token)
        except UpstreamFailure as failure:
            if failure.cause == "authentication":
                return False
            raise
        return True

    async def balance(self, token: Token) -> dict[str, float]:
        data = (await self._json("GET", "/users/me/balance", token)).get("data")
        if not isinstance(data, dict):
            raise UpstreamFailure("broken", "the balance has no data")
        return {
            name: min(max(value, -MOST_COUNTED), MOST_COUNTED)  # a debt is negative
            for name, value in data.items()
            if type(value) is int or type(value) is float and isfinite(value)
        }

    async def estimate(self, token: Token, model: Model, messages: list[Any]) -> int:
        body = {"model": model.upstream, "messages": messages}
        # A large one in a thread: it is one call into C, and many may come together.
        sent = jsonio.dumps(body) if _is_small(messages) else await asyncio.to_thread(jsonio.dumps, body)
        data = (await self._json("POST", "/tokenizers/estimate-token-count", token, sent)).get("data")
        told = data.get("total_tokens") if isinstance(data, dict) else None
        total = counts({"total_tokens": told}).get("total_tokens")
        if type(total) is not int:
            raise UpstreamFailure("broken", "the estimate has no total_tokens")
        return total

    async def _json(self, method: str, path: str, token: Token, sent: bytes = b"") -> dict[str, Any]:
        return await json_object(self._client.send(method, self._base + path, _headers(token), sent, QUICK))


def _is_small(messages: list[Any]) -> bool:
    """Whether they are few and short texts."""
    texts = [each.get("content") if isinstance(each, dict) else None for each in messages[:FEW]]
    short = [len(text) for text in texts if isinstance(text, str)]
    return len(short) == len(messages) and sum(short) < SHORT


class Reader(Protocol):
    """Turns a vendor's events into pivot chunks."""

    def pivot(self, events: list[sse.Event]) -> list[sse.Event]: ...


Refused = Callable[[int, Mapping[str, str], bytes], UpstreamFailure]  # by status, headers and body


async def events(
    exchange: AbstractAsyncContextManager[http.Answer],
    limit: int,
    call: Call,
    reader: Reader | None = None,
    refused: Refused = failures.from_answer,
) -> AsyncIterator[list[sse.Event]]:
    """The events of the streamed answer to `call`; `limit` bounds the bytes of one. Raises
    UpstreamFailure."""
    try:
        async with exchange as answer:
            kind = answer.headers.get("content-type", "")
            if answer.status != 200 or "json" in kind:
                raise refused(answer.status, answer.headers, await answer.read(LONGEST_ANSWER))
            if "event-stream" not in kind:
                raise UpstreamFailure("broken", f"an answer of type {kind[:60]!r} instead of a stream")
            call.answered.update((name, answer.headers[name]) for name in SIGNATURE if name in answer.headers)
            decoder = sse.Decoder(limit)
            async for data in answer.chunks(not call.streamed):
                read = decoder.feed(data)
                if reader is not None:
                    read = reader.pivot(read)
                if read and len(read[0][0]) > sse.LARGE:  # it came over several reads, so it is the first
                    await asyncio.sleep(sse.PAUSE)
                if 0 < len(read) <= SLICE:
                    yield read
                    continue
                for at in range(0, len(read), SLICE):
                    yield read[at : at + SLICE]
    except http.NetError as exc:
        raise failures.lost(exc) from exc
    except sse.EventTooLarge as exc:
        raise UpstreamFailure("broken", "an event above the size limit") from exc


async def json_object(
    exchange: AbstractAsyncContextManager[http.Answer], refused: Refused = failures.from_answer
) -> dict[str, Any]:
    """The JSON object of an answer. Raises UpstreamFailure."""
    try:
        async with exchange as answer:
            text = await answer.read(LONGEST_ANSWER)
    except http.NetError as exc:
        raise failures.lost(exc) from exc
    if answer.status != 200:
        raise refused(answer.status, answer.headers, text)
    try:
        parsed = jsonio.loads(text)
    except (ValueError, RecursionError) as exc:
        raise UpstreamFailure("broken", "an answer that is not JSON") from exc
    if not isinstance(parsed, dict):
        raise UpstreamFailure("broken", "an answer that is not an object")
    return parsed


def entries(listed: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of a model list. Raises UpstreamFailure."""
    data = listed.get("data")
    if not isinstance(data, list):
        raise UpstreamFailure("broken", "the model list has no data")
    return [entry for entry in data if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def _headers(token: Token) -> dict[str, str]:
    return {"authorization": f"Bearer {token.secret}", "content-type": "application/json"}
