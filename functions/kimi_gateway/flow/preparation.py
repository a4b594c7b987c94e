"""Prepares a request for its model: reads the body, adds the content that it refers to, lets the provider
adapt it, and fits it into the window."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from kimi_gateway.accounts import terms
from kimi_gateway.accounts.store import NOTHING
from kimi_gateway.accounts.values import Amount, Bound
from kimi_gateway.catalog.models import Model
from kimi_gateway.catalog.names import DEFAULT
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import InvalidRequest
from kimi_gateway.flow import spending
from kimi_gateway.flow.apart import apart
from kimi_gateway.flow.attachments import NOTHING as UNATTACHED
from kimi_gateway.flow.attachments import resolve
from kimi_gateway.flow.attempts import UpstreamCall
from kimi_gateway.flow.conversation_cache import ConversationCache
from kimi_gateway.flow.turn import Turn
from kimi_gateway.http import Request
from kimi_gateway.pivot import fields, ignored, placement, token_estimate
from kimi_gateway.pivot.attachments import Attachment, Resolution, Resolver
from kimi_gateway.pivot.dialect import Ask, Dialect, ParsedRequest
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.pivot.window import fit, output_of
from kimi_gateway.providers.provider import Call, Costly, Prepared, Provider, Upstream
from kimi_gateway.providers.registry import Registry, Resolved
from kimi_gateway.providers.search import Searches, SearchesItself
from kimi_gateway.settings import Settings

LIKELY = 64  # bytes of a short message


@dataclass(frozen=True, slots=True)
class AdmittableRequest:
    """A request before admission. `prepared` is set if that was cheap; `size` is in bytes. `searches`: it
    asks for a search, and its upstream can search the web."""

    request: Request
    ask: Ask
    resolved: Resolved
    upstream: Upstream
    prepared: Prepared | None
    size: int
    searches: bool
    ignored: tuple[str, ...] | None = None  # by the provider; None if that took too much work

    def begun(self, recalled: Recalled) -> ParsedRequest:
        """The request while its attachments are not read yet."""
        return self.ask.complete(recalled.found, ())


@dataclass(frozen=True, slots=True)
class Recalled:
    """The earlier content of a request, and all attachments of both."""

    found: Mapping[str, bytes]
    attached: Sequence[Attachment]


@dataclass(frozen=True, slots=True)
class CompletedRequest:
    """An admitted request, complete and adapted to its model. `narrowed`: its output limit was lowered to
    what the window leaves. `token`: the id of the only upstream token that has its files. `lowered`: the
    client's name of the output limit, if a budget has lowered it. `largest` is what one call may cost, where
    there is a budget. `replayed`: the chat with searches of earlier answers put back. `movable`: its files
    can be uploaded again with another token."""

    parsed: ParsedRequest
    prepared: Prepared
    narrowed: bool
    token: str | None
    lowered: tuple[str, ...] = ()
    searches: bool = False
    largest: Amount = NOTHING
    replayed: ChatRequest | None = None
    more: int = 0  # bytes of it
    movable: bool = False

    @property
    def chat(self) -> ChatRequest:
        return self.parsed.chat if self.replayed is None else self.replayed

    @property
    def unsearched(self) -> tuple[str, ...]:
        """The client's fields that ask for a search, if none can run."""
        return unsearched(self.parsed.chat, self.searches)

    async def call(self) -> Call:
        call = await apart(self.parsed.size, self.prepared.call)
        return call if self.token is None else replace(call, only=self.token, movable=self.movable)


# Gives the calls of a round other models to fall back to.
FallBack = Callable[[list[UpstreamCall], AdmittableRequest, Turn, ChatRequest, CompletedRequest], None]


def unsearched(chat: ChatRequest, searches: bool) -> tuple[str, ...]:
    return () if chat.search is None or searches else chat.search.asked_by


async def read(
    registry: Registry,
    request: Request,
    dialect: Dialect,
    raw: bytes,
    may_ask: Callable[[], Awaitable[bool]],
    may_search: bool,
) -> AdmittableRequest:
    """Find the faults of a body that take little work."""
    ask = await apart(len(raw), partial(dialect.read, raw))
    request.record.model, request.record.stream = ask.model[:80], ask.stream
    resolved = await registry.resolve(ask.model, may_ask)
    if ask.model == DEFAULT:  # the answer names the model that runs
        ask = replace(ask, model=resolved.model.id)
    upstream, prepared = resolved.upstream, None
    known: tuple[str, ...] | None = None
    searches = may_search and ask.searches and isinstance(upstream.provider, Searches | SearchesItself)
    if not ask.needs:
        prepare = partial(adapted, upstream.provider, searches, request, resolved.model, cheaply=True)
        with suppress(Costly):  # then it is done after admission
            prepared = await apart(len(raw), lambda: prepare(ask.complete({}, ()).chat))
        if attached := ask.attachments({}):
            placement.refused(attached, resolved.model)
            known = prepared.ignored if prepared is not None else None
            prepared = None  # all that is known by now is that nothing else is wrong
    return AdmittableRequest(request, ask, resolved, upstream, prepared, len(raw), searches, known)


