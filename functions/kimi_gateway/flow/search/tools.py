"""The gateway's own tools: their definitions for the model, and the arguments of its calls. Pure.

The names are the gateway's, so that a client's own `web_search` never collides with them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kimi_gateway.net import jsonio
from kimi_gateway.pivot.request import ChatRequest
from kimi_gateway.pivot.search import ErrorCode, SearchOptions

SEARCH = "gateway_web_search"
OPEN_PAGE = "gateway_open_page"
NAMES = frozenset((SEARCH, OPEN_PAGE))
LONGEST_QUERY = 1_000  # characters
LONGEST_ARGUMENTS = 16 * 1024  # characters of a call's arguments
_QUERY = {"type": "string", "description": "What to search for, in a few words."}
_URL = {"type": "string", "description": "An address from the search results or the conversation."}


class BadCall(ValueError):
    """The text is for the model, which may then ask again. `code` is Anthropic's word for it."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def offered(options: SearchOptions) -> list[dict[str, Any]]:
    """The tools in the pivot's form. Equal options give equal bytes, for the prompt cache."""
    tools = []
    if options.searches:
        about = "Search the web. Use it for what is recent, or what you do not know for certain."
        if options.forced:
            about += " Search before you answer."
        if options.location:
            about += f" The user is in {options.location}."
        tools.append(_function(SEARCH, about, "query", _QUERY))
    if options.pages:
        about = "Open one web page and read its text. Only addresses that occurred before can be opened."
        tools.append(_function(OPEN_PAGE, about, "url", _URL))
    return tools


def with_tools(chat: ChatRequest) -> ChatRequest:
    """The chat with the gateway's tools behind the client's own, if it asks for a search."""
    if chat.search is None:
        return chat
    own = chat.body.get("tools") or []
    return replace(chat, body={**chat.body, "tools": [*own, *offered(chat.search)]})


def _function(name: str, about: str, member: str, schema: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {member: schema}, "required": [member]}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}


def argument(name: str, arguments: str) -> str:
    """The query or the address of a call. Raises BadCall."""
    member = "query" if name == SEARCH else "url"
    try:
        parsed = jsonio.loads(arguments[:LONGEST_ARGUMENTS].encode())
    except (ValueError, RecursionError):
        raise BadCall("invalid_tool_input", "The arguments are not a JSON object.") from None
    value = parsed.get(member) if isinstance(parsed, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise BadCall("invalid_tool_input", f"The arguments need a text `{member}`.")
    value = value.strip()
    if name == SEARCH and len(value) > LONGEST_QUERY:
        raise BadCall("query_too_long", f"A query may have {LONGEST_QUERY} characters; use fewer words.")
    if name == OPEN_PAGE and len(value) > 2_048:
        raise BadCall("url_too_long", "An address may have 2048 characters.")
    return value
