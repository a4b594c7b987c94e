"""Kept answers and conversations of the caller's account: looked at, and deleted.

Another account's are unknown. Shapes and words: OpenAI's API reference, Responses and Conversations, 2026-11.
"""

from __future__ import annotations

from typing import Any

from kimi_gateway.accounts.gate import Gate
from kimi_gateway.dataclass import dataclass
from kimi_gateway.dialects.chat import conversation
from kimi_gateway.dialects.responses import kept, references
from kimi_gateway.endpoints.answer import answer
from kimi_gateway.endpoints.authentication import authenticate
from kimi_gateway.errors import InvalidRequest, NotFound
from kimi_gateway.flow.apart import apart
from kimi_gateway.flow.conversation_cache import ConversationCache
from kimi_gateway.http import Query, Request, Response

MOST_ITEMS = 100  # of one page


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    gate: Gate
    conversations: ConversationCache

    async def retrieve(self, request: Request, response: str) -> Response:
        """The response as it was answered. Raises NotFound."""
        key = await authenticate(self.gate, request)
        if request.query.get("stream").lower() == "true":
            raise InvalidRequest("A kept response is not streamed; ask without stream.", param="stream")
        name, found = await self._found(key.account, response)
        shown = kept.response(name, found)
        if shown is None:
            raise _unknown("Response", response)
        return answer(shown)

    async def input_items(self, request: Request, response: str) -> Response:
        """The conversation before the answer, the newest item first unless `order` is asc. Raises NotFound,
        and InvalidRequest for a wrong query."""
        key = await authenticate(self.gate, request)
        name, found = await self._found(key.account, response)
        items = kept.input_items(name, found)
        return answer(_page(items, request.query))

    async def delete(self, request: Request, response: str) -> Response:
        """Delete the response, and the reasoning that was kept with it. Raises NotFound."""
        key = await authenticate(self.gate, request)
        name, found = await self._found(key.account, response)
        asked = found[references.names(name)[0]]
        beside = asked["beside"] if isinstance(asked, dict) else ()
        await self.conversations.forget(key.account, [*references.names(name), *beside])
        return answer({"id": response, "object": "response", "deleted": True})

    async def cancel(self, request: Request, response: str) -> Response:
        """Raises NotFound, else InvalidRequest: no response runs in the background here."""
        key = await authenticate(self.gate, request)
        await self._found(key.account, response)
        raise InvalidRequest("Cannot cancel a synchronous response.")

    async def delete_conversation(self, request: Request, conversation_id: str) -> Response:
        """Delete a conversation of Chat Completions, and the reasoning that was kept with it. Raises
        NotFound."""
        key = await authenticate(self.gate, request)
        name = conversation.entry(conversation_id)
        found = await self.conversations.recall(key.account, [name], renew=False) if name else {}
        if name not in found:
            raise _unknown("Conversation", conversation_id)
        beside = await apart(len(found[name]), lambda: conversation.beside(found[name]))
        await self.conversations.forget(key.account, [name, *beside])
        return answer({"id": conversation_id, "object": "conversation.deleted", "deleted": True})

    async def _found(self, account: str, response: str) -> tuple[str, dict[str, Any]]:
        """The common part of the response's ids, and its entries. Raises NotFound."""
        name = references.name_of(response)
        wanted = references.names(name)
        packed = await self.conversations.recall(account, wanted, renew=False) if name else {}
        if not packed.keys() >= set(wanted):
            raise _unknown("Response", response)
        size = sum(map(len, packed.values()))
        found, _ = await apart(4 * size, lambda: references.unpack(packed))
        return name, dict(found)


def _unknown(noun: str, id: str) -> NotFound:
    return NotFound(f"{noun} with id {id[:80]!r} not found.")


def _page(items: list[dict[str, Any]], query: Query) -> dict[str, Any]:
    """A page of items, in OpenAI's shape. Raises InvalidRequest."""
    limit, order, after = query.get("limit", "20"), query.get("order", "desc"), query.get("after")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:4]) <= MOST_ITEMS):
        raise InvalidRequest(f"limit: must be between 1 and {MOST_ITEMS}", param="limit")
    if order not in ("asc", "desc"):
        raise InvalidRequest("order: must be asc or desc", param="order")
    given = items if order == "asc" else items[::-1]
    places = [place for place, item in enumerate(given) if item["id"] == after]
    if after and not places:
        raise InvalidRequest("after: no such item", param="after")
    rest = given[places[0] + 1 if places else 0 :]
    page = rest[: int(limit)]
    ends = {"first_id": page[0]["id"] if page else "", "last_id": page[-1]["id"] if page else ""}
    return {"object": "list", "data": page, **ends, "has_more": len(rest) > len(page)}