async def ignored_so_far(
    admittable: AdmittableRequest, chat: ChatRequest, further: tuple[str, ...]
) -> tuple[str, ...]:
    """The names of ignored fields, while the chat's attachments are not read yet. What is wrong with the chat
    is found later."""
    by_provider = admittable.ignored
    if by_provider is None:
        of = admittable.upstream.provider, admittable.searches, admittable.request, admittable.resolved.model
        with suppress(InvalidRequest):
            by_provider = (await apart(admittable.size, partial(adapted, *of, chat))).ignored
    return ignored.named(chat.ignored, by_provider or (), further)


async def bound(
    admittable: AdmittableRequest, may_search: bool, clock: Callable[[], float], settings: Settings
) -> Bound:
    """The most that a request may use."""
    provider, now = admittable.upstream.provider.name, int(clock())
    size, choices = admittable.size, admittable.ask.choices
    spare = admittable.searches and may_search
    of = (admittable.prepared, admittable.resolved.model, provider, size, choices, now, spare)
    return await apart(size, partial(spending.bound_of, *of, settings.unpriced == "allow"))


async def recall(admittable: AdmittableRequest, turn: Turn, conversations: ConversationCache) -> Recalled:
    """Raises GatewayError."""
    ask, account = admittable.ask, turn.admission.key.account
    found = await conversations.recall(account, ask.needs) if ask.needs else {}
    return Recalled(found, await apart(admittable.size if ask.needs else 0, lambda: ask.attachments(found)))


async def complete(
    admittable: AdmittableRequest,
    recalled: Recalled,
    turn: Turn,
    conversations: ConversationCache,
    files: Resolver,
    without: frozenset[str] = frozenset(),
) -> CompletedRequest:
    """The request with the content that it refers to and attaches, adapted to its model: the expensive work.
    `turn` keeps its uploads, which use no token of `without` (ids). Raises GatewayError."""
    ask, model, key = admittable.ask, admittable.resolved.model, turn.admission.key
    may_use_files = terms.may_use_files(key)
    resolution: Resolution = UNATTACHED
    if recalled.attached:
        of = files, key.account, recalled.attached, model, turn.held, may_use_files
        resolution = await resolve(*of, without=without)
    parsed = await apart(admittable.size, lambda: ask.complete(recalled.found, resolution.results))
    size, chat, prepared = parsed.size, parsed.chat, admittable.prepared
    searches = admittable.searches and turn.may_search
    more = 0
    if searches and not chat.evident:
        chat, more = await _replayed(chat, conversations, key.account)
        size += more
    replayed = chat if chat is not parsed.chat else None
    if prepared is None or searches != admittable.searches or replayed is not None:
        provider = admittable.upstream.provider
        prepared = await apart(size, partial(adapted, provider, searches, admittable.request, model, chat))
    narrowed = await kept_within(admittable, turn, conversations, parsed, prepared, size)
    lowered = await within_key(admittable, turn, chat, prepared, size)
    lowered = await _within_budget(turn, model, chat, prepared, size) or lowered
    largest = spending.of_one_call(turn.admission)
    facts = (narrowed, resolution.token, lowered, searches, largest, replayed, more, resolution.movable)
    return CompletedRequest(parsed, prepared, *facts)


async def _replayed(
    chat: ChatRequest, conversations: ConversationCache, account: str
) -> tuple[ChatRequest, int]:
    """The chat with the searches of its earlier answers, and the bytes that this adds."""
    messages = chat.body["messages"]
    if not await apart(len(messages) * LIKELY, lambda: any(each.get("tool_calls") for each in messages)):
        return chat, 0
    from kimi_gateway.flow.search import replay  # few requests need it

    return await replay.restored(conversations, account, chat)


async def go_on(
    admittable: AdmittableRequest,
    completed: CompletedRequest,
    turn: Turn,
    conversations: ConversationCache,
    chat: ChatRequest,
    added: int,
) -> CompletedRequest:
    """The same request with the `chat` of a further round, to which `added` bytes were added. Raises
    GatewayError."""
    size = completed.parsed.size + completed.more + added
    provider, model = admittable.upstream.provider, admittable.resolved.model
    prepared = await apart(
        size, partial(adapted, provider, completed.searches, admittable.request, model, chat)
    )
    narrowed = await kept_within(admittable, turn, conversations, completed.parsed, prepared, size)
    await within_key(admittable, turn, chat, prepared, size)
    largest = NOTHING
    if turn.admission.bound is not None:
        known = await apart(size, partial(spending.input_bound, prepared.body, model))
        asked, last = output_of(prepared.body, model), chat.search is None
        if turn.allowance.by_minute:
            texts = prepared.body["messages"], prepared.body.get("tools")
            estimate = await apart(size, partial(token_estimate.of_messages, *texts))
            await turn.allowance.count_round(estimate + spending.expected(asked, model), last)
        largest = await turn.allowance.afford_round(prepared.body, known, asked, last)
    return replace(completed, prepared=prepared, narrowed=narrowed, largest=largest)


