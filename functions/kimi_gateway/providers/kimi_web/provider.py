"""The web service of kimi.com as a provider: its addresses, its session, and its answers.

It speaks with the product's own name, sends no header of a browser, and works around nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from kimi_gateway.catalog.models import Model
from kimi_gateway.catalog.vendor import Vendor
from kimi_gateway.http import Headers
from kimi_gateway.net import http, jsonio, sse
from kimi_gateway.pivot import token_estimate
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.providers import failures
from kimi_gateway.providers.conversations import Trace, Traces
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.kimi_web import answers, frames
from kimi_gateway.providers.kimi_web.prompt import PreparedChat, WebCall, prepare
from kimi_gateway.providers.kimi_web.sessions import Newest, Pair, Sessions, sendable
from kimi_gateway.providers.kimi_web.traces import WebConversations, mark_of
from kimi_gateway.providers.moonshot.provider import LONGEST_ANSWER, QUICK, SLICE, json_object
from kimi_gateway.providers.provider import Call, Token

if TYPE_CHECKING:
    from kimi_gateway.providers.kimi_web.files import WebFiles

CHAT = "/apiv2/kimi.gateway.chat.v1.ChatService/Chat"
LARGEST_FRAME = 8 * 2**20  # bytes
AFTER_OVER = 5.0  # seconds at most to wait for the end of the stream, in which an error may still come


class KimiWeb:
    """Implements `Provider`, `SearchesItself`, `TakesDocuments` and `KeepsConversations`."""

    searches_itself = True
    largest_document = 16 * 2**20  # the service takes 100 MB, but here each is held in memory

    def __init__(
        self,
        vendor: Vendor,
        client: http.Client,
        timeouts: http.Timeouts,
        event_limit: int,
        newest: Newest,
        traces: Traces | None,
        clock: Callable[[], float],
        idle: float = 2 * AFTER_OVER,
    ) -> None:
        """`traces` is needed for chats only. `idle`: seconds after which a silent stream is given up
        elsewhere."""
        self.name = vendor.id
        self.vendor = vendor
        self.sessions = Sessions(self._refreshed, newest, clock)
        self.conversations = WebConversations(self._ask)
        self._base = next(iter(vendor.bases.values())).rstrip("/")
        self._client = client
        self._timeouts = timeouts
        self._limit = min(event_limit, LARGEST_FRAME)
        self._traces = traces
        self._after_over = min(AFTER_OVER, idle / 2)
        self._files: WebFiles | None = None

    @property
    def files(self) -> WebFiles:
        if self._files is None:
            from kimi_gateway.providers.kimi_web.files import WebFiles  # few requests need it

            self._files = WebFiles(self._ask, self._client, self._base)
        return self._files

    def prepare(
        self, chat: ChatRequest, model: Model, headers: Headers, cheaply: bool = False
    ) -> PreparedChat:
        return prepare(chat, model, self.vendor)

    async def stream(self, call: Call, token: Token) -> AsyncIterator[list[sse.Event]]:
        assert isinstance(call, WebCall) and self._traces  # noqa: S101, PT018  `prepare` makes no other
        files = [await self.files.upload(token, medium) for medium in call.media]
        payload = call.framed(files)
        access, again = await self.sessions.access(token), True
        while True:
            trace = await self._traces.begin(token, mark_of(call.content), self.conversations)
            reader, begun = answers.Reader(), True
            try:
                async with aclosing(self._answer(payload, access, reader, trace)) as batches:
                    async for batch in batches:
                        yield batch
                if end := reader.end(token_estimate.of_messages(call.body["messages"])):
                    yield end
                return
            except UpstreamFailure as failure:
                begun = bool(reader.chat) or failure.cause not in failures.OTHER_TOKEN | {
                    "connect",
                    "invalid",
                }
                if failure.cause != "authentication":
                    raise
                if reader.spoke:  # another answer would be a second one
                    raise UpstreamFailure("broken", "the session ended within the answer") from failure
                if not again:
                    raise
            finally:
                trace.end(begun)
            access, again = await self.sessions.access(token, refused=access), False

    async def _answer(
        self, payload: bytes, access: str, reader: answers.Reader, trace: Trace
    ) -> AsyncGenerator[list[sse.Event], None]:
        headers = {
            **_headers(access),
            "content-type": "application/connect+json",
            "connect-protocol-version": "1",
        }
        exchange = self._client.send("POST", self._base + CHAT, headers, payload, self._timeouts)
        decoder, chat = frames.Decoder(self._limit), ""
        try:
            async with exchange as answer:
                kind = answer.headers.get("content-type", "")
                if answer.status != 200 or "connect+json" not in kind:
                    body = await answer.read(LONGEST_ANSWER)
                    if answer.status == 200 and "json" not in kind:
                        raise UpstreamFailure(
                            "broken", f"an answer of type {kind[:60]!r} instead of a stream"
                        )
                    raise answers.refused(answer.status, answer.headers, body)
                chunks = aiter(answer.chunks())
                while not reader.closed:
                    try:
                        async with asyncio.timeout(self._after_over if reader.over else None):
                            data = await anext(chunks, None)
                    except TimeoutError:
                        break
                    if data is None:
                        break
                    some = decoder.feed(data)
                    for at in range(0, len(some), SLICE):
                        events = reader.pivot(some[at : at + SLICE])
                        if reader.chat != chat:
                            chat = reader.chat
                            await trace.known(chat)
                        if events:
                            yield events
                        if reader.failure is not None:
                            raise reader.failure
                if decoder.pending and not reader.closed:
                    raise UpstreamFailure("broken", "the stream ended within a frame")
        except http.NetError as exc:
            if not reader.over:
                raise failures.lost(exc) from exc
        except frames.BadFrame as exc:
            raise UpstreamFailure("broken", str(exc)) from exc

    async def models(self, token: Token) -> list[dict[str, Any]]:
        """The known models; the service's own list is not in their terms."""
        return [{"id": model.id, "object": "model"} for model in self.vendor.known]

    async def live(self, token: Token) -> bool:
        """Whether the session is accepted. A refresh token is used for that."""
        try:
            access = await self.sessions.access(token)
            told = await self._json("GET", "/api/user", access)
        except UpstreamFailure as failure:
            if failure.cause == "authentication":
                return False
            raise
        return bool(told.get("id"))

    async def _refreshed(self, refresh: str) -> Pair:
        told = await self._json("GET", "/api/auth/token/refresh", refresh)
        access, newest = told.get("access_token"), told.get("refresh_token")
        if not (isinstance(access, str) and access and isinstance(newest, str) and newest):
            raise UpstreamFailure("broken", "the renewed session has no tokens")
        if not all(map(sendable, (access, newest))):
            raise UpstreamFailure("broken", "the renewed session has tokens that no header can carry")
        return Pair(access, newest)

    async def _ask(self, path: str, token: Token, body: dict[str, Any]) -> dict[str, Any]:
        """Post JSON; once more with a new session if this one is refused. Raises UpstreamFailure."""
        access = await self.sessions.access(token)
        try:
            return await self._json("POST", path, access, body)
        except UpstreamFailure as failure:
            if failure.cause != "authentication":
                raise
        return await self._json("POST", path, await self.sessions.access(token, refused=access), body)

    async def _json(
        self, method: str, path: str, access: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        sent = b"" if body is None else jsonio.dumps(body)
        headers = {**_headers(access), "content-type": "application/json"}
        exchange = self._client.send(method, self._base + path, headers, sent, QUICK)
        told = await json_object(exchange, answers.refused)
        if isinstance(told.get("error_type"), str):  # the older calls report errors at status 200
            raise answers.of_error(told)
        return told


def _headers(access: str) -> dict[str, str]:
    return {"authorization": f"Bearer {access}"}
