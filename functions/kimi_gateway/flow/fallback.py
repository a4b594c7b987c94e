"""Other models that answer if the one that was asked for fails before its first content.

The chains are the operator's (KIMI_GATEWAY_FALLBACKS). A link is left out if it lacks what the request needs,
if its window is too small, if the key may not use it, or if a budget does not pay for it. Rules:
docs/reliability.md, Fall-back. Loaded only where there is a chain.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from kimi_gateway.accounts import budgets, terms
from kimi_gateway.accounts.guests import GuestKey
from kimi_gateway.accounts.values import Bound
from kimi_gateway.catalog.models import PLATFORM, Model
from kimi_gateway.dataclass import dataclass
from kimi_gateway.errors import GatewayError
from kimi_gateway.flow import preparation, spending
from kimi_gateway.flow.apart import apart
from kimi_gateway.flow.attempts import Item, Out, UpstreamCall
from kimi_gateway.flow.conversation_cache import ConversationCache
from kimi_gateway.flow.preparation import AdmittableRequest, CompletedRequest
from kimi_gateway.flow.turn import Turn
from kimi_gateway.observe import emit
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.pivot.window import output_of
from kimi_gateway.providers.failures import UpstreamFailure
from kimi_gateway.providers.files import TakesDocuments
from kimi_gateway.providers.provider import Prepared, Tap
from kimi_gateway.providers.registry import Registry, Resolved
from kimi_gateway.providers.search import Searches, SearchesItself

# Never for a fault of the client's. A request that is too long may fit another model's window.
CAUSES = frozenset(
    ("authentication", "quota", "permission", "model", "rate", "overload", "server", "connect", "broken",
     "timeout", "context")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fallbacks:
    """`chains`: the models to fall back to, by the name of a model or alias, which may contain `*`."""

    chains: Mapping[str, Sequence[str]]
    registry: Registry
    conversations: ConversationCache
    clock: Callable[[], float]
    unpriced: bool = False  # budgets in USD allow models without a price

    def __call__(
        self,
        calls: list[UpstreamCall],
        admittable: AdmittableRequest,
        turn: Turn,
        chat: ChatRequest,
        completed: CompletedRequest,
    ) -> None:
        """Give each call of a round its chain, if the model has one."""
        model, key = admittable.resolved.model, turn.admission.key
        links = self.links(admittable.ask.model, model.id)
        if not links or isinstance(key, GuestKey):
            return
        turn.rounds.chained = True
        for call in calls:
            call.otherwise = Chain(self, admittable, turn, chat, completed, list(links)).next

    def links(self, *names: str) -> Sequence[str]:
        """The chain of the first name that has one."""
        for name in names:
            for pattern, links in self.chains.items():
                if fnmatchcase(name, pattern):
                    return links
        return ()


@dataclass(slots=True)
class Chain:
    """The links that are left for one call."""

    of: Fallbacks
    admittable: AdmittableRequest
    turn: Turn
    chat: ChatRequest
    completed: CompletedRequest
    links: list[str]

    async def next(self, failed: UpstreamCall, failure: UpstreamFailure) -> UpstreamCall | None:
        """The call of the next model that can answer; None if there is none, or if none may."""
        while self.links and failure.cause in CAUSES:
            name = self.links.pop(0)
            try:
                resolved = await self.of.registry.resolve(name, _never)
                call = await self._call(resolved, failed) if self._fits(resolved, failed, failure) else None
            except GatewayError as error:  # it cannot do what the request needs
                emit("fallback_skipped", model=name, cause=error.cause)
                continue
            if call is None:
                emit("fallback_skipped", model=name, cause="unfit")
                continue
            emit("fell_back", model=failed.call.model.id, to=resolved.model.id, cause=failure.cause)
            return call
        return None

    def _fits(self, resolved: Resolved, failed: UpstreamCall, failure: UpstreamFailure) -> bool:
        """Whether the model may be used, and has the capabilities that the request needs."""
        model, key, asked = resolved.model, self.turn.admission.key, self.admittable.ask.model
        names = {model.id} if asked == self.admittable.resolved.model.id else {model.id, asked}
        if not terms.allows(key, names):
            return False
        if failure.cause == "context" and model.window <= failed.call.model.window:
            return False
        own = model.provider == PLATFORM == failed.call.model.provider
        if self.completed.token is not None and not own:
            return False  # its files are in an account of the platform
        # The rounds of a search are those of the first model's way.
        ways = (Searches,) if isinstance(self.admittable.upstream.provider, Searches) else (SearchesItself,)
        if self.completed.searches and not isinstance(resolved.upstream.provider, ways):
            return False
        body = self.chat.body
        takes = isinstance(resolved.upstream.provider, TakesDocuments)
        if not takes and _has(body["messages"], "file_url"):
            return False
        return (model.tools or not _needs_tools(body)) and (
            model.media or not _has(body["messages"], *_MEDIA)
        )

    async def _call(self, resolved: Resolved, failed: UpstreamCall) -> UpstreamCall | None:
        """None if a budget does not pay for it. Raises GatewayError."""
        admittable = replace(self.admittable, resolved=resolved, upstream=resolved.upstream)
        parsed, model, turn = self.completed.parsed, resolved.model, self.turn
        provider, size, request = admittable.upstream.provider, parsed.size, admittable.request
        searches = self.completed.searches

        def prepare() -> Prepared:
            return preparation.adapted(provider, searches, request, model, self.chat)

        prepared = await apart(size, prepare)
        await preparation.kept_within(admittable, turn, self.of.conversations, parsed, prepared, size)
        await preparation.within_key(admittable, turn, self.chat, prepared, size)
        bound = await self._reserved(prepared, model, provider.name, size)
        if turn.admission.bound is not None and bound is None:
            return None
        completed = replace(self.completed, prepared=prepared)
        taps = prepared.taps()
        turn.rounds.taps += taps
        out = failed.out.out if isinstance(failed.out, Tapped) else failed.out
        largest = failed.largest if bound is None else budgets.largest(bound, bound.output)
        return UpstreamCall(
            await completed.call(), admittable.upstream, Tapped(out, taps), failed.patience, failed.most,
            failed.index, failed.stops, failed.jitter, failed.randomness, largest=largest, bound=bound,
            afford=turn.afford(largest),
        )  # fmt: skip

    async def _reserved(self, prepared: Prepared, model: Model, provider: str, size: int) -> Bound | None:
        """The bound of one call, after its largest cost was reserved. None without a budget, and if the
        budgets do not allow it."""
        admission, body = self.turn.admission, prepared.body
        if admission.bound is None:
            return None
        body["max_completion_tokens"] = min(output_of(body, model) or model.max_output, admission.output)
        now = int(self.of.clock())
        bound = spending.bound_of(prepared, model, provider, size, 1, now, False, self.of.unpriced)
        bound = replace(bound, input=spending.input_bound(body, model))
        key, needed = admission.key, budgets.largest(bound, bound.output)
        if bound.input_price is None and any(each.unit == "usd" for each in (*key.budgets, *key.shared)):
            return None
        allowance = self.turn.allowance
        alone = self.chat.choices == 1  # else the rest may belong to the calls beside it
        paid = await (allowance.afford(needed, last=True) if alone else allowance.afford_attempt(needed))
        return bound if paid else None


@dataclass(frozen=True, slots=True)
class Tapped:
    """The destination of a model's results that took a place: its taps see them first, since the names of
    tools that were sent may differ from those of the first model."""

    out: Out
    taps: Sequence[Tap]

    def offer(self, item: Item) -> bool:
        return False  # so that the taps see an item once, in `put`

    async def put(self, item: Item) -> None:
        if isinstance(item, list):
            for tap in self.taps:
                tap.add(item)
        await self.out.put(item)


async def _never() -> bool:
    return False


def _needs_tools(body: Mapping[str, Any]) -> bool:
    return bool(body.get("tools")) or any(message.get("tool_calls") for message in body["messages"])


_MEDIA = ("image_url", "video_url")


def _has(messages: Collection[Mapping[str, Any]], *kinds: str) -> bool:
    """Whether messages have parts of these types."""
    contents = (message.get("content") for message in messages)
    parts = (part for content in contents if isinstance(content, list) for part in content)
    return any(part.get("type") in kinds for part in parts)