def adapted(
    provider: Provider,
    searches: bool,
    request: Request,
    model: Model,
    chat: ChatRequest,
    cheaply: bool = False,
) -> Prepared:
    """Raises InvalidRequest in the client's names, and Costly."""
    if chat.search is not None:
        if isinstance(provider, SearchesItself):
            chat = chat if searches else replace(chat, search=None)
        elif searches:
            from kimi_gateway.flow.search.tools import with_tools  # few requests need it

            chat = with_tools(chat)
    try:
        if not model.media:
            messages = placement.without_media(chat.body["messages"], model)
            chat = replace(chat, body={**chat.body, "messages": messages})
        return provider.prepare(chat, model, request.headers, cheaply)
    except InvalidRequest as error:
        raise fields.renamed(error, chat.names) from None


async def kept_within(
    admittable: AdmittableRequest,
    turn: Turn,
    conversations: ConversationCache,
    parsed: ParsedRequest,
    prepared: Prepared,
    size: int,
) -> bool:
    """Restore the history's reasoning, and keep the request within the window; returns whether the output
    limit was lowered. Raises InvalidRequest in the client's names."""
    if missing := prepared.missing:
        size += await conversations.restore(turn.admission.key.account, missing, parsed.stores)
    try:
        return await fitted(prepared.body, admittable.resolved, size, parsed.chat.least_output)
    except InvalidRequest as error:
        raise fields.renamed(error, parsed.chat.names) from None


async def within_key(
    admittable: AdmittableRequest, turn: Turn, chat: ChatRequest, prepared: Prepared, size: int
) -> tuple[str, ...]:
    """Keep the request within the tokens that its key allows for one; earlier rounds have used a part of
    them, and each choice gets the same. Returns the client's name of the output limit if that lowers it.
    Raises ContextLengthExceeded."""
    most = terms.tokens(turn.admission.key)
    if most is None:
        return ()
    used = spending.count(turn.usage(), "total_tokens") if turn.rounds.answering else 0
    left = (most - used) // chat.choices
    body, resolved = prepared.body, admittable.resolved
    model = resolved.model
    tokens = await apart(size, lambda: spending.input_bound(body, model))
    if tokens + (output_of(body, model) or model.max_output) > left:
        tools, estimate = await apart(size, lambda: _estimated(body))
        most_counted = 2 * (estimate - tools) + 64  # if the upstream does not count
        tokens = min(tokens, await resolved.directory.count(model, body["messages"], most_counted) + tools)
    try:
        lowered = spending.keep_within(body, model, tokens, left, most)
    except InvalidRequest as error:
        raise fields.renamed(error, chat.names) from None
    return (spending.limit_name(chat),) if lowered else ()


async def _within_budget(
    turn: Turn, model: Model, chat: ChatRequest, prepared: Prepared, size: int
) -> tuple[str, ...]:
    """Keep the request within the rest of its reservation. Returns the client's name of the output
    limit if that lowers it. Raises BudgetExceeded."""
    if turn.admission.bound is None:
        return ()
    lower = partial(spending.lower, prepared.body, model, turn.admission)
    return (spending.limit_name(chat),) if await apart(size, lower) else ()


def _only_texts(messages: list[dict[str, Any]]) -> bool:
    return all(type(message.get("content")) is not list for message in messages)


async def fitted(body: dict[str, Any], resolved: Resolved, size: int, least: int) -> bool:
    """Keep input and output within the window; returns whether the output limit was lowered. `size` is the
    input's in bytes: a token has at least one byte, so most bodies need no count. An estimate may be wrong by
    half; if that matters, the upstream counts. Raises ContextLengthExceeded."""
    model = resolved.model
    output = output_of(body, model)
    if size + output <= model.window:
        return False
    # A text's estimate is its bytes / 4.
    if size // 2 + output <= model.window and await apart(size, lambda: _only_texts(body["messages"])):
        return False
    tools, estimate = await apart(size, lambda: _estimated(body))
    most = 2 * estimate + 64
    if most + output <= model.window:
        return False
    if most > model.window / 2:
        most = await resolved.directory.count(model, body["messages"], estimate - tools) + tools
    return fit(body, model, most, least)


def _estimated(body: dict[str, Any]) -> tuple[int, int]:
    """Tokens of the tools, and of everything."""
    tools = token_estimate.of_messages([], body.get("tools"))
    return tools, token_estimate.of_messages(body["messages"]) + tools
